"""The loop: a work is begun, killed, begun again, until it ends; then it is compared."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.kill.attempts import Attempt, Command, Target, fork_children, own_imports, run
from tests.kill.moments import NEVER, Clock, Life, Moment, Watch
from tests.kill.remains import damages, differences, outcome, stage_at_death
from tests.kill.toll import End, Kill, Toll
from tests.kill.works import WORKS, Work

HAS_FINISHED = "this run has finished"
"""What a training says that was killed behind its last word."""

LIBRARIES = (
    *("torch", "torchvision", "torch.utils.tensorboard", "SimpleITK", "cv2", "scipy.stats"),
    *("pandas", "pyarrow.parquet", "matplotlib.pyplot", "pydicom", "sklearn.linear_model"),
)
"""Imported before the first fork; after it, what a run of the work has imported of the project."""

MOST_TRIES = 60
"""So often a run is begun; it is killed no more after its first few."""


@dataclass(frozen=True)
class Rules:
    """How kills are drawn.

    Attributes:
        seed: of all draws.
        most: kills that one run has to survive.
        real: share of attempts that are processes as a user types them.
        clocks: by which moments are drawn.
    """

    seed: int
    most: int
    real: float
    clocks: tuple[Clock, ...]


class _Undisturbed(NamedTuple):
    """A work that was left in peace.

    Attributes:
        exit_code: of its command.
        outcome: what it says.
        life: how long it took, in a fork.
        real: likewise, as a process that a user types.
    """

    exit_code: int
    outcome: dict[str, Any]
    life: Life
    real: Life


class Loop:
    """Kills work of one kind.

    Args:
        kind: of work.
        room: a folder for its data and its runs; what is faulty goes to the toll's folder.
        toll: takes every kill.
        rules: of the draws.
        progress: is told what is being done.
    """

    def __init__(
        self, kind: str, room: Path, toll: Toll, rules: Rules, progress: Callable[[str], None]
    ) -> None:
        self._room, self._data, self._toll = room, room / "data", toll
        self._kind, self._rules, self._progress = kind, rules, progress
        self._works = [work for work in WORKS if work.kind == kind]
        self._log = room / "log"
        self._peace: dict[str, _Undisturbed] = {}

    def run(self, kills: int) -> None:
        """Kill until there are so many kills of this kind."""
        if self._toll.of_kind(self._kind) >= kills:
            return
        self._data.mkdir(parents=True)
        _import(LIBRARIES)
        _draw_once()
        _import(self._apart(partial(_prepare, self._works[0], self._data)))
        for number in count(self._toll.next_round(self._kind)):
            wanted = min(self._rules.most, kills - self._toll.of_kind(self._kind))
            if wanted <= 0:
                return
            work = self._works[number % len(self._works)]
            if work.name not in self._peace:
                self._peace[work.name] = self._leave_in_peace(work)
            self._round(work, number, wanted, self._peace[work.name])

    def _leave_in_peace(self, work: Work) -> _Undisturbed:
        """Run a work in a fork and, where there will be some, as a process: both must be equal."""
        fork = self._undisturbed(work, real=False)
        if not self._rules.real:
            return fork
        process = self._undisturbed(work, real=True)
        if found := differences(process.outcome, fork.outcome):
            raise RuntimeError(f"{work}: two undisturbed runs differ: {found}")
        return fork._replace(real=process.life)

    def _undisturbed(self, work: Work, *, real: bool) -> _Undisturbed:
        self._progress(f"{work.kind}, {work.name}: undisturbed")
        place = self._place(work, "undisturbed")
        with Watch(place) as watch, self._start(work, place, real) as attempt:
            watch.until(NEVER, lambda: attempt.exit_code)
            code, life = attempt.wait(), watch.life
            orphans = attempt.bury()
        if code not in (0, 1) or orphans:
            raise RuntimeError(f"{work}: {code}, {orphans}; {self._log.read_text()[-2000:]}")
        said = self._apart(partial(outcome, place))
        shutil.rmtree(place)
        return _Undisturbed(code, said, life, life)

    def _round(self, work: Work, number: int, wanted: int, peace: _Undisturbed) -> None:
        rng = Random(f"{self._rules.seed} {work.kind} {number}")
        place, killed, faulty = self._place(work, f"run-{number}"), 0, False
        found = [f"no end after {MOST_TRIES} tries"]
        for tries in range(MOST_TRIES):
            real = rng.random() < self._rules.real
            life = peace.real if real else peace.life
            moment = life.draw(rng, self._rules.clocks, first=tries == 0)
            target = rng.choice(_targets(work))
            if number % 2:
                _an_hour_later(place)
            doomed = moment if killed < wanted else None
            kill, code = self._attempt(work, place, number, real, doomed, target, rng)
            if kill is None:
                found = self._judge(code, place, peace)
                break
            killed, faulty = killed + 1, faulty or bool(kill.faults)
            self._toll.add(kill)
            self._progress(f"{work.kind}: {kill.stage}")
        self._toll.add(End(work.kind, work.name, number, killed, tuple(found)))
        if found or faulty:
            kept = self._toll.folder / f"{work.kind}-{number}"
            shutil.copytree(place, kept, dirs_exist_ok=True)
            shutil.copy(self._log, kept / "attempts.log")
        shutil.rmtree(place)

    def _attempt(
        self,
        work: Work,
        place: Path,
        number: int,
        real: bool,
        moment: Moment | None,
        target: Target,
        rng: Random,
    ) -> tuple[Kill | None, int]:
        """Begin a work once; return the kill, None where it ended before, and its exit code."""
        began_s, hangs, code = time.time(), list[str](), -signal.SIGKILL
        with Watch(place) as watch, self._start(work, place, real) as attempt:
            try:
                is_time = moment is not None and watch.until(moment, lambda: attempt.exit_code)
                if is_time:
                    target = attempt.kill(target, rng.choice)
                lived, code = watch.life, attempt.wait()
            except TimeoutError as error:
                is_time, lived, hangs = True, watch.life, [f"hangs: {error}"]
                attempt.kill("group", rng.choice)
                attempt.wait()
            orphans = [f"left behind: {name}" for name in attempt.bury()]
        if not is_time or (target != "child" and code != -signal.SIGKILL):  # it had just ended
            return None, code
        changes = lived.span["changes"]
        stage = self._apart(partial(stage_at_death, work, place, began_s, changes))
        faults = (*hangs, *orphans, *self._apart(partial(damages, place)))
        told = (str(moment), stage, round(lived.span["seconds"], 3), faults)
        return Kill(work.kind, work.name, number, target, real, *told), code

    def _judge(self, code: int, place: Path, peace: _Undisturbed) -> list[str]:
        """Say what a finished work says other than one that was left in peace."""
        lines = self._log.read_text("utf-8", errors="replace")
        if code != peace.exit_code and not (code == 2 and HAS_FINISHED in lines[-1000:]):
            last = lines.strip().splitlines()[-1:]
            return [f"ends with exit code {code}: {' '.join(last)}"]
        said = self._apart(partial(outcome, place))
        fresh = {name for name in said if name.startswith("store/.")}  # they may be another's
        said = {name: content for name, content in said.items() if name not in fresh}
        return [*self._apart(partial(damages, place)), *differences(said, peace.outcome)]

    def _start(self, work: Work, place: Path, real: bool) -> Attempt:
        command = work.command(self._data, place)
        return Attempt(command if real else partial(_run, work, command), self._log)

    def _apart(self, task: Callable[[], Any]) -> Any:
        """Return what a task returns, plain values, in a fork: it may start threads."""
        answer = self._room / "answer.json"

        def tell() -> int:
            answer.write_text(json.dumps(task()), "utf-8")
            return 0

        with Attempt(tell, self._log) as attempt:
            if attempt.wait() != 0:
                raise RuntimeError(self._log.read_text("utf-8", errors="replace")[-2000:])
        return json.loads(answer.read_text("utf-8"))

    def _place(self, work: Work, name: str) -> Path:
        self._log.unlink(missing_ok=True)
        place = self._room / name
        place.mkdir()
        work.begin(self._data, place)
        return place


def _an_hour_later(place: Path) -> None:
    """Make half-written files of a store, which others may share, as old as nobody writes them."""
    for part in (place / "store").glob(".*.part"):
        os.utime(part, (0, 0))


def _targets(work: Work) -> tuple[Target, ...]:
    return ("process", "group", "child") if work.child_processes else ("process", "group")


def _run(work: Work, command: Command) -> int:
    if work.forks_children:
        fork_children()
    return run(command)


def _prepare(work: Work, data: Path) -> list[str]:
    """Write the data of a kind; return which modules a run of it imports."""
    work.prepare(data)
    place = data / "trial"
    place.mkdir()
    work.begin(data, place)
    _run(work, work.command(data, place))
    shutil.rmtree(place)
    return own_imports()


def _import(names: Iterable[str]) -> None:
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def _draw_once() -> None:
    """Fill the caches that a first figure fills: fonts, and the numbers of logarithmic axes."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.loglog([1, 1000], [0.01, 100])
    figure.tight_layout()
    figure.savefig(io.BytesIO(), format="png")
    figure.savefig(io.BytesIO(), format="svg")
    pyplot.close(figure)
