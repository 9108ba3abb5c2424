"""DL_info.csv: every sound row becomes its record, every other row is listed (FAULTS L01-L20)."""

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.deeplesion import DeepLesionTable, read_deeplesion, write_deeplesion
from converters.deeplesion_row import COLUMNS, RowRefused, row_to_lesion
from converters.lesions import DeepLesionRefused, Finding
from tests.converters.conftest import SOUND_ROW, MakeRow, Row, WriteTable
from tests.converters.strategies import lesion_lists


def refusal(path: Path) -> Finding:
    """The one refused row of a table in which the next row is sound and goes on."""
    table = read_deeplesion(path)
    assert len(table.lesions) == 1
    assert len(table.refused) == 1
    return table.refused[0]


@pytest.fixture
def refusal_of(make_row: MakeRow, write_table: WriteTable):
    def of(**changes: str) -> Finding:
        return refusal(write_table([make_row(**changes), make_row()]))

    return of


def test_a_sound_row_becomes_a_record_with_coordinates_from_zero(
    make_row: MakeRow, write_table: WriteTable
):
    (lesion,) = read_deeplesion(write_table([make_row()])).lesions
    key_slice = lesion.key_slice
    assert lesion.box_xyxy == (95.5, 199.25, 135.5, 229.0)
    assert lesion.measurement_xy == (100.5, 204.25, 130.5, 224.0, 109.0, 219.125, 119.0, 205.0)
    assert lesion.diameters_px == (35.9, 17.3)
    assert lesion.normalized_location == (0.21, 0.4, 0.0389802)
    assert (lesion.lesion_type, lesion.possibly_noisy, lesion.line) == (4, False, 2)
    assert key_slice.file_name == "000012_03_01/040.png"
    assert key_slice.split == "val"
    assert key_slice.spacing_mm_zyx == (5.0, 0.75, 0.75)
    assert key_slice.slice_range == (34, 46)
    assert (key_slice.patient_gender, key_slice.patient_age) == ("F", 62.0)


@pytest.mark.parametrize("window", ["275, -175", "40, 40", "0, -0"])
def test_N67_a_window_without_a_width_is_refused(window: str, refusal_of) -> None:
    """A row whose window runs backwards, or has no width, is refused: E-CELL."""
    refused = refusal_of(DICOM_windows=window)
    assert refused.code == "E-CELL"
    assert refused.text == f"DICOM_windows {window!r}: lower end, upper end: it must have a width"


@pytest.mark.parametrize("spacing", ["5, 0.75, 0.75", "0.75, 5, 0.75", "0.75, 0.76, 5"])
def test_N67_pixels_that_are_not_square_are_refused(spacing: str, refusal_of) -> None:
    """CT pixels are square: a row in which they are not has its axes in another order, and is
    refused: E-SPACING."""
    refused = refusal_of(Spacing_mm_px_=spacing)
    assert (refused.code, "not square" in refused.text) == ("E-SPACING", True)


@pytest.mark.parametrize("age", ["-5", "-0.5", "126", "999999999"])
def test_N67_an_age_that_nobody_has_is_unknown_and_told(
    age: str, make_row: MakeRow, write_table: WriteTable
) -> None:
    """An age below 0 or above 125 years is taken as unknown, counted and told with its value:
    W-AGE. The row is kept."""
    table = read_deeplesion(write_table([make_row(Patient_age=age), make_row(Patient_age="0")]))
    assert [lesion.key_slice.patient_age for lesion in table.lesions] == [None, 0.0]
    [told] = table.noticed
    assert (told.code, told.line, repr(age) in told.text) == ("W-AGE", 2, True)


@pytest.mark.parametrize("age", ["", "NaN", "nan"])
def test_a_silent_age_is_no_age(age: str, make_row: MakeRow, write_table: WriteTable):
    (lesion,) = read_deeplesion(write_table([make_row(Patient_age=age)])).lesions
    assert lesion.key_slice.patient_age is None


def test_L01_missing_columns_are_named(tmp_path: Path):
    """Refused; the missing columns are named."""
    path = tmp_path / "DL_info.csv"
    path.write_text("File_name,bounding_boxes\n")
    with pytest.raises(DeepLesionRefused, match=r"DL_info\.csv: column missing: Patient_index, .*"):
        read_deeplesion(path)


