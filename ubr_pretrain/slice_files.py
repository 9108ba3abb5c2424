"""The two files of one stored volume, and when they are believed.

``<name>-<key>.npy`` holds int16 HU [z, S, S], ``<name>-<key>.json`` the record: runs, positions,
subject, SHA-256. The record is written last; both appear whole or not at all, also where two
processes write them at once (they write equal bytes) and where one is killed. What a disk does to
them later is found by their length, always, and by the SHA-256, at the start of every run.

Shapes:
    z: slices of a volume; S: side of a stored slice.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int16
from numpy import ndarray
from numpy.lib import format as npy

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.folder_names import lesion_tables, named_with
from ubr_pretrain.held_folder import HALF_WRITTEN
from ubr_pretrain.runtime import to_json
from ubr_pretrain.stored_file import stamp
from ubr_pretrain.volumes import VolumeEntry
from ubr_pretrain.whole_file import write_atomically

CHUNK_BYTES = 1 << 18
"""Hashed, then written, while it is in the processor's cache."""

MAX_MAPS = max(16, min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
"""Stored volumes that are mapped at once: each holds a file open, and a process may open few."""

SEAL = "record_sha256"
"""Of the other fields: a position of a slice that was changed afterwards would train another."""

ABANDONED_S = 3600.0
"""A half-written file this old belongs to a process that was killed."""


@dataclass(frozen=True)
class SliceFiles:
    """Where one volume lies in the store; ``slices`` is the ``.npy``."""

    slices: Path

    @property
    def record(self) -> Path:
        """The ``.json``."""
        return self.slices.with_suffix(".json")

    def write(self, slices: Int16[ndarray, "z S S"], record: Mapping[str, Any]) -> dict[str, Any]:
        """Write both files; return the record, to which the SHA-256 of the slices was added.

        The slices are on the disk before there is a record. Of the record itself nothing is lost
        with a crash but the time to decode the volume again; who wrote the last syncs the folder.
        """
        digest = hashlib.sha256()
        contents = np.ascontiguousarray(slices).reshape(-1).view(np.uint8).data
        with write_atomically(self.slices, sync_folder=False) as file:
            npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(slices))
            for first in range(0, len(contents), CHUNK_BYTES):
                chunk = contents[first : first + CHUNK_BYTES]
                digest.update(chunk)
                file.write(chunk)
        written = {**record, "sha256": digest.hexdigest()}
        unsynced = write_atomically(self.record, "w", sync_file=False, sync_folder=False)
        with unsynced as file:
            file.write(to_json({**written, SEAL: _seal(written)}, indent=1) + "\n")
        return written

    def read_record(self) -> dict[str, Any] | None:
        """Return the record, None where there is none, or not as it was written."""
        try:
            record = json.loads(self.record.read_bytes())
        except (OSError, ValueError, RecursionError):  # not there, or not JSON
            return None
        if not isinstance(record, dict) or record.pop(SEAL, None) != _seal(record):
            return None
        return record

    def fault(self, record: Mapping[str, Any], size_px: int, *, hashed: bool) -> str | None:
        """Say why the slices are not those of the record, or return None.

        Args:
            record: of this volume.
            size_px: S.
            hashed: read all bytes and compare their SHA-256; else the lengths alone.
        """
        shape = (record["num_slices"], size_px, size_px)
        try:
            with self.slices.open("rb") as file:
                if (found := _shape(file)) != shape:
                    return f"holds {found or 'no slices'}, its record says {shape}"
                expected = file.tell() + 2 * int(np.prod(shape))
                if (size := os.fstat(file.fileno()).st_size) != expected:
                    return f"holds {size} bytes, {expected} were written"
                if hashed and hashlib.file_digest(file, "sha256").hexdigest() != record["sha256"]:
                    return "fails its checksum"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None


def _seal(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the fields of a record, whatever order they are in."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def map_slices(file: Path) -> Int16[ndarray, "z S S"]:
    """Return the slices of a ``.npy``, memory-mapped; the last ``MAX_MAPS`` stay open.

    Raises:
        OSError: it was cut off since it was looked at. To touch a page behind its end would end
            this process without a word.
    """
    slices, num_bytes = _mapped(file)
    with suppress(FileNotFoundError):  # what is mapped outlives its name
        if file.stat().st_size < num_bytes:
            raise OSError(errno.EIO, "was cut off while it was in use", str(file))
    return slices


@lru_cache(maxsize=MAX_MAPS)
def _mapped(file: Path) -> tuple[Int16[ndarray, "z S S"], int]:
    shape, offset = _layout(file)
    with file.open("rb") as opened:
        pages = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    slices = np.frombuffer(pages, np.int16, int(np.prod(shape)), offset).reshape(shape)
    return slices, len(pages)


def forget_maps() -> None:
    """Map and look at every file anew: some may have been written again."""
    _mapped.cache_clear()
    _layout.cache_clear()


@cache
def _layout(file: Path) -> tuple[tuple[int, ...], int]:
    """Return the shape of stored slices and where they begin: parsed once, mapped many times."""
    with file.open("rb") as opened:
        shape = _shape(opened)
        assert shape is not None, f"{file}: looked at when the store was built"
        return shape, opened.tell()


def source_key(entry: VolumeEntry, spec: InputSpec) -> str:
    """Return what identifies the source bytes and the geometry they are resampled to."""
    if entry.headers:  # as they were when the series was judged; it is refused if one changed
        stamps = sorted((header.path, *header.stamp) for header in entry.headers)
    else:
        stamps = [
            (path, *stamp(path.stat())) for path in sorted(_sources(entry.path)) if path.is_file()
        ]
    text = f"{[(str(p), size, time_ns) for p, size, time_ns in stamps]}"
    text += f" {entry.phase} {spec.size_px} {spec.fov_mm}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def remove_abandoned(folder: Path) -> None:
    """Delete what killed processes left half-written."""
    before_s = time.time() - ABANDONED_S
    for file in folder.glob(HALF_WRITTEN):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < before_s:
                file.unlink()


def _sources(path: Path) -> list[Path]:
    if path.is_dir():  # PNG slices, and the table that states their spacing
        return [*path.glob("*"), *lesion_tables(path.parent)]
    if path.suffix in (".mhd", ".nhdr"):  # a header whose voxels lie beside it
        return named_with(path.parent, f"{path.stem}.")
    return [path]


def _shape(file: BinaryIO) -> tuple[int, ...] | None:
    """Return the shape of int16 slices in C order, the file standing at the first; else None."""
    try:
        if npy.read_magic(file) != (1, 0):  # whoever maps it would read another header
            return None
        shape, in_columns, dtype = npy.read_array_header_1_0(file)
    except (ValueError, SyntaxError, TokenError):  # a damaged header
        return None
    return None if in_columns or dtype != np.int16 else shape
