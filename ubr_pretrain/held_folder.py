"""A folder that one process at a time writes: its lock, and what a kill left half-written there."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, Any

HALF_WRITTEN = ".*.part"
"""Names of the files that ``write_atomically`` has not yet put in their place."""


def took_lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Take the lock of an open file unless another process holds it; return whether it is ours.

    The kernel frees it when the file is closed, so also when its holder is killed.

    Args:
        file: any file of the folder that is always the same.
        shared: with others who only read.

    Raises:
        OSError: the file system knows no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(lock: Path) -> bool:
    """Whether another process holds the lock of a file."""
    with lock.open("a") as file:
        return not took_lock(file)


def remove_half_written(folder: Path) -> None:
    """Remove what a kill in the middle of a write left in a folder; its lock must be held."""
    for file in folder.glob(HALF_WRITTEN):
        file.unlink()
