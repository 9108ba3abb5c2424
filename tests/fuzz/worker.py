"""The child process: makes inputs, reads them, judges what was read, and tells its parent.

Everything that an input could break is behind the limits of this process: its address space, and
the time that its parent waits for a word.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.originals import VOLUMES, Files
from tests.fuzz.outcome import Outcome, Work

MEMORY_BYTES = 1_500_000_000
"""That an input of a few kilobytes may ask for, on top of what the libraries take."""


def serve(pipe: Connection, work: Work, mute: frozenset[tuple[int, str]]) -> None:
    """Send (index, phase) before every step, an `Outcome` after every input, None at the end.

    Args:
        pipe: to the parent.
        work: what to do.
        mute: judges that must not be asked, by index: they ended a process.
    """
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # libraries of C complain there
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    case = case_of(work, mute)
    next(case)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    for index in range(work.first, work.first + work.count):
        step = case.send(index)
        while not isinstance(step, Outcome):
            pipe.send((index, step))
            step = next(case)
        pipe.send(step)
        next(case)
    pipe.send(None)


def case_of(work: Work, mute: frozenset[tuple[int, str]] = frozenset()) -> Generator[Any, int]:
    """Return what takes the number of an input, and yields phases and then its `Outcome`."""
    return _volume_case(work, mute) if work.kind in VOLUMES else _record_case(work)


@contextmanager
def stored(files: Files) -> Iterator[Path]:
    """Put files into a folder of their own, in memory where there is such a place."""
    place = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz", dir=place if place.is_dir() else None))
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _volume_case(work: Work, mute: frozenset[tuple[int, str]]) -> Generator[Any, int]:
    """Take indices; yield phases, then an `Outcome`, then take the next."""
    from tests.fuzz import volume_cases as cases
    from ubr_pretrain.ct import VolumeRefused

    truths = {}
    for original in cases.originals_of(work.kind):
        with stored(original.files) as folder:
            truths[id(original)] = cases.known_truth(work.kind, original, folder)
    index = yield
    while True:
        original, files, notes = cases.mutated(work.kind, work.seed, index)
        how = tuple(notes)
        with stored(files) as folder:
            yield "reading"
            try:
                volume = cases.read(work.kind, original, folder)
            except VolumeRefused as refusal:
                fault = cases.refusal_fault(refusal, folder)
                if refusal.code == "E-MEMORY":
                    fault = "asked for more memory than an input of its size may"
                name = "FAULT bad refusal" if fault else f"refused {refusal.code}"
                outcome = Outcome(
                    index, name, f"{fault}: {str(refusal)[:300]}" if fault else "", how
                )
            except Exception as error:  # noqa: BLE001  (that is what is looked for)
                name = f"FAULT {type(error).__name__}"
                outcome = Outcome(index, name, traceback.format_exc()[-2000:], how)
            else:
                opinions = {}
                truth = truths[id(original)]
                wanted = cases.needs_judges(original, truth, files, volume, index)
                for name, judge in cases.judges_of(work.kind).items() if wanted else ():
                    yield f"judge {name}"
                    asked = (index, name) not in mute
                    opinions[name] = (
                        cases.opinion(judge, folder, original.target) if asked else None
                    )
                name, detail = cases.verdict(work.kind, original, truth, files, volume, opinions)
                if name == "equal to the original" and detail:
                    name = "equal to the original, not so for another reader"
                outcome = Outcome(index, name, detail, how)
        yield outcome
        index = yield


def _record_case(work: Work) -> Generator[Any, int]:
    from tests.fuzz import record_cases as cases

    with stored(cases.originals_of(work.kind)) as folder:
        name, detail = cases.record_verdict(work.kind, folder)
        if name != "as a plain parse says":
            raise ValueError(f"{work.kind}: the sound record is {name}: {detail}")
    index = yield
    while True:
        files, notes = cases.mutated_record(work.kind, work.seed, index)
        with stored(files) as folder:
            yield "reading"
            try:
                name, detail = cases.record_verdict(work.kind, folder)
            except Exception as error:  # noqa: BLE001  (that is what is looked for)
                name, detail = f"FAULT {type(error).__name__}", traceback.format_exc()[-2000:]
        yield Outcome(index, name, detail if name.split()[0].isupper() else "", tuple(notes))
        index = yield
