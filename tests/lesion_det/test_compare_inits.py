"""What a comparison runs, in which order, and what it refuses or leaves out."""

import fcntl
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lesion_det.audit import StartHasher
from lesion_det.cells import CellKey, is_finished
from lesion_det.compare_inits import compare, main
from lesion_det.comparison import Comparison
from lesion_det.det_config import DetConfig, DetectorConfig
from lesion_det.detector import Detector
from lesion_det.initialization import Start, make_start
from lesion_det.launch import Ending, Task
from lesion_det.plan import Question, build_question, make_plan
from lesion_det.splits import read_splits
from tests.command_line import refused_line
from tests.lesion_det.toy_comparison import write_toy_ubr
from tests.lesion_det.toy_grid import Trainer, be_stopped, explode, flags, quiet, result
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk


def test_starts_are_built_once_an_arm_and_seed_and_heads_once_a_seed(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[str, int]] = []
    heads: list[int] = []

    def start(config: DetConfig) -> Start:
        built.append((config.init, config.seed))
        return make_start(config)

    def detector(trunk: Trunk, spec: InputSpec, config: DetectorConfig, seed: int) -> Detector:
        heads.append(seed)
        return Detector(trunk, spec, config, seed)

    asked = replace(question, fractions=(1.0, 0.5, 0.25))
    alone = {key: StartHasher(read_splits(config).learned)(config)
             for key in asked.keys if (config := asked.cell_config(key))}  # fmt: skip
    monkeypatch.setattr("lesion_det.audit.make_start", start)
    monkeypatch.setattr("lesion_det.audit.Detector", detector)
    plan = make_plan(asked, quiet)
    assert len(plan.configs) == 12
    assert sorted(built) == [("random", 0), ("random", 1), ("ubr", 0), ("ubr", 1)]
    assert sorted(heads) == [0, 1]
    assert plan.fingerprints == alone


def test_only_claims_about_arms_that_were_asked_for_are_shown_as_untested(
    question: Question, finished: Path, tmp_path: Path
) -> None:
    assert result(finished).untested == {}
    asked = replace(question, inits=("random", "ubr", "ubr+imagenet"), seeds=(0,))
    failing = Trainer(ubr_0=explode)
    compare(asked, tmp_path / "out", failing, say=quiet)
    assert result(tmp_path / "out").untested == {
        "a UBR trunk is better than a random one": "no finished cell of ubr"
    }


def test_what_did_not_run_is_said_again_at_the_end(question: Question, tmp_path: Path) -> None:
    said: list[str] = []
    asked = replace(question, inits=("random", "ubr", "ubr+imagenet"), seeds=(0,))
    compare(asked, tmp_path / "out", Trainer(ubr_0=explode), say=said.append)
    assert said[-3:] == [
        "not run: ubr+imagenet: --ubr-imagenet FILE was not given",
        "failed: ubr, seed 0: iteration 7: loss not finite",
        str(tmp_path / "out" / "report.html"),
    ]


def test_arm_without_weights_is_not_run_and_named(question: Question, tmp_path: Path) -> None:
    common = question.common.model_copy(update={"ubr": None})
    asked = replace(question, common=common, inits=("random", "ubr", "ubr+imagenet"), seeds=(0,))
    code, not_run = compare(asked, tmp_path, Trainer(), say=quiet)
    assert code == 0
    assert not_run == {
        "ubr": "--ubr FILE was not given",
        "ubr+imagenet": "--ubr-imagenet FILE was not given",
    }
    assert [arm.not_run != "" for arm in result(tmp_path).arms] == [False, True, True]
    assert "--ubr FILE was not given" in (tmp_path / "report.html").read_text("utf-8")


def test_C15_regressor_of_another_arm_is_not_run(question: Question, tmp_path: Path) -> None:
    """The arm is not run, and the report says why; the other arms are."""
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
    """The audit of the report shows equal sampling order, head, budget and data by their hashes."""
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


