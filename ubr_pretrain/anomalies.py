"""What is wrong with a scan, seen from its scores: reason codes and the slices they concern.

| code | what is found | likely cause |
|---|---|---|
| TOO_SHORT | fewer than 8 slices or 50 mm; nothing else is judged | a scout, a cut |
| OUT_OF_RANGE | scores far beyond the calibrated landmarks, or without order | not a trunk |
| REVERSED | scores fall from the first slice to the last | order upside down |
| NON_MONOTONE | a stretch whose slices belong above slices that come before | blocks out of order |
| GAP | positions, or scores without them, jump between two slices | missing slices |
| NONLINEAR | r < 0.99 in 300 mm of trunk (the paper's rule), a bend, stray slices | metal, fluid |
| SPACING_MISMATCH | more or less body than the header's mm can hold | wrong slice spacing |

OUT_OF_RANGE of a whole scan (most of it beyond the landmarks, or scores that follow no position)
ends the judgement too: what the regressor does not know it cannot judge.

Order matters: a reversed scan is judged on as if it were turned, jumps at the edge of a stretch in
disorder are part of it, and slices that stand alone are told from disorder.

Shapes:
    z: slices of a volume as stored, superior -> inferior if the header is right.

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 3 (r < 0.99; reversed and non-monotone scans).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.body_coordinate import Calibration, robust_slope
from ubr_pretrain.curve_faults import (
    FALL_MM,
    FALL_WANDERS,
    MIN_SLICES,
    Anomaly,
    Code,
    find_disorder,
    find_jumps,
    find_off_line,
    find_stray,
)
from ubr_pretrain.expected_position import PositionCurve, position_curve, stretches
from ubr_pretrain.landmarks import LANDMARK_COORDINATES

__all__ = [
    "Anomaly",
    "Code",
    "ExpectedStep",
    "expected_step",
    "find_anomalies",
    "header_gaps",
]

MIN_EXTENT_MM = 50.0
CLEAR_RANK_R = 0.5
"""Below this |rank r| a curve has no direction."""

UNRELATED_MM = 100.0
"""So long is a scan whose scores must have a direction, and change."""

STANDSTILL = 0.3
"""Scores that advance by less than this share of the header's mm stand still."""

EXTRAPOLATED_UNITS = 50.0
"""About 200 mm beyond the outermost calibrated landmark a score has no meaning."""

HEADER_GAP = 1.5
"""Neighbouring slices that lie more than this many intervals apart."""

SPACING_RATIO = 1.3
SPACING_SDS = 3.0
SPACING_TRUNK_MM = 120.0


class ExpectedStep(NamedTuple):
    """Slice spacing as the scores suggest it: mm, and one standard deviation."""

    step_mm: float
    sd_mm: float


def find_anomalies(
    scores: Float[ndarray, " z"],
    z_mm: Float[ndarray, " z"],
    step_mm: float,
    calibration: Calibration | None,
    scores_sd: Float[ndarray, " z"] | None = None,
) -> tuple[Anomaly, ...]:
    """Judge a scan by its scores.

    Args:
        scores: of the slices.
        z_mm: their positions below the first, increasing.
        step_mm: the header's slice interval.
        calibration: of the regressor; None: spacing and range are not judged, and the scan's own
            slope is the measure of everything else.
        scores_sd: of every slice over its views; None: the noise is read from the scores.

    Raises:
        ValueError: scores that are not finite, or of another number than positions.
    """
    if len(scores) != len(z_mm) or not np.isfinite(scores).all():
        raise ValueError(f"{len(scores)} scores for {len(z_mm)} slices: one finite score a slice")
    last = len(scores) - 1
    extent_mm = float(z_mm[-1] - z_mm[0]) if len(scores) else 0.0
    if len(scores) < MIN_SLICES or extent_mm < MIN_EXTENT_MM:
        text = (
            f"{len(scores)} slices over {extent_mm:.0f} mm: at least {MIN_SLICES} slices and "
            f"{MIN_EXTENT_MM:.0f} mm are needed to judge a scan"
        )
        return (Anomaly("TOO_SHORT", 0, max(last, 0), extent_mm, text),)
    curve = position_curve(scores, z_mm, step_mm, calibration, scores_sd)
    found = list(header_gaps(z_mm, step_mm))
    if foreign := _mostly_beyond(curve, calibration) or _unrelated(curve):
        return (*found, foreign)
    turned = _is_reversed(curve)
    if turned:
        rank_r = curve.rank_r
        text = f"scores fall from the first slice to the last (rank r {rank_r:.3f})"
        found.append(Anomaly("REVERSED", 0, last, rank_r, text))
        curve = curve.reversed()
    local = list(find_disorder(curve))
    local += find_jumps(curve, local)
    local += find_stray(curve, local)
    local += find_off_line(curve, scores[::-1] if turned else scores)
    if calibration is not None:
        local += _spacing(curve, calibration)
        local += _beyond(curve, calibration)
    if turned:
        local = [
            replace(a, first_slice=last - a.last_slice, last_slice=last - a.first_slice)
            for a in local
        ]
    return tuple(sorted([*found, *local], key=lambda a: (a.first_slice, a.last_slice, a.code)))


