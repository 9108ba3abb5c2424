"""Trains the cells of a comparison in child processes, one a GPU, or side by side on a CPU.

A child that crashes, or that the kernel kills, ends alone: its cell has failed, the others go on.
A signal to the parent reaches the children, which save a checkpoint and stop. Where the parent
itself is killed, the children notice and end at once; what they had written is whole, and a run
folder that is continued loses the iterations since its last checkpoint, nothing else.

Free of torch: a child is told its GPU and its threads before anything of torch is loaded.
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from lesion_det.cell_job import TrainCell, train_cell
from lesion_det.det_config import DetConfig
from lesion_det.grid_progress import GridProgress

if TYPE_CHECKING:
    from lesion_det.cells import CellKey

POLL_S = 1.0

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when the thread that started it ends (prctl(2))."""

LAST_WORDS_BYTES = 4096
"""Of a log, for its last line."""

SIGNAL_WORDS = {
    signal.SIGKILL: "killed by SIGKILL (out of memory?)",
    signal.SIGSEGV: "crashed with SIGSEGV (segmentation fault)",
}


class Task(NamedTuple):
    """One cell to train.

    Attributes:
        key: which one it is.
        config: of its training.
        folder: of its run; what it prints goes to ``FOLDER.log`` beside it.
    """

    key: CellKey
    config: DetConfig
    folder: Path

    @property
    def log(self) -> Path:
        """Everything that its processes printed, tracebacks included."""
        return self.folder.with_name(f"{self.folder.name}.log")


class Ending(NamedTuple):
    """How the process of a cell ended; the reason is "" where its training came to its end."""

    key: CellKey
    reason: str = ""


class Stopped(Exception):  # noqa: N818
    """A signal, or a request not to wait, ended the launching before all cells did.

    Attributes:
        exit_code: for the command.
    """

    def __init__(self, words: str, exit_code: int) -> None:
        super().__init__(words)
        self.exit_code = exit_code


Launch = Callable[[Sequence[Task], Callable[[str], None]], Generator[Ending, None, None]]
"""Trains cells, says when one starts, and yields how each one ended; may raise ``Stopped``."""


