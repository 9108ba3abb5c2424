"""DeepLesion folders: 16-bit slices, true positions, spacing from the table."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ubr_pretrain.stored_volumes import refused, scan
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import find_volumes, read_volume

SPACING = (2.0, 0.8, 0.7)
MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header_chunk(width: int, height: int, depth: int = 16, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(".png", picture)
    assert done
    path.write_bytes(content.tobytes())
    return path


def folder_of(root: Path, hu: np.ndarray, numbers=(40, 41, 42), name="000123_02_01") -> Path:
    folder = root / "Images_png" / name
    for number, one in zip(numbers, hu, strict=True):
        png(folder / f"{number:03d}.png", (one.astype(np.int32) + 32768).astype(np.uint16))
    return folder


def table(root: Path, *rows: str, name: str = "DL_info.csv", encoding: str = "utf-8") -> None:
    head = "File_name,Patient_index,Spacing_mm_px_"
    (root / name).write_text("\n".join([head, *rows]) + "\n", encoding=encoding)


@pytest.fixture
def hu() -> np.ndarray:
    return scan((3, 6, 5))


def test_slices_are_hu_in_the_order_of_their_numbers(tmp_path: Path, hu) -> None:
    folder = folder_of(tmp_path, hu, numbers=(9, 10, 100))
    (folder / "100.png").rename(folder / "0011.png")
    volume = read_volume(folder, spacing_mm_zyx=SPACING)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx == SPACING
    assert volume.z_mm.tolist() == [0.0, 2.0, 4.0]


def test_L22_disjoint_ranges_stay_apart(tmp_path: Path, hu) -> None:
    """The numbers of the files show the gap: groups never span it."""
    volume = read_volume(folder_of(tmp_path, hu, (40, 41, 50)), spacing_mm_zyx=SPACING)
    assert volume.z_mm.tolist() == [0.0, 2.0, 20.0]
    assert volume.runs == (range(2), range(2, 3))


def test_values_outside_the_body_are_clipped_to_air(tmp_path: Path, hu) -> None:
    hu[:, 0, 0] = -32768
    volume = read_volume(folder_of(tmp_path, hu), spacing_mm_zyx=SPACING)
    assert (volume.hu[:, 0, 0] == -1024).all()


def test_spacing_comes_from_the_table_beside_images_png(tmp_path: Path, hu) -> None:
    folder = folder_of(tmp_path, hu)
    table(
        tmp_path,
        '000123_02_01_040.png,123,"0.7, 0.8, 2"',
        '000123_02_02_040.png,123,"0.9, 0.9, 5"',
        '000123_02_01_042.png,123,"0.7, 0.8, 2"',
        encoding="utf-8-sig",
    )
    assert read_volume(folder).spacing_mm_zyx == SPACING
    assert read_volume(folder, spacing_mm_zyx=(1, 1, 1)).spacing_mm_zyx == (1.0, 1.0, 1.0)


def test_a_corrected_table_is_read_again(tmp_path: Path, hu) -> None:
    folder = folder_of(tmp_path, hu)
    table(tmp_path, '000123_02_01_040.png,123,"0.7, 0.8, 0"')
    refused(folder, "E-SPACING")
    table(tmp_path, '000123_02_01_040.png,123,"0.7, 0.8, 2.0"')
    assert read_volume(folder).spacing_mm_zyx == SPACING


@pytest.mark.parametrize(
    "spacing", ["", "0.7, 0.8, 0", "0.7, 0.8, -2", "0.7, 0.8, NaN", "0.7, 0.8", "a, b, c"]
)
def test_L15_a_table_row_without_a_spacing(tmp_path: Path, hu, spacing: str) -> None:
    """The series is refused with E-SPACING."""
    folder = folder_of(tmp_path, hu)
    table(tmp_path, f'000123_02_01_040.png,123,"{spacing}"')
    refused(folder, "E-SPACING", "000123_02_01")


def test_L15_without_a_table_or_a_row_the_hint_says_what_to_do(tmp_path: Path, hu) -> None:
    """Without a table or a row the refusal says what to do."""
    folder = folder_of(tmp_path, hu)
    refused(folder, "E-SPACING", "no DL_info*.csv found", "spacing_mm_zyx")
    table(tmp_path, '000999_02_01_040.png,123,"0.7, 0.8, 2"', name="DL_info_part.csv")
    refused(folder, "E-SPACING", "DL_info_part.csv")


def test_L15_rows_and_tables_that_contradict_each_other(tmp_path: Path, hu) -> None:
    """Rows that contradict each other are refused with both values."""
    folder = folder_of(tmp_path, hu)
    table(tmp_path, '000123_02_01_040.png,123,"0.7, 0.8, 2"')
    table(tmp_path, '000123_02_01_040.png,123,"0.7, 0.8, 5"', name="DL_info_2.csv")
    refused(folder, "E-SPACING", "0.7, 0.8, 2 / 0.7, 0.8, 5")


def test_one_slice_number_under_two_names(tmp_path: Path, hu) -> None:
    folder = folder_of(tmp_path, hu)
    (folder / "40.png").write_bytes((folder / "040.png").read_bytes())
    refused(folder, "E-DUP", "040.png", "40.png")


@pytest.mark.parametrize(
    ("picture", "code", "word"),
    [
        (np.zeros((6, 5), np.uint8), "E-FORMAT", "8 bits"),
        (np.zeros((6, 5, 3), np.uint8), "E-RGB", "RGB"),
        (np.zeros((6, 5, 3), np.uint16), "E-RGB", "RGB"),
        (np.zeros((6, 5, 4), np.uint16), "E-RGB", "RGBA"),
        (np.zeros((5, 5), np.uint16), "E-SIZE", "(5, 5)"),
    ],
    ids=["grey8", "rgb8", "rgb16", "rgba16", "size"],
)
def test_L21_a_picture_of_another_kind(tmp_path: Path, hu, picture, code: str, word: str) -> None:
    """8 bits, RGB, palette, alpha, or another format named .png: E-FORMAT or E-RGB; never 8-bit
    values as HU."""
    folder = folder_of(tmp_path, hu)
    png(folder / "041.png", picture)
    refused(folder, code, "041.png", word, spacing_mm_zyx=SPACING)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "E-EMPTY"),
        (b"not found", "E-FORMAT"),
        (b"\xff\xd8\xff\xe0 JFIF", "E-FORMAT"),
        (MAGIC + chunk(b"IDAT", b""), "E-FORMAT"),
        (MAGIC + header_chunk(30000, 30000), "E-SIZE-LIMIT"),
        (MAGIC + header_chunk(2**31, 1), "E-SIZE-LIMIT"),
        (MAGIC + header_chunk(0, 5), "E-SIZE-LIMIT"),
        (MAGIC + header_chunk(5, 6, depth=8, colour=3), "E-RGB"),
        (MAGIC + struct.pack(">I", 2**31) + b"IHDR", "E-TRUNC"),
    ],
    ids=["empty", "text", "jpeg", "no-ihdr", "bomb", "2^31", "zero", "palette", "length"],
)
def test_L21_V57_a_file_that_is_no_slice(tmp_path: Path, hu, content: bytes, code: str) -> None:
    """Empty, text, HTML or absurd dimensions: E-EMPTY, E-FORMAT or E-SIZE-LIMIT before anything
    is inflated."""
    folder = folder_of(tmp_path, hu)
    (folder / "041.png").write_bytes(content)
    refused(folder, code, "041.png", spacing_mm_zyx=SPACING)


@settings(max_examples=40, deadline=None)
@given(keep=st.integers(0, 999))
def test_L21_any_cut_of_a_slice_is_refused(tmp_path_factory, keep: int) -> None:
    """Cut at any byte it is refused."""
    folder = folder_of(tmp_path_factory.mktemp("png"), scan((1, 6, 5)), (7,))
    whole = (folder / "007.png").read_bytes()
    (folder / "007.png").write_bytes(whole[: keep * len(whole) // 1000])
    with pytest.raises(VolumeRefused, match=r"^E-(TRUNC|EMPTY|FORMAT) "):
        read_volume(folder, spacing_mm_zyx=SPACING)


def test_L21_a_lost_end_mark_is_a_truncation(tmp_path: Path, hu) -> None:
    """A lost end mark (the last 12 bytes) is E-TRUNC."""
    folder = folder_of(tmp_path, hu)
    path = folder / "041.png"
    path.write_bytes(path.read_bytes()[:-12])
    refused(folder, "E-TRUNC", "041.png", "end chunk", spacing_mm_zyx=SPACING)


@settings(max_examples=40, deadline=None)
@given(where=st.integers(8, 9999), bit=st.integers(0, 7))
def test_L21_a_flipped_bit_is_refused(tmp_path_factory, where: int, bit: int) -> None:
    """Any flipped bit is refused."""
    folder = folder_of(tmp_path_factory.mktemp("png"), scan((1, 6, 5)), (7,))
    content = bytearray((folder / "007.png").read_bytes())
    content[where % len(content)] ^= 1 << bit
    (folder / "007.png").write_bytes(content)
    with pytest.raises(VolumeRefused):
        read_volume(folder, spacing_mm_zyx=SPACING)


def test_L21_pixels_that_end_early_inside_whole_chunks_are_damaged(tmp_path: Path, hu) -> None:
    """Pixels that end early inside whole chunks are E-CRC."""
    folder = folder_of(tmp_path, hu)
    short = zlib.compress(bytes(3 * 11))  # three of six rows
    (folder / "041.png").write_bytes(
        MAGIC + header_chunk(5, 6) + chunk(b"IDAT", short) + chunk(b"IEND", b"")
    )
    refused(folder, "E-CRC", "041.png", spacing_mm_zyx=SPACING)


def test_a_folder_has_a_ceiling(tmp_path: Path, hu) -> None:
    refused(
        folder_of(tmp_path, hu), "E-SIZE-LIMIT", "180 bytes", max_bytes=179, spacing_mm_zyx=SPACING
    )


def test_folders_are_found_with_their_patients(tmp_path: Path, hu) -> None:
    folder_of(tmp_path, hu, name="000123_02_01")
    folder_of(tmp_path, hu, name="000123_03_01")
    folder_of(tmp_path, hu, name="phantom_7")
    (tmp_path / "Images_png" / "cover.png").write_bytes(b"x")
    cohort = find_volumes([tmp_path])
    assert [(entry.name, entry.subject) for entry in cohort] == [
        ("000123_02_01", "000123"),
        ("000123_03_01", "000123"),
        ("phantom_7", "phantom_7"),
    ]
    assert cohort.skipped == {"not a volume": 1}
    np.testing.assert_array_equal(cohort[0].read(spacing_mm_zyx=SPACING).hu, hu)
