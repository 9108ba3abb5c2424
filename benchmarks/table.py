"""Rows of the results: our figure, a bound or peer measured in turn with it, their ratio, the aim.

Every module beside this one that measures something has ``rows() -> list[Row]`` and can be run by
itself; ``bench.py`` runs them all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: was measured, with its sizes.
        ours: our figure.
        bound: that of the bound or peer, in the same unit.
        unit: "s", "ms a slice", "MB".
        against: what the bound or peer is.
        at_most: the aim for ours / bound; None: shown without one.
        note: what a reader must know.
    """

    what: str
    ours: float
    bound: float
    unit: str
    against: str
    at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the bound; less is better."""
        return self.ours / self.bound

    @property
    def verdict(self) -> str:
        """Whether the aim is met; "" where there is none."""
        if self.at_most is None:
            return ""
        return "met" if self.ratio <= self.at_most else "missed"


def in_turn(*works: Callable[[], object], repeats: int = 7) -> list[float]:
    """Return the median seconds of every work, measured A B C A B C after a warm-up of each."""
    seconds: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 1):
        for work, kept in zip(works, seconds, strict=True):
            began_s = time.perf_counter()
            work()
            if repeat:
                kept.append(time.perf_counter() - began_s)
    return [statistics.median(kept) for kept in seconds]


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = ["| what | ours | against | theirs | ratio | aim | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        aim = "" if row.at_most is None else f"<= {row.at_most:g}"
        lines.append(
            f"| {row.what} | {row.ours:.4g} {row.unit} | {row.against} | {row.bound:.4g} "
            f"{row.unit} | {row.ratio:.3f} | {aim} | {row.verdict} |"
        )
    notes = [f"- {row.what}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"
