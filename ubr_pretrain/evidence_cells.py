"""The cells of a run: one training or fit each, kept as it ends, read back by the same command.

A cell is a folder with ``answer.npz`` (arrays) and ``facts.json``. The facts are written last: a
cell that has them is whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically

LINE_EVERY_S = 15.0

Say = Callable[[str], None]
Arrays = Mapping[str, ndarray]
Facts = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """What one training or fit answered.

    Attributes:
        arrays: scores or classes of the judged slices.
        facts: numbers in plain types; ``seconds`` and ``cpu_seconds`` of its last session.
    """

    arrays: Arrays
    facts: Facts


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell to come.

    Attributes:
        name: its folder.
        cost: of its training, in any unit that all cells share.
        compute: does the work; it is given its folder and a way to report progress.
    """

    name: str
    cost: float
    compute: Callable[[Path, Say], tuple[Arrays, Facts]]


def run_cells(plan: Sequence[PlannedCell], folder: Path, say: Say) -> dict[str, Cell]:
    """Compute what is not yet there, in order, and return all cells by name.

    Args:
        plan: cells; one may read the folder of those before it.
        folder: of all cells.
        say: told of every cell that ended, with the time that the rest will take.
    """
    cells: dict[str, Cell] = {}
    began_s, spent = time.monotonic(), 0.0
    for number, planned in enumerate(plan, start=1):
        where = folder / planned.name
        heading = f"[{number}/{len(plan)}] {planned.name}"
        if (where / "facts.json").is_file():
            cells[planned.name] = read_cell(where)
            continue
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        where.mkdir(parents=True, exist_ok=True)
        arrays, facts = planned.compute(where, _slow(say, heading))
        facts = {
            **facts,
            "seconds": round(time.monotonic() - start_s, 2),
            "cpu_seconds": round(time.process_time() - start_cpu_s, 2),
        }
        write_cell(where, Cell(arrays, facts))
        cells[planned.name] = read_cell(where)
        spent += planned.cost
        left = sum(p.cost for p in plan[number:] if not (folder / p.name / "facts.json").is_file())
        eta_s = (time.monotonic() - began_s) * left / spent
        say(f"{heading}: {facts['seconds']:.0f} s; about {eta_s / 60:.1f} min left")
    return cells


def write_cell(folder: Path, cell: Cell) -> None:
    """Write a cell, its facts last."""
    with write_atomically(folder / "answer.npz") as file:
        np.savez_compressed(file, **cell.arrays)  # type: ignore[arg-type]
    with write_atomically(folder / "facts.json", "w") as file:
        file.write(to_json(cell.facts, indent=1) + "\n")


def read_cell(folder: Path) -> Cell:
    """Read a whole cell."""
    with np.load(folder / "answer.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return Cell(arrays, json.loads((folder / "facts.json").read_text("utf-8")))


def _slow(say: Say, heading: str) -> Say:
    """Return a way to report progress that passes on a line now and then."""
    last_s = time.monotonic()

    def report(text: str) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= LINE_EVERY_S:
            last_s = time.monotonic()
            say(f"{heading}  {text}")

    return report
