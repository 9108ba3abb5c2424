"""DeepLesion's ``Images_png``: which slices are there, and what their headers say.

Only headers and ends of files are read here; the pixels are read where they are used.
With ``checksums`` every chunk is read and its CRC compared as well.

Reference:
    PNG: W3C Portable Network Graphics, third edition, sections 5 (chunks) and 11.2.1 (IHDR).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from converters.deeplesion_row import MAX_SIDE_PX
from converters.lesions import KeySlice

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_IN_FOLDER = re.compile(r"(\d{3,})\.png", re.ASCII)
_BESIDE = re.compile(r"(\d{6}_\d{2,}_\d{2,})_(\d{3,})\.png", re.ASCII)


class PngRefused(ValueError):  # noqa: N818
    """A PNG that cannot hold a DeepLesion slice; ``code`` says which rule it breaks."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code}  {text}")


class PngFolder:
    """The slices of an ``Images_png`` folder.

    They are named ``000001_01_01/109.png``, or lie in one folder as ``000001_01_01_109.png``.

    Args:
        root: the folder.

    Raises:
        NotADirectoryError: ``root`` is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotADirectoryError(f"{root}: not a folder")
        self.root = root

    @cached_property
    def _beside(self) -> dict[str, dict[int, str]]:
        found: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for path in self.root.iterdir():
            if match := _BESIDE.fullmatch(path.name):
                found[match[1]][int(match[2])] = path.name
        return dict(found)

    def slices(self, series: str) -> dict[int, str]:
        """Return the file of every slice number of a series, relative to the root."""
        found = dict(self._beside.get(series, {}))
        if (self.root / series).is_dir():
            for path in (self.root / series).iterdir():
                if match := _IN_FOLDER.fullmatch(path.name):
                    found[int(match[1])] = f"{series}/{path.name}"
        return found

    def require_slice(self, name: str, key_slice: KeySlice, *, checksums: bool = False) -> None:
        """Check that a file is a whole 16-bit grey PNG of the size that the table states.

        Raises:
            PngRefused: naming the value found and the rule.
        """
        path = self.root / name
        if not path.is_file():
            raise PngRefused("E-NOTFILE", "not a regular file")
        try:
            with path.open("rb") as file:
                width, height = _read_size(file)
                _require_end(file)
                if checksums:
                    _require_checksums(file)
        except OSError as error:
            raise PngRefused("E-MISSING", f"cannot be read ({error.strerror})") from error
        if (width, height) != (key_slice.width_px, key_slice.height_px):
            raise PngRefused(
                "E-SIZE",
                f"the PNG is {width}x{height}, Image_size says "
                f"{key_slice.width_px}x{key_slice.height_px}; boxes are never rescaled",
            )


def _read_size(file: BinaryIO) -> tuple[int, int]:
    """Return width and height of a 16-bit grey PNG."""
    head = file.read(33)
    if not head:
        raise PngRefused("E-EMPTY", "0 bytes")
    if not head.startswith(_SIGNATURE):
        raise PngRefused("E-FORMAT", f"not a PNG (begins with {head[:8]!r})")
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise PngRefused("E-TRUNC", f"{len(head)} bytes hold no PNG header")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if max(width, height) > MAX_SIDE_PX:
        raise PngRefused("E-SIZE-LIMIT", f"{width}x{height}, at most {MAX_SIDE_PX} px a side")
    if colour != 0:
        raise PngRefused("E-RGB", f"PNG colour type {colour}, must be 0 (grey)")
    if bits != 16:
        raise PngRefused("E-FORMAT", f"{bits}-bit: HU = value - 32768 needs 16 bits")
    return width, height


def _require_end(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(_END)))
    if file.read() != _END:
        raise PngRefused("E-TRUNC", f"{size} bytes do not end with the PNG's end mark")


def _require_checksums(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(len(_SIGNATURE))
    while (at := file.tell()) < size:
        head = file.read(8)
        length = int.from_bytes(head[:4])
        if len(head) < 8 or at + length + 12 > size:
            raise PngRefused("E-TRUNC", f"the chunk at byte {at} is cut off")
        if zlib.crc32(head[4:] + file.read(length)) != int.from_bytes(file.read(4)):
            raise PngRefused("E-CRC", f"the checksum of the chunk at byte {at} does not fit")
