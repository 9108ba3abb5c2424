"""From stored numbers to Hounsfield units, and a judgement whether they are Hounsfield units.

Shapes:
    raw: [k, j, i], any real dtype, as stored.
    hu: int16 [k, j, i].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import AIR_HU, Volume, VolumeRefused

MAX_STORED_HU = int(np.iinfo(np.int16).max)
"""Metal on the extended CT scale stays below this; a larger number is no HU."""

AIR_BELOW_HU = -200
"""Every CT has air or lung below this, in or around the patient; fat ends at about -150."""

SOFT_TISSUE_HU = (-200, 300)
MIN_SOFT_TISSUE_SHARE = 0.01
"""A hand in a large field of view has 2 %, a body with HU shifted by -1024 less than 1 %."""


def raw_to_hu(
    raw: NDArray[Any], slope: float, intercept: float, path: Path
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Convert ``raw * slope + intercept`` to whole HU, clipped to ``AIR_HU`` from below.

    Returns:
        The HU, and a note where padding below ``AIR_HU`` was clipped.

    Raises:
        VolumeRefused: E-NAN, E-NOHU (beyond int16: such numbers are no HU).
    """
    if raw.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        hu, lowest = np.maximum(raw, AIR_HU).astype(np.int16, copy=False), float(raw.min())
    else:
        hu, lowest, num_bad = np.empty(raw.shape, dtype=np.int16), np.inf, 0
        exact = _fits_int32(raw.dtype, slope, intercept)
        for index, stored in enumerate(raw):  # a wide copy of one slice, not of the whole scan
            values = stored.astype(np.int32 if exact else np.float64)
            with np.errstate(over="ignore", invalid="ignore"):  # infinite: refused below
                values *= int(slope) if exact else slope
                values += int(intercept) if exact else intercept
            low, high = float(values.min()), float(values.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                num_bad += int(np.count_nonzero(~np.isfinite(values)))
                continue
            if high > MAX_STORED_HU:
                raise VolumeRefused("E-NOHU", path, f"holds {high:g}, above {MAX_STORED_HU}: no HU")
            lowest = min(lowest, low)
            np.maximum(values, AIR_HU, out=values)
            hu[index] = values if exact else np.rint(values)
        if num_bad:
            raise VolumeRefused("E-NAN", path, f"{num_bad} voxels are NaN or infinite")
    if lowest < AIR_HU:
        return hu, (f"padding down to {lowest:g} HU clipped to {AIR_HU}",)
    return hu, ()


def _fits_int32(dtype: np.dtype[Any], slope: float, intercept: float) -> bool:
    """Whether ``raw * slope + intercept`` is exact in int32: four times as fast as in float64."""
    whole = slope == int(slope) and intercept == int(intercept)
    small = max(abs(slope), abs(intercept)) < 2**14
    return whole and small and dtype.kind in "iu" and dtype.itemsize <= 2


def looks_like_hu(volume: Volume) -> str | None:
    """Return None for a plausible CT, else why its numbers cannot be Hounsfield units.

    Scoring may go on with the reason as a warning; training refuses such a volume (E-NOHU).
    """
    lowest, highest = int(volume.hu.min()), int(volume.hu.max())
    if lowest == highest:
        return f"every voxel is {lowest}"
    if lowest >= -1 and highest <= 1:
        return f"values lie in {lowest}..{highest}: already windowed?"
    if lowest >= 0 and highest <= 255:
        return f"values lie in {lowest}..{highest}: an 8-bit picture?"
    if lowest > AIR_BELOW_HU:
        return f"the lowest value is {lowest}, so there is no air: offset by 1024?"
    sample = volume.hu[:, ::2, ::2]
    soft = (sample > SOFT_TISSUE_HU[0]) & (sample < SOFT_TISSUE_HU[1])
    share = float(np.count_nonzero(soft)) / sample.size
    if share < MIN_SOFT_TISSUE_SHARE:
        return (
            f"{100 * share:.2g} % of the voxels lie in {SOFT_TISSUE_HU[0]}..{SOFT_TISSUE_HU[1]}, "
            "so there is no soft tissue: shifted or scaled?"
        )
    return None
