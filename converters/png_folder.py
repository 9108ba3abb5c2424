"""DeepLesion's ``Images_png``: which slices are there, and what their headers say.

Three depths, each including the one before: ``headers`` reads the header and the end of a file,
``checksums`` every chunk with its CRC, ``pixels`` decodes the slice and looks at its values.

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
from typing import BinaryIO, Literal

import cv2
import numpy as np

from converters.deeplesion_row import MAX_SIDE_PX
from converters.lesions import KeySlice

Depth = Literal["headers", "checksums", "pixels"]

STORED_ZERO_HU = 32768
"""DeepLesion stores HU + 32768."""

BODY_HU = (-1100, 4095)
"""Of air to metal; a slice has at least ``LEAST_IN_RANGE`` of its pixels here.

Outside the circular field of view some scanners store -2048 or less: up to 21 % of a real slice.
"""

LEAST_IN_RANGE = 0.5

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_IN_FOLDER = re.compile(r"(\d{3,})\.png", re.ASCII)
_BESIDE = re.compile(r"(\d{6}_\d{2,}_\d{2,})_(\d{3,})\.png", re.ASCII)
_SERIES = re.compile(r"\d{6}_\d{2,}_\d{2,}", re.ASCII)


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
        self._listed: dict[str, dict[int, str]] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What lies in the root, sorted."""
        return tuple(sorted(path.name for path in self.root.iterdir()))

    @cached_property
    def beside(self) -> dict[str, dict[int, str]]:
        """The slices that lie in the root itself, by series."""
        found: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for name in self.names:
            if match := _BESIDE.fullmatch(name):
                found[match[1]][int(match[2])] = name
        return dict(found)

    @cached_property
    def series(self) -> tuple[str, ...]:
        """Every series of which there is a folder or a slice, sorted."""
        folders = {name for name in self.names if _SERIES.fullmatch(name)}
        return tuple(sorted(folders | self.beside.keys()))

    def slices(self, series: str) -> dict[int, str]:
        """Return the file of every slice number of a series, relative to the root."""
        if series not in self._listed:
            found = dict(self.beside.get(series, {}))
            for name in self.in_folder(series):
                if match := _IN_FOLDER.fullmatch(name):
                    found[int(match[1])] = f"{series}/{name}"
            self._listed[series] = found
        return self._listed[series]

    def in_folder(self, series: str) -> list[str]:
        """Return what lies in the folder of a series, sorted; nothing where it is none."""
        folder = self.root / series
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def strays(self) -> list[str]:
        """Return what has no DeepLesion name, relative to the root."""
        return [
            *(n for n in self.names if not (_SERIES.fullmatch(n) or _BESIDE.fullmatch(n))),
            *(
                f"{series}/{name}"
                for series in self.series
                for name in self.in_folder(series)
                if not _IN_FOLDER.fullmatch(name)
            ),
        ]

    def require_slice(self, name: str, key_slice: KeySlice, depth: Depth = "headers") -> None:
        """Check that a file is a whole 16-bit grey PNG of the size that the table states.

        With the depth ``pixels`` also that it can be decoded, and that its values are HU + 32768.

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
                if depth != "headers":
                    _require_checksums(file)
        except OSError as error:
            raise PngRefused("E-MISSING", f"cannot be read ({error.strerror})") from error
        if (width, height) != (key_slice.width_px, key_slice.height_px):
            raise PngRefused(
                "E-SIZE",
                f"the PNG is {width}x{height}, Image_size says "
                f"{key_slice.width_px}x{key_slice.height_px}; boxes are never rescaled",
            )
        if depth == "pixels":
            _require_hu(path)


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


def _require_hu(path: Path) -> None:
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise PngRefused("E-FORMAT", "its pixels cannot be decoded")
    low, high = int(stored.min()), int(stored.max())
    if low == high:
        raise PngRefused("E-BLANK", f"every pixel is {low}")
    hu = stored.astype(np.int32) - STORED_ZERO_HU
    share = float(((hu >= BODY_HU[0]) & (hu <= BODY_HU[1])).mean())
    if share < LEAST_IN_RANGE:
        raise PngRefused(
            "E-NOHU",
            f"values {low} to {high}, {share:.0%} of them HU {BODY_HU[0]} to {BODY_HU[1]} + "
            f"{STORED_ZERO_HU}, at least {LEAST_IN_RANGE:.0%} must be",
        )


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
