"""What can go wrong while a detector is trained: told in one line, with the last state intact."""

import os
import platform
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lesion_det.det_config import DetConfig
from lesion_det.detector import Detector
from lesion_det.prepared_images import PreparedImages
from lesion_det.train_det import main, train
from tests.command_line import refused_line
from tests.equal_checkpoints import assert_equal_checkpoints
from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_training import flags, tiny
from tests.small_disk import small_disk
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.journal import Journal
from ubr_pretrain.run_folder import open_run_folder
from ubr_pretrain.runtime import Ranks

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_toy_deeplesion(tmp_path_factory.mktemp("toy"), {"train": 4, "val": 2})


@pytest.fixture(scope="module")
def config(toy: ToyDeepLesion, tmp_path_factory: pytest.TempPathFactory) -> DetConfig:
    return tiny(toy, iterations=3, eval_every=2, save_every=2, cache=tmp_path_factory.mktemp("in"))


@pytest.fixture(scope="module")
def straight(config: DetConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert train(config, out).exit_code == 0
    return out


def last_words(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def saved_at(run: Path) -> int:
    return int(read_checkpoint(run / "checkpoints" / "last.safetensors", "detector")["iteration"])


def assert_goes_on_to(straight: Path, config: DetConfig, run: Path) -> None:
    """The same command ends with the bytes of a run that nothing happened to."""
    assert train(config, run).exit_code == 0
    for name in (
        "metrics.jsonl",
        "metrics.json",
        "predictions_val.json",
    ):
        assert (run / name).read_bytes() == (straight / name).read_bytes(), name
    for name in ("last", "best"):
        assert_equal_checkpoints(straight, run, name, "detector")
    assert not [*run.rglob(".*.part")]


def at_progress(
    monkeypatch: pytest.MonkeyPatch, iteration: int, do: Callable[[Journal], None]
) -> None:
    """Have something done once, when an iteration has been written down."""
    plain = Journal.progress

    def progress(self: Journal, number: int, text: str) -> None:
        plain(self, number, text)
        if number == iteration:
            monkeypatch.setattr(Journal, "progress", plain)
            do(self)

    monkeypatch.setattr(Journal, "progress", progress)


def test_T05_a_second_sigint_ends_it_at_once(
    config: DetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGINT twice in a training of a detector: ends at once with one line, code 130."""

    def press_twice(_: Journal) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_progress(monkeypatch, 3, press_twice)
    run = tmp_path / "run"
    assert main(flags(config, run)) == 130
    assert last_words(capsys) == (
        "train_det.py: stopped at once; the last checkpoint is whole, and the same command goes on "
        "from it"
    )
    assert saved_at(run) == 2


def test_T06_a_disk_that_fills_before_a_checkpoint(
    config: DetConfig,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Disk full at a checkpoint of a detector: code 1, free bytes told, the one before is whole."""
    with small_disk(tmp_path / "disk", 64) as disk:
        run = disk.path / "run"
        at_progress(monkeypatch, 3, lambda _: disk.fill())
        arguments = [flags(config, tmp_path / "run")[0], f"--out={run}"]
        assert main(arguments) == 1
        words = last_words(capsys)
        assert "No space left on device" in words
        page = os.sysconf("SC_PAGESIZE")  # of the lock, which is emptied when the run ends
        assert f"{run}: {page} bytes are free there" in words
        assert saved_at(run) == 2
        assert not [*(run / "checkpoints").glob(".*")]
        disk.tidy()
        assert_goes_on_to(straight, config, run)


def test_T06_a_disk_that_fills_while_inputs_are_decoded(
    config: DetConfig, toy: ToyDeepLesion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No room for the decoded inputs: refused with the folder and the room it has (code 2)."""
    with small_disk(tmp_path / "disk", 1) as disk:
        disk.fill()
        own = config.model_copy(update={"cache": disk.path / "inputs"})
        line = refused_line(main, capsys, flags(own, tmp_path / "run"))
    assert "disk/inputs: cannot be written (No space left on device)" in line


def test_T07_a_read_only_folder_is_refused_before_any_work(
    config: DetConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a detector on a read-only disk: refused with the reason (code 2)."""
    with small_disk(tmp_path / "disk", 1) as disk:
        disk.forbid_writing()
        arguments = [flags(config, tmp_path / "run")[0], f"--out={disk.path / 'run'}"]
        assert "cannot be written (Read-only file system)" in refused_line(main, capsys, arguments)


def test_T08_T11_a_folder_of_a_live_run_or_of_other_settings_is_refused(
    config: DetConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A detector's folder held by a live run, or begun with other settings: refused (code 2)."""
    run = tmp_path / "run"
    with open_run_folder(run, config):
        line = refused_line(main, capsys, flags(config, run))
        assert f"held by a live run (pid {os.getpid()} on {platform.node()})" in line
    line = refused_line(main, capsys, flags(config.model_copy(update={"seed": 5}), run))
    assert "another configuration (seed: 0 -> 5)" in line


def test_T15_a_gradient_that_overflows_is_not_stepped_along(
    config: DetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An infinite gradient of a detector: iteration and images named, code 1, weights finite."""
    plain, steps = Ranks.sum_gradients, []

    def overflow(self: Ranks, module: torch.nn.Module) -> None:
        plain(self, module)
        steps.append(1)
        if len(steps) == 3:
            gradient = next(module.parameters()).grad
            assert gradient is not None
            gradient[0] = float("nan")

    monkeypatch.setattr(Ranks, "sum_gradients", overflow)
    assert main(flags(config.model_copy(update={"save_every": 1}), tmp_path / "run")) == 1
    words = last_words(capsys)
    assert "iteration 3: gradient not finite" in words
    assert "images 00000" in words
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    state = read_checkpoint(last, "detector")
    assert state["iteration"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in state["detector"].values())


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_T16_T17_an_input_that_turns_bad_while_it_is_in_use(
    config: DetConfig,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    """A decoded input damaged in mid-training: file and input named, code 1; then made anew."""
    assert config.cache is not None
    cache = shutil.copytree(config.cache, tmp_path / "inputs")
    own, run = config.model_copy(update={"cache": cache}), tmp_path / "run"
    get, asked = PreparedImages.__getitem__, []

    def hurt_first(self: PreparedImages, record: Any) -> Any:
        asked.append(record)
        if len(asked) == 4:
            pixels = cache / "inputs.int16"
            with pixels.open("r+b") as file:
                if damage == "cut":
                    file.truncate(100)
                else:
                    for at in range(0, pixels.stat().st_size, 1000):
                        file.seek(at)
                        file.write(b"\x77")
        return get(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(PreparedImages, "__getitem__", hurt_first)
        assert main(flags(own, run)) == 1
    words = last_words(capsys)
    assert "inputs/inputs.int16: input " in words
    assert "was damaged while in use" in words
    assert_goes_on_to(straight, own, run)


def test_T18_a_gpu_that_is_too_small_says_what_to_lower(
    config: DetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """GPU out of memory in a detector: iteration and what to lower, code 1, checkpoint kept."""
    plain, steps = Detector.losses, []

    def too_much(self: Detector, *args: Any) -> dict[str, torch.Tensor]:
        steps.append(1)
        if len(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return plain(self, *args)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "losses", too_much)
        assert main(flags(config, run)) == 1
    assert last_words(capsys) == (
        "train_det.py: out of GPU memory: iteration 3, batch of 2 images of up to 64 px; lower "
        "--batch or --input.max_px, or use more ranks; the last "
        "checkpoint is whole, and the same command goes on from it"
    )
    assert saved_at(run) == 2


def test_T20_ranks_with_other_images_are_refused(
    config: DetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ranks whose images or start differ: refused before the first step (code 2)."""
    monkeypatch.setattr(Ranks, "gather_objects", lambda _, value: [value, {"order_sha256": "x"}])
    line = refused_line(main, capsys, flags(config, tmp_path / "run"))
    assert "the ranks do not agree on data and start" in line


def test_T25_a_batch_that_ranks_cannot_share_is_refused(
    config: DetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A batch that the ranks cannot share evenly: refused with both numbers (code 2)."""
    monkeypatch.setattr(Ranks, "__init__", three_ranks)
    line = refused_line(main, capsys, flags(config, tmp_path / "run"))
    assert "batch 2: cannot be shared by 3 ranks" in line


def three_ranks(self: Ranks, rank: int, world_size: int, device: torch.device) -> None:
    del world_size
    for name, value in (("rank", rank), ("world_size", 3), ("device", device)):
        object.__setattr__(self, name, value)
