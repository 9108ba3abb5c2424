"""The same seed gives the same weights, and a run can be put to that test by anybody."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from tests.reproduction.both_trainings import TRAIN, ask, rewrite
from ubr_pretrain.checkpoint import read_checkpoint, write_checkpoint
from ubr_pretrain.config import Config
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.machine import DEPENDENCIES, OPTIONAL, describe_machine
from ubr_pretrain.reproduction import conclude
from ubr_pretrain.run_agreement import compare_metrics, compare_runs, compare_weights
from ubr_pretrain.train_ubr import main as train_ubr

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("reproduction")]

SHUFFLED = """
import os, random, sys
import torch
torch.set_num_threads(1)
plain, listed = os.scandir, os.listdir
class Scandir(list):
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __iter__(self): return iter(random.sample(list(super().__iter__()), len(self)))
    def close(self): pass
os.scandir = lambda *folder: Scandir(plain(*folder))
os.listdir = lambda *folder: sorted(listed(*folder), reverse=True)
from lesion_det.train_det import main as train_det
from ubr_pretrain.train_ubr import main as train_ubr
data = os.path.dirname(sys.argv[1].partition("=")[2])
assert next(iter(os.scandir(data))) and os.listdir(data) == sorted(os.listdir(data), reverse=True)
assert train_ubr(sys.argv[1:3]) == 0 and train_det(sys.argv[3:]) == 0
"""


@pytest.mark.parametrize("kind", TRAIN)
def test_T13_a_run_trained_once_more_is_equal_bit_for_bit(
    kind: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """`train_*.py --reproduce RUN_DIR` trains again: all weights, metrics and answers are equal on
    a CPU (exit code 0).
    """
    run = runs[kind]
    assert TRAIN[kind]([f"--reproduce={run}"]) == 0
    again = run.with_name(f"{kind}-reproduced")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the same versions, code, processor and threads"
    assert said[-1] == f"{again} reproduces {run}: equal bit for bit"
    assert sum(line.startswith("equal: checkpoints/last.safetensors: ") for line in said) == 1
    assert any("metrics.jsonl" in line for line in said)
    assert (kind == "detector") == any("predictions_test.json" in line for line in said)
    assert json.loads((again / "run.json").read_text())["reproduction"]["equal"] is True
    shutil.rmtree(again)


def test_T13_weights_hang_neither_on_the_order_of_files_nor_on_hashing(
    configs: dict[str, Config], runs: dict[str, Path], tmp_path: Path
) -> None:
    """Folders listed in another order, another PYTHONHASHSEED, another process, other decoding
    threads: the same bits.
    """
    detector = configs["detector"].model_copy(update={"workers": 2})
    arguments = [
        *ask(configs["ubr"], tmp_path / "ubr"),
        *ask(detector, tmp_path / "detector"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SHUFFLED, *arguments],
        env=os.environ | {"PYTHONHASHSEED": "20181"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for kind, run in runs.items():
        findings = compare_runs(run, tmp_path / kind, 0.0)
        assert all(finding.equal for finding in findings), [*map(str, findings)]


def test_T13_another_seed_is_found_at_the_first_step(
    ubr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose noted seed is not the one it was trained with is not reproduced: the first step
    is named (exit code 1).
    """
    rewrite(ubr / "config.yaml", "seed: 0", "seed: 1")
    assert train_ubr([f"--reproduce={ubr}"]) == 1
    said = capsys.readouterr().out
    assert "DIFFERS: metrics.jsonl: first at iteration 1, train: loss " in said
    assert "not equal bit for bit" in said


