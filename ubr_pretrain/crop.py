"""Which slices of a scored scan lie in a stretch of the body, and the volume that they make.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume
from ubr_pretrain.landmarks import LANDMARK_COORDINATES, ZONE_NAMES
from ubr_pretrain.scored_volume import ScoredVolume

SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class BodyStretch:
    """A stretch of the body: neighbouring zones, or an interval of the body coordinate.

    Attributes:
        name: for people and file names.
        zones: slices of these zones belong to it.
        coordinates: or slices between these body coordinates, the lower first, both included.
    """

    name: str
    zones: tuple[str, ...] = ()
    coordinates: tuple[float, float] | None = None

    def holds(self, scored: ScoredVolume) -> NDArray[np.bool_]:
        """Return for every slice [z] whether it belongs.

        Raises:
            ValueError: the volume was scored without a calibration.
        """
        if scored.zones is None or scored.coordinate is None:
            raise ValueError(
                f"{scored.name}: zones and body coordinates need a calibration of the checkpoint"
            )
        if self.coordinates is None:
            return np.isin(scored.zones, self.zones)
        low, high = self.coordinates
        return (scored.coordinate >= low) & (scored.coordinate <= high)


def stretch_of_zones(zones: Sequence[str]) -> BodyStretch:
    """Return the stretch of one zone or of several neighbours.

    Raises:
        ValueError: no zone, an unknown one, or a zone between them left out.
    """
    if unknown := [zone for zone in zones if zone not in ZONE_NAMES]:
        raise ValueError(f"zone {unknown[0]!r} is not one of {', '.join(ZONE_NAMES)}")
    order = sorted({ZONE_NAMES.index(zone) for zone in zones})
    if not order or order[-1] - order[0] != len(order) - 1:
        raise ValueError(f"zones {', '.join(zones) or 'none'}: a crop needs neighbouring zones")
    names = tuple(ZONE_NAMES[n] for n in order)
    return BodyStretch("-".join(names), zones=names)


def stretch_of_landmarks(one: str, other: str) -> BodyStretch:
    """Return the stretch between two landmarks, in either order.

    Raises:
        ValueError: an unknown landmark, or the same one twice.
    """
    for name in (one, other):
        if name not in LANDMARK_COORDINATES:
            known = ", ".join(LANDMARK_COORDINATES)
            raise ValueError(f"landmark {name!r} is not one of {known}")
    if one == other:
        raise ValueError(f"from {one} to {other}: two landmarks are needed")
    lower, upper = sorted((one, other), key=LANDMARK_COORDINATES.__getitem__)
    span = (LANDMARK_COORDINATES[lower], LANDMARK_COORDINATES[upper])
    return BodyStretch(f"{upper}-to-{lower}", coordinates=span)


def stretch_of_coordinates(low: float, high: float) -> BodyStretch:
    """Return the stretch between two body coordinates.

    Raises:
        ValueError: not two numbers, the lower first.
    """
    if not (np.isfinite((low, high)).all() and low < high):
        raise ValueError(f"coordinates {low:g} {high:g}: the lower one comes first")
    return BodyStretch(f"{low:g}-to-{high:g}", coordinates=(low, high))


def find_slices(stretch: BodyStretch, scored: ScoredVolume, margin_mm: float = 0.0) -> range | None:
    """Return the slices of a stretch as one run, or None where the scan shows nothing of it.

    Single slices may be scored on the wrong side of a border. The run is the one that leaves the
    fewest slices of the stretch out and takes the fewest others in, so that it needs no order of
    the scores and works on a scan that is stored upside down. Of runs that are equally good it is
    the one that ends first, and the shortest of those.

    Args:
        stretch: of the body.
        scored: the scan.
        margin_mm: slices within this distance of the run are added on either side.

    Raises:
        ValueError: scored without a calibration, or a negative margin.
    """
    if not 0 <= margin_mm < np.inf:
        raise ValueError(f"margin {margin_mm:g} mm must be >= 0")
    inside = stretch.holds(scored)
    if not inside.any():
        return None
    first, last = _best_run(inside)
    z_mm, reach_mm = scored.z_mm, margin_mm + SAME_PLACE_MM
    return range(
        int(np.searchsorted(z_mm, z_mm[first] - reach_mm)),
        int(np.searchsorted(z_mm, z_mm[last] + reach_mm)),
    )


def _best_run(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first and the last slice of the run with the most members less strangers."""
    above = np.append(0, np.cumsum(np.where(inside, 1, -1)))  # members less strangers above a slice
    last = int((above[1:] - np.minimum.accumulate(above[:-1])).argmax())
    return last - int(above[last::-1].argmin()), last


def crop_slices(volume: Volume, slices: range) -> Volume:
    """Return a run of slices as a volume of its own, every voxel at its old place.

    Raises:
        ValueError: slices that the volume does not have.
    """
    if not 0 <= slices.start < slices.stop <= volume.num_slices or slices.step != 1:
        raise ValueError(f"{volume.source}: slices {slices} of {volume.num_slices}")
    affine_lps = volume.affine_lps
    if affine_lps is not None:
        affine_lps = affine_lps.copy()
        affine_lps[:3, 3] += slices.start * affine_lps[:3, 0]
    kept = slice(slices.start, slices.stop)
    z_mm = volume.z_mm[kept] - volume.z_mm[slices.start]
    return replace(volume, hu=volume.hu[kept], z_mm=z_mm, affine_lps=affine_lps)
