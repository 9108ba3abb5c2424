"""Kill work at random moments, run the same command again, and compare what it ends with.

python -m tests.kill                          # make kill: 40 kills of each of five kinds of work
python -m tests.kill --kinds grid --kills 10 --seed 7

Figures: ``events.jsonl`` (kill by kill), ``figures.json`` and ``figures.md`` in ``--out``. A loop
that was stopped goes on: the kills that are there count. Exit code 1: something was not as it was
to be; the work that shows it is kept in ``--out``.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kill.works import KINDS

if TYPE_CHECKING:
    from tests.kill.toll import Toll

LINE_EVERY_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and kill; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", allow_abbrev=False)
    add = parser.add_argument
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of work (all five)")
    add("--kills", type=int, default=40, help="of each kind")
    add("--seed", type=int, default=0, help="of who is killed when")
    add("--out", type=Path, default=Path("runs/kill"), help="folder of the figures")
    add("--most", type=int, default=6, help="kills that one run has to survive")
    add("--real", type=float, default=0.1, help="share of processes as a user types them")
    add("--by-changes", action="store_true", help="no kills by the clock: the same everywhere")
    add("--overwrite", action="store_true", help="forget the kills that are there")
    a = parser.parse_args(argv)

    os.environ["OMP_NUM_THREADS"] = "1"  # before anything loads a library that reads it
    from tests.kill.loop import Loop, Rules
    from tests.kill.moments import CLOCKS
    from tests.kill.toll import Toll

    if a.overwrite and (a.out / "events.jsonl").is_file():
        shutil.rmtree(a.out)
    toll = Toll(a.out)
    line = _Line(toll, a.kinds, a.kills)
    rules = Rules(a.seed, a.most, a.real, CLOCKS[1:] if a.by_changes else CLOCKS)

    with tempfile.TemporaryDirectory(prefix="kill-") as room:
        for kind in a.kinds:
            Loop(kind, Path(room) / kind, toll, rules, line.show).run(a.kills)
    print(toll.table(), end="")
    for fault in toll.faults:
        print(fault, file=sys.stderr)
    return 1 if toll.faults else 0


class _Line:
    """Says every now and then how far the loop is; without threads, of which a fork has none."""

    def __init__(self, toll: Toll, kinds: Sequence[str], kills: int) -> None:
        self._toll, self._kinds, self._kills = toll, kinds, kills
        self._before, self._began_s, self._last_s = self._done(), time.monotonic(), -math.inf

    def _done(self) -> int:
        return sum(min(self._kills, self._toll.of_kind(kind)) for kind in self._kinds)

    def show(self, words: str) -> None:
        now, done, goal = time.monotonic(), self._done(), self._kills * len(self._kinds)
        if now - self._last_s < LINE_EVERY_S:
            return
        self._last_s = now
        faults, eta = f"{len(self._toll.faults)} faults", "?"
        if new := done - self._before:
            eta = str(timedelta(seconds=round((now - self._began_s) / new * (goal - done))))
        print(f"{done}/{goal} kills  {faults}  eta {eta}  {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
