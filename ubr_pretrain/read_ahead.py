"""Volumes read ahead of their use, in child processes that a bad file may crash.

What comes out, and what is done with it:

    >>> coming = read_ahead(entries, allow_gaps=True, stride_mm=None)      # doctest: +SKIP
    >>> for entry, outcome in coming:                                      # doctest: +SKIP
    ...     if isinstance(outcome, VolumeRefused):
    ...         ...                                  # outcome.code, outcome.cause
    ...     else:
    ...         scored = scorer.score_volume(outcome, entry.name)
    ...         draw_scores(outcome, scored.curve, picture, entry.name)

An outcome is a ``Volume``: the voxels for pictures and pages are its own (``outcome.hu``), and it
goes as it is to ``Scorer.score_volume``. Its voxels may lie in memory that a child filled and this
process has mapped: nothing was copied, and the memory goes when the last array on it does. With
``stride_mm`` it is a ``SparseVolume``: ``hu`` and ``z_mm`` are those of the slices that were read,
``every_z_mm`` those of all; ``Scorer.score_volume`` gives a score to every slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.guard import GuardedReader
from ubr_pretrain.volume_entry import VolumeEntry

WORTH_A_CHILD = 4
"""Starting the child takes about as long as reading a volume; fewer are read in this process."""


def read_ahead(
    entries: Sequence[VolumeEntry], **rules: Any
) -> Iterator[tuple[VolumeEntry, Volume | VolumeRefused]]:
    """Yield every entry with its volume, or with the reason why there is none.

    While one volume is in use, the next is decoded. A decoder that crashes, hangs or takes too much
    memory ends alone (E-CRASH, E-TIMEOUT, E-MEMORY).

    Args:
        entries: in this order.
        rules: fields of ``ReadingRules``.
    """
    if len(entries) < WORTH_A_CHILD:
        for entry in entries:
            yield entry, _outcome(VolumeEntry.read, entry, rules)
        return
    with GuardedReader() as guard, ThreadPoolExecutor(1) as thread:
        coming = thread.submit(_outcome, guard.read, entries[0], rules)
        for number, entry in enumerate(entries, start=1):
            outcome = coming.result()
            if number < len(entries):
                coming = thread.submit(_outcome, guard.read, entries[number], rules)
            yield entry, outcome


def _outcome(
    read: Callable[..., Volume], entry: VolumeEntry, rules: dict[str, Any]
) -> Volume | VolumeRefused:
    try:
        return read(entry, **rules)
    except VolumeRefused as refusal:
        return refusal