def test_N60_a_metric_that_differs_is_named_with_its_step_and_both_values(
    pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line of `metrics.jsonl` that differs is named: step, metric and both values."""
    run, again = pair
    second = read_metrics(run / "metrics.jsonl")[1]["order"]
    rewrite(run / "metrics.jsonl", f'"order": {second}', '"order": 9.5')
    assert conclude(run, again, 0) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "metrics.jsonl" in line)
    assert line.startswith(
        f"DIFFERS: metrics.jsonl: first at iteration 2, train: order 9.5 in the run, {second} now"
    )


def test_N60_a_weight_that_differs_in_its_last_bit_is_named(
    pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """One weight that differs in one bit is found: the tensor and both values are named."""
    run, again = pair
    last = again / "checkpoints/last.safetensors"
    state = read_checkpoint(last, "ubr")
    name, tensor = next((n, t) for n, t in state["regressor"].items() if t.ndim == 4)
    tensor.view(torch.int32).flatten()[7] += 1
    write_checkpoint(last, state, "ubr")
    assert conclude(run, again, 0) == 1
    said = capsys.readouterr().out
    assert f"DIFFERS: checkpoints/last.safetensors: first {name} by up to " in said
    assert "(1 of " in said
    assert "\nequal: checkpoints/best.safetensors: " in said


@pytest.mark.parametrize("pair", ["detector"], indirect=True)
def test_N60_answers_that_differ_are_named(
    pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Final numbers and predictions are compared too; a file that is gone is a difference."""
    run, again = pair
    rewrite(run / "metrics.json", '"num_lesions": 2', '"num_lesions": 3')
    (again / "predictions_val.json").unlink()
    assert conclude(run, again, 0) == 1
    said = capsys.readouterr().out
    assert "DIFFERS: metrics.json: num_lesions 3 in the run, 2 now" in said
    assert "DIFFERS: predictions_val.json: the reproduction has none" in said


def test_N61_other_versions_are_told_and_are_no_difference_of_themselves(
    pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions, code, processor or threads that are not those of the run are listed; equal numbers
    stay equal.
    """
    run, again = pair
    manifest = json.loads((run / "run.json").read_text())
    here = manifest["machine"]["packages"]["torch"]
    manifest["machine"]["packages"]["torch"] = "1.0"
    manifest["machine"]["threads"] = 64
    (run / "run.json").write_text(json.dumps(manifest))
    assert conclude(run, again, 0) == 0
    said = capsys.readouterr().out
    assert f"other packages.torch: 1.0 -> {here}\n" in said
    assert "other threads: 64 -> 1\n" in said


@pytest.mark.parametrize("kind", TRAIN)
def test_N61_the_manifest_says_what_numbers_hang_on(kind: str, runs: dict[str, Path]) -> None:
    """`run.json` holds the seed, every version, the code's hash, processor, threads, device and the
    hash of the data.
    """
    manifest = json.loads((runs[kind] / "run.json").read_text())
    assert manifest["seed"] == 0
    machine = manifest["machine"]
    assert {*machine} >= {"python", "commit", "platform", "cpu", "instructions", "cuda", "cudnn"}
    assert machine["packages"].items() >= {"torch": torch.__version__.partition("+")[0]}.items()
    assert machine["threads"] == 1
    assert machine["device"] == "cpu"
    assert len(machine["code_sha256"]) == 64
    hashes = manifest.get("audit", {"train_sha256": manifest.get("data_sha256")})
    assert len(hashes["train_sha256"]) == 64
    assert str(Path.home()) not in (runs[kind] / "run.json").read_text()


def test_every_dependency_of_the_project_is_in_the_manifest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [
        n for e, names in project["optional-dependencies"].items() if e != "dev" for n in names
    ]
    named = [
        [requirement.partition(">=")[0].partition("[")[0] for requirement in requirements]
        for requirements in (project["dependencies"], extras)
    ]
    assert {*DEPENDENCIES} == {*named[0], "torch"}
    assert {*OPTIONAL} == {*named[1], "detectron2"}
    assert {*describe_machine(torch.device("cpu"))["packages"]} >= {*DEPENDENCIES}


def test_on_a_gpu_a_hundredth_is_close_enough_and_more_is_not() -> None:
    weights = {"a": torch.ones(100), "n": torch.tensor(3)}
    near, far = ({"a": torch.ones(100) * f, "n": torch.tensor(3)} for f in (1.009, 1.011))
    assert compare_weights("w", weights, near, 0.01).equal
    assert not compare_weights("w", weights, near, 0.0).equal
    assert not compare_weights("w", weights, far, 0.01).equal
    assert not compare_weights("w", weights, {**near, "n": torch.tensor(4)}, 0.01).equal
    assert "is in the run alone" in compare_weights("w", weights, {"a": near["a"]}, 0.01).words
    other = compare_weights("w", weights, {**near, "a": torch.ones(50)}, 0.01)
    assert "torch.float32 (100,) in the run, torch.float32 (50,) now" in other.words
    record = {
        "iteration": 5,
        "kind": "val",
        "r": 0.5,
        "worst": "p1",
        "none": None,
        "each": {"p": 1.0},
    }
    assert compare_metrics([record], [record | {"r": 0.504, "worst": "p2"}], 0.01).equal
    assert not compare_metrics([record], [record | {"worst": "p2"}], 0.0).equal
    assert not compare_metrics([record], [record | {"none": 0.1}], 0.01).equal
    assert "each.p 1.0 in the run, 2.0 now" in (
        compare_metrics([record], [record | {"each": {"p": 2.0}}], 0.01).words
    )
    assert "iteration 5, val" in compare_metrics([record], [], 0.01).words
