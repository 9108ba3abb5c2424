"""What can go wrong while a regressor is trained: told in one line, with the last state intact."""

import os
import shutil
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.command_line import refused_line
from tests.equal_checkpoints import assert_equal_checkpoints
from tests.small_disk import small_disk
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import collapse, runtime
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.config import config_to_yaml
from ubr_pretrain.journal import Journal, read_metrics
from ubr_pretrain.run_folder import RunFolder, open_run_folder
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.train_ubr import main, train
from ubr_pretrain.training_batches import TrainingBatches
from ubr_pretrain.ubr_config import UbrConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def config(cohort, tmp_path_factory):
    return tiny_config(cohort, store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert train(config, out) == 0
    return out


def argv(config: UbrConfig, out: Path) -> list[str]:
    file = out.parent / f"{out.name}.yaml"
    file.write_text(config_to_yaml(config))
    return ["--config", str(file), "--out", str(out)]


def last_words(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def saved(run: Path) -> dict:
    return read_checkpoint(run / "checkpoints" / "last.safetensors", "ubr")


def assert_goes_on_to(straight: Path, config: UbrConfig, run: Path) -> None:
    """The same command ends with the bytes of a run that nothing happened to."""
    assert train(config, run) == 0
    assert (run / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    for name in ("last", "best"):
        assert_equal_checkpoints(straight, run, name, "ubr")
    assert not [*run.rglob(".*.part")]


def at_progress(monkeypatch, iteration: int, do) -> None:
    """Have something done once, when an iteration has been written down."""
    plain = Journal.progress

    def progress(self, number, text):
        plain(self, number, text)
        if number == iteration:
            monkeypatch.setattr(Journal, "progress", plain)
            do(self)

    monkeypatch.setattr(Journal, "progress", progress)


def test_T03_file_metrics_and_folder_are_synced_around_the_rename(config, tmp_path, monkeypatch):
    """A checkpoint: metrics synced, file synced, renamed, folder synced: no power cut undoes it."""
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(handle):
        name = Path(f"/proc/self/fd/{handle}").readlink()
        events.append(f"sync {name.name.removeprefix('.').split('.safetensors')[0]}")
        sync(handle)

    def note_replace(self, target):
        events.append(f"rename {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    assert train(config.model_copy(update={"iterations": 1}), tmp_path / "run") == 0
    at = events.index("rename last.safetensors")
    assert events[at - 1 : at + 2] == ["sync last", "rename last.safetensors", "sync checkpoints"]
    assert "sync metrics.jsonl" in events[:at]


def test_T04_sigusr1_leaves_a_checkpoint_and_exit_code_138(config, straight, tmp_path, monkeypatch):
    """SIGUSR1, which schedulers send before the time is over: a checkpoint of that step, status
    interrupted, code 138 (128 and its number, as shells count); it goes on bit for bit."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # by default it would end the tests
    try:
        at_progress(monkeypatch, 4, lambda _: os.kill(os.getpid(), signal.SIGUSR1))
        run = tmp_path / "run"
        assert main(argv(config, run)) == 138
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert saved(run)["iteration"] == 4
    assert RunFolder(run).read_manifest()["status"] == "interrupted"
    assert_goes_on_to(straight, config, run)


def test_T05_a_second_sigint_ends_it_at_once(config, tmp_path, monkeypatch, capsys):
    """SIGINT twice: the first asks for a checkpoint, the second ends at once (one line, 130)."""

    def press_twice(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_progress(monkeypatch, 4, press_twice)
    run = tmp_path / "run"
    assert main(argv(config, run)) == 130
    assert last_words(capsys) == (
        "train_ubr.py: stopped at once; the last checkpoint is whole, and the same command goes on "
        "from it"
    )
    assert saved(run)["iteration"] == 3


def test_T06_a_disk_that_fills_before_a_checkpoint(config, straight, tmp_path, monkeypatch, capsys):
    """Disk full at a checkpoint: code 1, file and free bytes told, the one before is whole."""
    with small_disk(tmp_path / "disk") as disk:
        run = disk.path / "run"
        at_progress(monkeypatch, 5, lambda _: disk.fill())
        arguments = argv(config, tmp_path / "run")[:2]
        assert main([*arguments, "--out", str(run)]) == 1
        words = last_words(capsys)
        assert "No space left on device" in words
        page = os.sysconf("SC_PAGESIZE")  # of the lock, which is emptied when the run ends
        assert f"{run}: {page} bytes are free there" in words
        assert "the same command goes on" in words
        assert saved(run)["iteration"] == 3
        assert not [*(run / "checkpoints").glob(".*")]
        disk.tidy()
        assert_goes_on_to(straight, config, run)


def test_T06_a_line_of_the_metrics_that_cannot_be_written(
    config, straight, tmp_path, monkeypatch, capsys
):
    """Disk full at a line of the metrics: code 1 in one line with the folder and the free bytes;
    the same command goes on."""

    def full(journal):
        journal._metrics.close()
        journal._metrics = open("/dev/full", "w")  # noqa: PTH123, SIM115

        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4711))

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_progress(patch, 4, full)
        assert main(argv(config, run)) == 1
    said = f"{run}: No space left on device ({run}: 4711 bytes are free there); the last checkpoint"
    assert said in last_words(capsys)
    assert saved(run)["iteration"] == 3
    assert_goes_on_to(straight, config, run)


def test_T07_a_read_only_folder_is_refused_before_any_work(config, tmp_path, capsys):
    """A folder on a read-only disk: refused with the reason (code 2) before a volume is read."""
    with small_disk(tmp_path / "disk", 1) as disk:
        disk.forbid_writing()
        arguments = argv(config, tmp_path / "run")[:2]
        line = refused_line(main, capsys, [*arguments, "--out", str(disk.path / "run")])
    assert "cannot be written (Read-only file system)" in line


def test_T11_another_configuration_is_refused_with_its_differences(config, tmp_path, capsys):
    """Changed settings in a begun run: refused with old and new values (code 2), no override."""
    run = tmp_path / "run"
    with open_run_folder(run, config):
        pass
    other = config.model_copy(update={"seed": 3, "g": 2})
    line = refused_line(main, capsys, [*argv(other, run), "--resume"])
    assert "another configuration (g: 4 -> 2; seed: 0 -> 3); use --overwrite or a new" in line
    assert (run / "config.yaml").read_text() == config_to_yaml(config)


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_T15_a_gradient_that_overflows_is_not_stepped_along(
    config, tmp_path, monkeypatch, capsys, max_grad_norm
):
    """An infinite gradient (bf16 needs no scaler, fp16 is not offered): step and volumes named."""
    with pytest.raises(ValidationError, match="precision"):
        tiny_config(*config.data, precision="fp16")
    plain, steps = Ranks.sum_gradients, []

    def overflow(self, module):
        plain(self, module)
        steps.append(1)
        if len(steps) == 4:
            next(module.parameters()).grad[0] = float("inf")

    monkeypatch.setattr(Ranks, "sum_gradients", overflow)
    optimiser = config.optimiser.model_copy(update={"max_grad_norm": max_grad_norm})
    hot = config.model_copy(update={"optimiser": optimiser, "save_every": 1})
    assert main(argv(hot, tmp_path / "run")) == 1
    words = last_words(capsys)
    assert "iteration 4: the gradient is not finite" in words
    assert "volumes p" in words
    state = saved(tmp_path / "run")
    assert state["iteration"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["regressor"].values())


def test_N20_weights_that_are_not_finite_are_never_written(config, tmp_path, monkeypatch, capsys):
    """A weight that becomes infinite: iteration and tensor named, nothing written, code 1."""
    step = torch.optim.AdamW.step

    def explode(self, *args, **kwargs):
        step(self, *args, **kwargs)
        with torch.no_grad():
            self.param_groups[0]["params"][0][0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", explode)
    assert main(argv(config.model_copy(update={"save_every": 1}), tmp_path / "run")) == 1
    words = last_words(capsys)
    assert "iteration 1: " in words
    assert "is not finite after this step" in words
    assert not [*(tmp_path / "run").rglob("*.safetensors")]


def test_T17_a_stored_volume_that_is_cut_off_while_it_is_in_use(
    config, straight, tmp_path, monkeypatch, capsys
):
    """Slices cut off on the disk in mid-training: the file is named, code 1; then decoded again."""
    fetch, store = TrainingBatches._fetch, tmp_path / "store"

    def cut_first(self, iteration):
        if iteration == 4:
            (file,) = store.glob("p2-*.npy")
            file.write_bytes(file.read_bytes()[:3000])
        return fetch(self, iteration)

    own = config.model_copy(update={"store": store})
    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "_fetch", cut_first)
        assert main(argv(own, tmp_path / "run")) == 1
    words = last_words(capsys)
    assert "store/p2-" in words
    assert "was cut off while it was in use" in words
    assert_goes_on_to(straight, own, tmp_path / "run")


def test_T18_a_gpu_that_is_too_small_says_what_to_lower(config, tmp_path, monkeypatch, capsys):
    """GPU out of memory: iteration, g * m and what to lower are told, code 1, checkpoint kept."""
    from ubr_pretrain import losses

    plain, steps = losses.ubr_loss, []

    def too_much(*args):
        steps.append(1)
        if len(steps) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return plain(*args)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(losses, "ubr_loss", too_much)
        assert main(argv(config, run)) == 1
    assert last_words(capsys) == (
        "train_ubr.py: out of GPU memory: iteration 5, g * m = 4 * 4 = 16 slices of 32 px a step; "
        "lower --g or --m, use --precision bf16, --residence host, or more ranks; the last "
        "checkpoint is whole, and the same command goes on from it"
    )
    assert saved(run)["iteration"] == 3


def test_T20_ranks_with_other_volumes_are_refused(config, tmp_path, monkeypatch, capsys):
    """Ranks whose data differ: refused at the start with the hashes of all (code 2)."""
    monkeypatch.setattr(Ranks, "gather_objects", lambda _, value: [value, "another hash"])
    with pytest.raises(SystemExit, match="2"):
        main(argv(config, tmp_path / "run"))
    line = last_words(capsys)
    assert "error: the ranks do not agree on the training data" in line
    assert "another hash" in line


def test_T23_scores_that_are_all_equal_are_told(config, tmp_path, monkeypatch):
    """Scores of a batch all equal for 200 iterations: a warning in train.log, training goes on."""
    monkeypatch.setattr(collapse, "PATIENCE", 3)
    still = config.optimiser.model_copy(update={"lr": 1e-12})
    flat = config.model_copy(update={"head_std": 1e-9, "optimiser": still})
    assert train(flat, tmp_path / "run") == 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("warning: iteration 3: all scores are equal (standard deviation") == 1
    assert log.count("warning: iteration 4: the order loss does not fall (8.318") == 1


def test_T25_groups_that_ranks_cannot_share_are_refused(config, tmp_path, monkeypatch, capsys):
    """g that the ranks cannot share evenly: refused with both numbers (code 2), before any work."""
    monkeypatch.setattr(runtime, "Ranks", lambda _, __, device: Ranks(0, 3, device))
    line = refused_line(main, capsys, argv(config, tmp_path / "run"))
    assert "g = 4 groups cannot be shared by 3 ranks" in line
    assert not (tmp_path / "run").exists()


def test_N25_no_machine_is_named_in_tensorboards_file(straight):
    """TensorBoard's file of a run names no machine, and holds every number of the metrics."""
    (file,) = (straight / "tb").iterdir()
    host = socket.gethostname().encode()
    assert host not in file.name.encode()
    assert host not in file.read_bytes()
    events = EventAccumulator(str(straight / "tb"))
    events.Reload()
    losses = [r["loss"] for r in read_metrics(straight / "metrics.jsonl") if r["kind"] == "train"]
    points = events.Scalars("train/loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    assert [point.value for point in points] == pytest.approx(losses)


def test_T06_T27_without_tensorboard_the_training_goes_on(config, straight, tmp_path):
    """TensorBoard's folder cannot be written: said once, and the training goes on without it."""
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk.path / "tb").mkdir()
        run = tmp_path / "run"
        with open_run_folder(run, config):
            pass
        (run / "tb").symlink_to(disk.path / "tb")
        disk.fill()
        assert train(config, run) == 0
    log = (run / "train.log").read_text()
    assert log.count("TensorBoard: ") == 1
    assert "goes on without it" in log
    assert (run / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    assert len(read_metrics(run / "metrics.jsonl")) == 9