def test_L01_extra_columns_and_another_order_change_nothing(make_row: MakeRow, tmp_path: Path):
    """Further columns, and another order, change nothing."""
    path = tmp_path / "DL_info.csv"
    names = ["remark", *reversed(COLUMNS)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerow({**make_row(), "remark": "x"})
    assert len(read_deeplesion(path).lesions) == 1


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_L01_byte_order_mark_and_windows_newlines_change_nothing(
    newline: str, make_row: MakeRow, write_table: WriteTable
):
    """A byte order mark and Windows newlines change nothing."""
    path = write_table([make_row()])
    plain = read_deeplesion(path).lesions
    text = path.read_text("utf-8").replace("\r\n", "\n").replace("\n", newline)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_deeplesion(path).lesions == plain


@pytest.mark.parametrize(
    ("encode", "said"),
    [
        (lambda text: text.encode("utf-16"), "not UTF-8 text; save it as CSV UTF-8"),
        (lambda text: text.encode("utf-16-le"), "UTF-16: save it as CSV UTF-8"),
        (lambda text: text.replace(",", ";").encode(), "separated by ';': save it with commas"),
        (lambda text: b"", "column missing: File_name"),
        (lambda text: b"<html>", "column missing: File_name"),
        (lambda text: text.encode() + b'"open quote', "unexpected end of data"),
    ],
)
def test_L01_a_file_of_another_form_is_refused_with_what_to_do(
    encode, said: str, make_row: MakeRow, write_table: WriteTable
):
    """UTF-16, semicolons, HTML and open quotes are refused with what to do."""
    path = write_table([make_row()])
    path.write_bytes(encode(path.read_text("utf-8")))
    with pytest.raises(DeepLesionRefused, match=said):
        read_deeplesion(path)


def test_L01_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    """No such file, or a folder: refused by name."""
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(DeepLesionRefused, match="no such file"):
            read_deeplesion(path)


@pytest.mark.parametrize("box", ["1, 2, 3", "1, 2, 3, 4, 5", "a, b, c, d", "", "1 2 3 4"])
def test_L02_a_box_without_four_numbers_is_refused_with_its_line(box: str, refusal_of):
    """The row is refused with E-BOX, its line, its File_name and the cell; the next row goes on."""
    finding = refusal_of(Bounding_boxes=box)
    assert (finding.code, finding.line, finding.split) == ("E-BOX", 2, "val")
    assert "000012_03_01_040.png" in str(finding)
    assert repr(box) in str(finding)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + "0" * 400])
def test_L03_a_coordinate_that_is_not_finite_is_refused(value: str, refusal_of):
    """The row is refused: E-BOX in a box, E-CELL in a measurement."""
    assert refusal_of(Bounding_boxes=f"{value}, 2, 30, 40").code == "E-BOX"
    drawn = f"1, 2, 3, 4, 5, 6, 7, {value}"
    assert refusal_of(Measurement_coordinates=drawn).code == "E-CELL"


@pytest.mark.parametrize("box", ["50, 10, 40, 60", "10, 50, 60, 40", "10, 10, 10, 60"])
def test_L04_corners_out_of_order_are_refused_not_swapped(box: str, refusal_of):
    """The row is refused; nothing is swapped."""
    assert "x1 < x2 and y1 < y2" in refusal_of(Bounding_boxes=box).text


def test_L05_a_box_just_outside_is_clipped_and_told(make_row: MakeRow, write_table: WriteTable):
    """Clipped to the image and told with the distance (W-CLIPPED)."""
    table = read_deeplesion(write_table([make_row(Bounding_boxes="-1.5, 0.5, 20, 30"), make_row()]))
    assert table.lesions[0].box_xyxy == (0.0, 0.0, 19.0, 29.0)
    clipped = [finding for finding in table.noticed if finding.code == "W-CLIPPED"]
    assert [finding.line for finding in clipped] == [2]
    assert "2.50 px" in clipped[0].text


def test_L05_a_box_may_touch_the_image_border(make_row: MakeRow, write_table: WriteTable):
    """A box that touches the border is taken as it is."""
    table = read_deeplesion(write_table([make_row(Bounding_boxes="1, 1, 513, 513")]))
    assert table.lesions[0].box_xyxy == (0.0, 0.0, 512.0, 512.0)
    assert "W-CLIPPED" not in {finding.code for finding in table.noticed}