def expected_step(
    scores: Float[ndarray, " z"],
    z_mm: Float[ndarray, " z"],
    step_mm: float,
    calibration: Calibration,
) -> ExpectedStep | None:
    """Return the slice spacing that the scores suggest for a body of average length.

    Args:
        scores: of the slices.
        z_mm: their positions, for the gaps between them.
        step_mm: the header's slice interval.
        calibration: of the regressor.

    Returns:
        None where less of the trunk is seen than tells anything.
    """
    if len(scores) < MIN_SLICES:
        return None
    judged = _rate_in_trunk(position_curve(scores, z_mm, step_mm, calibration), calibration)
    if judged is None:
        return None
    rate, relative_sd = judged
    return ExpectedStep(rate * step_mm, rate * step_mm * relative_sd)


def header_gaps(z_mm: Float[ndarray, " z"], step_mm: float) -> Iterator[Anomaly]:
    """Find neighbours that the header puts too far apart."""
    steps = np.diff(z_mm)
    for i in np.flatnonzero(steps > HEADER_GAP * step_mm).tolist():
        text = (
            f"positions jump by {steps[i]:.1f} mm between slices {i} and {i + 1}, where the "
            f"interval is {step_mm:.2f} mm"
        )
        yield Anomaly("GAP", i, i + 1, float(steps[i] - step_mm), text)


def _mostly_beyond(curve: PositionCurve, calibration: Calibration | None) -> Anomaly | None:
    """Return OUT_OF_RANGE for a scan beyond the outermost landmarks, with little of the trunk."""
    if calibration is None or curve.coordinate is None:
        return None
    trunk_mm = curve.z_mm[curve.in_trunk()]
    if len(trunk_mm) and np.ptp(trunk_mm) >= MIN_EXTENT_MM:
        return None
    top, bottom = calibration.landmarks[0], calibration.landmarks[-1]
    for mark, away in (
        (top, curve.coordinate - _upper_end(calibration) - top.coordinate_sd),
        (bottom, bottom.coordinate - bottom.coordinate_sd - curve.coordinate),
    ):
        share = float(np.mean(away > 0))
        if share > 0.5:
            text = (
                f"{100 * share:.0f} % of the slices lie beyond {mark.name}, the outermost "
                "calibrated landmark: nothing else is judged"
            )
            return Anomaly("OUT_OF_RANGE", 0, len(curve.z_mm) - 1, share, text)
    return None


def _upper_end(calibration: Calibration) -> float:
    """Return the coordinate up to which scores are read: the head ends at the vertex.

    Heads have few landmarks, so a calibration seldom reaches beyond C7; scans of head and neck are
    common, and the line goes on well up to their top.
    """
    return max(calibration.landmarks[0].coordinate, LANDMARK_COORDINATES["vertex"])


