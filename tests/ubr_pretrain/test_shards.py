"""An archive in shards: every scan in exactly one, and one table of all or a reason why not."""

import json
import shutil
import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.dataset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.command_line import refused_line
from tests.ubr_pretrain.archives import recorded, write_archive, write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import nii, scan
from ubr_pretrain import (
    cohort,
    gather_scores,
    gathered_scores,
    network_backend,
    score_tables,
    score_volumes,
)
from ubr_pretrain.scan_scoring import ScoringRun
from ubr_pretrain.scans import find_scans
from ubr_pretrain.scoring_plan import VOLUMES_AT_ONCE, Recorded, plans_of_units
from ubr_pretrain.shards import Shard, Unit, find_units

SCHEMA = Path(score_tables.__file__).parent / "schemas" / "scores.schema.json"
NOTHING = Recorded(frozenset(), (), Path())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_toy_checkpoint(tmp_path_factory.mktemp("weights") / "ubr.safetensors")


def score(checkpoint: Path, *argv: object) -> int:
    fixed = ["--checkpoint", checkpoint, "--pictures", "false", "--views", 1, "--device", "cpu"]
    return score_volumes.main([str(word) for word in (*argv, *fixed)])


def gather(out: Path, *argv: str) -> int:
    return gather_scores.main([str(out), *argv])


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 50))
def test_every_unit_is_in_exactly_one_shard(names: list[str], count: int) -> None:
    units = [Unit(name, Path("/a"), Path("/a") / "b") for name in names]
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for unit in units:
        assert sum(shard.holds(unit) for shard in shards) == 1


def test_a_unit_stays_in_its_shard_wherever_the_archive_is_mounted(tmp_path: Path) -> None:
    write_archive(tmp_path / "here" / "archive", 2)
    (tmp_path / "there").mkdir()
    names = [unit.name for unit in find_units([tmp_path / "here" / "archive"])]
    (tmp_path / "here" / "archive").rename(tmp_path / "there" / "archive")
    assert [unit.name for unit in find_units([tmp_path / "there" / "archive"])] == names
    assert len(set(names)) == len(names) == 6


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", "-1/3", "1/100001"])
def test_an_impossible_shard_is_one_line(tmp_path, capsys, text) -> None:
    nii(tmp_path)
    line = refused_line(score_volumes.main, capsys, [str(tmp_path), f"--shard={text}"])
    assert f"--shard {text}: must be I/N" in line


def test_flags_that_do_nothing_together_are_refused(tmp_path, capsys) -> None:
    nii(tmp_path)
    for words, told in (
        (["--shard", "1/2", "--format", "csv"], "gather_scores.py"),
        (["--ray-address", "auto"], "goes with --engine ray"),
        (["--engine", "ray", "--device", "cuda:1"], "--device cuda:1: workers on Ray are dealt"),
        (["--stride-mm", "-1"], "stride_mm"),
        (["--pixel-mm", "0"], "--pixel-mm: spacing 0 mm: every value must be > 0 and <= 50"),
        (["--pixel-mm", "-0.7"], "--pixel-mm: spacing -0.7 mm"),
        (["--pixel-mm", "nan"], "--pixel-mm nan: expected a number"),
        (["--pixel-mm", ".inf"], "--pixel-mm: spacing inf mm"),
        (["--stride-mm", "50.5"], "less than or equal to 50 (got 50.5)"),
        (["--stride-mm", "9", "--pages"], "a page shows every slice"),
        (["--threads", "0"], "at least 1"),
    ):
        assert told in refused_line(score_volumes.main, capsys, [str(tmp_path), *words])
    assert list(tmp_path.iterdir()) == [tmp_path / "scan.nii"]


def test_backends_are_those_that_there_are() -> None:
    assert score_volumes.BACKENDS == network_backend.BACKENDS


def test_a_stride_is_part_of_what_scores_depend_on(tmp_path, checkpoint, capsys) -> None:
    data, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"
    assert score(checkpoint, data, "--out", out, "--stride-mm", "20", "--format", "json") == 1
    whole = json.loads((out / "scores.json").read_text())
    assert whole["stride_mm"] == 20.0
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(whole)
    assert len(recorded(out)["series-9f77034b1eb5"]["slices"]["score"]) == 9
    capsys.readouterr()
    words = [data, "--checkpoint", checkpoint, "--views", 1, "--device", "cpu", "--out", out]
    line = refused_line(score_volumes.main, capsys, [str(word) for word in words])
    assert "stride_mm: 20.0 -> None" in line


