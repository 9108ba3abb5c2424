"""Scores as positions in mm: where in an average body every slice of a scan would lie.

Every judgement of a scan is made on this curve, so that no threshold depends on the unit of the
scores: in a faultless scan it is the line of slope 1 through the slice positions, up to the build
of the patient and the wander of the regressor.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import median_filter

from ubr_pretrain.body_coordinate import TRUNK, Calibration, robust_slope
from ubr_pretrain.rank_correlation import spearman

DEFAULT_WANDER_MM = 10.0
"""How far a curve strays from its line where no calibration says so."""

SMOOTHING_MM = 25.0
"""Width of the median filter: a stray slice must not break the order of its neighbours."""

VERTEX_ZONE = 150.0
"""Body coordinates above this are the dome of the skull."""

CAP_MM = 40.0
"""So far above the dome of the skull slices show little but air, and score anything."""

DOUBTFUL, DOUBTFUL_CAP_MM = 2.0, 100.0
"""Where positions are so much less certain than in the trunk, the dome itself scores anything."""


@dataclass(frozen=True, eq=False)
class PositionCurve:
    """The expected positions of a scan's slices.

    Attributes:
        z_mm: [z] as the header states them.
        step_mm: the header's slice interval.
        expected_mm: [z] position in an average body, growing towards the feet.
        coordinate: [z] body coordinate; None without a calibration.
        doubt: [z] how much less certain a position is than one in the trunk, 1 or more.
        noise_mm: standard deviation of a slice about its neighbours.
        wander_mm: typical standard deviation of a faultless curve about its line.
    """

    z_mm: Float[ndarray, " z"]
    step_mm: float
    expected_mm: Float[ndarray, " z"]
    coordinate: Float[ndarray, " z"] | None
    doubt: Float[ndarray, " z"]
    noise_mm: float
    wander_mm: float

    @cached_property
    def rank_r(self) -> float:
        """Spearman correlation of expected position and order; 0 for a constant curve."""
        if np.ptp(self.expected_mm) == 0:
            return 0.0
        return spearman(self.z_mm, self.expected_mm)

    @cached_property
    def rate(self) -> float:
        """Robust slope of the expected position over the header's: 1 where both agree."""
        return robust_slope(self.z_mm, self.expected_mm)[0]

    def reversed(self) -> PositionCurve:
        """Return the curve of the slices in the opposite order."""
        return replace(
            self,
            z_mm=self.z_mm[-1] - self.z_mm[::-1],
            expected_mm=self.expected_mm[::-1],
            coordinate=None if self.coordinate is None else self.coordinate[::-1],
            doubt=self.doubt[::-1],
        )

    def first_below_vertex(self) -> int:
        """Return the first slice that is not above the head."""
        if self.coordinate is None:
            return 0
        head = self.coordinate >= TRUNK[1]
        doubtful = head.any() and np.median(self.doubt[head]) >= DOUBTFUL
        cap = self.z_mm <= self.z_mm[0] + (DOUBTFUL_CAP_MM if doubtful else CAP_MM)
        window = self.coordinate[: min(len(cap), int(cap.sum()) + 3)]
        top = int(np.argmax(median_filter(window, 3, mode="nearest"))) if len(window) > 2 else 0
        return top if window[top] >= VERTEX_ZONE and cap[top] else 0

    def in_trunk(self) -> Bool[ndarray, " z"]:
        """Return which slices lie in the trunk, one stretch; all of them without a calibration."""
        if self.coordinate is None:
            return np.ones(len(self.z_mm), bool)
        smooth = median_filter(self.coordinate, self.window(), mode="nearest")
        inside = (smooth >= TRUNK[0]) & (smooth <= TRUNK[1])
        first, end = max(stretches(inside), key=lambda run: run[1] - run[0], default=(0, 0))
        trunk = np.zeros(len(inside), bool)
        trunk[first:end] = True
        return trunk

    def allowed(self, in_trunk_mm: float) -> Float[ndarray, " z"]:
        """Return what is allowed at every slice, where so much is allowed in the trunk.

        Elsewhere at least twice as much: scores are less linear there; and more in proportion to
        how uncertain the calibration is.
        """
        trunk = self.in_trunk()
        least = np.where(trunk, 1.0, 2.0)
        return in_trunk_mm * np.maximum(least, median_filter(self.doubt, self.window()))

    def window(self, width_mm: float = SMOOTHING_MM) -> int:
        """Return an odd number of slices, at least 3: ``width_mm`` long, few in a short scan."""
        wide = min(round(width_mm / self.step_mm), len(self.z_mm) // 4)
        return max(3, wide // 2 * 2 + 1)

    def smooth(self, width_mm: float = SMOOTHING_MM) -> Float[ndarray, " z"]:
        """Return the expected positions without stray slices: edges stay where they are."""
        return median_filter(self.expected_mm, self.window(width_mm), mode="nearest")


NANOMETRE = 6
"""Decimals of a millimetre that count: slices that tie are not told apart by rounding errors."""


def position_curve(
    scores: Float[ndarray, " z"],
    z_mm: Float[ndarray, " z"],
    step_mm: float,
    calibration: Calibration | None,
    scores_sd: Float[ndarray, " z"] | None = None,
) -> PositionCurve:
    """Return the expected positions of a scan's slices.

    Without a calibration the scan's own robust slope is taken for that of an average body.

    Args:
        scores: of the slices.
        z_mm: their positions, increasing.
        step_mm: the header's slice interval.
        calibration: of the regressor, or None.
        scores_sd: of every slice over its views, or None.
    """
    coordinate, doubt = None, np.ones(len(scores))
    if calibration is None:
        slope = abs(robust_slope(z_mm, scores)[0])
        expected_mm = (scores - scores[0]) / slope if slope > 0 else np.zeros(len(scores))
        score_per_mm, wander_mm = slope, DEFAULT_WANDER_MM
    else:
        coordinate = calibration.coordinate(scores)
        if calibration.trunk_sd > 0:
            doubt = np.maximum(calibration.coordinate_sd(scores) / calibration.trunk_sd, 1)
        expected_mm = -coordinate * calibration.mm_per_unit
        score_per_mm = calibration.slope_per_mm
        wander_mm = calibration.wander_sd * calibration.mm_per_unit
    expected_mm = np.round(expected_mm, NANOMETRE)
    second = np.diff(expected_mm, 2) if len(scores) > 2 else np.zeros(1)
    noise_mm = 1.4826 * float(np.median(np.abs(second - np.median(second)))) / np.sqrt(6)
    if scores_sd is not None and calibration is not None and score_per_mm > 0:
        own = float(np.median(scores_sd)) * calibration.uncertainty_scale / score_per_mm
        noise_mm = max(noise_mm, own)
    return PositionCurve(z_mm, step_mm, expected_mm, coordinate, doubt, noise_mm, wander_mm)


def stretches(flags: Bool[ndarray, " n"]) -> list[tuple[int, int]]:
    """Return first and end (exclusive) of every run of true flags."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
