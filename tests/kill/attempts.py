"""One attempt at a piece of work: started, killed at a moment or left to its end, mourned.

A process that has imported everything forks a child an attempt, which runs the command's own
``main``: an attempt that is killed early costs milliseconds, not the seconds that importing takes.
Some attempts are processes as a user types them. All are leaders of a session of their own, by
which whatever they leave behind is found.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import context, popen_fork
from pathlib import Path
from typing import Literal, NamedTuple, Self

Target = Literal["process", "group", "child"]
"""Who gets the SIGKILL: the one process, all of its session at once, or one of its children."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the one that started it ends."""

KNOW_OF_FORKS = ("jemalloc_bg_thd",)
"""Names of threads that a fork starts anew, or does without."""

LOOK_S = 0.002
PATIENCE = 150_000
"""Looks for the end of an attempt that is left in peace; not a time, for a machine may sleep."""

MOURNING = 5_000
"""Looks for the end of the children of a killed process, which notice it at once."""


class Command(NamedTuple):
    """What is run: the module of a command, and its arguments."""

    module: str
    arguments: Sequence[str]


def own_imports() -> list[str]:
    """Return which modules of the project this process has imported."""
    return sorted(name for name in sys.modules if name.startswith(("ubr_pretrain.", "lesion_det.")))


def fork_children() -> None:
    """Let this process fork its children where it would start new ones that import everything."""
    context.SpawnProcess._Popen = staticmethod(popen_fork.Popen)  # type: ignore[assignment]


def run(command: Command) -> int:
    """Run a command in this process; return its exit code."""
    try:
        return int(importlib.import_module(command.module).main(command.arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


class Attempt:
    """A running attempt; leaving its block ends it, whatever it does.

    Attributes:
        pid: of the process, and of its session.
    """

    def __init__(self, work: Callable[[], int] | Command, log: Path) -> None:
        self._status: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if isinstance(work, Command):
            line = [sys.executable, "-m", work.module, *work.arguments]
            with log.open("ab") as file:
                self._process = subprocess.Popen(
                    line, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
                )
            self.pid = self._process.pid
        else:
            self.pid = _fork(work, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; below zero the signal that ended it."""
        if self._process is not None:
            return self._process.poll()
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self) -> int:
        """Return the exit code, once there is one.

        Raises:
            TimeoutError: it hangs.
        """
        for _ in range(PATIENCE):
            if (code := self.exit_code) is not None:
                return code
            time.sleep(LOOK_S)
        raise TimeoutError(f"no end after {PATIENCE * LOOK_S:g} s")

    def members(self) -> list[int]:
        """Return the processes of its session that live."""
        names = [entry.name for entry in os.scandir("/proc") if entry.name.isdecimal()]
        return [int(name) for name in names if _lives_in(name, self.pid)]

    def kill(self, target: Target, choose: Callable[[Sequence[int]], int]) -> Target:
        """Send SIGKILL; return who got it: the process itself where it has no child."""
        children = [pid for pid in self.members() if pid != self.pid] if target == "child" else []
        if target == "child" and not children:
            target = "process"
        with suppress(ProcessLookupError):
            if target == "group":
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(choose(children) if children else self.pid, signal.SIGKILL)
        return target

    def bury(self) -> list[str]:
        """Return the names of what outlived the process although it should have noticed."""
        for _ in range(MOURNING):
            if not (orphans := self.members()):
                return []
            time.sleep(LOOK_S)
        return [_command_line(pid) for pid in orphans]


def _fork(work: Callable[[], int], log: Path) -> int:
    names = [
        task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    ]
    if further := [name for name in names if name not in KNOW_OF_FORKS][1:]:
        raise RuntimeError(f"threads run here that a forked child would lack: {further}")
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = work()
    except BaseException:  # noqa: BLE001  (nothing may return into the process that was forked)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lives_in(pid: str, session: int) -> bool:
    """Whether a process is of a session, and no zombie."""
    try:
        text = Path("/proc", pid, "stat").read_text("utf-8", errors="replace")
    except OSError:  # it has gone
        return False
    state, _, _, its_session = text.rpartition(")")[2].split()[:4]
    return int(its_session) == session and state not in "ZX"


def _command_line(pid: int) -> str:
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"process {pid}"
    return b" ".join(words).decode(errors="replace").strip()[:200]
