"""A comparison keeps what finished, continues what did not, and refuses what is not comparable."""

import csv
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lesion_det.cells import CellKey, read_cell
from lesion_det.compare_inits import compare, main
from lesion_det.comparison import Comparison
from lesion_det.det_config import DetConfig
from lesion_det.plan import Question, make_plan
from tests.lesion_det.toy_comparison import (
    pretend_training,
    toy_config,
    write_toy_data,
    write_toy_ubr,
)
from ubr_pretrain.run_folder import RunFolderRefused


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    folder = tmp_path_factory.mktemp("toy")
    coco, images = write_toy_data(folder)
    ubr = write_toy_ubr(folder / "ubr.safetensors")
    return Question(toy_config(coco, images, ubr), ("random", "ubr"), (0, 1))


class Trainer:
    """Counts the cells that it is asked to train; some of them end otherwise."""

    def __init__(self, **endings: Callable[[], int]) -> None:
        self.endings = endings
        self.trained: list[str] = []

    def __call__(self, config: DetConfig, out: Path) -> int:
        self.trained.append(out.name)
        ending = self.endings.get(f"{config.init}_{config.seed}")
        return ending() if ending else pretend_training(config, out)


def explode() -> int:
    raise FloatingPointError("iteration 7: loss not finite\nsecond line")


def quiet(_: str) -> None:
    return None


def result(out: Path) -> Comparison:
    return Comparison.model_validate_json((out / "comparison.json").read_bytes())


