"""The scores of a scan's slices, of those that were read and of those between them.

Between two slices that were read, scores follow the straight line; never across a gap, because the
slices at both its ends are read. What a line may miss grows with the way to the nearest slices
that were read. How fast, the scan itself tells: every slice that was read is predicted by its two
neighbours, and what they miss is the wander of the curve.

Shapes:
    z: slices; n: slices that the scan has, z of them read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.anomalies import Anomaly, header_gaps
from ubr_pretrain.sparse_volume import SparseVolume


@dataclass(frozen=True, eq=False)
class SliceScores:
    """One score a slice.

    Attributes:
        alone: as the regressor gave it.
        smooth: led by its neighbours.
        sd: spread over the views; None: one view.
    """

    alone: Float[ndarray, " z"]
    smooth: Float[ndarray, " z"]
    sd: Float[ndarray, " z"] | None

    def of_every_slice(self, volume: SparseVolume, sd_scale: float) -> SliceScores:
        """Return the scores of all slices of a scan of which these were read.

        Args:
            volume: the slices that were read, and where all lie.
            sd_scale: by which ``sd`` will be multiplied: what interpolation misses is not.
        """

        def between(values: Float[ndarray, " z"]) -> Float[ndarray, " n"]:
            return np.interp(volume.every_z_mm, volume.z_mm, values)

        sd = None
        if self.sd is not None:
            missed = interpolation_sd(volume, self.smooth)
            sd = np.hypot(between(self.sd), missed / max(sd_scale, 1e-9))
        return SliceScores(between(self.alone), between(self.smooth), sd)


def interpolation_sd(volume: SparseVolume, scores: Float[ndarray, " z"]) -> Float[ndarray, " n"]:
    """Return how far interpolated scores may be off, one standard deviation; 0 where one was read.

    The curve is taken to wander about its line like a random walk: between slices ``a`` above and
    ``b`` below, the variance is ``rate * a * b / (a + b)``.

    Args:
        volume: the slices that were read, and where all lie.
        scores: of the slices that were read.
    """
    z_mm, every_z_mm = volume.z_mm, volume.every_z_mm
    after = np.clip(np.searchsorted(z_mm, every_z_mm), 1, len(z_mm) - 1)
    above_mm, below_mm = every_z_mm - z_mm[after - 1], z_mm[after] - every_z_mm
    rate = 0.0
    if len(z_mm) > 2:
        steps_mm = np.diff(z_mm)
        bridge_mm = steps_mm[:-1] * steps_mm[1:] / (steps_mm[:-1] + steps_mm[1:])
        line = (scores[:-2] * steps_mm[1:] + scores[2:] * steps_mm[:-1]) / (z_mm[2:] - z_mm[:-2])
        rate = float(np.mean((scores[1:-1] - line) ** 2 / bridge_mm))
    return np.sqrt(rate * np.maximum(above_mm * below_mm / (above_mm + below_mm), 0.0))


def anomalies_of_read(found: Sequence[Anomaly], volume: SparseVolume) -> tuple[Anomaly, ...]:
    """Return what was found among the slices that were read as anomalies of the whole scan.

    Gaps are looked for between the positions of all slices instead.

    Args:
        found: of ``find_anomalies``; slices are counted among those that were read.
        volume: which slices were read, and where all lie.
    """
    where = f" (counted among the {len(volume.read_index)} slices that were read)"
    of_read = {a.message for a in header_gaps(volume.z_mm, volume.spacing_mm_zyx[0])}
    whole = [
        replace(
            a,
            first_slice=int(volume.read_index[a.first_slice]),
            last_slice=int(volume.read_index[a.last_slice]),
            message=a.message + where,
        )
        for a in found
        if a.message not in of_read
    ]
    whole += header_gaps(volume.every_z_mm, volume.step_mm)
    return tuple(sorted(whole, key=lambda a: (a.first_slice, a.last_slice, a.code)))
