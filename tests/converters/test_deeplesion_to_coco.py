"""The command: what it writes, prints, refuses, and how it ends."""

import json
import sys
from pathlib import Path

import pytest

from converters.cohort import OFFICIAL, SplitCounts
from converters.deeplesion_to_coco import main
from tests.command_line import refused_line
from tests.converters.conftest import MakeRow, WritePng, WriteTable, png_bytes

GOLDEN = Path(__file__).parent / "golden"
OUTPUTS = ["conversion.json", "test.json", "train.json", "val.json"]


def manifest(folder: Path):
    return json.loads((folder / "conversion.json").read_text("utf-8"))


def printed_count(text: str, label: str) -> int:
    """The number in the last column of a printed row."""
    (line,) = [row for row in text.splitlines() if row.strip().startswith(f"{label}  ")]
    return int(line.split()[-1].replace(",", ""))


def test_the_golden_files_are_what_the_command_writes(tmp_path: Path):
    """Regenerate with: deeplesion_to_coco.py GOLDEN/DL_info.csv --out GOLDEN --overwrite,
    where GOLDEN is tests/converters/golden."""
    assert main([str(GOLDEN / "DL_info.csv"), "--out", str(tmp_path)]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == OUTPUTS
    for name in OUTPUTS:
        assert (tmp_path / name).read_text("utf-8") == (GOLDEN / name).read_text("utf-8"), name


def test_a_sound_table_ends_with_zero_and_names_the_next_command(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_table([make_row()])
    assert main([str(path), "--out", str(tmp_path / "coco")]) == 0
    out = capsys.readouterr().out
    assert "images were not checked (no --images)" in out
    assert "val: 1 of 4,889 official rows, 1 of 4,793 images (a part)" in out
    assert out.splitlines()[-1].startswith("next: compare_inits.py --coco ")
    assert printed_count(out, "images") == 1


def test_L02_a_bad_row_is_listed_the_rest_goes_on_and_the_command_ends_with_one(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The command goes on, lists the row, and ends with exit code 1."""
    path = write_table([make_row(Bounding_boxes="1, 2, 3"), make_row()])
    assert main([str(path), "--out", str(tmp_path / "coco")]) == 1
    out = capsys.readouterr().out
    assert "refused: E-BOX  line 2  000012_03_01_040.png  Bounding_boxes '1, 2, 3'" in out
    (row,) = [line for line in out.splitlines() if line.startswith("E-BOX  ")]
    assert " ".join(row.split()) == "E-BOX row whose box is none, or far outside 1"
    assert printed_count(out, "rows or images refused") == printed_count(out, "lesions") == 1
    assert manifest(tmp_path / "coco")["counts"]["  E-BOX"] == {"train": 0, "val": 1, "test": 0}
    (fault,) = manifest(tmp_path / "coco")["refused"]
    assert (fault["code"], fault["line"], fault["split"]) == ("E-BOX", 2, "val")


def test_a_table_of_which_no_row_is_left_is_refused_with_the_first_reason(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_table([make_row(Train_Val_Test="4")])
    line = refused_line(main, capsys, [str(path), "--out", str(tmp_path / "coco")])
    assert "no row of 1 is left; E-SPLIT  line 2  000012_03_01_040.png" in line
    assert not (tmp_path / "coco").exists()


def test_L09_images_without_a_png_are_listed_and_left_out(
    make_row: MakeRow,
    write_table: WriteTable,
    write_png: WritePng,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """Rows are listed and left out, so no image is without a file; --require-all makes it exit
    code 2."""
    write_png("000012_03_01/040.png")
    absent = make_row(File_name="000012_03_01_041.png", Key_slice_index="41")
    path = write_table([make_row(), absent, {**absent, "Bounding_boxes": "9, 9, 30, 30"}])
    arguments = [str(path), "--images", str(images), "--out", str(tmp_path / "coco")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "missing: W-MISSING  line 3  000012_03_01_041.png" in out
    assert "images were not checked" not in out
    assert printed_count(out, "rows without a PNG, left out") == 2
    coco = json.loads((tmp_path / "coco" / "val.json").read_text("utf-8"))
    assert [image["file_name"] for image in coco["images"]] == ["000012_03_01/040.png"]
    assert len(coco["annotations"]) == 1
    line = refused_line(main, capsys, [*arguments, "--overwrite", "--require-all"])
    assert "1 PNGs are missing and all are required" in line
    assert "000012_03_01_041.png" in line


def test_L12_the_form_of_name_that_was_found_is_written(
    make_row: MakeRow, write_table: WriteTable, write_png: WritePng, images: Path, tmp_path: Path
):
    """The COCO file names the form that was found on the disk."""
    write_png("000012_03_01_040.png")
    path = write_table([make_row()])
    assert main([str(path), "--images", str(images), "--out", str(tmp_path / "coco")]) == 0
    coco = json.loads((tmp_path / "coco" / "val.json").read_text("utf-8"))
    assert coco["images"][0]["file_name"] == "000012_03_01_040.png"


def test_L14_a_png_of_another_size_is_refused_and_the_rest_goes_on(
    make_row: MakeRow,
    write_table: WriteTable,
    write_png: WritePng,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """The row is refused with E-SIZE, the rest goes on, exit code 1."""
    write_png("000012_03_01/040.png", png_bytes(256, 256))
    write_png("000012_03_01/041.png")
    path = write_table(
        [make_row(), make_row(File_name="000012_03_01_041.png", Key_slice_index="41")]
    )
    assert main([str(path), "--images", str(images), "--out", str(tmp_path / "coco")]) == 1
    assert "refused: E-SIZE  line 2" in capsys.readouterr().out
    coco = json.loads((tmp_path / "coco" / "val.json").read_text("utf-8"))
    assert [image["key_slice_index"] for image in coco["images"]] == [41]


def test_L22_slices_missing_inside_the_range_are_told(
    make_row: MakeRow,
    write_table: WriteTable,
    write_png: WritePng,
    images: Path,
    tmp_path: Path,
):
    """Told for every key slice with how many of its range are missing (W-GAP)."""
    for number in (39, 40, 41):
        write_png(f"000012_03_01/{number:03d}.png")
    path = write_table([make_row(Slice_range="38, 42")])
    assert main([str(path), "--images", str(images), "--out", str(tmp_path / "coco")]) == 0
    (gap,) = manifest(tmp_path / "coco")["noticed"]
    assert (gap["code"], gap["text"]) == ("W-GAP", "2 of 5 slices of Slice_range have no PNG")
    write_png("000012_03_01/038.png")
    write_png("000012_03_01_042.png")
    again = [str(path), "--images", str(images), "--out", str(tmp_path / "coco"), "--overwrite"]
    assert main(again) == 0
    assert manifest(tmp_path / "coco")["noticed"] == []


def test_L11_leaking_patients_are_named_unless_allowed(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Exit code 2 naming the patients and splits; --allow-leakage counts them."""
    other = make_row(File_name="000012_04_01_040.png", Study_index="4", Train_Val_Test="1")
    path = write_table([make_row(), other])
    arguments = [str(path), "--out", str(tmp_path / "coco")]
    assert "1 patient(s) in more than one split: 12 (train, val)" in refused_line(
        main, capsys, arguments
    )
    assert not (tmp_path / "coco").exists()
    assert main([*arguments, "--allow-leakage"]) == 0
    assert printed_count(capsys.readouterr().out, "rows of patients in two splits") == 2


def test_L16_noisy_lesions_go_where_they_are_not_wanted(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """--noisy drop leaves them out; the count is printed either way."""
    path = write_table([make_row(), make_row(Possibly_noisy="1", Bounding_boxes="9, 9, 30, 30")])
    assert main([str(path), "--out", str(tmp_path / "keep")]) == 0
    assert printed_count(capsys.readouterr().out, "lesions possibly noisy") == 1
    assert main([str(path), "--out", str(tmp_path / "drop"), "--noisy", "drop"]) == 0
    out = capsys.readouterr().out
    assert printed_count(out, "possibly noisy rows dropped") == 1
    assert printed_count(out, "lesions") == 1


def test_L17_lesions_of_unknown_type_are_kept_and_counted(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Type -1, as every row of the train split has, is a lesion like any other, and counted."""
    path = write_table([make_row(Coarse_lesion_type="-1", Train_Val_Test="1")])
    assert main([str(path), "--out", str(tmp_path / "coco")]) == 0
    assert printed_count(capsys.readouterr().out, "lesions of unknown type") == 1
    assert manifest(tmp_path / "coco")["counts"]["lesions of unknown type"]["train"] == 1
    coco = json.loads((tmp_path / "coco" / "train.json").read_text("utf-8"))
    assert coco["annotations"][0]["lesion_type"] == -1
    assert coco["annotations"][0]["category_id"] == 1


def test_L18_a_full_table_with_other_counts_is_refused_unless_allowed(
    make_row: MakeRow,
    write_table: WriteTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """A full table with other counts: exit code 2; --allow-other-counts goes on and says so. One
    with the official counts is told its studies and patients beside the published 10,594 of 4,459
    (other publications say 4,427); a part is not."""
    for split, counts in (("train", (0, 0)), ("val", (1, 1)), ("test", (0, 0))):
        monkeypatch.setitem(OFFICIAL, split, SplitCounts(*counts))
    full = write_table([make_row()], "full.csv")
    assert main([str(full), "--out", str(tmp_path / "full")]) == 0
    said = capsys.readouterr().out
    assert "val: 1 of 1 official rows, 1 of 1 images (complete)" in said
    published = "published: 10,594 studies of 4,459 patients; others say 4,427"
    assert f"all: 1 studies of 1 patients ({published})\n" in said
    monkeypatch.setitem(OFFICIAL, "val", SplitCounts(2, 2))
    assert main([str(full), "--out", str(tmp_path / "part")]) == 0
    assert "published" not in capsys.readouterr().out
    monkeypatch.setitem(OFFICIAL, "val", SplitCounts(1, 1))
    other = write_table([make_row(), make_row(Bounding_boxes="9, 9, 30, 30")], "other.csv")
    arguments = [str(other), "--out", str(tmp_path / "other")]
    line = refused_line(main, capsys, arguments)
    assert "val has 2 rows on 1 images, official 1 on 1" in line
    assert main([*arguments, "--allow-other-counts"]) == 0
    assert "allowed: val has 2 rows" in capsys.readouterr().out


def test_L20_a_formula_in_the_table_reaches_no_terminal_sequence_or_path(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Control characters of a cell reach no terminal."""
    path = write_table([make_row(File_name="\x1b[2J=cmd"), make_row()])
    assert main([str(path), "--out", str(tmp_path / "coco")]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_S01_converted_files_hold_no_absolute_path(
    make_row: MakeRow, write_table: WriteTable, write_png: WritePng, images: Path, tmp_path: Path
):
    """The COCO files and their manifest hold no absolute path."""
    write_png("000012_03_01/040.png")
    path = write_table([make_row(), make_row(Bounding_boxes="1, 2, 3")])
    main([str(path), "--images", str(images), "--out", str(tmp_path / "coco")])
    for name in OUTPUTS:
        assert str(tmp_path) not in (tmp_path / "coco" / name).read_text("utf-8")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--require-all"], "--require-all needs --images"),
        (["--images", "absent"], "absent: not a folder"),
        (["--noisy", "maybe"], "noisy"),
        (["--max-outside-px", "-1"], "max_outside_px: Input should be greater than or equal to 0"),
        (["--max-outside-px", "nan"], "--max-outside-px nan: expected a number"),
        (["--unknown"], "unknown"),
    ],
)
def test_wrong_arguments_end_with_two_and_one_line(
    extra: list[str],
    said: str,
    make_row: MakeRow,
    write_table: WriteTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    path = write_table([make_row()])
    line = refused_line(main, capsys, [str(path), "--out", str(tmp_path / "coco"), *extra])
    assert line.startswith("deeplesion_to_coco.py: error: ")
    assert said in line
    assert not (tmp_path / "coco").exists()


def test_a_folder_that_is_not_empty_is_left_alone_without_overwrite(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_table([make_row()])
    out = tmp_path / "coco"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "not empty; use --overwrite" in refused_line(
        main, capsys, [str(path), "--out", str(out)]
    )
    assert main([str(path), "--out", str(out), "--overwrite"]) == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert "is a file" in refused_line(main, capsys, [str(path), "--out", str(out / "notes.txt")])


def test_a_table_on_a_terminal_is_drawn(monkeypatch: pytest.MonkeyPatch, capsys):
    from converters.printed_table import print_table

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("what", "number"), [("[red]rows[/red]", "12")])
    out = capsys.readouterr().out
    assert "[red]rows[/red]" in out
    assert "─" in out


@pytest.mark.real
def test_the_real_table_gives_the_official_val_and_test_counts(
    real_deeplesion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(real_deeplesion / "DL_info_available.csv"), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "val: 4,889 of 4,889 official rows, 4,793 of 4,793 images (complete)" in out
    assert "test: 4,927 of 4,927 official rows, 4,831 of 4,831 images (complete)" in out
    counts = manifest(tmp_path)["counts"]
    assert counts["lesions"] == {"train": 936, "val": 4_889, "test": 4_927}
    assert counts["images"] == {"train": 919, "val": 4_793, "test": 4_831}
    assert counts["lesions possibly noisy"] == {"train": 0, "val": 2, "test": 15}
    assert counts["lesions of unknown type"] == {"train": 936, "val": 0, "test": 0}


@pytest.mark.real
def test_the_real_slices_are_all_found(real_deeplesion: Path, tmp_path: Path):
    images = str(real_deeplesion / "Images_png")
    table = str(real_deeplesion / "DL_info_with_pixels.csv")
    arguments = [table, "--images", images, "--require-all", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert manifest(tmp_path)["counts"]["images"] == {"train": 3, "val": 23, "test": 24}