def test_two_shards_and_their_tables_equal_one_run(tmp_path, checkpoint) -> None:
    data = write_archive(tmp_path / "archive")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert score(checkpoint, data, "--out", whole, "--format", "json", "parquet", "csv") == 1
    codes = [score(checkpoint, data, "--out", out, "--shard", f"{k}/2") for k in (1, 2)]
    assert sorted(codes) == [0, 1]  # the shard of the damaged file
    parts = [recorded(Shard(k, 2).folder(out)) for k in (1, 2)]
    assert all(parts)
    assert parts[0] | parts[1] == recorded(whole)
    assert gather(out, "--format", "parquet", "json", "csv") == 0
    for name in ("volumes", "scores", "images"):
        key = ["image"] if name == "images" else ["volume"] + ["slice_index"] * (name == "scores")
        one = pd.read_parquet(whole / f"{name}.parquet").sort_values(key, ignore_index=True)
        several = pd.read_parquet(out / name).sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(one, several)
        listed = pd.read_csv(out / f"{name}.csv").sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(
            pd.read_csv(whole / f"{name}.csv").sort_values(key, ignore_index=True), listed
        )
        assert pyarrow.dataset.dataset(out / name).count_rows() == len(one)
    one, several = (json.loads((place / "scores.json").read_text()) for place in (whole, out))
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(several)
    for kind, key in (("volumes", "volume"), ("images", "image")):
        for state in (one, several):
            state[kind] = sorted(state[kind], key=lambda record, key=key: record[key])
    assert one == several


def test_gathering_again_writes_the_same_bytes_in_bounded_parts(
    tmp_path, checkpoint, monkeypatch
) -> None:
    data = write_archive(tmp_path / "archive")
    out = tmp_path / "out"
    score(checkpoint, data, "--out", out, "--shard", "1/1")
    monkeypatch.setattr(score_tables, "ROWS_IN_GROUP", 10)
    monkeypatch.setattr(score_tables, "ROWS_IN_PART", 20)
    assert gather(out) == 0
    files = sorted((out / "scores").iterdir())
    assert [file.name for file in files] == [f"part-{k:05d}.parquet" for k in range(len(files))]
    assert len(files) > 1
    for file in files:
        assert pyarrow.parquet.ParquetFile(file).metadata.num_rows <= 20 + 25
    whole = pyarrow.dataset.dataset(out / "scores").to_table()
    assert Counter(whole["volume"].to_pylist()) == {
        name: record["num_slices"]
        for name, record in recorded(Shard(1, 1).folder(out)).items()
        if "num_slices" in record
    }
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert gather(out) == 0
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_T08_N31_one_at_a_time_gathers_and_cleans_up_after_one_that_was_killed(
    tmp_path, checkpoint, capsys
) -> None:
    """A second gather_scores.py is refused (exit 2); half-written tables of a killed one go."""
    score(checkpoint, write_archive(tmp_path / "archive", 1), "--out", tmp_path, "--shard", "1/1")
    half = tmp_path / ".volumes.csv.x1y2z3.part"
    half.write_bytes(b"half")
    capsys.readouterr()
    with gathered_scores._held(tmp_path):
        line = refused_line(gather_scores.main, capsys, [str(tmp_path)])
    assert line.endswith(f"{tmp_path}: another run is gathering there")
    assert gather(tmp_path) == 0
    assert not half.exists()


def test_a_shard_opens_nothing_of_another(tmp_path, checkpoint, monkeypatch) -> None:
    for number in range(8):
        one = {"SeriesInstanceUID": f"1.2.{number}"}
        write_series(tmp_path / "archive" / f"p{number}", scan((9, 40, 40)), (5.0, 8.0, 8.0), **one)
    opened: list[Path] = []
    read = cohort.read_dicom_header

    def note(path, max_bytes):
        opened.append(path)
        return read(path, max_bytes)

    monkeypatch.setattr(cohort, "read_dicom_header", note)
    score(checkpoint, tmp_path / "archive", "--out", tmp_path / "out", "--shard", "1/2")
    mine = [u.path for u in find_units([tmp_path / "archive"]) if Shard(1, 2).holds(u)]
    assert 0 < len(mine) < 8
    assert {path.parent for path in opened} == set(mine)
    assert len(opened) == 9 * len(mine)


