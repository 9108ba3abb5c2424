"""Score curves of volumes in which people marked landmarks and named the zone of every slice.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import isotonic_regression

SMOOTHING_MM = 4.0
"""Standard deviation of the Gaussian that takes the noise of single slices out of a curve."""


@dataclass(frozen=True, eq=False)
class LabelledCurve:
    """The scores of one volume beside what is known of its slices.

    Attributes:
        name: of the volume.
        subject: whose it is.
        z_mm: [z] position of every slice below the first.
        scores: [z].
        marks: slice of every marked landmark.
        zones: [z] 0 chest, 1 abdomen, 2 pelvis, negative for any other slice.
        scores_sd: [z] spread over the views of a slice; None where one view was scored.
    """

    name: str
    subject: str
    z_mm: Float[ndarray, " z"]
    scores: Float[ndarray, " z"]
    marks: Mapping[str, int]
    zones: Int[ndarray, " z"]
    scores_sd: Float[ndarray, " z"] | None = None

    @cached_property
    def smooth(self) -> Float[ndarray, " z"]:
        """The smooth curve that never falls."""
        return monotone_fit(self.scores, self.z_mm)

    @property
    def marks_mm(self) -> dict[str, float]:
        """Place of every marked landmark on ``z_mm``."""
        return {landmark: float(self.z_mm[index]) for landmark, index in self.marks.items()}

    @property
    def in_trunk(self) -> ndarray:
        """[z] which slices lie in chest, abdomen or pelvis."""
        return self.zones >= 0

    def place_of(self, score: float, slope_per_mm: float) -> float:
        """Return where on ``z_mm`` the smooth curve passes ``score``.

        The middle of the stretch, where it keeps that score for a while; beyond the ends of the
        volume the curve goes on as a line of ``slope_per_mm``.
        """
        z, fit = self.z_mm, self.smooth
        if score < fit[0]:
            return float(z[0] + (score - fit[0]) / slope_per_mm)
        if score > fit[-1]:
            return float(z[-1] + (score - fit[-1]) / slope_per_mm)
        first, end = (int(np.searchsorted(fit, score, side)) for side in ("left", "right"))
        if end > first:
            return float((z[first] + z[end - 1]) / 2)
        share = (score - fit[first - 1]) / (fit[first] - fit[first - 1])
        return float(z[first - 1] + share * (z[first] - z[first - 1]))


def monotone_fit(
    scores: Float[ndarray, " z"], z_mm: Float[ndarray, " z"], smoothing_mm: float = SMOOTHING_MM
) -> Float[ndarray, " z"]:
    """Return the scores, smoothed by a Gaussian, as the nearest curve that never falls."""
    weights = np.exp(-0.5 * ((z_mm[:, None] - z_mm) / smoothing_mm) ** 2)
    return np.asarray(isotonic_regression(weights @ scores / weights.sum(axis=1)).x)
