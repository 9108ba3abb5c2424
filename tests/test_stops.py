"""SIGTERM in the slowest phases: the end comes within five seconds, and nothing done is lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lesion_det import inference
from lesion_det.train_det import train as train_detector
from tests.equal_checkpoints import assert_equal_checkpoints
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_training import tiny
from tests.ubr_pretrain.archives import recorded, write_toy_checkpoint
from tests.ubr_pretrain.stored_volumes import nii, scan, write_itk
from tests.ubr_pretrain.test_guard import FaultyEntry
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import (
    long_steps,
    scorer,
    scoring_run,
    store_reader,
    training_data,
    validation,
)
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.ct import Volume
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.long_steps import LongSteps
from ubr_pretrain.runtime import giving_way
from ubr_pretrain.scans import find_scans
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.train_ubr import train as train_regressor
from ubr_pretrain.volumes import find_volumes

pytestmark = pytest.mark.usefixtures("one_thread")

LIMIT_S = 5.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


class Told:
    """When SIGTERM was sent."""

    def __init__(self) -> None:
        self.at_s: float | None = None

    def tell(self) -> None:
        self.at_s = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def once(self, happened: Any) -> Iterator[None]:
        """Send it as soon as ``happened()`` is true."""

        def watch() -> None:
            while not happened():
                time.sleep(0.05)
            self.tell()

        watcher = threading.Thread(target=watch)
        watcher.start()
        yield
        watcher.join()

    def require_in_time(self) -> None:
        assert self.at_s is not None
        assert time.monotonic() - self.at_s < LIMIT_S


def test_N21_a_signal_while_a_volume_is_decoded_into_the_store(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM while a large volume is decoded: code 143 within 5 s; decoded volumes are kept."""
    config = tiny_config(cohort, store=tmp_path / "store", iterations=1)

    def with_one_that_hangs(*paths: Any) -> Any:
        found = find_volumes(*paths)
        found.append(FaultyEntry(tmp_path / "large.nii", "hang", "nobody"))
        return found

    told = Told()
    with monkeypatch.context() as patch:
        patch.setattr(store_reader, "WORTH_CHILDREN", 0)
        patch.setattr(training_data, "find_volumes", with_one_that_hangs)
        with told.once(lambda: len([*(tmp_path / "store").glob("*.json")]) == 5):
            assert train_regressor(config, tmp_path / "run") == 143
    told.require_in_time()
    assert train_regressor(config, tmp_path / "run") == 0
    assert not (tmp_path / "store" / store_reader.MARK).exists()


