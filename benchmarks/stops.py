"""How long SIGTERM takes to end a command, in the phases in which it works longest in one piece.

    python benchmarks/stops.py --out stops        # on two cores a quarter of an hour

Every command is started anew, brought into the phase, and told to stop some seconds later, another
number each time; the longest wait counts. It must end with code 143, and the same command goes on.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from generated import body, write_ct, write_lesions, write_nifti
from table import Row, to_markdown

LIMIT_S = 5.0
PATIENCE_S = 600.0
STOPPED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Phase:
    """A command and the moment from which on it is in the phase.

    Attributes:
        name: what it does then.
        command: as it is typed, without ``--out``.
        begun: whether the phase has begun, by what lies in the folder of the run.
        from_s: the signal comes so many seconds later, at least.
        to_s: at most.
    """

    name: str
    command: tuple[str, ...]
    begun: Callable[[Path], bool]
    from_s: float
    to_s: float


def exists(*names: str) -> Callable[[Path], bool]:
    """Return whether all of these are in a folder."""
    return lambda run: all((run / name).exists() for name in names)


def holds_lines(*names: str, least: int = 1) -> Callable[[Path], bool]:
    """Return whether all of these have so many lines."""

    def begun(run: Path) -> bool:
        files = [run / name for name in names]
        return all(f.exists() and f.read_bytes().count(b"\n") >= least for f in files)

    return begun


def phases(folder: Path, num_slices: int = 1200) -> list[Phase]:
    """Write the inputs and return the phases, quick ones first."""
    rng = np.random.default_rng(0)
    small = write_ct(folder / "small", 6, 40, 256)
    large = write_ct(folder / "large", 6, 40, 256)
    write_nifti(body(num_slices, 512, rng), (1.0, 0.8, 0.8), large / "large.nii")
    coco, images = write_lesions(folder / "lesions", 60, 512, num_validation=60)
    cpu = ("--device", "cpu")
    regressor = ("train_ubr.py", *cpu, "--data")
    data = (*cpu, "--coco", str(coco), "--images", str(images))
    detector, cached = ("train_det.py", *data), ("--cache", str(folder / "inputs"))
    two_cells = ("--width", "0.25", "--inits", "random", "--seeds", "0", "1", "--jobs", "2")
    grid = ("compare_inits.py", *data, *two_cells)
    scoring = ("score_volumes.py", str(large / "large.nii"), *cpu)
    each_step, few = ("--eval_every", "1"), ("--g", "2", "--m", "4")
    store = ("--store", str(folder / "store"))
    cells = [f"cells/random-seed{seed}/metrics.jsonl" for seed in (0, 1)]
    return [
        Phase(
            f"a volume of {num_slices} slices is decoded",
            (*regressor, str(large)),
            exists("slices/.building"),
            0,
            3,
        ),
        Phase(
            "steps of the paper's size on a CPU",
            (*regressor, str(small), *store),
            holds_lines("metrics.jsonl"),
            0,
            20,
        ),
        Phase(
            f"a validation on {num_slices} slices",
            (*regressor, str(large), *few, *each_step, "--holdout", "large", *store),
            holds_lines("metrics.jsonl"),
            0,
            6,
        ),
        Phase("inputs are decoded", detector, holds_lines("inputs/index.jsonl", least=3), 0, 0.1),
        Phase(
            "steps of the paper's size on a CPU",
            (*detector, *cached),
            holds_lines("metrics.jsonl"),
            0,
            30,
        ),
        Phase(
            "a validation on 60 images",
            (*detector, *cached, "--width", "0.25", *each_step),
            holds_lines("metrics.jsonl"),
            0,
            8,
        ),
        Phase(f"a volume of {num_slices} slices is read", scoring, exists("scores.jsonl"), 0, 2),
        Phase("it is scored", scoring, exists("scores.jsonl"), 2, 4),
        Phase("inputs are decoded", grid, holds_lines("inputs/index.jsonl", least=3), 0, 0.1),
        Phase("two cells are trained", (*grid, *cached), holds_lines(*cells), 0, 15),
    ]


def wait_s(phase: Phase, out: Path, after_s: float) -> float:
    """Return the seconds from SIGTERM to the end of the command.

    Raises:
        RuntimeError: it never came into the phase, ended before, or with another exit code.
    """
    out.mkdir(parents=True)
    said = out / "said.log"
    script = Path(sys.executable).parent / phase.command[0]
    command = [str(script), *phase.command[1:], "--out", str(out / "run")]
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + PATIENCE_S
        while not phase.begun(out / "run") and process.poll() is None:
            if time.monotonic() > deadline_s:
                process.kill()
            time.sleep(0.02)
        time.sleep(after_s)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code != STOPPED:
        raise RuntimeError(f"{phase.command[0]}, {phase.name}: {code}: {said.read_text()[-1000:]}")
    return time.monotonic() - began_s


def rows(names: Sequence[str] = (), repeats: int = 3) -> list[Row]:
    """Return the longest wait of every phase whose command is named, all where none is."""
    found: list[Row] = []
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        for number, phase in enumerate(phases(Path(name))):
            if names and phase.command[0] not in names:
                continue
            waits = [
                wait_s(phase, Path(name) / f"{number}-{i}", rng.uniform(phase.from_s, phase.to_s))
                for i in range(repeats)
            ]
            note = f"load {os.getloadavg()[0]:.1f}; {', '.join(f'{one:.1f}' for one in waits)} s"
            what = f"SIGTERM to the end of {phase.command[0]} while {phase.name}"
            found.append(Row(what, max(waits), LIMIT_S, "s", "the limit", 1, note))
            print(to_markdown(found[-1:]), flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where a folder is named; 1 where a wait is longer than asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="commands, as train_det.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder of stops.md and stops.json")
    a = parser.parse_args(argv)
    found = rows(a.only, a.repeats)
    print(to_markdown(found))
    if a.out is not None:
        a.out.mkdir(parents=True, exist_ok=True)
        (a.out / "stops.md").write_text(to_markdown(found), encoding="utf-8")
        record = json.dumps([asdict(row) for row in found], indent=1)
        (a.out / "stops.json").write_text(record + "\n", encoding="utf-8")
    return int(any(row.verdict == "missed" for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
