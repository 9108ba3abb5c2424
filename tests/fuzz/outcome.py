"""What a child is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Inputs of one kind: their seed and numbers."""

    kind: str
    seed: int
    first: int
    count: int


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        index: of the input.
        name: the class of the outcome; in capitals where it is a fault of ours.
        detail: of a fault, or of an outcome worth a word.
        how: what was done to the files.
    """

    index: int
    name: str
    detail: str = ""
    how: tuple[str, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether somebody has to look at it."""
        return self.name.split()[0].isupper()
