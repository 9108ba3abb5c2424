"""Runs the tests on mutants, each in a forked child of a process that has imported everything.

A fault inside a function is planted by exchanging the code of the live function. A fault that acts
on import (a table, a default) needs the product imported anew: in a child of a process that has
imported the libraries only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import pytest
from hypothesis import Phase, settings

from tests.mutants.live_code import code_of, live_functions, replace_source
from tests.mutants.mutators import Mutant

Verdict = Literal["killed", "survived", "timed out"]
Attempt = Callable[[Mutant, list[str]], bool]
Send = Callable[[Any], None]

IMPORT_CPU_S, CPU_FACTOR, WALL_FACTOR = 15, 5, 20
EXTRA_BYTES = 4 * 2**30
"""What a mutant may take beyond the time and the memory of the module as it is."""

SURVIVED, KILLED = 0, 1
ARGUMENTS = ("-q", "--assert=plain", "--tb=no", "-pno:cacheprovider", "-pno:xdist", "-otimeout=0")

# Few examples, and no shrinking: that one fails is all that is asked.
settings.register_profile(
    "mutants",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate),
)


@dataclass(frozen=True)
class Survey:
    """What the judges of a module do on the module as it is.

    Attributes:
        lines: of every test, those of the module that it runs.
        cpu_s: of every test.
        exchangeable: functions whose code can be exchanged while they live.
        libraries: modules that the judges import and that are not ours.
        failed: tests that fail.
    """

    lines: Mapping[str, frozenset[int]]
    cpu_s: Mapping[str, float]
    exchangeable: frozenset[str]
    libraries: tuple[str, ...]
    failed: tuple[str, ...]

    def plan(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach a mutant, the fastest first."""
        reaching = [
            test
            for test, lines in self.lines.items()
            if not mutant.function or not lines.isdisjoint(mutant.lines)
        ]
        return sorted(reaching, key=self.cpu_s.__getitem__)


def judge_module(
    module: Path, judges: Sequence[str], todo: Sequence[Mutant], jobs: int
) -> Iterator[tuple[Mutant, Verdict]]:
    """Judge mutants of a module, yielding each verdict as it comes.

    Args:
        module: its file, relative to the working directory.
        judges: files or node ids of tests.
        todo: mutants.
        jobs: children at a time.

    Raises:
        RuntimeError: a judge fails on the module as it is.
    """
    (survey,) = _from_child(lambda send: _within_pytest(judges, lambda s: send(_survey(s, module))))
    if survey.failed:
        raise RuntimeError(f"{module}: {survey.failed[0]} fails without any mutant")
    for name in survey.libraries:  # some come in only while tests run
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    warm = [mutant for mutant in todo if mutant.function in survey.exchangeable]
    cold = [mutant for mutant in todo if mutant.function not in survey.exchangeable]

    def judge_warm(session: pytest.Session, send: Send) -> None:
        functions = live_functions(module)
        gc.freeze()

        def attempt(mutant: Mutant, plan: list[str]) -> bool:
            code = code_of(mutant, module)
            for function in functions[mutant.function]:
                function.__code__ = code
            return _fails(session, plan)

        for verdict in _race(warm, attempt, survey, jobs):
            send(verdict)

    def attempt_cold(mutant: Mutant, plan: list[str]) -> bool:
        replace_source(module, mutant.source)
        return _within_pytest(judges, lambda session: _fails(session, plan)) is not False

    if warm:
        yield from _from_child(lambda send: _within_pytest(judges, lambda s: judge_warm(s, send)))
    if cold:
        unchanged = Mutant("", range(0), "", "", module.read_text("utf-8"))
        ((_, verdict),) = _race([unchanged], attempt_cold, survey, jobs)
        if verdict != "survived":
            raise RuntimeError(f"{module}: its judges fail when it is imported anew")
    yield from _race(cold, attempt_cold, survey, jobs)


