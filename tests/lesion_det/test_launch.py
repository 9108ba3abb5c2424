"""Cells run in processes of their own: they end in any way, and never outlive their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lesion_det.grid_progress import GridProgress, iterations_done
from lesion_det.launch import LocalLauncher, ending_words, last_line, visible_gpus
from tests.lesion_det.toy_cells import WAYS, end_somehow, tell_surroundings, toy_task

ROOT = Path(__file__).resolve().parents[2]


def launch(folder: Path, train, seeds, *, jobs: int = 2, gpus=()) -> tuple[dict, list[str]]:
    lines: list[str] = []
    tasks = [toy_task(folder, seed) for seed in seeds]
    endings = list(LocalLauncher(jobs, gpus, train)(tasks, lines.append))
    assert len(endings) == len(tasks)
    return {ending.key.seed: ending.reason for ending in endings}, lines


def test_every_end_of_a_child_has_its_reason_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reasons, lines = launch(tmp_path, end_somehow, range(len(WAYS)))
    last = "; its last line: and on the other stream"
    assert {WAYS[seed]: reason for seed, reason in reasons.items()} == {
        "finish": "",
        "killed": f"killed by SIGKILL (out of memory?){last}",
        "segfault": f"crashed with SIGSEGV (segmentation fault){last}",
        "exception": "KeyError: 'something nobody thought of'",
        "refused": "weights.pth: no such file",
        "told to stop": f"stopped by SIGTERM; it can be continued{last}",
        "exit code 3": f"ended with exit code 3{last}",
    }
    assert sum("training" in line for line in lines) == len(WAYS)
    assert sum("failed: " in line for line in lines) == len(WAYS) - 1
    printed = capfd.readouterr()
    assert "printed by the child" not in printed.out + printed.err
    log = (tmp_path / "cells" / "seed0.log").read_text()
    assert set(log.splitlines()) == {"printed by the child", "and on the other stream"}


def test_children_run_side_by_side_each_with_its_gpu_and_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("lesion_det.launch.usable_cores", lambda: 7)
    (tmp_path / "cells").mkdir()
    reasons, _ = launch(tmp_path, tell_surroundings, (0, 1), gpus=("3", "GPU-a1"))
    assert reasons == {0: "", 1: ""}  # each waits until the other one is there
    told = {(tmp_path / "cells" / f"seed{i}" / "told").read_text() for i in (0, 1)}
    assert told == {"3 3", "3 GPU-a1"}


def test_threads_that_the_user_set_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    (tmp_path / "cells" / "other").mkdir(parents=True)
    (tmp_path / "cells" / "other" / "told").touch()
    launch(tmp_path, tell_surroundings, (0,), jobs=1)
    assert (tmp_path / "cells" / "seed0" / "told").read_text() == "5 -"


@pytest.mark.parametrize(
    ("device", "visible", "count", "gpus"),
    [
        ("cpu", None, 4, []),
        ("cuda:1", None, 4, []),
        ("auto", None, 0, []),
        ("auto", None, 2, ["0", "1"]),
        ("cuda", "2,5", 2, ["2", "5"]),
    ],
)
def test_gpus_are_those_that_this_process_may_use(
    device: str, visible: str | None, count: int, gpus: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus(device) == gpus


def parent_of(folder: Path, train: str) -> subprocess.Popen:
    """Start a parent with three cells, two at once, and return when both write."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.lesion_det.toy_cells", str(folder), train]
    parent = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(list(folder.glob("cells/*/ticks"))) == 2)
    return parent


def wait_until(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def ticks(folder: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in folder.glob("cells/*/ticks")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_T04_a_signal_reaches_the_children_and_they_stop_in_their_own_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM, SIGINT or SIGUSR1 to a comparison: its cells are told and stop; 143, 130 or 138."""
    parent = parent_of(tmp_path, "tick")
    parent.send_signal(number)
    assert parent.wait(120) == 128 + number
    written = ticks(tmp_path)
    assert written.keys() == {"seed0", "seed1"}  # the third one was not begun
    assert all(text.endswith("stopped\n") for text in written.values())


def test_second_signal_ends_children_that_do_not_listen(tmp_path: Path) -> None:
    parent = parent_of(tmp_path, "deaf")
    parent.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert parent.poll() is None
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(120) == 143


def test_children_of_a_killed_parent_write_no_more(tmp_path: Path) -> None:
    parent = parent_of(tmp_path, "deaf")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(120)
    time.sleep(1.0)
    before = ticks(tmp_path)
    time.sleep(0.3)
    assert ticks(tmp_path) == before


def test_last_line_is_what_this_session_wrote_last(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_line(log) == ""
    log.write_text("before\n")
    assert last_line(log, log.stat().st_size) == ""
    log.write_text("before\n" + "x" * 9000 + "\nnow \n\n")
    assert last_line(log, 7) == "now"


def test_stop_without_last_words_is_told_by_its_code() -> None:
    assert ending_words(0, "anything") == ""
    assert ending_words(1, "") == "ended with exit code 1"
    assert ending_words(-15, "") == "ended by SIGTERM"


def test_progress_is_read_from_whole_records(tmp_path: Path) -> None:
    assert iterations_done(tmp_path) == 0
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"iteration": 7, "kind": "train"}\n{"iteration": 8, "ki')
    assert iterations_done(tmp_path) == 7
    file.write_text('{"iteration": 9, "hits": "' + "0" * 30_000 + '"}\n')
    assert iterations_done(tmp_path) == 9
    file.write_text('{"iter')
    assert iterations_done(tmp_path) == 0


def test_terminal_shows_a_bar_a_cell_with_its_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    task = toy_task(tmp_path, 0)
    task.folder.mkdir(parents=True)
    with GridProgress([task, toy_task(tmp_path, 1)], lambda _: None) as progress:
        progress.start(task)
        (task.folder / "metrics.jsonl").write_text('{"iteration": 5}\n')
        progress.update()
        time.sleep(0.3)
        progress.end(task, "")
    shown = capsys.readouterr().err
    for text in ("cell 0", "5/10", "all cells", "5/20", "eta 0:00:0"):
        assert text in shown


def test_elsewhere_there_is_a_plain_line_every_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("lesion_det.grid_progress.PLAIN_LINE_EVERY_S", 0.0)
    lines: list[str] = []
    resumed, failed = toy_task(tmp_path, 0), toy_task(tmp_path, 1)
    resumed.folder.mkdir(parents=True)
    (resumed.folder / "metrics.jsonl").write_text('{"iteration": 5}\n')
    with GridProgress([resumed, failed], lines.append) as progress:
        progress.start(resumed)
        progress.start(failed)
        progress.end(failed, "exploded")
        progress.update()
    assert lines[0] == "[0/2] cell 0: training, resumed after iteration 5"
    assert lines[2].startswith("[1/2] cell 1: failed: exploded (0:00:0")
    assert lines[3].startswith("[1/2] 1 running, 1 failed, iteration 15 of 20 eta 0:00:0")
