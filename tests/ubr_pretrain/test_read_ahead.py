"""Reading ahead: the same volumes in the same order, and a bad file costs only itself."""

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.ubr_pretrain.stored_volumes import nii
from tests.ubr_pretrain.test_guard import FaultyEntry
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.read_ahead import WORTH_A_CHILD, read_ahead
from ubr_pretrain.runtime import stop_on_signals
from ubr_pretrain.scan_scoring import ScoringRules, ScoringRun, score_here
from ubr_pretrain.scoring_plan import ScoringTask
from ubr_pretrain.volumes import find_volumes


@pytest.mark.parametrize("count", [0, WORTH_A_CHILD - 1, WORTH_A_CHILD + 1])
def test_volumes_come_in_order_and_a_cut_one_as_its_refusal(tmp_path: Path, count: int) -> None:
    for number in range(count):
        nii(tmp_path, f"{number}.nii")
    if count:
        (tmp_path / "1.nii").write_bytes((tmp_path / "1.nii").read_bytes()[:400])
    entries = find_volumes([tmp_path])
    outcomes = list(read_ahead(entries, allow_gaps=True))
    assert [entry.name for entry, _ in outcomes] == [str(number) for number in range(count)]
    for number, (entry, outcome) in enumerate(outcomes):
        if number == 1:
            assert isinstance(outcome, VolumeRefused)
            assert outcome.code == "E-TRUNC"
        else:
            assert isinstance(outcome, Volume)
            np.testing.assert_array_equal(outcome.hu, entry.read().hu)


def test_a_reader_that_is_left_early_ends_its_child(tmp_path: Path) -> None:
    for number in range(WORTH_A_CHILD):
        nii(tmp_path, f"{number}.nii")
    coming = read_ahead(find_volumes([tmp_path]))
    first, _ = next(coming)
    assert first.name == "0"
    coming.close()
    assert next(coming, None) is None


def test_leaving_does_not_wait_for_a_decoder_that_hangs(tmp_path: Path) -> None:
    nii(tmp_path, "0.nii")
    stalled = [FaultyEntry(tmp_path / f"{n}.nii", "hang", "nobody") for n in (1, 2)]
    coming = read_ahead([*find_volumes([tmp_path]), *stalled], readers=2)
    assert next(coming)[0].name == "0"
    began_s = time.monotonic()
    coming.close()
    assert time.monotonic() - began_s < 5


def test_a_signal_ends_the_wait_for_a_decoder_that_hangs(tmp_path: Path) -> None:
    entries = [FaultyEntry(tmp_path / "stalled.nii", "hang", "nobody")] * WORTH_A_CHILD
    with stop_on_signals() as stop:
        told = threading.Timer(1.0, signal.raise_signal, [signal.SIGTERM])
        told.start()
        began_s = time.monotonic()
        assert list(read_ahead(entries, stop=stop)) == []
        assert time.monotonic() - began_s < 1 + 5
        told.join()
    assert stop.exit_code == 143


def test_a_signal_ends_the_scoring_of_an_archive_whose_decoder_hangs(tmp_path: Path) -> None:
    entry = FaultyEntry(tmp_path / "stalled.nii", "hang", "nobody")
    tasks = [ScoringTask(entry, "stalled", "place", "content")]
    run = cast(
        ScoringRun, SimpleNamespace(scorer=SimpleNamespace(watch=None), rules=ScoringRules())
    )
    with stop_on_signals() as stop:
        told = threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM])
        told.start()
        began_s = time.monotonic()
        assert list(score_here(run, tasks, guarded=True, stop=stop)) == []
        assert time.monotonic() - began_s < 0.5 + 5
        told.join()