@pytest.mark.parametrize("box", ["400, 400, 521.5, 450", "-7.5, 3, 20, 30", "515, 3, 518, 30"])
def test_L05_a_box_far_or_wholly_outside_is_refused(box: str, refusal_of):
    """Refused beyond 8 px (not 1: three official boxes leave their image by up to 5.65 px), and
    wholly outside."""
    finding = refusal_of(Bounding_boxes=box)
    assert finding.code == "E-BOX"
    assert "outside the 512x512 image" in finding.text


def test_L05_the_limit_is_the_callers(make_row: MakeRow, write_table: WriteTable):
    """--max-outside-px sets the limit."""
    path = write_table([make_row(Bounding_boxes="-1.5, 0.5, 20, 30")])
    assert len(read_deeplesion(path, max_outside_px=2.5).lesions) == 1
    assert len(read_deeplesion(path, max_outside_px=2.4).refused) == 1


def test_L06_a_box_unlike_its_measured_points_is_kept_and_told(
    make_row: MakeRow, write_table: WriteTable
):
    """Kept, and told with the distance in pixels (W-MEASURE)."""
    rows = [make_row(), make_row(Bounding_boxes="96.5, 200.25, 136.5, 230.5")]
    table = read_deeplesion(write_table(rows))
    assert len(table.lesions) == 2
    assert [(f.code, f.line) for f in table.noticed] == [("W-MEASURE", 3)]
    assert "0.50 px off" in table.noticed[0].text


@pytest.mark.parametrize("split", ["0", "4", "", "train", "1.0"])
def test_L10_an_unknown_split_is_refused(split: str, refusal_of):
    """The row is refused with E-SPLIT: 0, 4, blank, a word."""
    finding = refusal_of(Train_Val_Test=split)
    assert (finding.code, finding.split) == ("E-SPLIT", "unknown")


@pytest.mark.parametrize(
    "name",
    [
        "../000012_03_01_040.png",
        "/000012_03_01_040.png",
        "000012_03_01/../040.png",
        "000012_03_01\\040.png",
        "000012_03_01_040.png.exe",
        "=cmd|' /C calc'!A0",
    ],
)
def test_L12_a_name_that_the_indices_do_not_make_is_refused(name: str, refusal_of):
    """Refused with E-NAME: a name must be the one its indices make, so no path leads anywhere
    else."""
    finding = refusal_of(File_name=name)
    assert finding.code == "E-NAME"
    assert "000012_03_01_040.png or 000012_03_01/040.png" in finding.text


def test_L12_the_folder_form_of_the_name_is_the_same_slice(
    make_row: MakeRow, write_table: WriteTable
):
    """Both forms of the name are the same slice."""
    rows = [make_row(), make_row(File_name="000012_03_01/040.png")]
    table_form, folder_form = read_deeplesion(write_table(rows)).lesions
    assert table_form == folder_form


@pytest.mark.parametrize("column", ["Patient_index", "Study_index", "Series_ID", "Key_slice_index"])
def test_L13_an_index_unlike_the_file_name_is_refused(column: str, refusal_of):
    """The row is refused with E-NAME."""
    assert refusal_of(**{column: "38"}).code == "E-NAME"


def test_L13_a_key_slice_outside_its_range_is_refused(refusal_of):
    """A key slice outside its own Slice_range is refused."""
    assert "lacks the key slice 40" in refusal_of(Slice_range="41, 46").text


@pytest.mark.parametrize(
    "spacing",
    ["0.75, 0.75, 0", "0.75, 0.75, -5", "0.75, 0.75, NaN", "0.75, 0.75", "", "0, 1, 1", "1, 1, 51"],
)
def test_L15_an_impossible_spacing_is_refused(spacing: str, refusal_of):
    """The row is refused with E-SPACING: blank, zero, negative, NaN, above 50 mm."""
    assert refusal_of(Spacing_mm_px_=spacing).code == "E-SPACING"


@pytest.mark.parametrize("value", ["2", "", "yes", "-1"])
def test_L16_a_noisy_flag_is_zero_or_one(value: str, refusal_of):
    """Anything but 0 and 1 is refused."""
    assert refusal_of(Possibly_noisy=value).code == "E-CELL"


@pytest.mark.parametrize("value", ["0", "9", "liver", "-2", "4.0"])
def test_L17_an_unknown_type_number_is_refused(value: str, refusal_of):
    """A type that is neither -1 nor 1 to 8 is refused."""
    assert refusal_of(Coarse_lesion_type=value).code == "E-CELL"


