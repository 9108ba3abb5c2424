"""Numbers of steps: in order, late on a GPU, and never later than a checkpoint."""

import functools
import math
import signal

import pytest
import torch

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import late_record
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.journal import Journal
from ubr_pretrain.late_record import LateRecord
from ubr_pretrain.runtime import Ranks, StopRequest
from ubr_pretrain.train_ubr import train

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ONE = Ranks(0, 1, CPU)


class TwoAlike(Ranks):
    """The first of two ranks, the other of which sends the same; the second got SIGTERM."""

    def add_up(self, tensor):
        tensor *= 2
        tensor[-2:] = torch.tensor([0.0, float(signal.SIGTERM)])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


def record_of(late, ranks=ONE):
    told = []
    stop = StopRequest()
    return LateRecord(ranks, stop, lambda about, n: told.append((about, n)), late), told, stop


@pytest.mark.parametrize("late", [0, 1, 3])
def test_steps_are_told_in_order_and_no_more_than_that_late(late):
    record, told, _ = record_of(late)
    for step in range(6):
        record.send(step, {"loss": torch.tensor(step / 3), "scores": torch.arange(6.0).view(2, 3)})
        assert [about for about, _ in told] == list(range(max(0, step + 1 - late)))
    record.drain()
    assert [about for about, _ in told] == list(range(6))
    for step, (_, numbers) in enumerate(told):
        assert numbers["loss"].item() == torch.tensor(step / 3).item()  # float32, to the bit
        assert torch.equal(numbers["scores"], torch.arange(6.0, dtype=torch.float64).view(2, 3))


def test_a_cpu_is_not_late():
    record, told, _ = record_of(None)
    record.send("step", {"loss": torch.tensor(1.0)})
    assert told


def test_what_is_sent_does_not_change_with_the_tensor():
    record, told, _ = record_of(1)
    loss = torch.ones(3)
    record.send(0, {"loss": loss})
    loss.zero_()
    record.drain()
    assert told[0][1]["loss"].tolist() == [1, 1, 1]


def test_ranks_add_up_and_tell_each_other_of_signals():
    record, told, stop = record_of(1, TwoAlike(0, 2, CPU))
    record.send(0, {"loss": torch.tensor(1.5)})
    assert not record.stopping  # not read yet, on any rank
    record.send(1, {"loss": torch.tensor(2.5)})
    assert record.stopping
    assert stop.exit_code == 143
    record.drain()
    assert [numbers["loss"].item() for _, numbers in told] == [3.0, 5.0]


def test_a_signal_of_its_own_stops_a_rank_with_the_others_only():
    record, _, stop = record_of(0, TwoAlike(0, 2, CPU))
    stop(signal.SIGINT, None)
    assert not record.stopping
    record.send(0, {"loss": torch.tensor(1.5)})
    assert record.stopping
    assert stop.exit_code == 130


def late_by(monkeypatch, steps):
    monkeypatch.setattr(late_record, "LateRecord", functools.partial(LateRecord, late=steps))


def test_a_training_whose_numbers_come_late_is_the_same_training(cohort, tmp_path, monkeypatch):
    config = tiny_config(cohort, augmentation={"noise_hu": 20.0}, batch_norm=True)
    for steps in (0, 1):
        late_by(monkeypatch, steps)
        assert train(config, tmp_path / str(steps)) == 0
    plain, late = (tmp_path / "0", tmp_path / "1")
    assert (plain / "metrics.jsonl").read_bytes() == (late / "metrics.jsonl").read_bytes()
    for name in ("last", "best"):
        states = [
            read_checkpoint(run / f"checkpoints/{name}.safetensors", "ubr") for run in (plain, late)
        ]
        assert states[0]["iteration"] == states[1]["iteration"]
        for tensor, value in states[0]["regressor"].items():
            assert torch.equal(value, states[1]["regressor"][tensor]), tensor


@pytest.mark.parametrize("steps", [0, 1])
def test_T14_no_checkpoint_has_weights_from_behind_a_loss_that_is_not_finite(
    cohort, tmp_path, monkeypatch, steps
):
    """No checkpoint holds weights of a step whose loss, read one step late, is not finite."""
    late_by(monkeypatch, steps)
    shown = []
    monkeypatch.setattr(Journal, "progress", lambda self, iteration, text: shown.append(iteration))
    hot = tiny_config(
        cohort, optimiser={"name": "sgd", "lr": 1e30}, save_every=2, eval_every=2, iterations=4
    )
    with pytest.raises(FloatingPointError, match=r"iteration 2: the loss is not finite.*p\d"):
        train(hot, tmp_path / "run")
    assert shown == [1]
    assert not [*tmp_path.rglob("*.safetensors")]


def test_a_loss_that_is_not_finite_is_named_by_its_own_step(cohort, tmp_path, monkeypatch):
    late_by(monkeypatch, 1)
    drawn = []
    send = LateRecord.send

    def spoilt(self, about, numbers):
        drawn.append(about)
        factor = math.nan if about[0] == 4 else 1.0
        send(self, about, {name: value * factor for name, value in numbers.items()})

    monkeypatch.setattr(LateRecord, "send", spoilt)
    with pytest.raises(FloatingPointError) as refusal:
        train(tiny_config(cohort), tmp_path / "run")  # saves at 3, validates at 2 and 4
    assert "iteration 4: the loss is not finite" in str(refusal.value)
    assert str(refusal.value).endswith(f"volumes {', '.join(drawn[3][2])}")
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors", "ubr")
    assert last["iteration"] == 3
    assert all(value.isfinite().all() for value in last["regressor"].values())
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count('"train"') == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("residence", ["device", "host", "disk"])
def test_a_step_on_a_gpu_waits_for_nothing(cohort, tmp_path, monkeypatch, residence):
    """Torch's own guard raises at every copy or index that would make the host wait."""
    progress = Journal.progress

    def watch(self, iteration, text):
        torch.cuda.set_sync_debug_mode("error" if 3 <= iteration < 9 else "default")
        progress(self, iteration, text)

    monkeypatch.setattr(Journal, "progress", watch)
    config = tiny_config(
        cohort,
        device="cuda",
        residence=residence,
        iterations=12,
        eval_every=100,
        save_every=100,
        augmentation={"scale": 0.2, "noise_hu": 20.0, "erase": 0.3, "field": 0.3, "blur": 0.5},
        optimiser={"name": "sgd", "lr": 1e-3, "max_grad_norm": 5.0},
    )
    try:
        assert train(config, tmp_path / "run") == 0
    finally:
        torch.cuda.set_sync_debug_mode("default")
