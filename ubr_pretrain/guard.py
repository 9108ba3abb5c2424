"""Volumes read in a child process: a decoder that hangs, crashes or swallows memory ends alone.

    >>> with GuardedReader(timeout_s=60) as guard:               # doctest: +SKIP
    ...     for entry in find_volumes(["archive"]):
    ...         volume = guard.read(entry)

The child is kept from volume to volume (starting one costs about a second) and replaced after a
fault. It is spawned, so a script that uses it needs ``if __name__ == "__main__"``. Voxels come in
memory without a name, which the child fills and this process maps: nothing of it is left behind,
whoever is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from queue import LifoQueue
from types import TracebackType
from typing import Any, Self

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.passed_volume import receive_volume, send_volume
from ubr_pretrain.time_limit import LIMIT_S, in_time, too_slow
from ubr_pretrain.volume_entry import VolumeEntry

UP = "up"
"""What a child says first: it has started, and what ends it from now on is a file."""


class GuardedReader:
    """One child process that reads volumes, with limits.

    Attributes:
        timeout_s: longest time for one volume.
        max_memory_bytes: ceiling of the child's address space (not on Windows).
    """

    def __init__(
        self, *, timeout_s: float = LIMIT_S, max_memory_bytes: int = 16_000_000_000
    ) -> None:
        if not (timeout_s > 0 and max_memory_bytes > 0):
            raise ValueError(f"timeout {timeout_s} s and memory {max_memory_bytes} must be > 0")
        self.timeout_s, self.max_memory_bytes = timeout_s, max_memory_bytes
        self._context = multiprocessing.get_context("spawn")
        self._child: Any = None
        self._pipe: Connection | None = None
        self._child_changes = threading.RLock()
        self._abandoned = self._is_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, entry: VolumeEntry, **rules: Any) -> Volume:
        """Read ``entry`` as `VolumeEntry.read` does.

        Raises:
            VolumeRefused: what the reader raises, and E-TIMEOUT, E-MEMORY, E-CRASH.
            InterruptedError: another thread has abandoned the reader.
            RuntimeError: no child can be started.
        """
        return self._read(entry, rules, may_repeat=True)

    def _read(self, entry: VolumeEntry, rules: dict[str, Any], *, may_repeat: bool) -> Volume:
        pipe = self._running()
        answer = None
        with suppress(EOFError, OSError):
            pipe.send((entry, rules))
            if not self._is_up:
                wait([pipe, self._child.sentinel], timeout=self.timeout_s)
                self._is_up = pipe.poll() and pipe.recv() == UP
            wait([pipe, self._child.sentinel], timeout=self.timeout_s)
            answer = receive_volume(pipe) if pipe.poll() else None
        if isinstance(answer, Volume):
            return answer
        if isinstance(answer, Exception):
            raise answer
        self._child.join(timeout=1.0)  # a child that died is about to be seen as dead
        code = self._child.exitcode
        self.close()
        if self._abandoned:  # which killed the child, whatever was wrong with the file
            raise InterruptedError(f"{entry.path}: its reader was abandoned")
        if code == -signal.SIGTERM and may_repeat:  # it was for all of a job, not for this file
            return self._read(entry, rules, may_repeat=False)
        if code is None:
            raise too_slow(entry.path, self.timeout_s)
        if code > 0 and not self._is_up:
            raise RuntimeError(
                f"a process to read in does not start (exit status {code}); a script that reads "
                'many scans needs `if __name__ == "__main__":`'
            )
        if code == -signal.SIGKILL:
            raise VolumeRefused("E-MEMORY", entry.path, "its reader was killed: out of memory?")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        raise VolumeRefused("E-CRASH", entry.path, f"its reader ended with {name}")

    def close(self) -> None:
        """End the child; the next read starts another."""
        with self._child_changes:
            if self._child is None:
                return
            self._child.kill()
            self._child.join()
            self._child.close()
            if self._pipe is not None:
                self._pipe.close()
            self._child = self._pipe = None

    def abandon(self) -> None:
        """End the child for good, from any thread: who waits for it waits no longer."""
        with self._child_changes:
            self._abandoned = True
            if self._child is not None:
                self._child.kill()

    def _running(self) -> Connection:
        with self._child_changes:
            if self._abandoned:
                raise InterruptedError("the reader was abandoned")
            if self._pipe is None or not self._child.is_alive():
                self.close()
                self._pipe, theirs = self._context.Pipe()
                child = self._context.Process(
                    target=_serve, args=(theirs, self.max_memory_bytes), daemon=True
                )
                child.start()
                theirs.close()
                self._child, self._is_up = child, False
            return self._pipe


def read_here(entry: VolumeEntry, **rules: Any) -> Volume:
    """Read ``entry`` in this process, in which a small one takes less time than a child's start.

    Raises:
        VolumeRefused: what the reader raises, and E-TIMEOUT; what hangs is left behind and may
            hold what other readings in this process wait for: leave those to a child.
    """
    return in_time(entry.path, entry.read, **rules)


@contextmanager
def guarded_readers(count: int) -> Iterator[Callable[..., Volume]]:
    """Yield a function that reads as `GuardedReader.read` does, for as many threads as readers.

    Who leaves the block does not wait for what is being read: the children are abandoned.

    Args:
        count: of the readers.
    """
    idle: LifoQueue[GuardedReader] = LifoQueue()

    def read(entry: VolumeEntry, **rules: Any) -> Volume:
        guard = idle.get()
        try:
            return guard.read(entry, **rules)
        finally:
            idle.put(guard)

    guards = [GuardedReader() for _ in range(count)]
    for guard in guards:
        idle.put(guard)
    try:
        yield read
    finally:
        for guard in guards:
            guard.abandon()
        for guard in [idle.get() for _ in guards]:  # once no thread is at it
            guard.close()
            idle.put(guard)  # who begins only now is told that it was abandoned


def _serve(pipe: Connection, max_memory_bytes: int) -> None:
    """Answer every (entry, rules) with a volume or the reason why there is none."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(BrokenPipeError):
        pipe.send(UP)
    while True:
        try:
            entry, rules = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            send_volume(pipe, entry.read(**rules))
        except BrokenPipeError:  # nobody is there to take it
            return
        except ValueError as refusal:
            pipe.send(refusal)
        except MemoryError:
            text = f"needs more than {max_memory_bytes} bytes to be read"
            pipe.send(VolumeRefused("E-MEMORY", entry.path, text))


def _end_with_parent() -> None:
    """End this process with the one that it reads for, in the middle of a file too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
