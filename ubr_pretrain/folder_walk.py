"""Every file below some paths, once, in one order, whatever links and loops lie between them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ubr_pretrain.ct import VolumeRefused

FIRST_LINE_AFTER_S = 2.0
LINE_EVERY_S = 15.0

Say = Callable[[str], None]


class SearchLine:
    """Says every now and then how far a long search has got.

    Args:
        say: is told.
    """

    def __init__(self, say: Say) -> None:
        self._say, self._looked_at = say, 0
        self._next_line_s = time.monotonic() + FIRST_LINE_AFTER_S

    def look(self, num_found: int) -> None:
        """Count a file that is about to be looked at.

        Args:
            num_found: volumes and series so far.
        """
        if (now_s := time.monotonic()) >= self._next_line_s:
            self._next_line_s = now_s + LINE_EVERY_S
            self._say(f"searching: {self._looked_at} files looked at, {num_found} volumes found")
        self._looked_at += 1


@dataclass(frozen=True)
class Listing:
    """The entries of one folder that are no folders, or a path that the user named.

    Attributes:
        folder: the folder, or the parent of the named path.
        files: sorted by name; pipes and devices included, to be refused by whoever opens them.
        named: whether the user named the file itself.
        refusal: why the path could not be listed.
    """

    folder: Path
    files: tuple[Path, ...] = ()
    named: bool = False
    refusal: VolumeRefused | None = None


def listings(paths: Iterable[Path]) -> Iterator[Listing]:
    """Walk folders depth first; follow links, but visit every real file and folder once."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            yield Listing(path.parent, (path,), True, _missing(path, error))
            continue
        if stat.S_ISDIR(mode):
            yield from _below(path, seen)
        elif _is_new(path, seen):
            yield Listing(path.parent, (path,), True)


def _below(top: Path, seen: set[tuple[int, int]]) -> Iterator[Listing]:
    stack = [top]
    while stack:
        folder = stack.pop()
        try:
            if not _is_new(folder, seen):
                continue
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Listing(folder.parent, refusal=_missing(folder, error))
            continue
        folders, files = [], []
        for entry in entries:
            if _is_folder(entry):
                folders.append(folder / entry.name)
            elif _is_new(entry, seen):
                files.append(folder / entry.name)
        yield Listing(folder, tuple(files))
        stack.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()  # most file systems say so in the listing: no file is asked
    except OSError:  # a path longer than the system takes
        return True


def _is_new(path: Path | os.DirEntry[str], seen: set[tuple[int, int]]) -> bool:
    try:
        node = path.stat()
    except OSError:  # a dangling link or a loop of links is a file that cannot be opened
        return True
    key = (node.st_dev, node.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _missing(path: Path, error: OSError | ValueError) -> VolumeRefused:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return VolumeRefused("E-MISSING", path, f"cannot be read: {reason}")
