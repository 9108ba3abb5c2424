"""Prepared inputs on disk, decoded once and memory-mapped, so that a training never waits for PNGs.

A folder holds ``inputs.int16`` (the pixels of one input after another) and ``index.jsonl`` (a line
an input: where it lies, its frame, its CRC-32). Both only grow, pixels first, so a process may die
at any moment and others may read meanwhile; what is not whole is made anew. An input goes by a hash
of its configuration and of the name, size and time of every PNG that it comes from, so one folder
serves any number of runs.

Shapes:
    C: channels that are stored, 1 where all three are equal; h, w: rows and columns of the input.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import BinaryIO, Literal, TextIO
from zlib import crc32

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from pydantic import NonNegativeInt, ValidationError

from lesion_det.boxes import Frame
from lesion_det.slices import PreparedImage
from ubr_pretrain.config import Config
from ubr_pretrain.held_folder import took_lock
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.work_ahead import worked_ahead

THREADS = min(16, os.cpu_count() or 1)
SPARE = 1.05
"""Room that is asked for, in multiples of an estimate."""

POLL_S = 0.5


class Entry(Config):
    """One stored input.

    Attributes:
        key: what it was made from.
        offset: of its first byte in ``inputs.int16``.
        channels: C.
        frame: where it lies in the PNG; h and w are its size.
        crc32: of all this and the pixels.
    """

    key: str
    offset: NonNegativeInt
    channels: Literal[1, 3]
    frame: Frame
    crc32: int = 0

    @property
    def num_bytes(self) -> int:
        """Size of its pixels."""
        return 2 * self.channels * self.frame.height_px * self.frame.width_px

    def checksum(self, pixels: UInt8[ndarray, " bytes"]) -> int:
        """Return what ``crc32`` is where nothing is damaged."""
        return crc32(pixels.data, crc32(self.model_dump_json(exclude={"crc32"}).encode()))


class InputCache:
    """The two files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pixels, self._index = folder / "inputs.int16", folder / "index.jsonl"
        self._mapped: UInt8[ndarray, " bytes"] = np.empty(0, np.uint8)

    def whole(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Return the entries of ``keys`` that are there and whose pixels are as written."""
        wanted, listed = set(keys), dict[str, Entry]()
        for line in self._index.read_bytes().splitlines() if self._index.is_file() else ():
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError:  # cut off by a kill, or damaged
                continue
            if entry.key in wanted:
                listed[entry.key] = entry
        if not listed:
            return {}
        self.remap()
        good: dict[str, Entry] = {}
        progress = ProgressLine(len(listed))
        checked = worked_ahead(self._is_whole, listed.values(), THREADS)
        with closing(progress), closing(checked):
            checks = zip(listed.values(), checked, strict=True)
            for count, (entry, is_whole) in enumerate(checks, start=1):
                if is_whole:
                    good[entry.key] = entry
                progress.show(count, f"inputs verified in {self.folder}")
        return good

    def remap(self) -> None:
        """Map what was written since."""
        if self._pixels.is_file() and self._pixels.stat().st_size:
            self._mapped = np.memmap(self._pixels, np.uint8, mode="r")

    def read(self, entry: Entry) -> PreparedImage:
        """Return a copy of an entry that ``whole`` found, or that was appended before ``remap``.

        Raises:
            OSError: it is not what was written any more.
        """
        # A file that was cut since would end the process where its lost pages are touched.
        if self._pixels.stat().st_size < self._mapped.size or not self._is_whole(entry):
            raise OSError(
                errno.EIO, f"input {entry.key} was damaged while in use", str(self._pixels)
            )
        shape = (entry.channels, entry.frame.height_px, entry.frame.width_px)
        hu = self._stored(entry).view(np.int16).reshape(shape)
        return PreparedImage(np.repeat(hu, 3 // entry.channels, axis=0), entry.frame)

    @contextmanager
    def writer(self, stop: Callable[[], bool]) -> Iterator[Writer | None]:
        """Yield the right to append, once no other process has it; None where stopped before.

        Raises:
            ValueError: the folder cannot be written, or not any more.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("a") as lock:
                if not self._take(lock, stop):
                    yield None
                    return
                with self._pixels.open("ab") as pixels, self._index.open("ab") as index:
                    yield Writer(pixels, index)
                    for file in (pixels, index):
                        file.flush()
                        os.fsync(file.fileno())
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot be written ({error.strerror})") from error

    def require_room(self, num_bytes: float) -> None:
        """Refuse a disk that is too small.

        Raises:
            ValueError: with both sizes.
        """
        free = disk_usage(self.folder).free
        if num_bytes * SPARE > free:
            raise ValueError(
                f"{self.folder}: {num_bytes / 1e9:.1f} GB of inputs are to be written and "
                f"{free / 1e9:.1f} GB are free; name a folder on another disk by --cache"
            )

    def _is_whole(self, entry: Entry) -> bool:
        pixels = self._stored(entry)
        return pixels.size == entry.num_bytes and entry.checksum(pixels) == entry.crc32

    def _stored(self, entry: Entry) -> UInt8[ndarray, " bytes"]:
        return np.asarray(self._mapped[entry.offset : entry.offset + entry.num_bytes])

    def _take(self, lock: TextIO, stop: Callable[[], bool]) -> bool:
        """Wait for the lock; return whether it is ours."""
        said = False
        while not stop():
            if took_lock(lock):
                return True
            if not said:
                ProgressLine(0).say(f"waiting for the process that fills {self.folder}")
            said = True
            time.sleep(POLL_S)
        return False


class Writer:
    """Appends to the two files of a cache; one process at a time has it."""

    def __init__(self, pixels: BinaryIO, index: BinaryIO) -> None:
        self._pixels, self._index = pixels, index
        if index.tell():
            index.write(b"\n")  # ends the line in which another writer was killed

    def append(self, key: str, prepared: PreparedImage) -> Entry:
        """Write one input; only its index line, written last, makes it one."""
        equal = bool((prepared.hu == prepared.hu[:1]).all())
        stored = np.ascontiguousarray(prepared.hu[: 1 if equal else 3])
        pixels = stored.reshape(-1).view(np.uint8)
        place = self._pixels.tell()
        entry = Entry(key=key, offset=place, channels=1 if equal else 3, frame=prepared.frame)
        entry = entry.model_copy(update={"crc32": entry.checksum(pixels)})
        self._pixels.write(pixels.data)
        self._pixels.flush()
        self._index.write(entry.model_dump_json().encode() + b"\n")
        self._index.flush()
        return entry
