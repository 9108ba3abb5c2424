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

NO_RIM_HU = (-600, -350)
BONE_HU = 400
"""Slices end in air, or where they were cropped in lung, fat or muscle: not in that range, and not
beyond. A scan shifted by 500 does; of an inverted one, air is what is brightest."""


def raw_to_hu(
    raw: NDArray[Any], slope: float, intercept: float, path: Path
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Convert ``raw * slope + intercept`` to whole HU, clipped to ``AIR_HU`` from below.

    Returns:
        The HU, and a note where padding below ``AIR_HU`` was clipped.

    Raises:
        VolumeRefused: E-NAN, E-NOHU (beyond int16: such numbers are no HU).
    """
    hu, scale = np.empty(raw.shape, dtype=np.int16), HuScale(slope, intercept)
    for stored, out in zip(raw, hu, strict=True):
        scale.convert(stored, out)
    return hu, scale.notes(path)


class HuScale:
    """``HU = slope * stored + intercept``, part after part, and a judgement on all of them.

    A part is best small enough to stay in the cache: a slice, not a scan.
    """

    def __init__(self, slope: float, intercept: float) -> None:
        self.slope, self.intercept = slope, intercept
        whole = slope == int(slope) and intercept == int(intercept)
        self._is_whole = whole and max(abs(slope), abs(intercept)) < 2**14
        self._lowest, self._num_bad = np.inf, 0
        self._too_high: float | None = None

    def convert(self, stored: NDArray[Any], out: NDArray[np.int16]) -> None:
        """Write whole HU of one part, clipped to ``AIR_HU`` from below; `notes` tells of faults.

        Args:
            stored: any real dtype.
            out: of the same shape.
        """
        if self._is_whole and stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
            self._convert_whole(stored, out)
            return
        with np.errstate(over="ignore", invalid="ignore"):  # not finite: refused by notes
            values = stored.astype(np.float64)
            values *= self.slope
            values += self.intercept
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self._num_bad += int(np.count_nonzero(~np.isfinite(values)))
        elif self._is_possible(low, high):
            np.maximum(values, AIR_HU, out=values)
            out[...] = np.rint(values)

    def notes(self, path: Path) -> tuple[str, ...]:
        """Return what is to be said of the parts so far.

        Raises:
            VolumeRefused: E-NOHU, E-NAN.
        """
        if self._too_high is not None:
            cause = f"holds {self._too_high:g}, above {MAX_STORED_HU}: no HU"
            raise VolumeRefused("E-NOHU", path, cause)
        if self._num_bad:
            raise VolumeRefused("E-NAN", path, f"{self._num_bad} voxels are NaN or infinite")
        if self._lowest < AIR_HU:
            return (f"padding down to {self._lowest:g} HU clipped to {AIR_HU}",)
        return ()

    def _convert_whole(self, stored: NDArray[Any], out: NDArray[np.int16]) -> None:
        slope, intercept = int(self.slope), int(self.intercept)
        low, high = sorted(slope * int(end()) + intercept for end in (stored.min, stored.max))
        if not self._is_possible(low, high):
            return
        if low < np.iinfo(np.int16).min:
            wide = stored.astype(np.int32) * slope + intercept
            out[...] = np.maximum(wide, AIR_HU)
            return
        # Every result fits int16, so int16 arithmetic that wraps around on the way is exact.
        np.copyto(out, stored)
        if slope != 1:
            out *= np.int16(slope)
        if intercept:
            out += np.int16(intercept)
        if low < AIR_HU:
            np.maximum(out, np.int16(AIR_HU), out=out)

    def _is_possible(self, low: float, high: float) -> bool:
        possible = high <= MAX_STORED_HU
        if possible:
            self._lowest = min(self._lowest, low)
        elif self._too_high is None:
            self._too_high = high
        return possible


def looks_like_hu(volume: Volume, bone_hu: float = BONE_HU) -> str | None:
    """Return None for a plausible CT, else why its numbers cannot be Hounsfield units.

    Scoring may go on with the reason as a warning; training refuses such a volume (E-NOHU).

    Args:
        volume: to be judged.
        bone_hu: no tissue that slices may end in lies above; less where a window cut bone off.
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
    share = _soft_share(volume.hu)
    if share < MIN_SOFT_TISSUE_SHARE:
        return (
            f"{100 * share:.2g} % of the voxels lie in {SOFT_TISSUE_HU[0]}..{SOFT_TISSUE_HU[1]}, "
            "so there is no soft tissue: shifted or scaled?"
        )
    rim_hu = _rim_hu(volume.hu)
    if rim_hu > bone_hu or NO_RIM_HU[0] < rim_hu < NO_RIM_HU[1]:
        return f"slices end at {rim_hu:.0f} HU, which is no air and no tissue: shifted or inverted?"
    return None


def _rim_hu(hu: NDArray[np.int16]) -> float:
    """Return the median on the four sides of the slices in the middle half of a scan.

    That is air, or what a crop ends in: 145 scans and key slices lie in -1024..-928.
    """
    middle = hu[len(hu) // 4 : -(len(hu) // 4) or None]
    sides = (middle[:, 0], middle[:, -1], middle[:, :, 0], middle[:, :, -1])
    return float(np.median(np.concatenate([side.ravel() for side in sides])))


def _soft_share(hu: NDArray[np.int16]) -> float:
    """Return the share of soft tissue in every other row and column, or enough of it.

    The middle of a scan comes first: most scans are known to have enough after a few slices.
    """
    size = hu[:, ::2, ::2].size
    enough, count = MIN_SOFT_TISSUE_SHARE * size, 0
    for one in np.roll(np.arange(len(hu)), -(len(hu) // 2)):
        sample = np.ascontiguousarray(hu[one, ::2, ::2])
        soft = (sample > SOFT_TISSUE_HU[0]) & (sample < SOFT_TISSUE_HU[1])
        count += int(np.count_nonzero(soft))
        if count > enough:
            break
    return count / size
