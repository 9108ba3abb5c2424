"""What is wrong with a scan, seen from its scores: reason codes and the slices they concern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Code = Literal[
    "REVERSED",
    "NON_MONOTONE",
    "NONLINEAR",
    "SPACING_MISMATCH",
    "GAP",
    "TOO_SHORT",
    "OUT_OF_RANGE",
]


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


class ExpectedStep(NamedTuple):
    """Slice spacing as the scores suggest it: mm, and one standard deviation."""

    step_mm: float
    sd_mm: float