def test_N22_a_signal_while_held_out_volumes_are_scored(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in a validation of the regressor: checkpoint at once, validation made up later."""
    config = tiny_config(cohort, store=tmp_path / "store", iterations=4)
    assert train_regressor(config, tmp_path / "straight") == 0
    told, run = Told(), tmp_path / "run"

    def long(*_: Any) -> None:
        told.tell()
        time.sleep(60)

    for _ in range(2):  # it may be stopped again while it makes up for it
        with monkeypatch.context() as patch:
            patch.setattr(validation, "validate", long)
            assert train_regressor(config, run) == 143
        told.require_in_time()
        state = read_checkpoint(run / "checkpoints" / "last.safetensors", "ubr")
        assert (state["iteration"], state["judged"]) == (2, False)
    assert train_regressor(config, run) == 0
    metrics = [folder / "metrics.jsonl" for folder in (run, tmp_path / "straight")]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    for name in ("last", "best"):
        assert_equal_checkpoints(tmp_path / "straight", run, name, "ubr")


def test_N22_a_signal_while_a_detector_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in a validation of the detector, or at its end: not waited for, made up later."""
    toy = write_toy_deeplesion(tmp_path / "toy", {"train": 4, "val": 2, "test": 2})
    changes = {"test": (toy.coco / "test.json",), "cache": tmp_path / "in", "eval_every": 2}
    config = tiny(toy, iterations=3, **changes)
    assert train_detector(config, tmp_path / "straight").exit_code == 0
    run, detect, told = tmp_path / "run", inference.detect_original, Told()

    def until(number: int) -> Any:
        seen = []

        def one(*args: Any, **named: Any) -> Any:
            seen.append(1)
            assert len(seen) <= number, "went on after the signal"
            if len(seen) == number:
                told.tell()
            return detect(*args, **named)

        return one

    ends = [(1, 2, False), (1, 2, False), (3, 3, False), (3, 3, True)]
    for number, iteration, judged in ends:  # 2 images at 2, again, 2 at 3, and 2 of the test
        with monkeypatch.context() as patch:
            patch.setattr(inference, "detect_original", until(number))
            assert train_detector(config, run).exit_code == 143
        told.require_in_time()
        state = read_checkpoint(run / "checkpoints" / "last.safetensors", "detector")
        assert (state["iteration"], state["judged"]) == (iteration, judged)
    assert train_detector(config, run).exit_code == 0
    for name in ("metrics.jsonl", "metrics.json", "predictions_val.json", "predictions_test.json"):
        assert (run / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    for name in ("last", "best"):
        assert_equal_checkpoints(tmp_path / "straight", run, name, "detector")


def scoring(tmp_path: Path, data: Path) -> list[str]:
    if not (checkpoint := tmp_path / "ubr.safetensors").exists():
        write_toy_checkpoint(checkpoint)
    flags = ["--pictures", "false", "--views", "1", "--device", "cpu", "--threads", "1"]
    return [str(data), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), *flags]


def test_N23_a_signal_while_a_long_volume_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM while a volume of many slices is scored: given up within 5 s, the rest is kept."""
    write_itk(tmp_path / "a.nii", scan((300, 5, 4)))
    told, score = Told(), scorer.score_part

    def slow(*args: Any) -> Any:
        if told.at_s is None:
            told.tell()
        time.sleep(0.5)
        return score(*args)

    with monkeypatch.context() as patch:
        patch.setattr(scorer, "score_part", slow)
        assert score_volumes(scoring(tmp_path, tmp_path / "a.nii")) == 143
    told.require_in_time()
    assert recorded(tmp_path / "out") == {}
    assert score_volumes(scoring(tmp_path, tmp_path / "a.nii")) == 0
    assert set(recorded(tmp_path / "out")) == {"a"}


def test_N23_a_signal_while_a_large_volume_is_read_for_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM while this process reads a scan: code 143 within 5 s; what was scored is kept."""
    nii(tmp_path, "a.nii")
    told = Told()

    class LargeEntry(FaultyEntry):
        def read(self, **_: Any) -> Volume:
            told.tell()
            time.sleep(600)
            raise AssertionError("read it to its end")

    def with_a_large_one(*paths: Any) -> Any:
        found = find_scans(*paths)
        found.volumes.append(LargeEntry(tmp_path / "large.nii", "large", "nobody"))
        return found

    monkeypatch.setattr(scoring_run, "find_scans", with_a_large_one)
    assert score_volumes(scoring(tmp_path, tmp_path / "a.nii")) == 143
    told.require_in_time()
    assert set(recorded(tmp_path / "out")) == {"a"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_N24_a_report_in_the_making_gives_way(number: signal.Signals) -> None:
    """SIGTERM or SIGUSR1 while a comparison writes a report in between: left at once, the cells
    are told."""
    told: list[int] = []
    before = signal.signal(number, lambda number, _: told.append(number))
    try:
        mine = signal.getsignal(number)
        with giving_way():
            os.kill(os.getpid(), number)
            time.sleep(5)
            raise AssertionError("went on with the report")
        assert told == [number]
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_N26_a_step_that_takes_long_is_given_up_and_made_anew(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in a step of many seconds, as a CPU takes: given up between two layers, made anew."""
    config = tiny_config(cohort, store=tmp_path / "store", iterations=3, eval_every=100)
    assert train_regressor(config, tmp_path / "straight") == 0
    monkeypatch.setattr(long_steps, "LONG_S", 0.0)
    told, written, looks = Told(), tmp_path / "run" / "metrics.jsonl", []
    look = LongSteps.look

    def tell_late(self: LongSteps) -> None:
        looks.append(bool(read_metrics(written)))
        if looks[-1] and sum(looks) == 2 * looks.count(False) // 3:  # on the second way back
            told.tell()
        look(self)

    with monkeypatch.context() as patch:
        patch.setattr(LongSteps, "look", tell_late)
        assert train_regressor(config, tmp_path / "run") == 143
    told.require_in_time()
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    assert read_checkpoint(last, "ubr")["iteration"] == 1
    assert train_regressor(config, tmp_path / "run") == 0
    metrics = [tmp_path / run / "metrics.jsonl" for run in ("run", "straight")]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    assert_equal_checkpoints(tmp_path / "straight", tmp_path / "run", "last", "ubr")
