"""A folder of DeepLesion slices, numbered 16-bit grey PNGs with HU = value - 32768, to a `Volume`.

The slices run superior -> inferior, and a folder holds the union of several disjoint ranges: the
numbers say where a slice lies, and `Volume.runs` shows what is contiguous.

Reference:
    Yan et al., "DeepLesion", J. Med. Imaging 5(3), 2018; https://nihcc.app.box.com/v/DeepLesion.
"""

from __future__ import annotations

import csv
import re
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.bounded_file import MAX_TABLE_BYTES, require_at_most
from ubr_pretrain.ct import AIR_HU, Volume, VolumeRefused
from ubr_pretrain.folder_names import lesion_tables
from ubr_pretrain.reading_rules import (
    MAX_SIDE_PX,
    SPACING_HINT,
    ReadingRules,
    check_spacing,
)
from ubr_pretrain.sparse_volume import plan_reading
from ubr_pretrain.stored_file import PNG_MAGIC, StoredFile, describe

HU_OFFSET = 32768
SLICE_NAME = re.compile(r"(\d+)\.png", re.ASCII | re.IGNORECASE)
MAX_FILE_BYTES = 3 * MAX_SIDE_PX**2
"""More than the incompressible pixels of the largest slice."""

GREY = 0
COLOUR_NAMES = {2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
TABLE_HINT = f"put DL_info.csv beside the Images_png folder; {SPACING_HINT}"


def slice_number(path: Path) -> int | None:
    """Return the number of a slice file such as ``040.png``, or None for any other name."""
    match = SLICE_NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def read_png_folder(folder: Path, rules: ReadingRules) -> Volume:
    """Read all numbered slices of a folder.

    ``z_mm`` is the number times the slice interval, so a missing number is a gap of true width.

    Raises:
        VolumeRefused: E-MISSING, E-NODATA, E-DUP, E-SPACING, E-SIZE, E-SIZE-LIMIT, E-FORMAT, E-RGB,
            E-TRUNC, E-CRC, E-EMPTY, E-NOTFILE.
    """
    numbered: dict[int, Path] = {}
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise VolumeRefused("E-MISSING", folder, f"cannot be listed: {error.strerror}") from error
    for file in files:
        number = slice_number(file)
        if number is None:
            continue
        if number in numbered:
            raise VolumeRefused("E-DUP", file, f"and {numbered[number].name} are one slice number")
        numbered[number] = file
    if not numbered:
        raise VolumeRefused("E-NODATA", folder, "holds no numbered .png slices")
    spacing_mm = rules.spacing_mm_zyx or table_spacing_mm(folder)
    numbers = np.array(sorted(numbered), dtype=np.float64)
    z_mm = (numbers - numbers[0]) * spacing_mm[0]
    files = [numbered[number] for number in sorted(numbered)]
    plan = plan_reading(z_mm, spacing_mm[0], rules.stride_mm)
    if plan is None:
        return Volume(_read_all(files, rules), spacing_mm, z_mm, str(folder))
    hu = _read_all([files[n] for n in plan.read_index], rules)
    return plan.sparse(Volume(hu, spacing_mm, z_mm[plan.read_index], str(folder)))


def read_png_slice(path: Path) -> NDArray[np.int16]:
    """Read one slice: int16 HU [y, x], clipped to ``AIR_HU`` from below.

    Raises:
        VolumeRefused: as in `read_stored_slice`.
    """
    return stored_to_hu(read_stored_slice(path))


def stored_to_hu(stored: NDArray[np.uint16]) -> NDArray[np.int16]:
    """Return what a slice means, clipped to ``AIR_HU`` from below."""
    return np.maximum(stored.astype(np.int32) - HU_OFFSET, AIR_HU).astype(np.int16)


def read_stored_slice(path: Path) -> NDArray[np.uint16]:
    """Read one slice as it is stored: HU + 32768, [y, x].

    Raises:
        VolumeRefused: E-MISSING, E-NOTFILE, E-EMPTY, E-FORMAT, E-RGB, E-SIZE-LIMIT, E-TRUNC, E-CRC.
    """
    with StoredFile(path) as file:
        if file.format != "png" or file.gzipped:
            raise VolumeRefused("E-FORMAT", path, f"is no PNG: {describe(file.head)}")
        if file.size > MAX_FILE_BYTES:
            raise VolumeRefused("E-SIZE-LIMIT", path, f"{file.size} bytes, limit {MAX_FILE_BYTES}")
        content = file.stream.read()
    stored = decode_png(content, path, _check_picture)
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise VolumeRefused("E-FORMAT", path, f"decodes to {stored.dtype}{stored.shape}")
    return stored


def table_spacing_mm(folder: Path) -> tuple[float, float, float]:
    """Return the spacing (z, y, x) of a slice folder from the ``DL_info*.csv`` beside Images_png.

    Raises:
        VolumeRefused: E-SPACING: no table, no row, a value that is no spacing, or rows that
            contradict each other.
    """
    tables = lesion_tables(folder.resolve().parent)
    found: set[str] = set()
    for table in tables:
        try:
            require_at_most(table, MAX_TABLE_BYTES)
        except ValueError as error:
            raise VolumeRefused("E-SPACING", folder, f"has no spacing ({error})") from error
        stat = table.stat()
        found |= _spacings(table, stat.st_size, stat.st_mtime_ns).get(folder.name, frozenset())
    if not found:
        where = ", ".join(table.name for table in tables) or "no DL_info*.csv found"
        raise VolumeRefused("E-SPACING", folder, f"has no spacing ({where})", TABLE_HINT)
    if len(found) > 1:
        raise VolumeRefused(
            "E-SPACING",
            folder,
            f"has contradicting spacings: {' / '.join(sorted(found))}",
            SPACING_HINT,
        )
    (text,) = found
    try:
        x, y, z = (float(word) for word in text.split(","))
    except ValueError as error:
        raise VolumeRefused(
            "E-SPACING", folder, f"Spacing_mm_px_ {text!r} is not x, y, z", TABLE_HINT
        ) from error
    check_spacing(folder, (z, y, x))
    return z, y, x


@lru_cache(maxsize=8)
def _spacings(table: Path, size: int, mtime_ns: int) -> dict[str, frozenset[str]]:
    """Return the spacing texts of every series of a table; size and time key the cache."""
    del size, mtime_ns
    spacings: dict[str, set[str]] = {}
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for row in csv.DictReader(file):
            series = (row.get("File_name") or "").rpartition("_")[0]
            spacings.setdefault(series, set()).add((row.get("Spacing_mm_px_") or "").strip())
    return {series: frozenset(texts) for series, texts in spacings.items()}


def _read_all(files: list[Path], rules: ReadingRules) -> NDArray[np.int16]:
    slices: list[NDArray[np.int16]] = []
    for file in files:
        one = read_png_slice(file)
        if slices and one.shape != slices[0].shape:
            raise VolumeRefused(
                "E-SIZE", file, f"{one.shape} pixels, {files[0].name} has {slices[0].shape}"
            )
        if len(files) * one.nbytes > rules.max_bytes:
            raise VolumeRefused(
                "E-SIZE-LIMIT",
                file.parent,
                f"{len(files) * one.nbytes} bytes of HU, limit {rules.max_bytes}",
            )
        slices.append(one)
    return np.stack(slices)


def decode_png(
    content: bytes, path: Path, check_header: Callable[[int, int, int, int, Path], None]
) -> NDArray[Any]:
    """Return the pixels of a PNG, once every checksum was found right.

    Args:
        content: of the file, from its first byte.
        path: of the file.
        check_header: as in ``_check_chunks``.

    Raises:
        VolumeRefused: E-TRUNC, E-CRC, E-FORMAT, and what ``check_header`` raises.
    """
    _check_chunks(content, path, check_header)
    stored = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise VolumeRefused("E-CRC", path, "the compressed pixels are damaged")
    return stored


def _check_chunks(
    content: bytes, path: Path, check_header: Callable[[int, int, int, int, Path], None]
) -> None:
    """Walk the chunks of a PNG: header first, every checksum, to the end chunk.

    Args:
        content: of the file, from its first byte.
        path: of the file.
        check_header: is given width, height, bits of a channel and colour type before anything
            else is looked at, and refuses what it does not want.

    Raises:
        VolumeRefused: E-TRUNC, E-CRC, E-FORMAT.
    """
    place, first = len(PNG_MAGIC), True
    while True:
        head = content[place : place + 8]
        if len(head) < 8:
            raise VolumeRefused("E-TRUNC", path, "ends before the end chunk of the PNG")
        length, kind = struct.unpack(">I4s", head)
        body_end = place + 8 + length
        if len(content) < body_end + 4:
            raise VolumeRefused(
                "E-TRUNC", path, f"lacks {body_end + 4 - len(content)} bytes of a PNG chunk"
            )
        (stated,) = struct.unpack(">I", content[body_end : body_end + 4])
        if zlib.crc32(content[place + 4 : body_end]) != stated:
            raise VolumeRefused("E-CRC", path, f"PNG chunk {kind!r} fails its checksum")
        if first and (kind != b"IHDR" or length != 13):
            raise VolumeRefused("E-FORMAT", path, "its first PNG chunk is not the header")
        if first:
            width, height, depth, colour = struct.unpack(">IIBB", content[place + 8 : place + 18])
            check_header(width, height, depth, colour, path)
        if kind == b"IEND":
            return
        place, first = body_end + 4, False


def _check_picture(width: int, height: int, depth: int, colour: int, path: Path) -> None:
    """Refuse what is not 16-bit grey of a possible size, before a pixel is decompressed."""
    if colour != GREY:
        name = COLOUR_NAMES.get(colour, f"colour type {colour}")
        raise VolumeRefused("E-RGB", path, f"is a {name} picture, not 16-bit grey")
    if depth != 16:
        raise VolumeRefused(
            "E-FORMAT", path, f"has {depth} bits: values would be {-HU_OFFSET} HU and a little more"
        )
    check_size(width, height, path)


def check_size(width: int, height: int, path: Path) -> None:
    """Refuse a slice without pixels, or larger than any.

    Raises:
        VolumeRefused: E-SIZE-LIMIT.
    """
    if not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE_PX:
        raise VolumeRefused(
            "E-SIZE-LIMIT", path, f"claims {width} x {height} pixels, limit {MAX_SIDE_PX}"
        )
