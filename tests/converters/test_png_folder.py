"""Images_png: both forms of names, and headers that cannot hold a DeepLesion slice."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from converters.deeplesion import read_deeplesion
from converters.lesions import KeySlice
from converters.png_folder import Depth, PngFolder, PngRefused
from tests.converters.conftest import MakeRow, WritePng, WriteTable, png_bytes

GOOD = png_bytes(512, 512)


@pytest.fixture
def key_slice(make_row: MakeRow, write_table: WriteTable) -> KeySlice:
    return read_deeplesion(write_table([make_row()])).lesions[0].key_slice


def test_L12_both_forms_of_names_are_found_and_nothing_else(images: Path, write_png: WritePng):
    """Both forms are found on the disk; whatever else lies there is no slice."""
    for name in (
        "000012_03_01/040.png",
        "000012_03_01/1041.png",
        "000012_03_01_042.png",
        "000012_03_01_040.png",  # also in the folder, which wins
        "000012_03_02_043.png",  # another series
        "000012_03_01/40.jpg",
        "000012_03_01/._044.png",
    ):
        write_png(name)
    assert PngFolder(images).slices("000012_03_01") == {
        40: "000012_03_01/040.png",
        1041: "000012_03_01/1041.png",
        42: "000012_03_01_042.png",
    }
    assert PngFolder(images).slices("000099_01_01") == {}


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(NotADirectoryError, match="not a folder"):
        PngFolder(tmp_path / "absent")


@pytest.mark.parametrize("depth", ["headers", "checksums"])
def test_a_whole_png_of_the_stated_size_passes(
    depth: Depth, images: Path, write_png: WritePng, key_slice: KeySlice
):
    path = write_png("000012_03_01/040.png")
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    PngFolder(images).require_slice("000012_03_01/040.png", key_slice, depth)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E-EMPTY"),
        (b"<html>not found</html>", "E-FORMAT"),
        (b"\xff\xd8\xff\xe0 JPEG renamed", "E-FORMAT"),
        (GOOD[:20], "E-TRUNC"),
        (GOOD[: len(GOOD) // 2], "E-TRUNC"),
        (GOOD[:-12], "E-TRUNC"),
        (png_bytes(512, 512, bits=8), "E-FORMAT"),
        (png_bytes(512, 512, colour=2), "E-RGB"),
        (png_bytes(8, 5000), "E-SIZE-LIMIT"),
    ],
)
def test_L21_a_png_that_cannot_hold_a_slice_is_refused(
    data: bytes, code: str, images: Path, write_png: WritePng, key_slice: KeySlice
):
    """The converter refuses it with E-EMPTY, E-FORMAT, E-RGB, E-TRUNC or E-SIZE-LIMIT, read
    from its header."""
    write_png("000012_03_01/040.png", data)
    with pytest.raises(PngRefused) as refusal:
        PngFolder(images).require_slice("000012_03_01/040.png", key_slice)
    assert refusal.value.code == code


@pytest.mark.parametrize("at", [0.3, 0.5, 0.9])
def test_L21_a_flipped_byte_is_found_with_checksums(
    at: float, images: Path, write_png: WritePng, key_slice: KeySlice
):
    """With --check-images checksums a flipped byte is E-CRC."""
    damaged = bytearray(GOOD)
    damaged[round(at * len(damaged))] ^= 1
    write_png("000012_03_01/040.png", bytes(damaged))
    folder = PngFolder(images)
    folder.require_slice("000012_03_01/040.png", key_slice)
    with pytest.raises(PngRefused) as refusal:
        folder.require_slice("000012_03_01/040.png", key_slice, "checksums")
    assert refusal.value.code in ("E-CRC", "E-TRUNC")


def test_L14_a_png_of_another_size_is_refused_with_both_sizes(
    images: Path, write_png: WritePng, key_slice: KeySlice
):
    """Both sizes are named; boxes are never rescaled."""
    write_png("000012_03_01/040.png", png_bytes(256, 512))
    with pytest.raises(PngRefused, match="PNG is 256x512, Image_size says 512x512"):
        PngFolder(images).require_slice("000012_03_01/040.png", key_slice)
    wide = replace(key_slice, width_px=256)
    PngFolder(images).require_slice("000012_03_01/040.png", wide)


def test_a_folder_with_a_png_name_is_no_slice(images: Path, key_slice: KeySlice):
    (images / "000012_03_01" / "040.png").mkdir(parents=True)
    with pytest.raises(PngRefused, match="E-NOTFILE"):
        PngFolder(images).require_slice("000012_03_01/040.png", key_slice)


@pytest.mark.real
def test_every_real_slice_passes_with_checksums(real_deeplesion: Path):
    folder = PngFolder(real_deeplesion / "Images_png")
    lesions = read_deeplesion(real_deeplesion / "DL_info_with_pixels.csv").lesions
    slices = {lesion.key_slice for lesion in lesions}
    for key_slice in slices:
        name = folder.slices(key_slice.series)[key_slice.key_slice_index]
        folder.require_slice(name, key_slice, "checksums")
    assert len(slices) == 50
