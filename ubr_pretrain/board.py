"""TensorBoard's file of a run: a copy of the numbers, whose loss ends no training.

torch's ``SummaryWriter`` names the file after the machine and writes in a thread, which dies with a
traceback where the disk is full. This one writes the same records in the thread that has them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


class Board:
    """Scalars for TensorBoard.

    Args:
        folder: ``tb/`` of a run.
        first_step: what was written from this step on, before the run was taken up, is void.
        say: is told, once, that nothing can be written any more.
    """

    def __init__(self, folder: Path, first_step: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._file: IO[bytes] | None = None
        with self._or_without():
            from tensorboard.compat.proto.event_pb2 import SessionLog
            from tensorboard.summary.writer.record_writer import RecordWriter

            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
            self._file = (folder / name).open("ab")
            self._records = RecordWriter(self._file)
            self._write(file_version="brain.Event:2")
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, tag: str, value: float, step: int) -> None:
        """Write one number."""
        if self._file is not None:
            with self._or_without():
                from tensorboard.compat.proto.summary_pb2 import Summary

                point = Summary.Value(tag=tag, simple_value=value)
                self._write(step=step, summary=Summary(value=[point]))

    def flush(self) -> None:
        """Hand over to the system what was added."""
        if self._file is not None:
            with self._or_without():
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with self._or_without():
                self._file.close()
            self._file = None

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    @contextmanager
    def _or_without(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ImportError) as error:
            file, self._file = self._file, None
            with suppress(OSError):  # what it still holds cannot be written either
                if file is not None:
                    file.close()
            self._say(f"TensorBoard: {error}; goes on without it, metrics.jsonl has all numbers")
