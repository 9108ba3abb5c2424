"""What is noted of numbers that may be no CT, whichever way a scan came: a file, or from memory."""

from __future__ import annotations

from dataclasses import replace

from ubr_pretrain.blank_rows import looks_damaged
from ubr_pretrain.ct import Volume
from ubr_pretrain.hounsfield import looks_like_hu

NOT_HU = "not HU? "
"""How the note on numbers that are no HU begins."""


def with_doubts(volume: Volume) -> Volume:
    """Return a volume with a note on numbers that are no HU, and on lost rows, where it has none.

    Scoring goes on with such a note; a volume that was read from a file has it already.
    """
    doubt, damage = looks_like_hu(volume), looks_damaged(volume)
    found = (f"{NOT_HU}{doubt}" if doubt else None, damage)
    new = (note for note in found if note and note not in volume.notes)
    return replace(volume, notes=(*volume.notes, *new))


def doubt_of(volume: Volume) -> str | None:
    """Return why the numbers of a volume that was judged are no HU, None where they may be."""
    found = (note.removeprefix(NOT_HU) for note in volume.notes if note.startswith(NOT_HU))
    return next(found, None)
