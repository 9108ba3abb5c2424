"""All rows of results, one module after another, each in a process of its own.

    python benchmarks/bench.py                      # results.md and results.json, as it goes
    python benchmarks/bench.py --only store scoring # these alone

Every module of ``MODULES`` has ``rows()`` and can be run by itself. One that fails is named with
its reason, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from table import Row, to_markdown

HERE = Path(__file__).resolve().parent

MODULES = (
    *("training", "scoring", "store", "growth", "evaluation", "startup", "archive", "detector"),
    *("inputs", "scale", "load"),
)

LIMIT_S = 900.0
"""Of one module; on two quiet cores none needs a third of it."""

ROWS_OF = """
import importlib, json, sys
from dataclasses import asdict
rows = [asdict(row) for row in importlib.import_module(sys.argv[1]).rows()]
with open(sys.argv[2], "w") as file:
    json.dump(rows, file)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return 1 where a module failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.md, results.json")
    arguments = parser.parse_args(argv)
    return measure(arguments.only, HERE, arguments.out)


def measure(modules: Sequence[str], folder: Path, out: Path) -> int:
    """Run modules and write what they found; return 1 where one failed.

    Args:
        modules: names of files of ``folder``.
        folder: where they lie.
        out: folder for ``results.md`` and ``results.json``.
    """
    rows: dict[str, list[Row]] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for module in modules:
        began_s = time.monotonic()
        try:
            rows[module] = rows_of(module, folder)
            print(to_markdown(rows[module]), flush=True)
        except RuntimeError as error:
            failed[module] = str(error)
            print(f"{module}: failed: {error}", file=sys.stderr, flush=True)
        seconds[module] = round(time.monotonic() - began_s, 1)
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": describe(),
            "seconds": seconds,
            "rows": {module: [_as_json(row) for row in found] for module, found in rows.items()},
            "failed": failed,
        }
        write(out / "results.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        write(out / "results.md", to_page(record, rows))
    return 1 if failed else 0


def rows_of(module: str, folder: Path) -> list[Row]:
    """Return the rows of a module, measured in a process of its own.

    Raises:
        RuntimeError: it failed, or took too long; its last line.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".json") as found:
        command = [sys.executable, "-c", ROWS_OF, module, found.name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_paths(folder))}
        try:
            done = subprocess.run(
                command, env=environment, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"took longer than {LIMIT_S:.0f} s") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["nothing was said"]
            raise RuntimeError(f"exit code {done.returncode}: {lines[-1]}")
        return [Row(**row) for row in json.load(found)]


def _paths(folder: Path) -> list[str]:
    return [str(folder), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]


def _as_json(row: Row) -> dict[str, Any]:
    return {**asdict(row), "ratio": row.ratio, "verdict": row.verdict}


def measured_on(record: dict[str, Any]) -> str:
    """Return date, machine and versions of a record, as a sentence."""
    machine, packages = record["machine"], record["machine"]["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return (
        f"{record['date']}; {machine['cpu']}, {machine['cores']} cores; {machine['platform']}, "
        f"Python {machine['python']}; {versions}."
    )


def to_page(record: dict[str, Any], rows: dict[str, list[Row]]) -> str:
    """Return all tables under one line that says where they were measured."""
    lines = [measured_on(record), "Ratio: ours / theirs, less is better."]
    for module, found in rows.items():
        lines += ["", f"## {module} ({record['seconds'][module]:.0f} s)", "", to_markdown(found)]
    lines += [f"{module}: failed: {reason}" for module, reason in record["failed"].items()]
    return "\n".join(lines).rstrip() + "\n"


def describe() -> dict[str, Any]:
    """Return the machine and the versions; no host name, no user, no path."""
    import torch

    from ubr_pretrain.machine import describe_machine

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {**describe_machine(torch.device("cpu")), "cores": cores}


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    from ubr_pretrain.whole_file import write_atomically

    with write_atomically(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    raise SystemExit(main())
