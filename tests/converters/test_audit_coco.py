"""The command: what it prints and writes, how it ends, and that no file makes it fall over."""

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.audit_coco import main
from converters.audit_report import write_audit
from converters.coco_audit import audit_coco
from converters.defects import KINDS, by_code, effect, shown
from converters.foreign_coco import slice_key
from tests.command_line import refused_line
from tests.converters.planted import IN_AN_ANNOTATION, Files, converted, small_table, written

HOSTILE = "\x1b[2J|<script>alert(1)</script>`*\n\u202e\ud800"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return small_table(tmp_path / "DL_info.csv")


@pytest.fixture
def sound(table: Path) -> Files:
    return converted(table)


def audit(table: Path, paths: list[Path], out: Path, *more: str) -> int:
    return main([*map(str, paths), "--table", str(table), "--out", str(out), "--overwrite", *more])


def test_clean_files_end_with_zero(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert audit(table, written(converted(table), tmp_path), tmp_path / "audit") == 0
    out = capsys.readouterr().out
    assert "val.json: val (info.split), 12 images, 18 annotations, 1 categories; 18 annot" in out
    assert "no defect" in out.splitlines()
    assert "No defect." in (tmp_path / "audit" / "audit.md").read_text()
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["defects"] == []


def test_every_defect_is_in_the_json_and_each_kind_once_in_the_tables(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = converted(table)
    for annotation in files["val"]["annotations"]:
        IN_AN_ANNOTATION["missing -1"](files["val"], annotation)
    IN_AN_ANNOTATION["area x*h"](files["test"], files["test"]["annotations"][0])
    assert audit(table, written(files, tmp_path), tmp_path / "audit") == 1
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("E-SHIFT  ")]
    assert row.split()[-5:] == ["18", "changes", "training", "or", "metrics"]
    assert "val.json: the whole file, 18 of 18 boxes: E-SHIFT (median difference x +1, y +1" in out
    assert "= x * h, expected" in out
    assert "test.json: wrong areas: 1 is x * h" in out
    result = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert [defect["code"] for defect in result["defects"]].count("E-SHIFT") == 18
    assert {code: kind["count"] for code, kind in result["kinds"].items()} == {
        "E-SHIFT": 18,
        "E-AREA": 1,
    }
    page = (tmp_path / "audit" / "audit.md").read_text()
    assert page.count("| E-SHIFT | 18 | changes training or metrics |") == 1
    assert "- 15 more in audit.json" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a JSON file"),
        ("{", "not a JSON file"),
        ("<html>", "not a JSON file"),
        ("[]", "a JSON list, a COCO file is an object"),
        ("3", "a JSON int"),
        ('{"images": []}', "'annotations' is no list"),
        ('{"images": {}, "annotations": []}', "'images' is no list"),
        ("[" * 100_000, "nested too deep"),
        (f'{{"images": [{"9" * 5000}], "annotations": []}}', "not a JSON file"),
    ],
)
def test_what_is_no_coco_file_is_refused_in_one_line(
    text: str, said: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "theirs.json").write_text(text)
    out = tmp_path / "audit"
    arguments = [str(tmp_path / "theirs.json"), "--table", str(table), "--out", str(out)]
    line = refused_line(main, capsys, arguments)
    assert line.startswith("audit_coco.py: error: ")
    assert "theirs.json" in line
    assert said in line
    assert not out.exists()


