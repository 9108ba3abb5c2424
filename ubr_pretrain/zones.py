"""Chest, abdomen or pelvis from a score: two thresholds set on a few labelled volumes.

Shapes:
    n: slices; classes are counted from the head: 0 chest, 1 abdomen, 2 pelvis.

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 3.2: two thresholds from two labelled volumes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

ZONES = ("chest", "abdomen", "pelvis")
"""Abdomen: upper border of the liver to upper border of the ilium."""


@dataclass(frozen=True)
class ZoneThresholds:
    """Scores below ``chest_abdomen`` are chest, above ``abdomen_pelvis`` pelvis."""

    chest_abdomen: float
    abdomen_pelvis: float

    def classify(self, scores: Float[ndarray, " n"]) -> Int[ndarray, " n"]:
        """Return 0, 1 or 2 for every score."""
        return np.digitize(scores, [self.chest_abdomen, self.abdomen_pelvis])


def fit_thresholds(scores: Float[ndarray, " n"], zones: Int[ndarray, " n"]) -> ZoneThresholds:
    """Return the two thresholds that classify most slices rightly.

    Every pair of midpoints between neighbouring scores is tried; where several pairs tie, each
    threshold is the middle of the range that the first of them spans with its neighbours.

    Args:
        scores: of all slices of the labelled volumes.
        zones: their classes.

    Raises:
        ValueError: a zone has no slice, so its border cannot be placed.
    """
    counts = np.bincount(zones, minlength=3)
    if empty := [ZONES[zone] for zone in range(3) if counts[zone] == 0]:
        raise ValueError(f"the labelled slices hold no {empty[0]}: its border cannot be placed")
    values, place = np.unique(scores, return_inverse=True)
    # right[c, i]: slices of zone c among the i lowest distinct scores
    right = np.zeros((3, len(values) + 1), int)
    np.add.at(right, (zones, place + 1), 1)
    right = right.cumsum(axis=1)
    # correct(a, b) = chest below cut a + abdomen between + pelvis above cut b, a <= b; the best b
    # of every a is a running maximum from the right, so no table of all pairs is needed
    first = right[0] - right[1]
    second = right[1] + counts[2] - right[2]
    best_second = np.maximum.accumulate(second[::-1])[::-1]
    a = int(np.argmax(first + best_second))
    b = a + int(np.argmax(second[a:]))
    a_last = _last_of_run(first[: b + 1] == first[a], a)
    b_last = _last_of_run(second == second[b], b)
    return ZoneThresholds(_cut(values, a, a_last), _cut(values, b, b_last))


def _last_of_run(flags: ndarray, start: int) -> int:
    ends = np.flatnonzero(~flags[start:])
    return start + int(ends[0]) - 1 if len(ends) else len(flags) - 1


def _cut(values: Float[ndarray, " n"], first: int, last: int) -> float:
    """Return the middle of the scores that cut ``first``..``last`` can lie between."""
    lower = values[first - 1] if first > 0 else values[0] - 1
    upper = values[last] if last < len(values) else values[-1] + 1
    return float((lower + upper) / 2)