@pytest.mark.parametrize(
    "damage",
    [
        {"Key_slice_index": "4,00E+01"},
        {"Bounding_boxes": "9.65E+01, 200.25, 136.5, 230"},
        {"Slice_range": "34.46"},
        {"Slice_range": "Mar 34"},
        {"Lesion_diameters_Pixel_": "35,9, 17,3"},
        {"Lesion_diameters_Pixel_": "-35.9, 17.3"},
        {"Image_size": "512"},
        {"Image_size": "0, 512"},
        {"Image_size": "99999, 512"},
        {"Patient_age": "#REF!"},
        {"Normalized_lesion_location": "#####"},
        {"DICOM_windows": "-175"},
    ],
)
def test_L19_cells_damaged_by_a_spreadsheet_are_refused(damage: Row, refusal_of):
    """The row is refused with its line: exponents, dates, decimal commas, #REF!."""
    assert refusal_of(**damage).line == 2


def test_L19_a_row_whose_quotes_were_lost_is_refused(make_row: MakeRow, write_table: WriteTable):
    """A row that lost its quotes has another number of cells: refused with E-ROW."""
    path = write_table([make_row(), make_row()])
    header, first, second = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([header, first.replace('"', ""), second]))
    finding = refusal(path)
    assert finding.code == "E-ROW"
    assert "under 18 names" in finding.text


def test_L20_a_formula_never_comes_out_as_one(make_row: MakeRow, write_table: WriteTable):
    """Written back with an apostrophe before it."""
    path = write_table([make_row(Patient_gender="=1+1")])
    write_deeplesion(path, read_deeplesion(path).lesions)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["Patient_gender"] == "'=1+1"
    assert not any(cell.startswith("=") for cell in row.values())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lesions=lesion_lists())
def test_L23_records_survive_the_table(lesions, tmp_path: Path):
    """Any records, written as a table, are read back equal."""
    path = tmp_path / "DL_info.csv"
    write_deeplesion(path, lesions)
    table = read_deeplesion(path)
    assert list(table.lesions) == lesions
    assert table.refused == ()


@settings(max_examples=200, deadline=None)
@given(
    column=st.sampled_from(COLUMNS),
    text=st.text(max_size=40)
    | st.text("0123456789.,-+eE naif", max_size=40)
    | st.lists(st.floats().map(str), max_size=9).map(", ".join),
)
def test_L02_L03_L04_L05_any_cell_is_read_within_its_image_or_refused(column: str, text: str):
    """Any text in any cell gives a box inside its image, or a refusal; nothing else."""
    try:
        lesion, _ = row_to_lesion({**SOUND_ROW, column: text.strip()}, 2, max_outside_px=8.0)
    except RowRefused:
        return
    x1, y1, x2, y2 = lesion.box_xyxy
    assert 0 <= x1 < x2 <= lesion.key_slice.width_px
    assert 0 <= y1 < y2 <= lesion.key_slice.height_px
    assert min(lesion.key_slice.spacing_mm_zyx) > 0


@pytest.mark.real
def test_the_real_table_is_read_whole_and_written_back_cell_by_cell(
    real_deeplesion: Path, real_table: DeepLesionTable, tmp_path: Path
):
    source, table = real_deeplesion / "DL_info_available.csv", real_table
    assert table.refused == ()
    assert len(table.lesions) == 10_752
    assert [(f.code, f.file_name) for f in table.noticed] == [
        ("W-CLIPPED", "000211_02_01_018.png"),
        ("W-CLIPPED", "000211_04_01_022.png"),
        ("W-CLIPPED", "003957_03_01_586.png"),
    ]
    write_deeplesion(tmp_path / "again.csv", table.lesions)
    clipped = {finding.line for finding in table.noticed}
    with source.open(newline="") as old, (tmp_path / "again.csv").open(newline="") as new:
        for line, (before, after) in enumerate(
            zip(csv.DictReader(old), csv.DictReader(new), strict=True), start=2
        ):
            age_before, age_after = before.pop("Patient_age"), after.pop("Patient_age")
            assert age_before.removesuffix(".0") in (age_after, "NaN")
            if line in clipped:
                assert before.pop("Bounding_boxes") != after.pop("Bounding_boxes")
            assert before == after
