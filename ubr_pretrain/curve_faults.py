"""Faults of a scan that show in the shape of its curve: disorder, jumps, stray slices, bends.

The codes and what they may mean stand in ``anomalies``.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.body_coordinate import robust_slope
from ubr_pretrain.expected_position import PositionCurve, stretches

Code = Literal[
    "REVERSED",
    "NON_MONOTONE",
    "NONLINEAR",
    "SPACING_MISMATCH",
    "GAP",
    "TOO_SHORT",
    "OUT_OF_RANGE",
]

MIN_SLICES = 8
"""Fewer slices have no curve."""

FALL_MM = 25.0
"""Scores of faultless scans fall back by up to about 15 mm; in the head twice as much."""

FALL_WANDERS = 2.5
FALL_SHARE = 0.4
"""A stretch in disorder reaches as far as scores fall back by this share of what is allowed."""

FALL_SMOOTHING_MM = 12.0
"""Wider windows would take the tips off short blocks."""

JUMP_MM = 45.0
"""Scores of faultless scans jump by up to 40 mm, where organs end."""

JUMP_WANDERS = 4.5
STRAY_MM = 30.0
STRAY_WANDERS = 3.0
STRAY_NOISES = 8.0
LINE_MM = 100.0
"""A trunk whose build is unusual leaves its line by up to 80 mm."""

LINE_WANDERS = 10.0
LINE_TRUNK_MM = 150.0
"""Less of a trunk has no line to leave."""

PAPER_R = 0.99
PAPER_TRUNK_MM = 300.0
"""The paper's scans reach from chest to pelvis; in shorter ones r says less."""


@dataclass(frozen=True)
class Anomaly:
    """One thing that is wrong.

    Attributes:
        code: see the table on top of this module.
        first_slice: first slice that it concerns, counted from the first stored (most superior).
        last_slice: last one, inclusive.
        value: the figure that was judged, in the unit that the message names; None: none.
        message: what was found and against which rule, in words.
    """

    code: Code
    first_slice: int
    last_slice: int
    value: float | None
    message: str


def find_disorder(curve: PositionCurve) -> Iterator[Anomaly]:
    """Find the stretches in which slices belong above slices that come before them."""
    top = curve.first_below_vertex()
    fall_mm = _falls(curve.smooth(FALL_SMOOTHING_MM)[top:])
    without_strays_mm = _falls(curve.smooth()[top:])
    allowed_mm = curve.allowed(max(FALL_MM, FALL_WANDERS * curve.wander_mm))[top:-1]
    for first, end in stretches(fall_mm > FALL_SHARE * allowed_mm):
        worst_mm = float(fall_mm[first:end].max())
        really = without_strays_mm[first:end].max() > FALL_SHARE**2 * worst_mm
        if really and (fall_mm[first:end] > allowed_mm[first:end]).any():
            a, b = top + first, top + end
            text = f"slices {a} to {b} are in disorder: scores fall back by {worst_mm:.0f} mm"
            yield Anomaly("NON_MONOTONE", a, b, worst_mm, text)


def _falls(position_mm: Float[ndarray, " z"]) -> Float[ndarray, " z-1"]:
    """Return how far the lowest below every border between slices lies above the highest above."""
    highest = np.maximum.accumulate(position_mm)[:-1]
    lowest = np.minimum.accumulate(position_mm[::-1])[::-1][1:]
    return highest - lowest


def find_jumps(curve: PositionCurve, disorder: Sequence[Anomaly]) -> Iterator[Anomaly]:
    """Find neighbours between which scores jump towards the feet while positions do not."""
    window = max(3, curve.window())
    position, z_mm = curve.expected_mm, curve.z_mm
    num = len(position)
    least_mm = max(JUMP_MM, JUMP_WANDERS * curve.wander_mm, STRAY_NOISES * curve.noise_mm)
    rest = position - curve.rate * z_mm
    jump_mm = np.zeros(num - 1)
    for i in range(window - 1, num - window):
        above, below = rest[i + 1 - window : i + 1], rest[i + 1 : i + 1 + window]
        jump_mm[i] = np.median(below) - np.median(above)
    for anomaly in disorder:  # its edges jump by nature
        jump_mm[max(0, anomaly.first_slice - window) : anomaly.last_slice + window] = 0
    jump_mm[: curve.first_below_vertex() + window] = 0
    at_once = np.diff(rest) > 0.6 * jump_mm
    for first, end in stretches((jump_mm > curve.allowed(least_mm)[:-1]) & at_once):
        i = first + int(np.argmax(jump_mm[first:end]))
        text = (
            f"scores jump by {jump_mm[i]:.0f} mm of body between slices {i} and {i + 1}, which the "
            f"header puts {z_mm[i + 1] - z_mm[i]:.1f} mm apart"
        )
        yield Anomaly("GAP", i, i + 1, float(jump_mm[i]), text)


def find_stray(curve: PositionCurve, others: Sequence[Anomaly]) -> Iterator[Anomaly]:
    """Find single slices, or a few, that leave the line of their neighbours and come back."""
    rate = curve.rate
    rest = curve.expected_mm - rate * curve.z_mm
    neighbours = replace(curve, expected_mm=rest).smooth()
    least_mm = max(STRAY_MM, STRAY_WANDERS * curve.wander_mm, STRAY_NOISES * curve.noise_mm)
    allowed_mm = curve.allowed(least_mm)
    away_mm = np.abs(rest - neighbours)
    away_mm[: curve.first_below_vertex() + 1] = 0
    for anomaly in others:
        margin = curve.window() // 2 + 1
        away_mm[max(0, anomaly.first_slice - margin) : anomaly.last_slice + margin + 1] = 0
    for first, end in stretches(away_mm > allowed_mm):
        worst_mm = float(away_mm[first:end].max())
        which = (
            f"slice {first} leaves" if end - first == 1 else f"slices {first} to {end - 1} leave"
        )
        text = f"{which} the line of the neighbours by {worst_mm:.0f} mm"
        yield Anomaly("NONLINEAR", first, end - 1, worst_mm, text)


def find_off_line(curve: PositionCurve, scores: Float[ndarray, " z"]) -> Iterator[Anomaly]:
    """Judge the trunk against one straight line."""
    trunk = np.flatnonzero(curve.in_trunk())
    if len(trunk) < MIN_SLICES:
        return
    z_mm, position = curve.z_mm[trunk], curve.expected_mm[trunk]
    extent_mm = float(np.ptp(z_mm))
    if extent_mm >= PAPER_TRUNK_MM and np.ptp(scores[trunk]) > 0:
        r = float(np.corrcoef(z_mm, scores[trunk])[0, 1])
        if r < PAPER_R:
            text = f"r {r:.3f} < {PAPER_R} over {extent_mm:.0f} mm of trunk (the paper's rule)"
            yield Anomaly("NONLINEAR", int(trunk[0]), int(trunk[-1]), r, text)
    if extent_mm < LINE_TRUNK_MM:
        return
    slope, intercept = robust_slope(z_mm, position)
    away_mm = np.abs(curve.smooth()[trunk] - intercept - slope * z_mm)
    for first, end in stretches(
        away_mm > curve.allowed(max(LINE_MM, LINE_WANDERS * curve.wander_mm))[trunk]
    ):
        worst_mm = float(away_mm[first:end].max())
        a, b = int(trunk[first]), int(trunk[end - 1])
        text = f"slices {a} to {b} leave the line of the trunk by {worst_mm:.0f} mm"
        yield Anomaly("NONLINEAR", a, b, worst_mm, text)
