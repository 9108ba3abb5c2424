"""The names in a folder, listed once for all of the thousands of volumes that ask about it."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path

SETTLED_S = 2.0
"""A folder that was changed this recently may change again without another time."""

LISTED_AT_ONCE = 16


def names_in(folder: Path) -> tuple[str, ...]:
    """Return what lies in a folder, sorted; listed again once it has changed.

    Raises:
        OSError: it cannot be listed.
    """
    changed_ns = folder.stat().st_mtime_ns
    if time.time_ns() - changed_ns < SETTLED_S * 1e9:
        return _listed.__wrapped__(folder, changed_ns)
    return _listed(folder, changed_ns)


def named_with(folder: Path, prefix: str, suffix: str = "") -> list[Path]:
    """Return the paths in a folder whose names begin and end so; none where it cannot be listed."""
    try:
        names = names_in(folder)
    except OSError:
        return []
    found = []
    for at in range(bisect_left(names, prefix), len(names)):
        if not names[at].startswith(prefix):
            break
        if names[at].endswith(suffix):
            found.append(folder / names[at])
    return found


def lesion_tables(images: Path) -> list[Path]:
    """Return the ``DL_info*.csv`` beside an ``Images_png`` folder."""
    return named_with(images.parent, "DL_info", ".csv")


@lru_cache(maxsize=LISTED_AT_ONCE)
def _listed(folder: Path, changed_ns: int) -> tuple[str, ...]:
    del changed_ns
    return tuple(sorted(os.listdir(folder)))  # noqa: PTH208  (names, not a path object for each)
