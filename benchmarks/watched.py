"""A command in a process of its own, watched from outside: time, memory, open files, first word."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.02


@dataclass(frozen=True)
class Cost:
    """What one command took.

    Attributes:
        seconds: from its start to its end.
        core_s: of all cores, the processes that it waited for included.
        peak_mb: most memory that it wrote itself or shared without a file.
        open_files: most that were open at once.
        first_line_s: until it said something.
    """

    seconds: float
    core_s: float
    peak_mb: float
    open_files: int
    first_line_s: float


def watch(command: Sequence[str], *, may_end_with: Sequence[int] = (0,)) -> Cost:
    """Run a command of Python (what follows ``python``) and watch it.

    Args:
        command: for instance ``-m``, a module, its flags.
        may_end_with: exit codes.

    Raises:
        RuntimeError: it ended with another one; what it said last.
    """
    began_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    peak_mb, open_files, ended = 0.0, 0, threading.Event()

    def sample() -> None:
        nonlocal peak_mb, open_files
        while not ended.wait(SAMPLE_S):
            try:
                peak_mb = max(peak_mb, _memory_mb(process.pid))
                open_files = max(open_files, len([*Path(f"/proc/{process.pid}/fd").iterdir()]))
            except (OSError, IndexError):  # it has just ended
                return

    sampler = threading.Thread(target=sample)
    sampler.start()
    first_line_s, last = 0.0, b""
    while said := os.read(process.stdout.fileno(), 1 << 16):
        first_line_s = first_line_s or time.monotonic() - began_s
        last = (last + said)[-2000:]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began_s
    ended.set()
    sampler.join()
    process.stdout.close()
    if process.returncode not in may_end_with:
        raise RuntimeError(f"exit code {process.returncode}: {last.decode(errors='replace')}")
    core_s = usage.ru_utime + usage.ru_stime
    return Cost(seconds, core_s, peak_mb, open_files, first_line_s or seconds)


def _memory_mb(pid: int) -> float:
    """Return the pages of a process that are its own or shared; mapped files are the system's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(status.split(name)[1].split()[0]) for name in ("RssAnon:", "RssShmem:")) / 1000