class LocalLauncher:
    """Trains on this machine, ``jobs`` cells at a time.

    Args:
        jobs: cells side by side.
        gpus: what ``CUDA_VISIBLE_DEVICES`` may name, dealt out in turn; none: the device is as
            the configuration says.
        train: a function of a module, which a new process can import.
    """

    def __init__(self, jobs: int, gpus: Sequence[str], train: TrainCell = train_cell) -> None:
        threads = max(1, usable_cores() // jobs)
        self.jobs = jobs
        self._slots = [_environment(i, gpus, threads) for i in range(jobs)]
        self._train = train

    def __call__(
        self, tasks: Sequence[Task], say: Callable[[str], None]
    ) -> Generator[Ending, None, None]:
        """Train ``tasks`` in their order; see ``Launch``.

        Raises:
            Stopped: SIGTERM, SIGINT or SIGUSR1 came; every child has saved a checkpoint and ended.
        """
        waiting, free = deque(tasks), deque(self._slots)
        running: list[_Child] = []
        with GridProgress(tasks, say) as progress:
            with _forward_signals(running) as stop:
                while running or (waiting and not stop.signal):
                    while waiting and free and not stop.signal:
                        child = _start(self._train, waiting.popleft(), free.popleft())
                        running.append(child)
                        progress.start(child.task)
                        if stop.signal:  # it came while the child was being started
                            child.process.terminate()
                    wait([child.process.sentinel for child in running], timeout=POLL_S)
                    progress.update()
                    ended = [child for child in running if not child.process.is_alive()]
                    for child in ended:
                        running.remove(child)
                        free.append(child.environment)
                    for child in ended:
                        reason = child.process.reason()
                        progress.end(child.task, reason)
                        if not stop.signal:
                            yield Ending(child.task.key, reason)
            if stop.signal:
                raise Stopped("stopped", 128 + stop.signal)


def local_launcher(device: str, jobs: int | None = None) -> LocalLauncher:
    """Return the launcher for this machine.

    Args:
        device: of the configuration; a numbered GPU is used as it is, by every cell.
        jobs: cells side by side; None: one a GPU, one where there is none.
    """
    gpus = visible_gpus(device)
    return LocalLauncher(jobs or max(1, len(gpus)), gpus)


class _Child(NamedTuple):
    task: Task
    environment: dict[str, str]
    process: CellProcess


def _start(train: TrainCell, task: Task, environment: dict[str, str]) -> _Child:
    process = CellProcess(train, task.config, task.folder, task.log, environment)
    return _Child(task, environment, process)


class CellProcess(SpawnProcess):
    """A cell in a process of its own, which ends at once when the one that started it ends.

    Args:
        train: a function of a module, which a new process can import.
        config: of the training.
        folder: of its run.
        log: everything that it prints is appended there.
        environment: variables that it is given.
    """

    def __init__(
        self,
        train: TrainCell,
        config: DetConfig,
        folder: Path,
        log: Path,
        environment: dict[str, str],
    ) -> None:
        arguments = (train, config, folder, log, environment)
        super().__init__(target=_run, args=arguments, name=folder.name, daemon=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._log, self._log_bytes = log, log.stat().st_size if log.is_file() else 0
        self.start()

    def reason(self) -> str:
        """Return why the ended process failed, "" where it did not."""
        code = self.exitcode
        assert code is not None
        return ending_words(code, last_line(self._log, self._log_bytes))


def ending_words(exit_code: int, last_words: str) -> str:
    """Return why a process failed, "" where it did not.

    Args:
        exit_code: as `multiprocessing` tells it: below zero the signal that killed the process.
        last_words: the last line of its log.
    """
    if exit_code == 0:
        return ""
    if exit_code == 1 and last_words:  # it said why itself
        return last_words
    if exit_code < 0:
        number = signal.Signals(-exit_code)
        words = SIGNAL_WORDS.get(number, f"ended by {number.name}")
    elif exit_code > 128:
        words = f"stopped by {signal.Signals(exit_code - 128).name}; it can be continued"
    else:
        words = f"ended with exit code {exit_code}"
    return f"{words}; its last line: {last_words}" if last_words else words


def last_line(log: Path, skip_bytes: int = 0) -> str:
    """Return the last line of a log that is not empty, "" where there is none.

    Args:
        log: may be absent.
        skip_bytes: what was there before.
    """
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(skip_bytes, log.stat().st_size - LAST_WORDS_BYTES))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def usable_cores() -> int:
    """Return how many CPU cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment(place: int, gpus: Sequence[str], threads: int) -> dict[str, str]:
    """Return the variables of the child at a place; a number of threads that was set is kept."""
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return environment


def visible_gpus(device: str) -> list[str]:
    """Return the names of the GPUs that cells may be dealt; none where ``device`` names one."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (visible.split(",") if visible else [str(i) for i in range(count)])[:count]


class _Forward:
    """Handler of signals: the first asks every child to stop, the second ends them at once."""

    def __init__(self, running: Sequence[_Child]) -> None:
        self.signal = 0
        self._running = running

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        for child in list(self._running):
            if self.signal:
                child.process.kill()
            else:  # a terminal has sent SIGINT to the children too; a second one would be rude
                child.process.terminate()
        self.signal = number


@contextmanager
def _forward_signals(running: list[_Child]) -> Iterator[_Forward]:
    """Hand signals on to the children; where the block ends early, end the children."""
    forward = _Forward(running)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield forward
    finally:
        for child in running:
            child.process.kill()
            child.process.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(
    train: TrainCell, config: DetConfig, folder: Path, log: Path, environment: dict[str, str]
) -> Any:
    """Be the child: train, print into the log, and end when the parent does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # a file's would come after the last words
    sys.exit(train(config, folder))


def _end_with_parent() -> None:
    """End where the kernel does not, or where the parent was dead before the kernel was asked."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
