"""Where the volumes of a slice store are decoded: here, or in children that may crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.guard import guarded_readers, read_here
from ubr_pretrain.volumes import VolumeEntry
from ubr_pretrain.whole_file import write_atomically

WORTH_CHILDREN = 10_000
"""Slices to be decoded, some ten seconds of work; children take one or two to start."""

MARK = ".building"
"""In a store while something is decoded into it; there from before: that build has died."""

FATAL = ("E-CRASH", "E-MEMORY", "E-TIMEOUT")
"""What a reader of this process would not have survived."""


@contextmanager
def store_reader(
    folder: Path, num_slices: int, threads: int
) -> Iterator[Callable[[VolumeEntry], Volume]]:
    """Yield what reads a volume; who leaves early waits for no child.

    A decoder that crashes in this process ends it. The next build finds the mark, reads in
    children, and the file is refused (E-CRASH); the mark stays as long as there is such a file.
    What hangs in this process is tried once more in a child, and so is all that is read after it.

    Args:
        folder: of the store.
        num_slices: that are to be decoded.
        threads: that read; 0: nothing will be read.
    """
    mark = folder / MARK
    if not threads:
        if mark.exists() and not mark.read_bytes():  # who has died there had read to the end
            mark.unlink(missing_ok=True)
        yield read_here
        return
    fatal, here = False, num_slices < WORTH_CHILDREN and not mark.exists()
    mark.touch()
    try:
        with guarded_readers(threads) as read:

            def noted(entry: VolumeEntry) -> Volume:
                nonlocal fatal, here
                try:
                    if here or entry.refusal is not None:
                        return read_here(entry)
                except VolumeRefused as refusal:
                    if entry.refusal is not None or refusal.code != "E-TIMEOUT":
                        raise
                    here = False  # it may have waited for another one that hangs
                try:
                    return read(entry)
                except VolumeRefused as refusal:
                    fatal |= refusal.code in FATAL
                    raise

            yield noted
    finally:
        if fatal:
            with write_atomically(mark, "w") as file:
                file.write("a file that was read here ends who reads it\n")
        else:
            mark.unlink(missing_ok=True)
