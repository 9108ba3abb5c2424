"""--check-images: pixels, neighbours, what does not belong into the folder, and who is missing."""

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from converters.conversion import ConversionConfig, convert_deeplesion
from converters.deeplesion_to_coco import main
from tests.converters.conftest import MakeRow, WritePng, WriteTable, png_bytes

KEY = "000012_03_01/040.png"


def png(stored: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", stored)[1])


def slice_of(hu: np.ndarray | int, side: int = 512) -> bytes:
    """A slice with a circle of soft tissue, the rest as given."""
    y, x = np.mgrid[:side, :side] - side / 2
    values = np.where(x**2 + y**2 < (0.45 * side) ** 2, 40, hu)
    return png((values + 32768).astype(np.uint16))


SOUND = slice_of(-1000)


def check(table: Path, images: Path, out: Path, *flags: str) -> dict:
    """Convert and return conversion.json."""
    main([str(table), "--images", str(images), "--out", str(out), "--overwrite", *flags])
    return json.loads((out / "conversion.json").read_text("utf-8"))


@pytest.fixture
def table(make_row: MakeRow, write_table: WriteTable) -> Path:
    second = make_row(File_name="000012_03_01_044.png", Key_slice_index="44")
    return write_table([make_row(), second])


@pytest.fixture
def whole(images: Path, write_png: WritePng) -> Path:
    """Every slice of both ranges, 34 to 46."""
    for number in range(34, 47):
        write_png(f"000012_03_01/{number:03d}.png", SOUND)
    return images


def codes(manifest: dict, what: str) -> dict[str, int]:
    return Counter(each["code"] for each in manifest[what])


def test_a_whole_folder_gives_nothing_and_is_counted_whole(
    table: Path, whole: Path, tmp_path: Path
):
    manifest = check(table, whole, tmp_path / "coco", "--check-images")
    assert manifest["refused"] == manifest["missing"] == manifest["noticed"] == []
    counted = {label: tally["val"] for label, tally in manifest["counts"].items()}
    assert counted["slices of all Slice_range"] == counted["  that have a PNG"] == 26
    assert counted["images with the whole Slice_range"] == 2
    assert counted["images with 1 slice on each side"] == 2
    assert counted["images with 2 slices on each side"] == 2
    assert counted["images with 4 slices on each side"] == 1  # 44 + 4 lies beyond the range


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (np.zeros((512, 512), np.uint16), "E-BLANK"),
        (np.full((512, 512), 31768, np.uint16), "E-BLANK"),
        (np.arange(512 * 512, dtype=np.uint16).reshape(512, 512) % 4096, "E-NOHU"),
        (np.arange(512 * 512, dtype=np.uint16).reshape(512, 512) % 256, "E-NOHU"),
        (np.random.default_rng(0).integers(0, 65536, (512, 512)).astype(np.uint16), "E-NOHU"),
    ],
)
def test_values_that_are_not_hu_are_refused_with_the_pixels_only(
    stored: np.ndarray, code: str, table: Path, whole: Path, tmp_path: Path
):
    (whole / KEY).write_bytes(png(stored))
    assert check(table, whole, tmp_path / "coco", "--checksums")["refused"] == []
    manifest = check(table, whole, tmp_path / "coco", "--check-images")
    assert codes(manifest, "refused") == {code: 1}


@pytest.mark.parametrize("outside", [-1024, -2000, -3024, 0])
def test_what_scanners_store_outside_their_field_of_view_is_no_fault(
    outside: int, table: Path, whole: Path, tmp_path: Path
):
    (whole / KEY).write_bytes(slice_of(outside))
    assert check(table, whole, tmp_path / "coco", "--check-images")["refused"] == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E-EMPTY"),
        (SOUND[: len(SOUND) // 2], "E-TRUNC"),
        (SOUND[:100] + bytes([SOUND[100] ^ 1]) + SOUND[101:], "E-CRC"),
        (png(np.zeros((512, 512), np.uint8)), "E-FORMAT"),
        (png(np.zeros((512, 512, 3), np.uint16)), "E-RGB"),
        (slice_of(-1000, 256), "E-SIZE"),
    ],
)
def test_every_fault_of_a_key_slice_is_one_refusal(
    data: bytes, code: str, table: Path, whole: Path, tmp_path: Path
):
    (whole / KEY).write_bytes(data)
    manifest = check(table, whole, tmp_path / "coco", "--check-images")
    assert codes(manifest, "refused") == {code: 1}
    assert codes(manifest, "noticed") == {}
    images = json.loads((tmp_path / "coco" / "val.json").read_text())["images"]
    assert [image["key_slice_index"] for image in images] == [44]


def test_pixels_that_do_not_decode_are_refused(table: Path, whole: Path, tmp_path: Path):
    """Every CRC is right, but the rows are too few for the header."""
    small, large = png_bytes(512, 16), png_bytes(512, 512)
    (whole / KEY).write_bytes(large[:33] + small[33:])
    manifest = check(table, whole, tmp_path / "coco", "--check-images")
    assert set(codes(manifest, "refused")) <= {"E-FORMAT", "E-BLANK"}
    assert len(manifest["refused"]) == 1


