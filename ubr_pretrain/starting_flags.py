"""The flags that say where a trunk starts, in the same words for a regressor and a detector.

Free of torch, so that a refused flag costs a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec

ExternalInput = InputSpec | Literal["imagenet"] | None
"""How HU become the input of a trunk of others: as for torchvision's weights, or as described;
None: as the file says, where this project wrote it."""


class StartFlag(NamedTuple):
    """A flag that only some starts use.

    Attributes:
        words: the flag as users type it.
        value: what was given, None where nothing was.
        takers: the starts that use it.
        needed: whether they cannot do without.
    """

    words: str
    value: object
    takers: Collection[str]
    needed: bool = False


def external_flags(external: Path | None, external_input: ExternalInput) -> tuple[StartFlag, ...]:
    """Return the flags of a start from a trunk of others."""
    return (
        StartFlag("--external FILE", external, ("external",), needed=True),
        StartFlag("--external_input", external_input, ("external",)),
    )


def require_flags(init: str, flags: Iterable[StartFlag]) -> None:
    """Refuse a start without its file, and a flag that the start would ignore.

    Raises:
        ValueError: naming the start and the flag.
    """
    for flag in flags:
        if flag.value is None and flag.needed and init in flag.takers:
            raise ValueError(f"--init {init} needs {flag.words}")
        if flag.value is not None and init not in flag.takers:
            raise ValueError(f"--init {init} does not use {flag.words}")


def described_input(given: ExternalInput) -> InputSpec | None:
    """Return the input that ``--external_input`` describes."""
    return IMAGENET_INPUT if given == "imagenet" else given
