"""What an interrupted training counts on when it goes on, and what it does where that is lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.command_line import refused_line
from tests.equal_checkpoints import assert_equal_checkpoints
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_training import tiny as tiny_detector
from tests.reproduction.both_trainings import TRAIN, ask, rewrite
from tests.small_disk import small_disk
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint, write_checkpoint
from ubr_pretrain.config import Config
from ubr_pretrain.foreign_file import read_foreign_file
from ubr_pretrain.journal import Journal

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["ubr", "detector"]
ADVICE = "; put it back, or use --overwrite or a new folder"


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Config]:
    data = tmp_path_factory.mktemp("data")
    often = {"iterations": 5, "eval_every": 2, "save_every": 2}
    toy = write_toy_deeplesion(data / "lesions", {"train": 3, "val": 2})
    volumes = write_tiny_cohort(data / "ct")
    return {
        "ubr": tiny_config(volumes, store=data / "slices", **often),
        "detector": tiny_detector(toy, cache=data / "inputs", **often),
    }


@pytest.fixture(scope="module")
def whole(configs: dict[str, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind that nothing happened to."""
    base = tmp_path_factory.mktemp("whole")
    for kind in KINDS:
        assert TRAIN[kind](ask(configs[kind], base / kind)) == 0
    return base


@pytest.fixture(scope="module")
def stopped(configs: dict[str, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind that was asked to end in its third iteration."""
    base, plain = tmp_path_factory.mktemp("stopped"), Journal.progress

    def progress(self: Journal, iteration: int, text: str) -> None:
        plain(self, iteration, text)
        if iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "progress", progress)
        for kind in KINDS:
            assert TRAIN[kind](ask(configs[kind], base / kind)) == 143
    return base


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def begun(kind: str, stopped: Path, tmp_path: Path) -> Path:
    """A copy of an interrupted run."""
    return shutil.copytree(stopped / kind, tmp_path / "run")


def change(run: Path, name: str, kind: str, **entries: object) -> None:
    """Put other entries into a checkpoint; None takes one out."""
    file = run / "checkpoints" / f"{name}.safetensors"
    state = read_checkpoint(file, kind) | entries
    write_checkpoint(file, {k: v for k, v in state.items() if v is not None}, kind)


def assert_ends_like(whole: Path, kind: str, config: Config, run: Path) -> None:
    assert TRAIN[kind](ask(config, run)) == 0
    assert (run / "metrics.jsonl").read_bytes() == (whole / kind / "metrics.jsonl").read_bytes()
    for name in ("last", "best"):
        assert_equal_checkpoints(whole / kind, run, name, kind)


def _edit(record: Path) -> None:
    rewrite(record, '"loss": ', '"loss": 1')


def _without_a_line(record: Path) -> None:
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join([lines[0], *lines[2:]]))


def _cut(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "has {left} bytes; it held {size} when last.safetensors of iteration 3 was written"),
        (_without_a_line, "has {left} bytes; it held {size} when last"),
        (_edit, "its first {size} bytes are not those that it held when last"),
        (Path.unlink, "is missing; it held {size} bytes when last"),
    ],
)
def test_N80_a_record_that_is_not_what_it_was_is_refused(
    kind: str,
    begun: Path,
    configs: dict[str, Config],
    damage: Callable[[Path], None],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A lost, cut or edited `metrics.jsonl` of a begun run: refused at resume, file and bytes told.

    Nothing in the folder is changed by it.
    """
    record = begun / "metrics.jsonl"
    size = record.stat().st_size
    damage(record)
    left = record.read_bytes() if record.exists() else b""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        TRAIN[kind](ask(configs[kind], begun))
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {record}: {words.format(left=len(left), size=size)}" in line
    assert line.endswith(ADVICE)
    assert (record.read_bytes() if record.exists() else b"") == left


def test_N80_lines_behind_the_checkpoint_are_no_fault(
    kind: str, begun: Path, configs: dict[str, Config], whole: Path
) -> None:
    """Lines that a kill left behind the last checkpoint, half a line too: dropped and made anew."""
    with (begun / "metrics.jsonl").open("ab") as record:
        record.write(b'{"iteration": 4, "kind": "train", "loss": 7.0}\n{"iteration": 5, "ki')
    assert_ends_like(whole, kind, configs[kind], begun)


def test_N80_a_checkpoint_that_notes_nothing_of_the_record_is_gone_on_from(
    kind: str, begun: Path, configs: dict[str, Config], whole: Path
) -> None:
    """A run whose checkpoints were written before they noted the record goes on, bit for bit."""
    for name in ("last", "best"):
        change(begun, name, kind, metrics=None)
    config = configs[kind]
    assert TRAIN[kind](ask(config, begun)) == 0
    assert (begun / "metrics.jsonl").read_bytes() == (whole / kind / "metrics.jsonl").read_bytes()
    assert_equal_checkpoints(whole / kind, begun, "last", kind)


def test_N81_a_begun_run_without_its_best_checkpoint_is_refused(
    kind: str, begun: Path, configs: dict[str, Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """The best checkpoint removed from a begun run: refused at resume, by name (code 2)."""
    best = begun / "checkpoints" / "best.safetensors"
    best.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        TRAIN[kind](ask(configs[kind], begun))
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {best}: is missing; it was written before last.safetensors of iter" in line
    assert line.endswith(f"iteration 3{ADVICE}")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"best": 0.625}, "its score is 0.625, last.safetensors knows of "),
        ({"metrics": {"bytes": 9, "sha256": ""}}, "it was written beside another metrics.jsonl"),
    ],
)
def test_N81_the_best_checkpoint_of_another_run_is_refused(
    kind: str,
    begun: Path,
    configs: dict[str, Config],
    other: dict[str, object],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another run's best checkpoint in a begun run: refused at resume; how it is known is told."""
    change(begun, "best", kind, **other)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        TRAIN[kind](ask(configs[kind], begun))
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"best.safetensors: is not the best of this run ({words}" in line


def test_N81_a_best_checkpoint_from_behind_the_last_one_is_no_fault(
    kind: str, begun: Path, configs: dict[str, Config], whole: Path
) -> None:
    """A kill between the best checkpoint and the next last one: the same command goes on."""
    change(begun, "best", kind, iteration=4, best=0.999, metrics={"bytes": 9, "sha256": ""})
    config = configs[kind]
    assert TRAIN[kind](ask(config, begun)) == 0
    assert_equal_checkpoints(whole / kind, begun, "last", kind)


def test_N81_a_table_of_weights_that_was_lost_is_written_again(
    begun: Path, configs: dict[str, Config], whole: Path, kind: str
) -> None:
    """`weights.csv` or the picture of the labels lost from a begun run: written again, the same."""
    lost = ["weights.csv", "pictures/labels.png"] if kind == "detector" else ["manifest.csv"]
    for name in lost:
        (begun / name).unlink()
    assert_ends_like(whole, kind, configs[kind], begun)
    for name in lost:
        assert (begun / name).read_bytes() == (whole / kind / name).read_bytes()


def test_N82_a_loss_that_is_not_finite_before_the_first_checkpoint(
    kind: str, configs: dict[str, Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN before the first checkpoint: told that there is none, code 1; no checkpoint is named."""
    rare = configs[kind].model_copy(update=dict.fromkeys(("eval_every", "save_every"), 60))
    hot = ["--optimiser.name=sgd", "--optimiser.lr=1e30", "--iterations=60"]
    assert TRAIN[kind]([*ask(rare, tmp_path / "run"), *hot]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "not finite" in line
    assert line.endswith("; no checkpoint was written yet; the same command begins anew")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_N82_a_disk_that_fills_before_the_first_checkpoint(
    kind: str,
    configs: dict[str, Config],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Disk full before the first checkpoint: told that there is none; the same command does all."""
    config, plain = configs[kind], Journal.progress
    with small_disk(tmp_path / "disk", 64) as disk:
        run = disk.path / "run"

        def progress(self: Journal, iteration: int, text: str) -> None:
            plain(self, iteration, text)
            disk.fill()

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "progress", progress)
            assert TRAIN[kind]([ask(config, tmp_path / "run")[0], f"--out={run}"]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert "No space left on device" in line
        assert line.endswith("; no checkpoint was written yet; the same command begins anew")
        disk.tidy()
        assert TRAIN[kind]([ask(config, tmp_path / "run")[0], f"--out={run}"]) == 0
        assert_equal_checkpoints(whole / kind, run, "last", kind)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--device=mps:9", "device mps:9: must be auto, cpu, cuda or cuda:N"),
        ("--device=meta", "device meta: must be auto, cpu, cuda or cuda:N"),
        (f"--seed={2**70}", f"--seed {2**70}: expected a whole number >= 0 and <= {2**63 - 1}"),
        ("--optimiser.lr=inf", "optimiser.lr: Input should be a finite number (got inf)"),
        ("--optimiser.lr=nan", "--optimiser.lr nan: expected a number > 0"),
        ("--optimiser.max_grad_norm=nan",
         "--optimiser.max_grad_norm nan: expected a number > 0 or null"),
    ],
)  # fmt: skip
def test_N83_what_no_training_can_have_is_refused_before_anything_is_read(
    kind: str,
    flag: str,
    words: str,
    configs: dict[str, Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 and one line with flag, value and rule: torch's own words were 91 lines, and came
    when all volumes had been decoded."""
    line = refused_line(TRAIN[kind], capsys, [*ask(configs[kind], tmp_path / "run"), flag])
    assert line.endswith(f"error: {words}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\ud800"])
def test_N84_a_damaged_manifest_of_a_run_is_named(
    kind: str,
    text: str,
    begun: Path,
    configs: dict[str, Config],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 with the path of run.json; the run is as it was."""
    (begun / "run.json").write_bytes(text.encode(errors="surrogatepass"))
    before = {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()}
    line = refused_line(TRAIN[kind], capsys, ask(configs[kind], begun))
    assert f"{begun / 'run.json'}: is damaged, no JSON" in line
    assert {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()} == before


def test_N85_a_torch_file_that_asks_to_be_run_is_refused_in_our_words(tmp_path: Path) -> None:
    """The line names what it asks for, and what to save instead; torch's own advice, to load it
    with weights_only=False, is not passed on."""
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "whole.pth")
    with pytest.raises(CheckpointRefused) as refusal:
        read_foreign_file(tmp_path / "whole.pth")
    assert str(refusal.value).endswith(
        "whole.pth: not a tensor-only torch file (it holds torch.nn.modules.linear.Linear, which "
        "is not executed: save the state_dict alone)"
    )
