"""Volumes read ahead of their use, in child processes that a bad file may crash.

What comes out, and what is done with it:

    >>> coming = read_ahead(entries, watch=scorer.watch, allow_gaps=True)  # doctest: +SKIP
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

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.guard import guarded_readers, read_here
from ubr_pretrain.slice_watch import SliceWatch
from ubr_pretrain.volume_entry import VolumeEntry

if TYPE_CHECKING:  # torch comes with it
    from ubr_pretrain.runtime import StopRequest

WORTH_A_CHILD = 4
"""Starting the child takes about as long as reading a volume; fewer are read in this process."""

WORTH_A_SECOND = 12
"""So many volumes keep two readers busy where there are two cores."""

POLL_S = 0.2
"""While a volume is waited for, a stop is looked for so often."""


def read_ahead(
    entries: Sequence[VolumeEntry],
    *,
    readers: int | None = None,
    guarded: bool = False,
    watch: SliceWatch | None = None,
    stop: StopRequest | None = None,
    **rules: Any,
) -> Iterator[tuple[VolumeEntry, Volume | VolumeRefused]]:
    """Yield every entry with its volume, or with the reason why there is none.

    While one volume is in use, the next are decoded, one by every reader: so many volumes and the
    one in use are in memory at a time. A decoder that crashes, hangs or takes too much memory ends
    alone (E-CRASH, E-TIMEOUT, E-MEMORY); one that hangs in this process is left behind (E-TIMEOUT).
    Who leaves early does not wait for what is being decoded.

    Args:
        entries: in this order.
        readers: processes that read; 0: this one; None: as many as pay.
        guarded: not this one, however few volumes there are.
        watch: is told of the slices of volumes that this process reads, as they come.
        stop: a signal ends the wait for a volume of a child: nothing more comes.
        rules: fields of ``ReadingRules``.

    Raises:
        Stopped: a signal came while this process read.
    """
    readers = max(int(guarded), _readers_that_pay(len(entries))) if readers is None else readers
    if not readers:
        for number, entry in enumerate(entries, 1):
            with nullcontext() if stop is None else stop.at_once():
                outcome = _outcome(read_here, entry, rules | {"watch": watch})
            hangs = isinstance(outcome, VolumeRefused) and outcome.code == "E-TIMEOUT"
            yield entry, outcome
            if hangs and entry.refusal is None:  # it may hold what the others need
                yield from read_ahead(entries[number:], readers=1, stop=stop, **rules)
                return
            del outcome
        return
    with (
        ThreadPoolExecutor(readers, "read") as threads,
        guarded_readers(readers) as read,  # left first: the threads wait for the children
    ):
        coming: deque[Future[Volume | VolumeRefused]] = deque(
            threads.submit(_outcome, read, entry, rules) for entry in entries[:readers]
        )
        for number, entry in enumerate(entries):
            while not wait([coming[0]], None if stop is None else POLL_S).done:
                if stop is not None and stop.signal is not None:
                    return
            outcome = coming.popleft().result()
            if number + readers < len(entries):
                coming.append(threads.submit(_outcome, read, entries[number + readers], rules))
            yield entry, outcome
            del outcome  # its memory is free before the next volume is waited for


def _readers_that_pay(num_volumes: int) -> int:
    if num_volumes < WORTH_A_CHILD:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 2 if num_volumes >= WORTH_A_SECOND and (cores or 1) > 1 else 1


def _outcome(
    read: Callable[..., Volume], entry: VolumeEntry, rules: dict[str, Any]
) -> Volume | VolumeRefused:
    try:
        return read(entry, **rules)
    except VolumeRefused as refusal:
        return refusal
