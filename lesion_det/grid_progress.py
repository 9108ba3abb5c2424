"""What a grid of trainings shows while it runs: a bar each on a terminal, plain lines elsewhere.

How far a training is stands in its own ``metrics.jsonl``, so a job on another machine of the same
file system is shown like a child process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from lesion_det.launch import Task

PLAIN_LINE_EVERY_S = 60.0

TAIL_BYTES = 65_536
"""Of ``metrics.jsonl``; an evaluation of DeepLesion writes a line of a few kilobytes."""


class GridProgress:
    """Shows the cells that run, and all of them together.

    Args:
        tasks: the cells that are to be trained, all equally long.
        say: prints a line.
    """

    def __init__(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
        self._num_cells = len(tasks)
        self._of_cell = tasks[0].config.iterations if tasks else 0
        self._total = self._num_cells * self._of_cell
        self._say = say
        self._running: dict[Path, _Pace] = {}
        self._ended = self._failed = self._iterations_ended = self._iterations_before = 0
        self._began_s = self._last_line_s = time.monotonic()
        console = Console(file=sys.stderr)
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[eta]}"),
                console=console,
            )

    def __enter__(self) -> GridProgress:
        if self._bars is not None:
            self._all = self._bars.add_task("all cells", total=self._total, eta="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, task: Task) -> None:
        """Show a cell from now on."""
        words, done = task.key.words, iterations_done(task.folder)
        self._iterations_before += done
        bar = None
        if self._bars is not None:
            bar = self._bars.add_task(words, total=self._of_cell, completed=done, eta="")
        self._running[task.folder] = _Pace(words, bar, done)
        resumed = f", resumed after iteration {done}" if done else ""
        self._say(f"{self._stamp()}{words}: training{resumed}")

    def end(self, task: Task, reason: str) -> None:
        """Say how a cell ended; it is shown no longer."""
        pace = self._running.pop(task.folder)
        self._ended += 1
        self._failed += bool(reason)
        self._iterations_ended += self._of_cell  # of a failed one, there is nothing left to do
        if self._bars is not None and pace.bar is not None:
            self._bars.remove_task(pace.bar)
        took = timedelta(seconds=round(time.monotonic() - pace.began_s))
        self._say(
            f"{self._stamp()}{pace.words}: {f'failed: {reason}' if reason else 'finished'} ({took})"
        )

    def update(self) -> None:
        """Show how far the cells are."""
        done = self._iterations_ended
        for folder, pace in self._running.items():
            of_cell = iterations_done(folder)
            done += of_cell
            if self._bars is not None and pace.bar is not None:
                left = pace.left(of_cell, self._of_cell)
                self._bars.update(pace.bar, completed=of_cell, eta=left)
        now_s, new = time.monotonic(), done - self._iterations_before
        left = _clock((now_s - self._began_s) / new * (self._total - done)) if new > 0 else ""
        if self._bars is not None:
            self._bars.update(self._all, completed=done, eta=left)
        elif now_s - self._last_line_s >= PLAIN_LINE_EVERY_S:
            self._last_line_s = now_s
            failed = f", {self._failed} failed" if self._failed else ""
            self._say(
                f"{self._stamp()}{len(self._running)} running{failed}, "
                f"iteration {done} of {self._total} {left}"
            )

    def _stamp(self) -> str:
        return f"[{self._ended}/{self._num_cells}] "


class _Pace:
    """How fast one cell is."""

    def __init__(self, words: str, bar: TaskID | None, done: int) -> None:
        self.words, self.bar, self._first = words, bar, done
        self.began_s = time.monotonic()

    def left(self, done: int, total: int) -> str:
        if done <= self._first:
            return ""
        each_s = (time.monotonic() - self.began_s) / (done - self._first)
        return _clock(each_s * (total - done))


def iterations_done(folder: Path) -> int:
    """Return the last iteration that a training has recorded, 0 before the first."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return 0
    with file.open("rb") as metrics:
        metrics.seek(max(0, file.stat().st_size - TAIL_BYTES))
        lines = metrics.read().split(b"\n")
    for line in reversed(lines[:-1]):  # what follows the last line end may be half a record
        try:
            return int(json.loads(line)["iteration"])
        except (json.JSONDecodeError, KeyError):
            continue
    return 0


def _clock(seconds: float) -> str:
    return f"eta {timedelta(seconds=round(seconds))}"
