"""Work on a file that is given up where it takes too long: its disk may have stopped answering.

A thread of this process does the work, in some 80 microseconds more. It cannot be ended, only left
behind. So who waits goes on past a call of the system that never returns and past a decoder that
never ends; not past one that keeps Python to itself meanwhile, which takes a process (``guard``).
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FunctionType
from typing import Any, TypeVar

from ubr_pretrain.ct import VolumeRefused

LIMIT_S = 300.0
"""For one volume, one picture, or the header of one file."""

TOGETHER = 256
"""Files, of many, that a thread goes through before it reports."""

Result = TypeVar("Result")
Jobs = SimpleQueue[tuple[Path, Callable[[], Any], Future[Any]]]

_idle: list[Jobs] = []
"""Of threads that wait for work."""

if hasattr(os, "register_at_fork"):  # their threads do not come along
    os.register_at_fork(after_in_child=_idle.clear)


def in_time(
    path: Path, work: Callable[..., Result], /, *arguments: Any, steps: Sized = (), **named: Any
) -> Result:
    """Return what ``work`` returns, or raise what it raises.

    Args:
        path: the file that it is about.
        work: is called in another thread.
        arguments: of ``work``.
        steps: grows while the work gets on; the limit is then one for every step.
        named: arguments of ``work``.

    Raises:
        VolumeRefused: E-TIMEOUT; ``work`` may go on, but nobody will know.
    """
    try:
        jobs = _idle.pop()
    except IndexError:
        jobs = _start()
    outcome: Future[Result] = Future()
    jobs.put((path, partial(work, *arguments, **named), outcome))
    before = len(steps)
    while True:
        try:
            outcome.exception(LIMIT_S)
            break
        except TimeoutError:
            if len(steps) == before:
                raise too_slow(path, LIMIT_S) from None
            before = len(steps)
    _idle.append(jobs)
    try:
        return outcome.result()
    finally:
        del outcome  # its error knows this frame: a circle that would keep half a volume


def each_in_time(
    paths: Sequence[Path], work: Callable[[Path], Result]
) -> Iterator[Result | VolumeRefused]:
    """Yield what ``work`` returns of every path or how it refuses it, E-TIMEOUT included."""
    at = 0
    while at < len(paths):
        group = paths[at : at + TOGETHER]
        done: list[Result | VolumeRefused] = []
        with suppress(VolumeRefused):
            in_time(group[0].parent, _go_through, group, work, done, steps=done)
        done = [*done]  # who is late adds nothing to this one
        if len(done) < len(group):
            done.append(too_slow(group[len(done)], LIMIT_S))
        yield from done
        at += len(done)


def _go_through(
    paths: Sequence[Path],
    work: Callable[[Path], Result],
    done: list[Result | VolumeRefused],
) -> None:
    for path in paths:
        try:
            done.append(work(path))
        except VolumeRefused as refusal:
            done.append(refusal)


def too_slow(path: Path, limit_s: float) -> VolumeRefused:
    """Return what is said of a file that took longer than ``limit_s``."""
    cause = f"not read within {limit_s:g} s"
    return VolumeRefused("E-TIMEOUT", path, cause, "does its disk answer? copy it to another")


def _start() -> Jobs:
    if not faulthandler.is_enabled():  # a decoder that crashes leaves its file's name, see below
        faulthandler.enable(2, all_threads=False)
    jobs: Jobs = SimpleQueue()
    threading.Thread(target=_serve, args=(jobs,), name="in time", daemon=True).start()
    return jobs


def _serve(jobs: Jobs) -> None:
    while True:
        path, work, outcome = jobs.get()
        # faulthandler prints the names of functions, and this is all that it can be told
        code = _do.__code__.replace(co_name=f"reading of {path}")
        FunctionType(code, globals())(work, outcome)
        del work, outcome  # and with them the volume, before the next is waited for


def _do(work: Callable[[], Any], outcome: Future[Any]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
    finally:
        del work, outcome  # as above
