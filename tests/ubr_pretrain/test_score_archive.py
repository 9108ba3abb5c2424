"""Results that survive: a journal cut anywhere, settings that changed, names that collide."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubr_pretrain.score_archive import JOURNAL, open_archive
from ubr_pretrain.score_tables import FORMATS, write_tables

HEADER = {"checkpoint_sha256": "0" * 64, "num_views": 2}


def record(name: str, num_slices: int = 3, **changes: Any) -> dict[str, Any]:
    numbers = [float(i) for i in range(num_slices)]
    return {
        "volume": name,
        "subject": name,
        "num_slices": num_slices,
        "spacing_mm_zyx": [5.0, 0.8, 0.8],
        "r": 0.99,
        "rank_r": 1.0,
        "slope_per_mm": 0.2,
        "direction": "superior_to_inferior",
        "expected_step_mm": None,
        "body_part": None,
        "zones": None,
        "landmarks": [],
        "anomalies": [],
        "notes": [],
        "slices": {
            "z_mm": numbers,
            "score": numbers,
            "score_alone": numbers,
            "score_sd": None,
            "coordinate": None,
            "coordinate_sd": None,
        },
    } | changes


def refused(name: str) -> dict[str, Any]:
    return {"volume": name, "subject": name, "code": "E-TRUNC", "cause": "=1+1 bytes are missing"}


def fill(out: Path, names: str, **header: Any) -> list[str]:
    """Record what is not yet recorded; return what was."""
    done = []
    with open_archive(out, HEADER | header) as archive:
        for name in names:
            if not archive.holds(name, "content"):
                archive.add("volumes", name, "place", "content", record(name))
                done.append(name)
        write_tables(archive, FORMATS)
    return done


def test_a_run_goes_on_behind_what_is_recorded(tmp_path: Path) -> None:
    assert fill(tmp_path / "two", "ab") == ["a", "b"]
    assert fill(tmp_path / "two", "abcd") == ["c", "d"]
    assert fill(tmp_path / "one", "abcd") == ["a", "b", "c", "d"]
    for name in ("scores.json", "scores.csv", "volumes.csv", JOURNAL):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@settings(max_examples=30)
@given(st.floats(0, 1))
def test_T01_a_journal_cut_at_any_byte_loses_its_last_line_only(tmp_path_factory, share) -> None:
    """A journal cut at any byte loses its last line only; the rest is not scored again."""
    out = tmp_path_factory.mktemp("cut")
    fill(out, "abc")
    whole = (out / JOURNAL).read_bytes()
    kept = whole[: int(share * len(whole))]
    (out / JOURNAL).write_bytes(kept)
    lost = 3 - max(0, kept.count(b"\n") - 1)
    assert len(fill(out, "abc")) == lost
    assert (out / JOURNAL).read_bytes() == whole


def test_scores_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(ValueError, match="num_views: 2 -> 8"):
        fill(tmp_path, "b", num_views=8)
    (tmp_path / "a.png").touch()
    (tmp_path / "mine.png").touch()
    with open_archive(tmp_path, HEADER | {"num_views": 8}, overwrite=True) as archive:
        assert not archive.holds("a", "content")
    assert not (tmp_path / "scores.csv").exists()
    assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "mine.png").exists()


def test_T08_two_runs_in_one_folder(tmp_path: Path) -> None:
    """A second scoring into the same folder is refused while the first is alive."""
    with (
        open_archive(tmp_path, HEADER),
        pytest.raises(ValueError, match="another run is writing"),
        open_archive(tmp_path, HEADER),
    ):
        pass


def test_T02_N30_what_a_killed_run_left_half_written_is_deleted(tmp_path: Path) -> None:
    """A picture or table that a kill cut off lies under a hidden name; going on deletes it."""
    fill(tmp_path, "a")
    half = tmp_path / ".a.png.x1y2z3.part"
    half.write_bytes(b"half")
    assert fill(tmp_path, "ab") == ["b"]
    assert not half.exists()


@pytest.mark.parametrize("name", ["scores.json", "volumes.csv", "images.parquet"])
def test_results_that_are_in_the_way_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(ValueError, match=f"holds {name}; use --overwrite"),
        open_archive(tmp_path, HEADER),
    ):
        pass
    assert sorted(tmp_path.iterdir()) == [tmp_path / name]


def test_an_output_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="is a file, not a folder"),
        open_archive(tmp_path / "file", HEADER),
    ):
        pass
    (tmp_path / JOURNAL).write_text("something else\n")
    with (
        pytest.raises(ValueError, match="no journal of scores"),
        open_archive(tmp_path, HEADER),
    ):
        pass


def test_S08_a_second_volume_of_one_name_gets_its_own(tmp_path: Path) -> None:
    """The second gets a hash of its place behind its name; nothing is overwritten."""
    with open_archive(tmp_path, HEADER) as archive:
        archive.add("volumes", "scan", "place1", "content1", record("scan"))
        assert archive.name_for("scan", "place1", "content1") == "scan"
        assert archive.name_for("scan", "place2", "content1") == "scan"  # it was moved
        assert archive.name_for("scan", "place1", "content2") == "scan"  # it has changed
        assert not archive.holds("scan", "content2")
        assert archive.name_for("scan", "place2", "content2") == "scan-place2"


def test_what_was_refused_is_tried_again_and_keeps_its_row(tmp_path: Path) -> None:
    with open_archive(tmp_path, HEADER) as archive:
        archive.add("volumes", "a", "p", "c", refused("a"))
        archive.add("volumes", "b", "q", "c", record("b"))
        assert not archive.holds("a", "c")
        archive.add("volumes", "a", "p", "c", record("a"))
        assert archive.holds("a", "c")
        assert [r["volume"] for r in archive.records("volumes")] == ["a", "b"]


def test_json_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    zones = [
        {"zone": "chest", "first_slice": 0, "last_slice": 1},
        {"zone": "abdomen", "first_slice": 2, "last_slice": 2},
    ]
    part = {"body_part_examined": "CHEST", "confidence": 0.75}
    odd = {"code": "GAP", "first_slice": 0, "last_slice": 1, "value": None, "message": ""}
    image = {"image": "i", "subject": "i", "pixel_mm_yx": [0.8, 0.8], "score": 1.5, "zone": "legs"}
    with open_archive(tmp_path, HEADER) as archive:
        known = record("a", zones=zones, body_part=part, anomalies=[odd, odd], notes=["x", "y"])
        known["slices"] |= {"coordinate": [60.5, 58.0, 50.0]}
        archive.add("volumes", "a", "p", "c", known)
        archive.add("volumes", "b", "p", "c", record("b", 1))
        archive.add("volumes", "c", "p", "c", refused("c"))
        archive.add("images", "i", "p", "c", image)
        written = write_tables(archive, FORMATS)
    assert {file.name for file in written} == {
        "scores.json", "scores.csv", "volumes.csv", "images.csv",
        "scores.parquet", "volumes.parquet", "images.parquet",
    }  # fmt: skip
    for name in ("scores", "volumes", "images"):
        columns = pd.read_parquet(tmp_path / f"{name}.parquet")
        rows = pd.read_csv(tmp_path / f"{name}.csv")
        if name == "volumes":  # the apostrophe is for spreadsheets
            assert rows["cause"].iloc[2] == "'=1+1 bytes are missing"
            rows["cause"] = rows["cause"].str.removeprefix("'")
        pd.testing.assert_frame_equal(rows, columns, check_dtype=False)
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert scores["volume"].tolist() == ["a", "a", "a", "b"]
    assert scores["zone"].fillna("-").tolist() == ["chest", "chest", "abdomen", "-"]
    volumes = pd.read_csv(tmp_path / "volumes.csv").set_index("volume")
    assert volumes.loc["a", ["anomalies", "notes", "body_part"]].tolist() == [
        "GAP", "x; y", "CHEST",
    ]  # fmt: skip
    assert volumes.loc["a", ["coordinate_first", "coordinate_last"]].tolist() == [60.5, 50.0]
    assert volumes.loc["c", "code"] == "E-TRUNC"
    whole = json.loads((tmp_path / "scores.json").read_text())
    assert [r["volume"] for r in whole["volumes"]] == ["a", "b", "c"]
    assert whole["images"] == [image]
    assert whole["num_views"] == 2


def test_an_archive_of_refusals_has_tables_too(tmp_path: Path) -> None:
    with open_archive(tmp_path, HEADER) as archive:
        archive.add("volumes", "a", "p", "c", refused("a"))
        write_tables(archive, FORMATS)
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 0
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 0
    assert pd.read_csv(tmp_path / "volumes.csv")["code"].tolist() == ["E-TRUNC"]
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == []


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_N56_a_changed_line_of_a_journal_is_no_score(
    tmp_path: Path, number: int, at: float
) -> None:
    """Every line carries its checksum: a letter that a disk or an editor changed is refused with
    the byte at which the line begins. Without the line its scan alone is scored again."""
    fill(tmp_path, "ab")
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    whole, place = lines[number], int(at * len(lines[number]))
    changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:number], changed, *lines[number + 1 :]]))
    start = sum(len(line) for line in lines[:number])
    words = f"the line at byte {start} is damaged" if number else "no journal of scores"
    with pytest.raises(ValueError, match=words):
        fill(tmp_path, "ab")
    if number:
        (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:number], *lines[number + 1 :]]))
        assert fill(tmp_path, "ab") == ["ab"[number - 1]]
