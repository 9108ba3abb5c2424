"""What it takes until a command says its first word, and until one small scan is scored.

    python benchmarks/startup.py

Processes are started in turn and their CPU seconds taken (user and system), which other programs
disturb less than the clock; the least of the repeats counts.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

from table import Row, to_markdown

HELP_REPEATS, SCORING_REPEATS = 20, 5
SCRIPTS = Path(sysconfig.get_path("scripts"))
BARE = [sys.executable, "-c", "pass"]
IMPORT_LINE = re.compile(r"import time:\s+\d+ \|\s+(\d+) \|(\s+)(\S+)")

EMPTY_SCRIPT = """\
import sys
if __name__ == '__main__':
    sys.exit(0)
"""


def cpu_s(command: Sequence[str | Path], cwd: Path | None = None) -> float:
    """Return the CPU seconds of a process that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(list(map(str, command)), cwd=cwd, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processes(commands: dict[str, Sequence[str | Path]], repeats: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every command, run in turn after a warm-up of each."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, command in commands.items():
            taken = cpu_s(command)
            if repeat:
                seconds[name].append(taken)
    return seconds


def help_row(folder: Path) -> Row:
    """``--help`` of every command against ``python -c pass``."""
    empty = folder / "empty.py"
    empty.write_text(EMPTY_SCRIPT)
    points = distribution("ct-body-part-transfer").entry_points
    scripts = sorted(point.name for point in points if point.group == "console_scripts")
    helps: dict[str, Sequence[str | Path]] = {
        name: [sys.executable, SCRIPTS / name, "--help"] for name in scripts
    }
    taken = processes(
        {"python -c pass": BARE, "an empty script": [sys.executable, empty], **helps}, HELP_REPEATS
    )
    bare = taken["python -c pass"]
    worst = max(scripts, key=lambda name: min(taken[name]))
    table = "; ".join(
        f"{name} {1e3 * min(all_s):.0f} ({1e3 * statistics.median(all_s):.0f})"
        for name, all_s in taken.items()
    )
    return Row(
        f"`--help`, slowest of {len(scripts)} commands ({worst})",
        1e3 * min(taken[worst]),
        1e3 * min(bare),
        "ms CPU",
        "python -c pass",
        1.5,
        f"least (median) of {HELP_REPEATS} in ms: {table}",
    )


def scoring_rows(folder: Path) -> list[Row]:
    """One small scan, against ``import torch``; and the largest import that is not torch's."""
    phantom = ["--subjects", "1", "--matrix", "64", "--max-slices", "30", "--region", "trunk"]
    cpu_s([SCRIPTS / "make_phantoms.py", folder / "phantoms", *phantom])
    (scan,) = (folder / "phantoms").rglob("*.nii.gz")
    score = [sys.executable, SCRIPTS / "score_volumes.py", scan, "--out", folder / "scores"]
    score += ["--overwrite", "--pictures"]
    taken = processes(
        {
            "torch": [sys.executable, "-c", "import torch"],
            "scores": [*score, "false"],
            "and a picture": [*score, "true"],
        },
        SCORING_REPEATS,
    )
    torch_s, whole_s, drawn_s = (min(all_s) for all_s in taken.values())
    shares = import_shares([*score, "false"])
    shown = ", ".join(f"{name} {100 * share:.1f} %" for name, share in list(shares.items())[:7])
    largest = next(name for name in shares if name != "torch")
    rest = 1 - sum(shares.values())
    return [
        Row(
            "one scan of 30 slices scored, no picture",
            whole_s,
            torch_s,
            "s CPU",
            "python -c 'import torch'",
            None,
            f"of its wall time: {shown}; all that is no import {100 * rest:.0f} %; "
            f"with a picture {drawn_s:.2f} s, matplotlib being what is added",
        ),
        Row(
            f"largest import beside torch when it is scored ({largest})",
            100 * shares[largest],
            100.0,
            "% of the wall time",
            "all of it",
            0.10,
        ),
    ]


def import_shares(command: Sequence[str | Path]) -> dict[str, float]:
    """Return each package's share of a process's wall time spent in importing it, largest first.

    What a package imports of another is the other's, wherever it is asked for; the standard
    library counts with who asks first.
    """
    timed = [command[0], "-X", "importtime", *command[1:]]
    code = (
        "import subprocess, sys, time; began_s = time.perf_counter(); "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE); "
        "sys.stderr.buffer.write(done.stderr); print(time.perf_counter() - began_s)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, timed)], capture_output=True, text=True, check=True
    )
    wall_us = 1e6 * float(done.stdout)
    of_package: dict[str, float] = {}
    above: list[tuple[int, str]] = []
    # Modules are listed once they are imported, after what they import: read from the end.
    for line in reversed(done.stderr.splitlines()):
        if (found := IMPORT_LINE.match(line)) is None:
            continue
        spent_us, depth, name = int(found[1]), len(found[2]), found[3].partition(".")[0]
        while above and above[-1][0] >= depth:
            above.pop()
        outer = above[-1][1] if above else ""
        owner = outer if name in sys.stdlib_module_names and outer else name
        if owner != outer:
            of_package[owner] = of_package.get(owner, 0.0) + spent_us
            if outer:
                of_package[outer] -= spent_us
        above.append((depth, owner))
    ranked = sorted(of_package.items(), key=lambda item: -item[1])
    return {name: spent_us / wall_us for name, spent_us in ranked}


def rows() -> list[Row]:
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        return [help_row(Path(name)), *scoring_rows(Path(name))]


if __name__ == "__main__":
    print(to_markdown(rows()))