def test_a_run_holds_the_headers_of_a_few_units(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    nii(tmp_path / "archive", "0.nii")
    for number in range(1, 3 * VOLUMES_AT_ONCE):
        shutil.copy(tmp_path / "archive" / "0.nii", tmp_path / "archive" / f"{number}.nii")
    searched = Counter()

    def units():
        for unit in find_units([tmp_path / "archive"]):
            searched["units"] += 1
            yield unit

    plans = plans_of_units(units(), NOTHING)
    assert len(next(plans).volumes) == searched["units"] == VOLUMES_AT_ONCE
    assert sum(len(plan.volumes) for plan in plans) == 2 * VOLUMES_AT_ONCE


def test_S08_equal_stems_below_folders_have_names_that_survive_a_move(tmp_path, checkpoint) -> None:
    """In shards too, and the names survive a move of the archive."""
    for place in ("a/x", "a/y", "b"):
        (tmp_path / "here" / "archive" / place).mkdir(parents=True)
        nii(tmp_path / "here" / "archive" / place, "ct.nii")
    nii(tmp_path / "here" / "archive", "ct.nii")
    out = tmp_path / "out"
    assert score(checkpoint, tmp_path / "here" / "archive", "--out", out, "--shard", "1/1") == 0
    folder = Shard(1, 1).folder(out)
    before = (folder / "scores.jsonl").read_bytes()
    names = set(recorded(folder))
    assert len(names) == 4
    assert {name.partition("-")[0] for name in names} == {"ct"}
    assert len({record["subject"] for record in recorded(folder).values()}) == 4
    (tmp_path / "here").rename(tmp_path / "there")
    assert score(checkpoint, tmp_path / "there" / "archive", "--out", out, "--shard", "1/1") == 0
    assert (folder / "scores.jsonl").read_bytes() == before


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("num_slices", [4, 1])
def test_parts_of_a_series_in_two_units_are_refused(
    tmp_path, checkpoint, capsys, count, num_slices
) -> None:
    """Each shard sees a part of it and scores that: the tables would hold two wrong volumes."""
    series = write_series(tmp_path / "archive" / "a", scan((9, 40, 40)), (5.0, 8.0, 8.0))
    (tmp_path / "archive" / "b").mkdir()
    for file in sorted(series.iterdir())[-num_slices:]:
        file.rename(tmp_path / "archive" / "b" / file.name)
    out = tmp_path / "out"
    for number in range(1, count + 1):
        for _ in range(2):  # it stays so when a shard is run again
            score(checkpoint, tmp_path / "archive", "--out", out, "--shard", f"{number}/{count}")
    capsys.readouterr()
    line = refused_line(gather_scores.main, capsys, [str(out)])
    assert "1 series lies in two units and not equal there: series-" in line
    assert "run score_volumes.py with --with-paths to see where" in line
    assert "a part" not in line  # nobody knows that
    assert not (out / "volumes").exists()


def test_all_unequal_series_are_told_with_both_their_paths(tmp_path, checkpoint, capsys) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    for number in range(7):
        for unit, seed in (("a", 1), ("b", 2)):
            hu = scan((3, 40, 40), seed=seed)
            one = {"SeriesInstanceUID": f"1.2.{number}"}
            write_series(archive / f"{unit}{number}", hu, (5.0, 8.0, 8.0), **one)
    score(checkpoint, archive, "--out", out, "--shard", "1/1", "--with-paths")
    capsys.readouterr()
    line = refused_line(gather_scores.main, capsys, [str(out)])
    assert "7 series lie in two units" in line
    assert "and 2 more; bring" in line
    assert "--with-paths" not in line
    assert line.count(f"{archive}/a") == line.count(f"{archive}/b") == 5


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("copy", [shutil.copy, shutil.copy2])
def test_equal_copies_of_a_series_are_one_row_with_a_note(
    tmp_path, checkpoint, capsys, count, copy
) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    write_series(archive / "a", scan((9, 40, 40)), (5.0, 8.0, 8.0))
    for unit in "bcd":
        shutil.copytree(archive / "a", archive / unit, copy_function=copy)
    shards = [f"{number}/{count}" for number in range(1, count + 1)]
    for again in range(2):
        for shard in shards:
            score(checkpoint, archive, "--out", out, "--shard", shard)
        capsys.readouterr()
        assert gather(out, "--format", "parquet", "json") == 0, again
        told = f"1 volumes scored, 0 refused (3 copies in other units left out); see {out}\n"
        assert capsys.readouterr().out == told
        (row,) = pd.read_parquet(out / "volumes").to_dict("records")
        assert row["notes"].endswith("also found in another unit")
        assert len(pd.read_parquet(out / "scores")) == 9
        whole = json.loads((out / "scores.json").read_text())
        Draft202012Validator(json.loads(SCHEMA.read_text())).validate(whole)


def test_equal_copies_that_are_refused_are_one_row(tmp_path, checkpoint) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    write_series(archive / "a", scan((9, 40, 40)), (5.0, 8.0, 8.0), PixelSpacing=[0.0, 0.0])
    shutil.copytree(archive / "a", archive / "b")
    assert score(checkpoint, archive, "--out", out, "--shard", "1/1") == 1
    assert gather(out, "--format", "parquet", "json") == 0
    (row,) = pd.read_parquet(out / "volumes").to_dict("records")
    assert row["cause"].endswith("; also found in another unit")
    whole = json.loads((out / "scores.json").read_text())
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(whole)


def test_what_is_gone_or_renamed_since_it_was_scored_has_no_second_row(
    tmp_path, checkpoint, capsys
) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    for place in ("in/x.nii", "old.nii", "gone.nii"):
        (archive / place).parent.mkdir(parents=True, exist_ok=True)
        nii((archive / place).parent, (archive / place).name)
    write_series(archive / "before", scan((9, 40, 40)), (5.0, 8.0, 8.0))
    assert score(checkpoint, archive, "--out", out, "--shard", "1/1") == 0
    (archive / "old.nii").rename(archive / "new.nii")
    (archive / "gone.nii").unlink()
    (archive / "in" / "x.nii").rename(archive / "in" / "y.nii")
    (archive / "before").rename(archive / "after")
    assert score(checkpoint, archive, "--out", out, "--shard", "1/1") == 0
    capsys.readouterr()
    assert gather(out) == 0
    told = "3 volumes scored, 0 refused (3 no longer in the archive left out)"
    assert told in capsys.readouterr().out
    rows = pd.read_parquet(out / "volumes")["volume"]
    assert sorted(name.partition("-")[0] for name in rows) == ["new", "series", "y"]
    assert json.loads((out / "gathered.json").read_text())["gone"] == 3
    (archive / "new.nii").rename(archive / "old.nii")  # what was scored counts again
    assert score(checkpoint, archive, "--out", out, "--shard", "1/1") == 0
    assert gather(out) == 0
    rows = pd.read_parquet(out / "volumes")["volume"]
    assert sorted(name.partition("-")[0] for name in rows) == ["old", "series", "y"]


def test_equal_names_of_two_shards_are_told_apart_with_their_subjects(tmp_path, checkpoint) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    write_series(archive / "a", scan((9, 40, 40)), (5.0, 8.0, 8.0), SeriesInstanceUID="1.2.0")
    name = "series-9f77034b1eb5"  # of that UID
    nii(archive, f"{name}.nii")
    units = find_units([archive])
    count = next(
        n
        for n in range(2, 99)
        if len({[Shard(k, n).holds(u) for k in range(1, n + 1)].index(True) for u in units}) == 2
    )
    for number in range(1, count + 1):
        assert score(checkpoint, archive, "--out", out, "--shard", f"{number}/{count}") == 0
    assert gather(out) == 0
    rows = pd.read_parquet(out / "volumes")
    assert rows["volume"].is_unique
    assert set(rows["volume"].str[:19]) == {name}
    own = rows[~rows["subject"].str.startswith("patient-")]
    assert own["subject"].tolist() == own["volume"].tolist()
    assert len(own) == 1


def test_gathering_another_archive_leaves_no_table_of_the_last(tmp_path, checkpoint) -> None:
    data, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"
    every = ("--format", "parquet", "csv")
    score(checkpoint, data, "--out", out, "--shard", "1/1")
    assert gather(out, *every) == 0
    assert {"images", "images.csv"} <= {path.name for path in out.iterdir()}
    (data / "key.png").unlink()
    score(checkpoint, data, "--out", out, "--shard", "1/1", "--overwrite")
    assert gather(out, *every) == 0
    assert {"images", "images.csv"}.isdisjoint(path.name for path in out.iterdir())


def test_shards_that_do_not_fit_together_are_refused(tmp_path, checkpoint, capsys) -> None:
    data, out = write_archive(tmp_path / "archive", 2), tmp_path / "out"

    def refusal() -> str:
        capsys.readouterr()
        assert not (out / "volumes").exists()
        return refused_line(gather_scores.main, capsys, [str(out)])

    out.mkdir()
    assert "holds no shard" in refusal()
    score(checkpoint, data, "--out", out, "--shard", "1/2")
    assert "shard 2/2 is missing" in refusal()
    score(checkpoint, data, "--out", out, "--shard", "2/2", "--pixel-mm", "0.7")
    assert "other weights or settings (pixel_mm: None -> 0.7)" in refusal()
    score(checkpoint, data, "--out", out, "--shard", "2/2", "--overwrite")
    folder = Shard(2, 2).folder(out)
    journal = (folder / "scores.jsonl").read_bytes()
    (folder / "scores.jsonl").write_bytes(journal[:-1])
    assert "shard 2/2 is not complete" in refusal()
    (folder / "scores.jsonl").write_bytes(journal)
    shutil.copy(data / "p0.nii", data / "p9.nii")
    score(checkpoint, data, "--out", out, "--shard", "2/2")
    assert "saw other files in the archive" in refusal()
    score(checkpoint, data, "--out", out, "--shard", "1/2")
    score(checkpoint, data, "--out", out, "--shard", "1/3")
    assert "holds shards of 2 and of 3" in refusal()
    shutil.rmtree(Shard(1, 3).folder(out))
    assert gather(out) == 0


def test_T04_a_stopped_shard_is_not_complete_and_goes_on(
    tmp_path, checkpoint, monkeypatch, capsys
) -> None:
    """A stopped shard is not complete: no table of all parts is made of it; it goes on."""
    data, out = write_archive(tmp_path / "archive", 3), tmp_path / "out"
    record_volume = ScoringRun.record_volume

    def record_and_stop(*args):
        signal.raise_signal(signal.SIGTERM)
        return record_volume(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ScoringRun, "record_volume", record_and_stop)
        assert score(checkpoint, data, "--out", out, "--shard", "1/1") == 143
    folder = Shard(1, 1).folder(out)
    assert len(recorded(folder)) == 1
    assert "goes on from here" in capsys.readouterr().err
    assert "not complete" in refused_line(gather_scores.main, capsys, [str(out)])
    assert score(checkpoint, data, "--out", out, "--shard", "1/1") == 1
    assert len(recorded(folder)) == 7
    assert gather(out) == 0


def test_paths_that_hold_each_other_have_no_shards(tmp_path, capsys) -> None:
    for place in ("one/data", "two/data"):
        (tmp_path / place).mkdir(parents=True)
        nii(tmp_path / place)
    one, two = tmp_path / "one", tmp_path / "two"
    argv = ["--shard", "1/2", "--out", str(tmp_path / "out")]
    words = [str(one), str(one / "data")]
    assert "none is in another" in refused_line(score_volumes.main, capsys, [*words, *argv])
    words = [str(one / "data"), str(two / "data")]
    assert "have this name" in refused_line(score_volumes.main, capsys, [*words, *argv])


def test_a_link_back_into_the_archive_is_no_second_unit(tmp_path: Path) -> None:
    (tmp_path / "archive" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    nii(tmp_path / "archive" / "a")
    (tmp_path / "archive" / "b").symlink_to("a", target_is_directory=True)
    (tmp_path / "archive" / "c").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "archive" / "loop").symlink_to("loop")
    names = [unit.name for unit in find_units([tmp_path / "archive"])]
    assert names == ["archive/a", "archive/c"]


def test_a_link_to_the_archive_itself_doubles_nothing(tmp_path: Path) -> None:
    """Whatever depth it lies at; of the links below, every run without shards sees two scans."""
    archive, other = tmp_path / "archive", tmp_path / "other"
    for number, folder in enumerate((archive / "a", archive / "b", other)):
        folder.mkdir(parents=True)
        nii(folder, f"{number}.nii")
    (archive / "a" / "again.nii").symlink_to("../b/1.nii")
    (archive / "a" / "other").symlink_to(other)
    (archive / "a" / "up").symlink_to("..")
    (archive / "b" / "own.nii").symlink_to("1.nii")
    (archive / "c").symlink_to(".")
    (archive / "d").symlink_to("..")
    units = find_units([archive, other])
    found = {unit.name: [e.path.name for e in unit.scans().volumes] for unit in units}
    assert found == {
        "archive/a": ["0.nii"],
        "archive/b": ["1.nii"],
        "archive/d": [],
        "other/2.nii": ["2.nii"],
    }
    assert len(find_scans([archive, other]).volumes) == 3


def test_N57_a_folder_of_one_shard_with_the_journal_of_another_is_refused(
    tmp_path, checkpoint, capsys
) -> None:
    """Gathering names the folder and whose journal lies there: it left out all scans of the one
    and listed those of the other twice."""
    data, out = write_archive(tmp_path / "archive", 4), tmp_path / "out"
    for shard in ("1/2", "2/2"):
        score(checkpoint, data, "--out", out, "--shard", shard)
    one, other = (Shard(number, 2).folder(out) for number in (1, 2))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    capsys.readouterr()
    line = refused_line(gather_scores.main, capsys, [str(out)])
    assert f"{one}: its scores.jsonl is that of shard 2/2" in line
    assert not (out / "volumes").exists()
    shutil.rmtree(one)
    score(checkpoint, data, "--out", out, "--shard", "1/2")
    assert gather(out) == 0