@pytest.fixture(scope="module")
def finished_once(question: Question, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    trainer = Trainer()
    assert compare(question, out, train_cell=trainer, say=quiet) == (0, {})
    assert trainer.trained == ["random-seed0", "ubr-seed0", "random-seed1", "ubr-seed1"]
    return out


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of a finished comparison."""
    return shutil.copytree(finished_once, tmp_path / "finished")


def test_same_command_keeps_finished_cells_and_writes_the_same_report(
    question: Question, finished: Path
) -> None:
    names = ("report.html", "comparison.json", "cells.csv", "table.md")
    before = {name: (finished / name).read_bytes() for name in names}
    again = Trainer()
    assert compare(question, finished, train_cell=again, say=quiet) == (0, {})
    assert again.trained == []
    assert {name: (finished / name).read_bytes() for name in names} == before


def test_killed_comparison_goes_on_where_it_stopped(question: Question, tmp_path: Path) -> None:
    one_seed = replace(question, seeds=(0,))
    stopped = Trainer(ubr_0=lambda: 128 + signal.SIGTERM)
    code, _ = compare(one_seed, tmp_path, train_cell=stopped, say=quiet)
    assert code == 143
    assert stopped.trained == ["random-seed0", "ubr-seed0"]
    resumed = Trainer()
    assert compare(one_seed, tmp_path, train_cell=resumed, say=quiet)[0] == 0
    assert resumed.trained == ["ubr-seed0"]


def test_E08_failed_cell_is_shown_with_its_reason_and_left_out_of_averages(
    question: Question, finished: Path
) -> None:
    for name in ("random-seed0", "ubr-seed0"):
        shutil.rmtree(finished / "cells" / name)
    lines: list[str] = []
    failing = Trainer(random_0=explode)
    code, _ = compare(question, finished, train_cell=failing, say=lines.append)
    assert code == 1
    assert failing.trained == ["random-seed0", "ubr-seed0"]  # the rest went on
    assert any("failed: iteration 7: loss not finite second line" in line for line in lines)
    comparison = result(finished)
    random, ubr = comparison.arms
    assert [cell.status for cell in random.cells] == ["failed", "finished"]
    assert [cell.seed for cell in random.finished] == [1]
    assert random.spreads["top-5 recall"].sd is None
    assert len(ubr.finished) == 2
    assert comparison.pairs[0].seeds == (1,)
    page = (finished / "report.html").read_text("utf-8")
    assert "Not everything ran" in page
    assert "1 of 2 seeds" in page
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
    assert compare(question, finished, train_cell=retried, say=quiet)[0] == 0
    assert retried.trained == ["random-seed0"]


def test_E07_other_settings_are_refused_in_the_same_folder(
    question: Question, finished: Path
) -> None:
    longer = question.common.model_copy(update={"iterations": 80})
    with pytest.raises(RunFolderRefused, match="iterations: 40 -> 80"):
        compare(replace(question, common=longer), finished, train_cell=Trainer(), say=quiet)


def test_seed_added_later_trains_only_the_new_cells(question: Question, finished: Path) -> None:
    more = Trainer()
    asked = replace(question, inits=("random",), seeds=(0, 1, 2))
    compare(asked, finished, train_cell=more, say=quiet)
    assert more.trained == ["random-seed2"]


def test_arm_without_weights_is_not_run_and_named(question: Question, tmp_path: Path) -> None:
    common = question.common.model_copy(update={"ubr": None})
    asked = replace(question, common=common, inits=("random", "ubr", "ubr+imagenet"), seeds=(0,))
    code, not_run = compare(asked, tmp_path, train_cell=Trainer(), say=quiet)
    assert code == 0
    assert not_run == {
        "ubr": "--ubr FILE was not given",
        "ubr+imagenet": "--ubr-imagenet FILE was not given",
    }
    assert [arm.not_run != "" for arm in result(tmp_path).arms] == [False, True, True]
    assert "--ubr FILE was not given" in (tmp_path / "report.html").read_text("utf-8")


def test_C15_regressor_of_another_arm_is_not_run(question: Question, tmp_path: Path) -> None:
    wrong = write_toy_ubr(tmp_path / "from_imagenet.safetensors", init="imagenet")
    common = question.common.model_copy(update={"ubr": wrong})
    plan = make_plan(replace(question, common=common), quiet)
    assert {key.arm for key in plan.configs} == {"random"}
    assert "needs init random" in plan.not_run["ubr"]


def test_no_arm_at_all_is_refused(question: Question) -> None:
    common = question.common.model_copy(update={"ubr": None})
    with pytest.raises(ValueError, match="no arm can be run: ubr: --ubr FILE was not given"):
        make_plan(replace(question, common=common, inits=("ubr",)), quiet)


def test_E07_audit_proves_equal_order_head_and_budget(question: Question) -> None:
    plan = make_plan(question, quiet)
    rows = {row.what: row for row in plan.audit}
    for what in ("order of the images, seed 0", "random head, seed 1", "iterations x batch"):
        assert rows[what].equal
        assert rows[what].values.keys() == {"random", "ubr"}
    assert rows["random head, seed 0"].values != rows["random head, seed 1"].values
    assert not rows["input of the trunk"].equal  # as the two starts were made; declared
    assert not rows["input of the trunk"].required
    trunks = {
        plan.fingerprints[CellKey(arm, 0)].hashes["trunk_sha256"] for arm in ("random", "ubr")
    }
    assert len(trunks) == 2


def test_cell_that_was_trained_from_another_start_does_not_count(
    question: Question, finished: Path
) -> None:
    cell = finished / "cells" / CellKey("ubr", 0).name
    manifest = json.loads((cell / "run.json").read_text("utf-8"))
    manifest["audit"]["head_sha256"] = "0" * 64
    (cell / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert compare(question, finished, train_cell=Trainer(), say=quiet)[0] == 1
    failed = result(finished).faults[0]
    assert failed.name == "ubr-seed0"
    assert "another head_sha256" in failed.reason


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


def flags(question: Question, out: Path) -> list[str]:
    assert question.common.coco is not None
    return [
        *("--coco", str(question.common.coco), "--images", str(question.common.images)),
        *("--ubr", str(question.common.ubr), "--width", "0.05", "--detector.fc_dim", "8"),
        *("--iterations", "40", "--device", "cpu", "--out", str(out)),
    ]


def test_dry_run_prints_audit_and_cells_and_writes_nothing(
    question: Question, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = [*flags(question, out), "--inits", "random", "ubr", "--seeds", "0", "--dry-run"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "equal    random head, seed 0: " in printed
    assert "would train ubr, seed 0" in printed
    assert not out.exists()


def test_flag_of_a_field_may_be_spelled_with_dashes(
    question: Question, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*flags(question, tmp_path), "--imagenet-weights", "absent.pth", "--dry-run"]
    assert main([*asked, "--inits", "random", "imagenet", "--seeds=0"]) == 0
    assert "not run: imagenet: absent.pth: no such file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--init", "ubr"], "--init: every cell has its own; use --inits"),
        (["--seed=4"], "--seed: every cell has its own; use --seeds"),
        (["--inits", "resnet"], "--inits resnet: not one of random, ubr"),
        (["--seeds", "-1"], "--seeds -1: must be >= 0"),
        (["--scores", "nowhere"], "--scores nowhere: no scores.json there"),
        (["--ubr-run", "nowhere"], "--ubr-run nowhere: no metrics.jsonl"),
        (["--pictures", "nothing.png"], "nothing.png: no such PNG or JPEG picture"),
    ],
)
def test_wrong_flag_is_one_line_and_exit_2(
    question: Question,
    tmp_path: Path,
    more: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*flags(question, tmp_path / "out"), *more])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert complaint in error
    assert error.count("\n") == 1


def test_real_trainings_start_from_what_was_audited(question: Question, tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = [*flags(question, out), "--iterations", "2", "--batch", "1"]
    assert main([*short, "--inits", "random", "ubr", "--seeds", "0"]) == 0
    comparison = result(out)
    assert [len(arm.finished) for arm in comparison.arms] == [1, 1]
    assert all(arm.weights for arm in comparison.arms)
    trunks = [arm.finished[0].audit["trunk_sha256"] for arm in comparison.arms]
    assert trunks[0] != trunks[1]


@pytest.mark.parametrize(("asked", "code"), [([], 0), (["--inits", "random", "imagenet"], 1)])
def test_arm_not_run_is_a_fault_only_where_it_was_asked_for(
    question: Question,
    tmp_path: Path,
    asked: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "lesion_det.compare_inits.compare", lambda *_, **__: (0, {"imagenet": "no weights"})
    )
    assert main([*flags(question, tmp_path / "out"), *asked]) == code
