"""Whether the stated uncertainty of a body coordinate holds for subjects that taught nothing.

The truth is the place of a marked landmark on the body coordinate; a miss is what the slice that
shows it is given, minus that. Scans disagree with each other by far more than the views of one
slice do, so the standard deviation is ``hypot(spread, scale * own)``: the spread of the calibrating
scans at that score, and the slice's own deviation over views, seen through the calibration. The
scale is fitted so that ``+- 1.96`` deviations hold 95 % of the misses.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.body_coordinate import fit_calibration
from ubr_pretrain.calibration import Calibration
from ubr_pretrain.landmarks import LANDMARK_COORDINATES, LandmarkMark
from ubr_pretrain.scoring import ScoreCurve

SHARE, Z_SCORE = 0.95, 1.959964
"""The central 95 % of a normal distribution lie within so many standard deviations."""

LEAST_SUBJECTS = 5
"""With fewer, the 95 % point of their misses is the worst of them and says nothing."""


@dataclass(frozen=True)
class Miss:
    """One landmark of a volume, read by a calibration.

    Attributes:
        subject: whose volume it is.
        landmark: its name.
        off: body coordinate that the slice is given, minus the landmark's place.
        spread: of the calibrating scans at this score, one standard deviation in the coordinate.
        own: of the slice over its views, likewise.
    """

    subject: str
    landmark: str
    off: float
    spread: float
    own: float

    def sd(self, scale: float) -> float:
        """Standard deviation of the slice's coordinate."""
        return float(np.hypot(self.spread, scale * self.own))

    def is_covered(self, scale: float) -> bool:
        """Whether the 95 % interval holds the landmark's place."""
        return abs(self.off) <= Z_SCORE * self.sd(scale)

    @property
    def needed_scale(self) -> float:
        """The smallest scale that covers it."""
        rest = (self.off / Z_SCORE) ** 2 - self.spread**2
        if rest <= 0:
            return 0.0
        return float(np.sqrt(rest)) / self.own if self.own > 0 else np.inf


def misses_of(
    calibration: Calibration,
    curves: Mapping[str, ScoreCurve],
    scores_sd: Mapping[str, Float[ndarray, " z"]],
    marks: Sequence[LandmarkMark],
    subjects: Mapping[str, str],
) -> list[Miss]:
    """Read every marked slice by a calibration.

    Args:
        calibration: of the regressor that gave the scores.
        curves: by volume.
        scores_sd: of every slice over its views, by volume.
        marks: of these volumes; those of other volumes are left out.
        subjects: whose a volume is, by volume.
    """
    plain = replace(calibration, uncertainty_scale=1.0)
    misses = []
    for mark in marks:
        if mark.volume not in curves:
            continue
        score = curves[mark.volume].scores[mark.index : mark.index + 1]
        sd = scores_sd[mark.volume][mark.index : mark.index + 1]
        spread = float(plain.coordinate_sd(score)[0])
        both = float(plain.coordinate_sd(score, sd)[0])
        misses.append(
            Miss(
                subjects[mark.volume],
                mark.landmark,
                float(plain.coordinate(score)[0]) - LANDMARK_COORDINATES[mark.landmark],
                spread,
                float(np.sqrt(max(0.0, both**2 - spread**2))),
            )
        )
    return misses


def held_out_misses(
    curves: Mapping[str, ScoreCurve],
    scores_sd: Mapping[str, Float[ndarray, " z"]],
    marks: Sequence[LandmarkMark],
    subjects: Mapping[str, str],
) -> list[Miss]:
    """Read every subject's landmarks by the calibration of all other subjects.

    Args:
        curves: as in ``misses_of``.
        scores_sd: as in ``misses_of``.
        marks: as in ``misses_of``.
        subjects: as in ``misses_of``.

    Raises:
        ValueError: without one of the subjects the others do not suffice for a calibration.
    """
    misses = []
    for subject in dict.fromkeys(subjects[mark.volume] for mark in marks if mark.volume in curves):
        others = {name: c for name, c in curves.items() if subjects[name] != subject}
        try:
            calibration = fit_calibration(others, marks)
        except ValueError as error:
            raise ValueError(f"without subject {subject}: {error}") from error
        own = {name: c for name, c in curves.items() if subjects[name] == subject}
        misses += misses_of(calibration, own, scores_sd, marks, subjects)
    return misses


def fit_uncertainty_scale(misses: Sequence[Miss]) -> float:
    """Return the smallest scale whose 95 % intervals hold 95 % of the misses, subjects equal.

    Raises:
        ValueError: fewer than ``LEAST_SUBJECTS`` subjects, or slices without any deviation.
    """
    num_subjects = len({miss.subject for miss in misses})
    if num_subjects < LEAST_SUBJECTS:
        raise ValueError(
            f"{num_subjects} subjects: the uncertainty of scores needs {LEAST_SUBJECTS}"
        )
    needed = np.array([miss.needed_scale for miss in misses])
    weights = _weights(misses)
    order = np.argsort(needed, kind="stable")
    held = np.cumsum(weights[order])
    scale = float(needed[order][np.searchsorted(held, SHARE - 1e-12)])
    if not np.isfinite(scale):
        raise ValueError("scores do not differ between views: score several views of a slice")
    return scale


def coverage(misses: Sequence[Miss], scale: float) -> float:
    """Return the share of misses within their 95 % intervals, every subject counting once.

    Raises:
        ValueError: there is no miss.
    """
    if not misses:
        raise ValueError("the tested subjects show no landmark")
    return float(_weights(misses) @ np.array([miss.is_covered(scale) for miss in misses]))


def cross_coverage(misses: Sequence[Miss], tested: Collection[str]) -> float:
    """Return the coverage of the tested subjects, each by the scale that all others set.

    Args:
        misses: of all subjects.
        tested: some of the subjects.

    Raises:
        ValueError: as ``fit_uncertainty_scale``, or none of the misses is of a tested subject.
    """
    shares = []
    for subject in dict.fromkeys(miss.subject for miss in misses if miss.subject in tested):
        scale = fit_uncertainty_scale([miss for miss in misses if miss.subject != subject])
        shares.append(coverage([miss for miss in misses if miss.subject == subject], scale))
    if not shares:
        raise ValueError("the tested subjects show no landmark")
    return float(np.mean(shares))


def _weights(misses: Sequence[Miss]) -> Float[ndarray, " n"]:
    """Return weights that sum to one, each subject having the same in all."""
    _, codes = np.unique([miss.subject for miss in misses], return_inverse=True)
    counts = np.bincount(codes)
    return 1.0 / (counts[codes] * len(counts))