UNEQUAL: dict[str, tuple[dict[str, Any], str]] = {
    "budget": ({"iterations": 80}, "iterations x batch, all settings but start and seed, order "),
    "seed": ({"seed": 7}, "order of the images, seed 0, order of the images, seed 1, random head"),
    "data": ({"label_fraction": 0.5}, "order of the images, seed 0, order of the images, seed 1"),
    "detector": (
        {"detector": DetectorConfig(fc_dim=9)},
        "all settings but start and seed, random head, seed 0, random head, seed 1",
    ),
}


@pytest.mark.parametrize("what", UNEQUAL)
def test_E07_arms_that_differ_in_more_than_their_start_are_refused(
    what: str,
    question: Question,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An arm with another budget, seed, share of the data or detector: compare_inits.py refuses
    (code 2), naming in what the arms differ."""
    plain = Question.cell_config
    own, differ = UNEQUAL[what]

    def unequal(self: Question, key: CellKey) -> DetConfig:
        config = plain(self, key)
        return config.model_copy(update=own) if key.arm == "ubr" else config

    monkeypatch.setattr(Question, "cell_config", unequal)
    arms = ["--inits", "random", "ubr", "--seeds", "0", "1"]
    line = refused_line(main, capsys, [*flags(question, tmp_path / "out"), *arms])
    assert f"the arms are not comparable, they differ in: {differ}" in line


def test_fractions_fall_and_external_trunks_are_arms(question: Question, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "a.pth", tmp_path / "b.pth"
    mine.touch()
    theirs.touch()
    asked = build_question(
        question.common,
        ("random", "mine"),
        (1, 0),
        (0.05, 1.0, 0.25),
        externals=(f"mine={mine}", f"theirs={theirs}"),
        title="title",
    )
    assert asked.inits == ("random", "mine", "theirs")
    assert asked.seeds == (1, 0)
    assert asked.fractions == (1.0, 0.25, 0.05)
    assert [key.name for key in asked.keys[:4]] == [
        "random-seed1",
        "mine-seed1",
        "theirs-seed1",
        "random-seed0",
    ]
    assert asked.keys[-1].name == "theirs-seed0-labels5"
    config = asked.cell_config(CellKey("theirs", 1))
    assert (config.init, config.external) == ("external", theirs)
    assert asked.cell_config(CellKey("random", 1)).external is None


def test_cells_of_smaller_fractions_follow_and_all_share_one_cache(
    question: Question, tmp_path: Path
) -> None:
    class Watch(Trainer):
        def __call__(
            self, tasks: Sequence[Task], say: Callable[[str], None]
        ) -> Generator[Ending, None, None]:
            assert {task.config.cache for task in tasks} == {tmp_path / "out" / "inputs"}
            assert (tmp_path / "out" / "inputs").is_dir()  # before the first cell
            yield from super().__call__(tasks, say)

    asked = replace(question, seeds=(0,), fractions=(1.0, 0.5))
    watch = Watch()
    assert compare(asked, tmp_path / "out", watch, say=quiet)[0] == 0
    assert watch.trained == [
        "random-seed0",
        "ubr-seed0",
        "random-seed0-labels50",
        "ubr-seed0-labels50",
    ]
    given = question.common.model_copy(update={"cache": tmp_path / "elsewhere"})
    plan = make_plan(replace(question, common=given), quiet)
    caches = {config.cache for config in plan.cached_configs(tmp_path).values()}
    assert caches == {tmp_path / "elsewhere"}


def test_report_is_written_now_and_then_while_cells_run(
    question: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []

    def write(_question, plan, out, _failures, _chapter):
        written.append([key.name for key in plan.configs if is_finished(out / "cells" / key.name)])
        return Comparison.model_construct(arms=())

    monkeypatch.setattr("lesion_det.gathering.write_comparison", write)
    monkeypatch.setattr("lesion_det.report_tables.markdown_table", lambda _: "")
    compare(replace(question, seeds=(0,)), tmp_path / "a", Trainer(), say=quiet)
    assert written == [["random-seed0", "ubr-seed0"]]  # at the end
    monkeypatch.setattr("lesion_det.compare_inits.REPORT_EVERY_S", 0.0)
    compare(replace(question, seeds=(0,)), tmp_path / "b", Trainer(), say=quiet)
    assert written[1:] == [["random-seed0"], ["random-seed0", "ubr-seed0"]] or written[1:] == [
        ["random-seed0"],
        ["random-seed0", "ubr-seed0"],
        ["random-seed0", "ubr-seed0"],
    ]


def test_flags_of_one_cell_are_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = re.findall(r"^  (--[\w.-]+)", capsys.readouterr().out, re.MULTILINE)
    assert not {"--init", "--seed", "--label_fraction"} & set(offered)
    assert {"--inits", "--seeds", "--label-fractions", "--external", "--workers"} <= set(offered)
    assert offered.count("--external") == 1


def test_flag_of_a_field_may_be_spelled_with_dashes(
    question: Question, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*flags(question, tmp_path), "--imagenet-weights", "absent.pth"]
    with pytest.raises(SystemExit):  # read, and then found absent
        main([*asked, "--inits", "imagenet", "--seeds=0"])
    assert "--imagenet-weights: absent.pth: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--init", "ubr"], "--init: every cell has its own; use --inits"),
        (["--seed=4"], "--seed: every cell has its own; use --seeds"),
        (["--label-fraction", "0.1"], "--label_fraction: every cell has its own; use --label-frac"),
        (["--label-fractions", "1", "0"], "--label-fractions 0: must be > 0 and <= 1"),
        (["--external", "vgg.pth"], "--external vgg.pth: expected NAME=FILE"),
        (["--external", "a/b=vgg.pth"], "--external a/b=vgg.pth: expected NAME=FILE"),
        (["--external", "UBR=vgg.pth"], "UBR is the name of another arm"),
        (["--external", "x=a.pth", "--external", "x=b.pth"], "x is the name of another arm"),
        (["--inits", "external"], "--inits external: not one of random, ubr"),
        (["--external", "x=a.pth"], "--external x: a.pth: no such file"),
        (["--ubr-imagenet", "a.pth"], "--ubr-imagenet: a.pth: no such file"),
        (["--jobs", "0"], "--jobs 0: auto, or a whole number above 0"),
        (["--dry-run", "--overwrite"], "--overwrite: a dry run deletes nothing"),
        (["--no-wait"], "--no-wait: only jobs of --slurm go on without this command"),
        (["--slurm", "time=2:00:00"], "--slurm time=2:00:00: minutes, a whole number above 0"),
        (["--slurm", "partition="], "--slurm partition=: expected KEY=VALUE"),
        (["--slurm", "partition=gpu"], "--slurm: Could not detect"),
        (["--ray", "--slurm", "partition=gpu"], "--ray: the cells run there or as jobs of --slurm"),
        (["--ray", "node7"], "--ray node7: expected local, auto or HOST:PORT"),
        (["--ray", "node7:0"], "--ray node7:0: expected local, auto or HOST:PORT"),
        (["--ray", "127.0.0.1:1", "--dry-run"], "--ray 127.0.0.1:1: "),
        (["--ray", "--device", "cuda:1"], "--ray: device cuda:1: every cell is dealt its GPU"),
        (["--inits", "resnet"], "--inits resnet: not one of random, ubr"),
        (["--seeds", "-1"], "--seeds -1: must be >= 0"),
        (["--inits", "random", "ubr", "random"], "--inits random: named twice"),
        (["--seeds", "0", "1", "0"], "--seeds 0: named twice"),
        (["--label-fractions", "1", "0.5", ".5"], "--label-fractions 0.5: named twice"),
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


def test_real_training_starts_from_what_was_audited_and_a_folder_in_use_is_a_failed_cell(
    question: Question,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    short = [*flags(question, out), "--iterations", "2", "--batch", "1", "--jobs", "2"]
    short += ["--inits", "random", "ubr", "--seeds", "0"]
    with monkeypatch.context() as patch:
        patch.setattr("lesion_det.launch.local_launcher", lambda *_: Trainer(random_0=be_stopped))
        assert main(short) == 143
    held = out / "cells" / "random-seed0"
    held.mkdir(parents=True)
    with (held / ".lock").open("w") as lock:
        lock.write("pid 77")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(short) == 1
    random, ubr = result(out).arms
    assert "held by a live run (pid 77)" in random.cells[0].reason
    assert len(ubr.finished) == 1  # which it is only if it started as the plan had hashed it
    assert ubr.weights


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
