"""A file on disk whose bytes are checked while they are read: kind, length, checksum, ceiling.

Every voxel comes through `StoredFile.blocks`, so the bytes that were checked are the bytes that are
used; a reader below us that returns zeros for a missing tail, or skips a checksum, is not asked.
Streams are inflated by ISA-L where the ``isal`` package is installed, in half the time that zlib
needs; both check the same checksums.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused

inflater: Any = zlib
with suppress(ImportError):  # there is no wheel for some processors
    from isal import isal_zlib

    inflater = isal_zlib

HEAD_BYTES = 1024
CHUNK_BYTES = 1 << 16
MAX_DEFLATE_RATIO = 1032
"""Deflate cannot expand a byte to more than this (zlib.net, "Maximum Compression Factor")."""

GZIP_MAGIC = b"\x1f\x8b"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class StoredFile:
    """A regular, non-empty file, opened for reading; gzip around it is removed (``ungzip``).

    Attributes:
        path: the file.
        size: its bytes on disk.
        stamp: changes when its content does.
        head: the first bytes of its content (after gzip, if any).
        gzipped: whether the whole file is a gzip stream that is removed.
        stream: its content from the first byte.
    """

    def __init__(self, path: Path, *, ungzip: bool = True) -> None:
        """Open ``path``.

        Raises:
            VolumeRefused: E-MISSING, E-NOTFILE, E-EMPTY, E-CRC.
        """
        self.path = path
        try:
            node = path.stat()
            if not stat.S_ISREG(node.st_mode):  # before open: a FIFO would block for ever
                raise VolumeRefused("E-NOTFILE", path, f"is {_kind_of_node(node.st_mode)}")
            self._file = path.open("rb")
            raw_head = self._file.read(HEAD_BYTES)
            self._file.seek(0)
        except (OSError, ValueError) as error:
            if isinstance(error, VolumeRefused):
                raise
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise VolumeRefused("E-MISSING", path, f"cannot be opened: {reason}") from error
        self.size, self.stamp = node.st_size, stamp(node)
        if self.size == 0:
            self._file.close()
            raise VolumeRefused("E-EMPTY", path, "holds 0 bytes")
        self.gzipped = ungzip and raw_head.startswith(GZIP_MAGIC)
        self.head = self._inflated_head(raw_head) if self.gzipped else raw_head
        self.stream: BinaryIO = self._inflated(self._file) if self.gzipped else self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def format(self) -> str:
        """What the content is by its magic bytes: nifti, nrrd, metaimage, dicom, png or ''."""
        if self.head[128:132] == b"DICM":
            return "dicom"
        if self.head[344:347] in (b"n+1", b"ni1") or self.head[4:7] in (b"n+2", b"ni2"):
            return "nifti"
        if self.head.startswith(b"NRRD0"):
            return "nrrd"
        if self.head.startswith(PNG_MAGIC):
            return "png"
        words = self.head.split(b"=", 1)[0].strip()
        return "metaimage" if words in (b"ObjectType", b"NDims", b"Comment") else ""

    def inflate_rest(self) -> None:
        """Take what follows in `stream` as a gzip or zlib stream."""
        self.stream = self._inflated(self.stream)

    def skip(self, num_bytes: int) -> None:
        """Pass over ``num_bytes`` of the content.

        Raises:
            VolumeRefused: E-TRUNC.
        """
        left = num_bytes
        while left > 0:
            passed = len(self.stream.read(min(left, CHUNK_BYTES)))
            if not passed:
                raise self._too_short(num_bytes, num_bytes - left, "", "before the voxels")
            left -= passed

    def blocks(
        self,
        num_bytes: int,
        block_bytes: int,
        max_bytes: int,
        chosen: Collection[int] | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Read exactly the rest of the file, which must be ``num_bytes`` long, in blocks.

        A length that cannot be is refused at once, before the caller makes room. What follows the
        voxels is checked after the last block: who is to believe any of them takes all.

        Args:
            num_bytes: that the header declares.
            block_bytes: of one block.
            max_bytes: that a caller accepts.
            chosen: numbers of the blocks that are returned; the others are not read from the disk
                unless a stream has to be inflated up to them. None: all.

        Returns:
            uint8 [block_bytes] one by one, the last may be shorter; the next one overwrites it.

        Raises:
            VolumeRefused: E-TRUNC (fewer bytes), E-FORMAT (more bytes), E-CRC (damaged
                compression), E-SIZE-LIMIT, E-MISSING (the file changed meanwhile).
        """
        inflating = self.stream is not self._file
        most = self.size * MAX_DEFLATE_RATIO if inflating else max(0, self.size - self._file.tell())
        if num_bytes > most:
            raise self._too_short(num_bytes, most, "at most " if inflating else "")
        if num_bytes > max_bytes:
            raise VolumeRefused(
                "E-SIZE-LIMIT",
                self.path,
                f"declares {num_bytes} bytes of voxels, limit {max_bytes}",
                "if the file is to be trusted, in Python: read_volume(..., max_bytes=...)",
            )
        return self._blocks(num_bytes, block_bytes, None if chosen is None else set(chosen))

    def _blocks(
        self, num_bytes: int, block_bytes: int, chosen: set[int] | None
    ) -> Iterator[NDArray[np.uint8]]:
        block = np.empty(min(block_bytes, num_bytes), dtype=np.uint8)
        for number, first in enumerate(range(0, num_bytes, block_bytes)):
            part = block[: min(block_bytes, num_bytes - first)]
            is_chosen = chosen is None or number in chosen
            if not is_chosen and self.stream is self._file:
                self.stream.seek(len(part), os.SEEK_CUR)
                continue
            filled = 0
            while filled < len(part):
                count = self.stream.readinto(part.data[filled:])  # type: ignore[attr-defined]
                if not count:
                    raise self._too_short(num_bytes, first + filled, "")
                filled += count
            if is_chosen:
                yield part
        if self.stream.read(1):
            raise VolumeRefused(
                "E-FORMAT", self.path, f"goes on after the {num_bytes} bytes of voxels it declares"
            )
        if stamp(os.fstat(self._file.fileno())) != self.stamp:
            raise VolumeRefused("E-MISSING", self.path, "changed while it was being read")

    def _inflated_head(self, raw_head: bytes) -> bytes:
        try:
            # zlib also judges the flags of a gzip header
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(raw_head, HEAD_BYTES)
        except zlib.error as error:
            self._file.close()
            raise _damaged(self.path, error) from error

    def _inflated(self, source: BinaryIO) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_InflatedStream(source, self.path), CHUNK_BYTES))

    def _too_short(
        self, expected: int, found: int, bound: str, part: str = "of voxels"
    ) -> VolumeRefused:
        return VolumeRefused(
            "E-TRUNC",
            self.path,
            f"declares {expected} bytes {part}, holds {bound}{found}",
            "copy or download it again",
        )