def _race(
    todo: Sequence[Mutant], attempt: Attempt, survey: Survey, jobs: int
) -> Iterator[tuple[Mutant, Verdict]]:
    waiting, running = deque(todo), dict[int, tuple[Mutant, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.popleft()
            plan = survey.plan(mutant)
            if not plan:
                yield mutant, "survived"
                continue
            cpu_s = IMPORT_CPU_S + int(CPU_FACTOR * sum(survey.cpu_s[test] for test in plan))
            pid = os.fork()
            if pid == 0:
                _end_child(lambda m=mutant, p=plan: attempt(m, p), cpu_s)
            running[pid] = mutant, time.monotonic() + WALL_FACTOR * cpu_s
        for pid, (mutant, deadline) in list(running.items()):
            late = time.monotonic() > deadline
            if late:
                os.killpg(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if ended:
                del running[pid]
                ran_out = late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
                yield mutant, "timed out" if ran_out else "survived" if not status else "killed"
        time.sleep(0.002)


def _end_child(attempt: Callable[[], bool], cpu_s: int) -> None:
    """Judge one mutant within bounds; never return."""
    verdict = KILLED
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        room = pages * resource.getpagesize() + EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        _be_quiet()
        verdict = KILLED if attempt() else SURVIVED
    finally:
        os._exit(verdict)


def _from_child(work: Callable[[Send], object]) -> Iterator[Any]:
    """Yield what a forked child sends while it works.

    Raises:
        RuntimeError: it failed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            told = os.dup(2)
            _be_quiet()
            with os.fdopen(writer, "wb") as out:

                def send(message: Any) -> None:
                    out.write(pickle.dumps(message))
                    out.flush()

                work(send)
            status = 0
        except BaseException:  # noqa: BLE001 - told, and the child ends
            os.write(told, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as received:
        while received.peek(1):
            yield pickle.load(received)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a child that was to run the tests failed")


def _be_quiet() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


class _Loop:
    """A plugin that does ``work`` where pytest would run the collected tests."""

    def __init__(self, work: Callable[[pytest.Session], Any]) -> None:
        self.work, self.result = work, None
        self.fault: BaseException | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:  # of a module that cannot be imported
            try:
                self.result = self.work(session)
            except BaseException as fault:  # noqa: BLE001 - pytest would print it
                self.fault = fault
        return True


class _Failures:
    def __init__(self) -> None:
        self.ids: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.ids.append(report.nodeid)


def _within_pytest(judges: Sequence[str], work: Callable[[pytest.Session], Any]) -> Any:
    """Return what ``work`` returns once the judges are collected; None where they cannot be."""
    loop = _Loop(work)
    pytest.main([*ARGUMENTS, "--hypothesis-profile=mutants", *judges], plugins=[loop])
    if loop.fault is not None:
        raise loop.fault
    return loop.result


def _fails(session: pytest.Session, plan: Sequence[str]) -> bool:
    failures = _Failures()
    session.config.pluginmanager.register(failures)
    items = {item.nodeid: item for item in session.items}
    planned = [items[test] for test in plan]
    for item, following in pairwise([*planned, None]):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        if failures.ids:
            return True
    return False


def _survey(session: pytest.Session, module: Path) -> Survey:
    failures = _Failures()
    session.config.pluginmanager.register(failures)
    lines, cpu_s = {}, {}
    for item, following in pairwise([*session.items, None]):
        started = time.process_time()
        with _Traced(module) as traced:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        lines[item.nodeid] = frozenset(traced.lines)
        cpu_s[item.nodeid] = time.process_time() - started
    exchangeable = frozenset(live_functions(module))
    libraries = tuple(
        name
        for name, loaded in list(sys.modules.items())
        if not _is_ours(name) and getattr(getattr(loaded, "__spec__", None), "name", None) == name
    )
    return Survey(lines, cpu_s, exchangeable, libraries, tuple(failures.ids))


def _is_ours(name: str) -> bool:
    top = name.partition(".")[0]
    return Path(top).is_dir() or Path(f"{top}.py").is_file()


class _Traced:
    """Notes which lines of a module are run, in any thread."""

    def __init__(self, module: Path) -> None:
        self.file, self.lines = str(module.resolve()), set[int]()

    def __enter__(self) -> _Traced:
        threading.settrace(self._called)
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != self.file:
            return None
        self.lines.add(frame.f_lineno)
        return self._ran

    def _ran(self, frame: FrameType, event: str, argument: object) -> Any:
        self.lines.add(frame.f_lineno)
        return self._ran


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for the temporary files of all tests."""
    folder = tempfile.TemporaryDirectory(prefix="mutants-")
    os.environ["PYTEST_DEBUG_TEMPROOT"] = folder.name
    return folder
