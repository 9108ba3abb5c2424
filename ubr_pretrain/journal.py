"""The record of a run: ``metrics.jsonl``, TensorBoard, ``train.log``, and one progress line.

``metrics.jsonl`` holds nothing that depends on the clock, so two equal runs write equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ubr_pretrain.board import Board
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically

FIRST_LINE_AFTER_S = 2.0
PLAIN_LINE_EVERY_S = 15.0


class ProgressLine:
    """How far a long piece of work has got: a bar on a terminal, plain lines elsewhere.

    Args:
        end: the count at which it is done.
        start: what was done before.
        note: is told of every line that is printed, the bar aside.
        only_long: print no line of what is done before the first one is due.
    """

    def __init__(
        self,
        end: int,
        start: int = 0,
        note: Callable[[str], None] = lambda _: None,
        *,
        only_long: bool = False,
    ) -> None:
        self._start, self._end, self._note, self._only_long = start, end, note, only_long
        self._began_s = time.monotonic()
        self._next_line_s = self._began_s + FIRST_LINE_AFTER_S
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.completed}/{task.total}"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=end, completed=start)
            self._bar.start()

    def show(self, count: int, text: str) -> None:
        """Move the bar, or print a plain line every now and then where there is no terminal."""
        if self._bar is not None:
            self._bar.update(self._task, completed=count, description=text)
            return
        now = time.monotonic()
        if now >= self._next_line_s or (count == self._end and not self._only_long):
            self._next_line_s, self._only_long = now + PLAIN_LINE_EVERY_S, False
            done = max(1, count - self._start)
            eta_s = (now - self._began_s) / done * (self._end - count)
            self.say(f"{count}/{self._end}  eta {_clock(eta_s)}  {text}")

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._note(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()


class Journal:
    """Writes what happens, as it happens.

    Args:
        folder: the run folder.
        start_iteration: iterations already done; later records of an interrupted run are dropped.
        num_iterations: the end, for the bar and the ETA.
        enabled: False on all ranks but the first: nothing is written or shown.
        judged: False where the validation of ``start_iteration`` is still to come.
    """

    def __init__(
        self,
        folder: Path,
        start_iteration: int,
        num_iterations: int,
        *,
        enabled: bool = True,
        judged: bool = True,
    ) -> None:
        self.enabled = enabled
        if not enabled:
            return
        self._file = folder / "metrics.jsonl"
        done = (start_iteration, judged)
        keep = [r for r in read_metrics(self._file) if (r["iteration"], r["kind"] == "val") <= done]
        text = "".join(to_json(record) + "\n" for record in keep).encode()
        self._digest, self._bytes = hashlib.sha256(text), len(text)
        with write_atomically(self._file) as file:
            file.write(text)
        self._metrics = self._file.open("a", encoding="utf-8", newline="\n")
        self._log = (folder / "train.log").open("a", encoding="utf-8", newline="\n")
        self._line = ProgressLine(num_iterations, start_iteration, self._note)
        self._board = Board(folder / "tb", start_iteration + 1, self.say)

    def record(self, iteration: int, kind: str, values: Mapping[str, Any]) -> None:
        """Append one JSON line and its numbers to TensorBoard.

        Args:
            iteration: iterations done.
            kind: "train", "val" or the like; the prefix of the TensorBoard tags.
            values: plain numbers, strings, lists; NaN is refused.
        """
        if not self.enabled:
            return
        line = to_json({"iteration": iteration, "kind": kind, **values}) + "\n"
        self._metrics.write(line)
        self._metrics.flush()
        self._digest.update(line.encode())
        self._bytes += len(line.encode())
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add(f"{kind}/{name}", value, iteration)

    @property
    def written(self) -> dict[str, Any]:
        """What ``metrics.jsonl`` holds by now, for a checkpoint that counts on it."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def progress(self, iteration: int, text: str) -> None:
        """Move the bar, or print a plain line every now and then where there is no terminal."""
        if self.enabled:
            self._line.show(iteration, text)

    def say(self, text: str) -> None:
        """Print a line and keep it in ``train.log``."""
        if self.enabled:
            self._line.say(text)

    def _note(self, text: str) -> None:
        self._log.write(text + "\n")
        self._log.flush()

    def sync(self) -> None:
        """Force ``metrics.jsonl`` to disk; called before a checkpoint that counts on it."""
        if self.enabled:
            os.fsync(self._metrics.fileno())
            self._board.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar and close the files."""
        if not self.enabled:
            return
        with ExitStack() as closing:  # all of them, also where one cannot be written
            for part in (self._metrics, self._log, self._line, self._board):
                closing.callback(part.close)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of ``metrics.jsonl``; a line cut off or damaged ends the list."""
    records: list[dict[str, Any]] = []
    if not path.is_file():
        return records
    for line in path.read_bytes().splitlines():
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return records


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