class _InflatedStream(io.RawIOBase):
    """The content of a gzip (one member or several) or zlib stream, checked to its last byte."""

    def __init__(self, source: BinaryIO, path: Path) -> None:
        self._source, self._path = source, path
        self._engine, self._pending = inflater.decompressobj(zlib.MAX_WBITS | 32), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while True:
            if self._engine.eof and not self._next_member():
                return 0
            chunk = self._pending or self._source.read(CHUNK_BYTES)
            if not chunk:
                raise VolumeRefused(
                    "E-TRUNC",
                    self._path,
                    "the compressed stream ends before its end mark and checksum",
                    "copy or download it again",
                )
            try:
                data = self._engine.decompress(chunk, len(view))
            except inflater.error as error:
                raise _damaged(self._path, error) from error
            # At the end of a member zlib leaves what follows in unused_data and here.
            self._pending = b"" if self._engine.eof else self._engine.unconsumed_tail
            if data:
                view[: len(data)] = data
                return len(data)

    def _next_member(self) -> bool:
        rest = self._engine.unused_data + self._source.read(2)
        if not rest:
            return False
        if not rest.startswith(GZIP_MAGIC):
            raise VolumeRefused("E-FORMAT", self._path, "bytes follow the end of the gzip stream")
        self._engine, self._pending = inflater.decompressobj(zlib.MAX_WBITS | 16), rest
        return True


def _damaged(path: Path, error: Exception) -> VolumeRefused:
    return VolumeRefused(
        "E-CRC", path, f"the compressed stream is damaged ({error})", "copy or download it again"
    )


def stamp(node: os.stat_result) -> tuple[int, int]:
    """Return what changes when a file is written to: its size and time."""
    return node.st_size, node.st_mtime_ns


def describe(head: bytes) -> str:
    """Say what a file looks like from its first bytes, for one that is no volume."""
    if not head:
        return "holds nothing"
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "looks like a web page (HTML or XML)"
    if start.startswith(b"version https://git-lfs"):
        return "looks like a Git LFS pointer; fetch the file itself"
    for magic, name in (
        (b"\xff\xd8\xff", "a JPEG picture"),
        (PNG_MAGIC, "a PNG picture"),
        (b"PK\x03\x04", "a zip archive; unpack it"),
        (GZIP_MAGIC, "a gzip file"),
        (b"%PDF", "a PDF document"),
    ):
        if head.startswith(magic):
            return f"looks like {name}"
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head[:256]):
        return "looks like text"
    return f"begins with {head[:8].hex(' ')}"


def _kind_of_node(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return f"{name}, not a file"
    return "a device, not a file"
