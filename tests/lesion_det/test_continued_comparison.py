"""The same command continues a comparison, wherever its data lie now; any other is refused."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lesion_det.cells import CellKey, read_cell
from lesion_det.compare_inits import compare, main
from lesion_det.plan import Question, make_plan
from tests.lesion_det.toy_grid import Trainer, be_stopped, explode, flags, quiet, result
from ubr_pretrain.run_folder import RunFolderRefused


def test_same_command_keeps_finished_cells_and_writes_the_same_report(
    question: Question, finished: Path
) -> None:
    names = ("report.html", "comparison.json", "cells.csv", "table.md")
    before = {name: (finished / name).read_bytes() for name in names}
    again = Trainer()
    assert compare(question, finished, again, say=quiet) == (0, {})
    assert again.trained == []
    assert {name: (finished / name).read_bytes() for name in names} == before


def test_killed_comparison_goes_on_where_it_stopped(question: Question, tmp_path: Path) -> None:
    one_seed = replace(question, seeds=(0,))
    stopped = Trainer(ubr_0=be_stopped)
    code, _ = compare(one_seed, tmp_path, stopped, say=quiet)
    assert code == 143
    assert stopped.trained == ["random-seed0", "ubr-seed0"]
    resumed = Trainer()
    assert compare(one_seed, tmp_path, resumed, say=quiet)[0] == 0
    assert resumed.trained == ["ubr-seed0"]


def test_E08_failed_cell_is_shown_with_its_reason_and_left_out_of_averages(
    question: Question, finished: Path
) -> None:
    """It is shown with its reason and left out of the averages, and the number of seeds says so."""
    for name in ("random-seed0", "ubr-seed0"):
        shutil.rmtree(finished / "cells" / name)
    failing = Trainer(random_0=explode)
    code, _ = compare(question, finished, failing, say=quiet)
    assert code == 1
    assert failing.trained == ["random-seed0", "ubr-seed0"]  # the rest went on
    comparison = result(finished)
    random, ubr = comparison.arms
    assert random.cells[0].reason == "iteration 7: loss not finite"
    assert [cell.status for cell in random.cells] == ["failed", "finished"]
    assert [cell.seed for cell in random.finished] == [1]
    assert random.spreads["top-5 recall"].sd is None
    assert len(ubr.finished) == 2
    assert comparison.pairs[0].seeds == (1,)
    page = (finished / "report.html").read_text("utf-8")
    assert "Not everything ran" in page
    assert ">1 of 2<" in page
    assert "| random | 1 of 2 |" in (finished / "table.md").read_text("utf-8")
    with (finished / "cells.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["seed"], row["status"]) for row in rows] == [
        ("random", "0", "failed"),
        ("random", "1", "finished"),
        ("ubr", "0", "finished"),
        ("ubr", "1", "finished"),
    ]
    assert rows[0]["top-5 recall"] == ""
    assert 0 <= float(rows[3]["top-5 recall"]) <= 1

    retried = Trainer()
    assert compare(question, finished, retried, say=quiet)[0] == 0
    assert retried.trained == ["random-seed0"]


def test_E07_other_settings_are_refused_in_the_same_folder(
    question: Question, finished: Path
) -> None:
    """compare_inits.py refuses a folder of other settings, naming the difference."""
    longer = question.common.model_copy(update={"iterations": 80})
    with pytest.raises(RunFolderRefused, match="iterations: 40 -> 80"):
        compare(replace(question, common=longer), finished, Trainer(), say=quiet)


def test_E07_dry_run_refuses_what_the_run_would_refuse_and_writes_nothing(
    question: Question, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry_run refuses the same and writes nothing."""
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    with pytest.raises(SystemExit) as exit_:
        main([*flags(question, finished), "--inits", "random", "ubr", "--dry-run"])
    assert exit_.value.code == 2
    refused = "holds a run of another configuration (common.optimiser.schedule: drops -> per_arm;"
    assert refused in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*")} == before


def moved(question: Question, folder: Path) -> Question:
    """Return the same question about a copy of its data."""
    coco, images = question.common.coco, question.common.images
    assert coco is not None
    places = {
        "coco": shutil.copytree(coco, folder / "json"),
        "images": shutil.copytree(images, folder / "slices"),
    }
    return replace(question, common=question.common.model_copy(update=places))