def test_what_is_printed_says_of_what_it_speaks(
    table: Path, sound: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, second, lost = sound["val"]["annotations"][:3]
    first["area"], second["area"] = 0.123, 0.456
    sound["val"]["annotations"].remove(lost)
    assert audit(table, written(sound, tmp_path), tmp_path / "audit") == 1
    out = capsys.readouterr().out
    assert "val.json: wrong areas: 2 of no known kind\n" in out
    assert re.search(
        r"^E-LOST, e\.g\. val\.json, line \d+ of the table, \S+\.png: found", out, re.M
    )


def test_wrong_arguments_are_refused_in_one_line(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (path, *_) = written(converted(table), tmp_path)
    sound = [str(path), "--table", str(table), "--out", str(tmp_path / "audit")]
    assert "no such file" in refused_line(main, capsys, [str(tmp_path / "absent.json"), *sound[1:]])
    assert "2 splits for 1 files" in refused_line(main, capsys, [*sound, "--split", "val", "test"])
    assert "split" in refused_line(main, capsys, [*sound, "--split", "trainval"])
    assert "not a folder" in refused_line(main, capsys, [*sound, "--images", str(path)])
    assert "column missing" in refused_line(main, capsys, [*sound[:2], str(path), *sound[3:]])
    assert "is a file" in refused_line(main, capsys, [*sound[:4], str(path)])
    assert "not empty" in refused_line(main, capsys, [*sound[:4], str(tmp_path)])
    assert "required: --table" in refused_line(main, capsys, sound[:1])


def test_S04_L20_hostile_texts_reach_neither_terminal_nor_page(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """What a COCO file says reaches terminal and audit page as harmless text."""
    files = converted(table)
    val = files["val"]
    val["images"][0]["file_name"] = HOSTILE
    val["images"][1]["width"] = HOSTILE * 1000
    val["annotations"][4] |= {"bbox": [HOSTILE] * 4, "area": {HOSTILE: [HOSTILE]}}
    val["annotations"][5] |= {"image_id": HOSTILE, "category_id": HOSTILE, "iscrowd": HOSTILE}
    val["categories"].append({"id": HOSTILE, "name": "background"})
    assert audit(table, written(files, tmp_path), tmp_path / "audit") == 1
    page = (tmp_path / "audit" / "audit.md").read_text("utf-8")
    printed = capsys.readouterr().out
    for text in (page, printed):
        assert not set("\x1b\u202e\ud800") & set(text)
    assert "<script>" not in page
    assert max(map(len, page.splitlines())) < 600


KEYS = ["id", "image_id", "category_id", "file_name", "width", "height", "name", "bbox", "area"]
KEYS += ["iscrowd", "segmentation", "lesion_type"]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(10**400),
    lambda each: (
        st.lists(each, max_size=5) | st.dictionaries(st.text(max_size=5), each, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_anywhere_is_counted_or_harmless(
    table: Path, sound: Files, tmp_path: Path, data: st.DataObject
):
    files = copy.deepcopy(sound)
    for _ in range(4):
        entries = files["val"][data.draw(st.sampled_from(["images", "annotations", "categories"]))]
        index = data.draw(st.integers(0, len(entries) - 1))
        if data.draw(st.booleans()) or not isinstance(entries[index], dict):
            entries[index] = data.draw(JSON)
        else:
            entries[index][data.draw(st.sampled_from(KEYS))] = data.draw(JSON)
    files["val"]["info"] = data.draw(JSON)
    found = audit_coco(written(files, tmp_path), table)
    write_audit(tmp_path / "audit", found)
    text = (tmp_path / "audit" / "audit.json").read_text("utf-8")
    result = json.loads(text, parse_constant=pytest.fail)
    assert len(result["defects"]) == len(found.defects)
    assert {defect["code"] for defect in result["defects"]} <= KINDS.keys()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("000001_01_01_109.png", (1, 1, 1, 109)),
        ("000001_01_01/109.png", (1, 1, 1, 109)),
        ("Images_png/Images_png/004426_12_03/1009.png", (4426, 12, 3, 1009)),
        ("C:\\data\\000001_01_01\\109.PNG", (1, 1, 1, 109)),
        ("/data/000001_01_01_109", (1, 1, 1, 109)),
        ("Key_slices/000001_01_01_109.jpg", (1, 1, 1, 109)),
        ("1_1_1_109.png", (1, 1, 1, 109)),
        ("x000001_01_01_109.png", None),
        ("000001_01_109.png", None),
        ("109.png", None),
        ("", None),
        ("\u0660\u0660_01_01_109.png", None),
    ],
)
def test_a_slice_is_read_from_every_usual_spelling(name: str, key: tuple[int, ...] | None):
    assert slice_key(name) == key


def test_kinds_say_what_and_what_to_do_and_group_errors_first():
    assert all(kind.what and kind.remedy for kind in KINDS.values())
    assert all(code.startswith(("E-", "W-")) for code in KINDS)
    assert effect("W-CROWD") == "harmless"
    assert list(by_code([])) == []


@settings(max_examples=100)
@given(value=JSON)
def test_any_value_is_shown_on_one_short_printable_line(value: object):
    text = shown(value)
    assert len(text) <= 80
    assert text.isprintable()