def test_a_neighbour_that_a_detector_would_read_is_told(table: Path, whole: Path, tmp_path: Path):
    (whole / "000012_03_01/041.png").write_bytes(slice_of(-1000, 256))
    (whole / "000012_03_01/038.png").write_bytes(b"")  # 10 mm away: nobody reads it
    assert codes(check(table, whole, tmp_path / "coco"), "noticed") == {}
    manifest = check(table, whole, tmp_path / "coco", "--check-images")
    assert codes(manifest, "noticed") == {"W-NEIGHBOUR": 1}
    assert "000012_03_01/041.png: E-SIZE" in manifest["noticed"][0]["text"]


def test_what_does_not_belong_is_listed_by_name(
    table: Path, whole: Path, write_png: WritePng, tmp_path: Path
):
    (whole / ".DS_Store").write_text("")
    (whole / "Images_png_07.zip").write_text("")
    (whole / "000012_03_01" / "040.jpg").write_text("")
    (whole / "Images_png" / "000013_01_01").mkdir(parents=True)
    write_png("000012_03_01_040.png", SOUND)
    write_png("000014_01_01/001.png", SOUND)
    manifest = check(table, whole, tmp_path / "coco", "--check-images")
    told = {each["file_name"]: (each["code"], each["text"]) for each in manifest["noticed"]}
    assert told == {
        ".DS_Store": ("W-STRAY", "a file"),
        "Images_png_07.zip": ("W-STRAY", "a zip to be unpacked"),
        "000012_03_01/040.jpg": ("W-STRAY", "a file"),
        "Images_png": ("W-STRAY", "a folder with 1 series in it: is it the --images?"),
        "000012_03_01/040.png": ("W-TWICE", "also 000012_03_01_040.png"),
        "000014_01_01": ("W-NOSERIES", "1 slices of a series that the table lacks"),
    }


def test_runs_of_patients_without_files_are_told_with_the_zips_they_fill(
    make_row: MakeRow, write_table: WriteTable, write_png: WritePng, images: Path, tmp_path: Path
):
    rows = []
    for patient in (2, 3, 5, 8, 9):
        for number in range(1, 300 if patient == 3 else 2):
            rows.append(
                make_row(
                    File_name=f"{patient:06d}_01_01_{number:03d}.png",
                    Patient_index=str(patient),
                    Study_index="1",
                    Key_slice_index=str(number),
                    Slice_range=f"{number}, {number}",
                )
            )
    write_png("000002_01_01_001.png", SOUND)
    write_png("000008_01_01/001.png", SOUND)
    manifest = check(write_table(rows), images, tmp_path / "coco", "--check-images")
    told = [(e["file_name"], e["text"]) for e in manifest["noticed"]]
    assert told == [
        (
            "patients 000003 to 000005",
            "2 patient(s), 300 key slices, no file; about 1 of the 56 zips",
        ),
        ("patients 000009 to 000009", "1 patient(s), 1 key slices, no file"),
    ]


@pytest.mark.parametrize("flag", ["--require-all", "--checksums", "--check-images"])
def test_what_needs_images_says_so(
    flag: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        main([str(table), "--out", str(tmp_path / "coco"), flag])
    assert stop.value.code == 2
    assert f"{flag} needs --images" in capsys.readouterr().err


def test_findings_of_one_code_are_counted_and_three_are_printed(
    make_row: MakeRow,
    write_table: WriteTable,
    write_png: WritePng,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    rows = []
    for number in range(50, 59):
        rows.append(
            make_row(
                File_name=f"000012_03_01_{number:03d}.png",
                Key_slice_index=str(number),
                Slice_range="40, 90",
            )
        )
        write_png(f"000012_03_01/{number:03d}.png")
    manifest = check(write_table(rows), images, tmp_path / "coco")
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("W-GAP  ")]
    assert " ".join(row.split()) == "W-GAP key slice with slices of its Slice_range missing 9"
    assert out.count("noticed: W-GAP  line") == 3
    assert "noticed: W-GAP  6 more in conversion.json" in out
    assert codes(manifest, "noticed") == {"W-GAP": 9}


@pytest.mark.real
def test_the_real_slices_are_hu_and_their_folder_is_clean(real_deeplesion: Path, tmp_path: Path):
    images = tmp_path / "Images_png"
    shutil.copytree(real_deeplesion / "Images_png", images)
    shutil.rmtree(images / "000007_03_01")  # no row of the table with pixels names it
    table = real_deeplesion / "DL_info_with_pixels.csv"
    config = ConversionConfig(check_images=True, require_all=True)
    conversion = convert_deeplesion(table, tmp_path / "coco", config, images)
    assert conversion.refused == ()
    assert Counter(finding.code for finding in conversion.noticed) == {"W-GAP": 47}
    assert conversion.counts["  that have a PNG"] == {"train": 87, "val": 51, "test": 42}
