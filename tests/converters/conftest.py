"""Rows, PNGs and checkpoints made by hand, for the tests of the converters."""

import csv
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from converters.deeplesion import DeepLesionTable, read_deeplesion
from converters.deeplesion_row import COLUMNS

Row = dict[str, str]
MakeRow = Callable[..., Row]
WriteTable = Callable[..., Path]
WritePng = Callable[..., Path]

SOUND_ROW: Mapping[str, str] = {
    "File_name": "000012_03_01_040.png",
    "Patient_index": "12",
    "Study_index": "3",
    "Series_ID": "1",
    "Key_slice_index": "40",
    "Measurement_coordinates": "101.5, 205.25, 131.5, 225, 110, 220.125, 120, 206",
    "Bounding_boxes": "96.5, 200.25, 136.5, 230",
    "Lesion_diameters_Pixel_": "35.9, 17.3",
    "Normalized_lesion_location": "0.21, 0.4, 0.0389802",
    "Coarse_lesion_type": "4",
    "Possibly_noisy": "0",
    "Slice_range": "34, 46",
    "Spacing_mm_px_": "0.75, 0.75, 5",
    "Image_size": "512, 512",
    "DICOM_windows": "-175, 275",
    "Patient_gender": "F",
    "Patient_age": "62",
    "Train_Val_Test": "2",
}


@pytest.fixture(scope="package", autouse=True)
def _unsynced() -> Iterator[None]:
    """Hundreds of small files: waiting for the disk is what the tests of checkpoints are for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def make_row() -> MakeRow:
    """A row that is in order; keywords change cells."""

    def make(**changes: str) -> Row:
        assert changes.keys() <= set(COLUMNS)
        return {**SOUND_ROW, **changes}

    return make


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    """Write rows as a table and return its path."""

    def write(rows: Sequence[Row], name: str = "DL_info.csv") -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def png_bytes(width: int, height: int, bits: int = 16, colour: int = 0) -> bytes:
    """A whole PNG of zeros, of any header."""
    channels = {0: 1, 2: 3}[colour]
    pixels = zlib.compress(bytes((1 + width * channels * bits // 8) * height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An empty image folder."""
    folder = tmp_path / "Images_png"
    folder.mkdir()
    return folder


@pytest.fixture
def write_png(images: Path) -> WritePng:
    """Write a PNG below the image folder and return its path."""

    def write(name: str, data: bytes | None = None) -> Path:
        path = images / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png_bytes(512, 512) if data is None else data)
        return path

    return write


@pytest.fixture(scope="session")
def real_table(real_deeplesion: Path) -> DeepLesionTable:
    """Every official row at hand, read once."""
    return read_deeplesion(real_deeplesion / "DL_info_available.csv")