def _unrelated(curve: PositionCurve) -> Anomaly | None:
    """Return OUT_OF_RANGE for a scan whose scores say nothing of the slices' order."""
    extent_mm, last = float(np.ptp(curve.z_mm)), len(curve.z_mm) - 1
    if extent_mm < UNRELATED_MM:
        return None
    rate, rank_r = curve.rate, curve.rank_r
    advance_mm = float(np.ptp(np.quantile(curve.expected_mm, [0.05, 0.95])))
    if max(advance_mm, abs(rate) * extent_mm) < STANDSTILL * extent_mm:
        text = (
            f"over {extent_mm:.0f} mm the scores change as over {advance_mm:.0f} mm of "
            "a trunk: not a part of the body that the regressor knows"
        )
        return Anomaly("OUT_OF_RANGE", 0, last, rate, text)
    if abs(rank_r) < CLEAR_RANK_R and not _runs_in_pieces(curve):
        text = (
            f"scores follow no position (rank r {rank_r:.2f} over {extent_mm:.0f} mm): not a part "
            "of the body that the regressor knows"
        )
        return Anomaly("OUT_OF_RANGE", 0, last, rank_r, text)
    return None


def _runs_in_pieces(curve: PositionCurve) -> bool:
    """Return whether the quarters of a scan have a direction, though the whole has none."""
    quarters = np.array_split(np.arange(len(curve.z_mm)), 4)
    pieces = [
        abs(replace(curve, z_mm=curve.z_mm[q], expected_mm=curve.expected_mm[q]).rank_r)
        for q in quarters
    ]
    return float(np.median(pieces)) >= CLEAR_RANK_R


def _is_reversed(curve: PositionCurve) -> bool:
    fall_mm = -curve.rate * float(np.ptp(curve.z_mm))
    least_mm = max(FALL_MM, FALL_WANDERS * curve.wander_mm)
    return curve.rank_r <= -CLEAR_RANK_R and fall_mm >= least_mm


def _rate_in_trunk(curve: PositionCurve, calibration: Calibration) -> tuple[float, float] | None:
    """Return expected over stated mm in the trunk, and its relative standard deviation.

    The build of the patient and the two ends of what is seen, each as uncertain as a landmark,
    add in quadrature.
    """
    trunk = curve.in_trunk()
    if trunk.sum() < MIN_SLICES:
        return None
    z_mm, position = curve.z_mm[trunk], curve.expected_mm[trunk]
    rate = abs(robust_slope(z_mm, position)[0])
    seen_mm = min(float(np.ptp(z_mm)), rate * float(np.ptp(z_mm)))
    if seen_mm < SPACING_TRUNK_MM:
        return None
    end_sd_mm = calibration.mm_per_unit * calibration.end_sd
    build = calibration.slope_sd / calibration.slope_per_mm
    return rate, float(np.hypot(build, np.sqrt(2) * end_sd_mm / seen_mm))


def _spacing(curve: PositionCurve, calibration: Calibration) -> Iterator[Anomaly]:
    judged = _rate_in_trunk(curve, calibration)
    if judged is None:
        return
    rate, relative_sd = judged
    if abs(np.log(rate)) <= max(np.log(SPACING_RATIO), SPACING_SDS * relative_sd):
        return
    trunk = np.flatnonzero(curve.in_trunk())
    text = (
        f"the scores suggest a slice spacing of {rate * curve.step_mm:.2f} mm (+- "
        f"{100 * relative_sd:.0f} %), the header says {curve.step_mm:.2f} mm"
    )
    yield Anomaly("SPACING_MISMATCH", int(trunk[0]), int(trunk[-1]), rate, text)


def _beyond(curve: PositionCurve, calibration: Calibration) -> Iterator[Anomaly]:
    """Find the slices whose scores lie beyond what was calibrated."""
    assert curve.coordinate is not None
    top, bottom = calibration.landmarks[0], calibration.landmarks[-1]
    above = curve.coordinate - _upper_end(calibration)
    away = np.maximum(above, bottom.coordinate - curve.coordinate)
    away[: curve.first_below_vertex()] = 0
    for first, end in stretches(away > EXTRAPOLATED_UNITS):
        worst = float(away[first:end].max())
        text = (
            f"slices {first} to {end - 1} score up to {worst:.0f} units beyond the outermost "
            f"calibrated landmarks ({top.name}, {bottom.name})"
        )
        yield Anomaly("OUT_OF_RANGE", first, end - 1, worst, text)
