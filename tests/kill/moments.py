"""When to kill: after a time, or when so many things have happened to the files of the work.

The kernel tells of every file that is created, written to or renamed (inotify), so a kill can fall
into the milliseconds in which a half-written file lies beside the one that it is to replace.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, Self

Clock = Literal["seconds", "changes", "half-written files", "renamed files"]
"""What a moment is counted in; "changes" are all things that happen to files."""

CLOCKS: tuple[Clock, ...] = ("seconds", "changes", "half-written files", "renamed files")
SHORTER = 1.5
"""Power of the uniform draw of all moments but the first: many fall into the life that is left."""

LOOK_S = 0.01
PATIENCE = 100_000
"""Looks for a moment; not a time, for a machine may sleep."""

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_ISDIR = 0x2, 0x80, 0x100, 0x40000000
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Moment(NamedTuple):
    """After so many seconds, or at the so-manieth of such changes."""

    clock: Clock
    count: float

    def __str__(self) -> str:
        return f"{self.count:.3g} {self.clock}"


NEVER = Moment("changes", math.inf)


class Life(NamedTuple):
    """How long a piece of work lives when it is left in peace: by every clock."""

    span: dict[Clock, float]

    def draw(self, rng: Random, clocks: tuple[Clock, ...], *, first: bool) -> Moment:
        """Draw a moment of this life; it may come after the end of what is left of it."""
        clock = rng.choice([clock for clock in clocks if self.span[clock]])
        share = rng.random() if first else rng.random() ** SHORTER
        if clock == "seconds":
            return Moment(clock, share * self.span[clock])
        return Moment(clock, 1 + int(share * self.span[clock]))


class Watch:
    """Counts what happens to the files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._began_s = time.monotonic()
        self._counts: Counter[Clock] = Counter()
        self._folders: dict[int, Path] = {}
        self._handle = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._add(folder, is_new=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    @property
    def life(self) -> Life:
        """What has been lived so far."""
        self._read()
        lived: dict[Clock, float] = {"seconds": self._seconds}
        return Life(lived | {clock: self._counts[clock] for clock in CLOCKS[1:]})

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began_s

    def until(self, moment: Moment, exit_code: Callable[[], int | None]) -> bool:
        """Wait for a moment; return False where the work ended before.

        Raises:
            TimeoutError: it neither goes on nor ends.
        """
        for _ in range(PATIENCE):
            if self._is(moment):
                return True
            if exit_code() is not None:
                return False
            left_s = LOOK_S
            if moment.clock == "seconds":
                left_s = min(left_s, max(0.0, moment.count - self._seconds))
            if select.select([self._handle], [], [], left_s)[0]:
                self._read()
        raise TimeoutError(f"{moment} did not come")

    def _is(self, moment: Moment) -> bool:
        if moment.clock == "seconds":
            return self._seconds >= moment.count
        return self._counts[moment.clock] >= moment.count

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._count(os.read(self._handle, 1 << 16))

    def _count(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            watched, kind, _, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size + length
            name = os.fsdecode(events[at - length : at].rstrip(b"\0"))
            if watched not in self._folders:
                continue
            if kind & IN_ISDIR:
                if kind & (IN_CREATE | IN_MOVED_TO):
                    self._add(self._folders[watched] / name, is_new=True)
                continue
            self._note(name, kind)

    def _note(self, name: str, kind: int) -> None:
        self._counts["changes"] += 1
        if kind & IN_MOVED_TO:
            self._counts["renamed files"] += 1
        elif kind & IN_CREATE and name.endswith(".part"):
            self._counts["half-written files"] += 1

    def _add(self, folder: Path, *, is_new: bool) -> None:
        kinds = IN_CREATE | IN_MODIFY | IN_MOVED_TO
        watched = _libc.inotify_add_watch(self._handle, os.fsencode(folder), kinds)
        if watched < 0:  # it has gone again
            return
        self._folders[watched] = folder
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    self._add(folder / entry.name, is_new=is_new)
                elif is_new:  # created before the folder was watched
                    self._note(entry.name, IN_CREATE)