def test_E07_data_that_moved_are_known_by_their_contents(
    question: Question, finished: Path, tmp_path: Path
) -> None:
    """Data that only moved are the same data: known by their hashes."""
    asked, said, again = moved(question, tmp_path / "elsewhere"), list[str](), Trainer()
    assert compare(asked, finished, again, say=said.append)[0] == 0
    assert again.trained == []
    for name in ("coco", "images"):
        before, now = getattr(question.common, name), getattr(asked.common, name)
        assert f"moved    {name}: {before} -> {now}; the contents are the same" in said
    said.clear()
    assert compare(asked, finished, again, say=said.append)[0] == 0  # it has been noted
    assert not [line for line in said if line.startswith("moved")]


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("json/val.json", "val"),
        ("json/train.json", "train"),
        ("slices/000001_01_01/005.png", "images"),
        ("slices/000001_01_01/006.png", "images"),
    ],
)
def test_E07_data_that_moved_and_changed_are_refused(
    question: Question, finished: Path, tmp_path: Path, file: str, what: str
) -> None:
    """Data that moved and changed are refused."""
    asked = moved(question, tmp_path / "elsewhere")
    with (tmp_path / "elsewhere" / file).open("ab") as changed:
        changed.write(b" ")
    with pytest.raises(RunFolderRefused, match=rf"configuration \(data_sha256\.{what}: "):
        compare(asked, finished, Trainer(), say=quiet)
    assert str(tmp_path / "elsewhere") not in (finished / "config.yaml").read_text("utf-8")


def test_E07_files_that_exchanged_their_roles_are_refused(
    question: Question, finished: Path
) -> None:
    """So are two files that exchanged their roles."""
    assert question.common.coco is not None
    train, val = (question.common.coco / f"{split}.json" for split in ("train", "val"))
    for names in ({"train": (train,), "val": (val,)}, {"train": (val,), "val": (train,)}):
        asked = replace(question, common=question.common.model_copy(update=names))
        if names["train"] == (train,):
            assert compare(asked, finished, Trainer(), say=quiet)[0] == 0
        else:
            with pytest.raises(RunFolderRefused, match=r"data_sha256\.train: "):
                compare(asked, finished, Trainer(), say=quiet)


def test_seed_added_later_trains_only_the_new_cells(question: Question, finished: Path) -> None:
    more = Trainer()
    asked = replace(question, inits=("random",), seeds=(0, 1, 2))
    compare(asked, finished, more, say=quiet)
    assert more.trained == ["random-seed2"]


def test_cell_that_was_trained_from_another_start_does_not_count(
    question: Question, finished: Path
) -> None:
    cell = finished / "cells" / CellKey("ubr", 0).name
    manifest = json.loads((cell / "run.json").read_text("utf-8"))
    manifest["audit"]["head_sha256"] = "0" * 64
    (cell / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert compare(question, finished, Trainer(), say=quiet)[0] == 1
    failed = result(finished).faults[0]
    assert failed.name == "ubr-seed0"
    assert "another head_sha256" in failed.reason


def test_N94_changed_cells_fail_alone_and_are_named(
    question: Question, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """compare_inits.py compares what is left, names every changed cell with its file, and returns
    1; a cell whose answers were exchanged is not trained again by itself."""
    cells = finished / "cells"
    shutil.copy(cells / "ubr-seed1" / "predictions_val.json", cells / "random-seed0")
    (cells / "ubr-seed0" / "run.json").write_text('{"status": "fin', encoding="utf-8")
    trainer = Trainer(ubr_0=explode)
    assert compare(question, finished, trainer)[0] == 1
    assert trainer.trained == ["ubr-seed0"]
    assert [cell.name for cell in result(finished).faults] == ["random-seed0", "ubr-seed0"]
    assert result(finished).pairs[0].seeds == (1,)
    said = capsys.readouterr().out
    assert "failed: random, seed 0: predictions_val.json: SHA-256 " in said
    assert "failed: ubr, seed 0: run.json: is damaged, no JSON (" in said


def test_cell_folder_in_any_state_can_be_read(question: Question, tmp_path: Path) -> None:
    truth = make_plan(question, quiet).ground_truth
    absent = read_cell(tmp_path / "absent", CellKey("random", 0), truth, expected={})
    assert (absent.cell.status, absent.predictions) == ("not started", None)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "run.json").write_text('{"status": "running"}', encoding="utf-8")
    (tmp_path / "killed" / "metrics.jsonl").write_text(
        '{"iteration": 10, "kind": "val", "top5_recall": 0.25}\n{"iterat', encoding="utf-8"
    )
    killed = read_cell(tmp_path / "killed", CellKey("random", 0), truth, expected={})
    assert (killed.cell.status, killed.cell.curve) == ("interrupted", ((10, 0.25),))
