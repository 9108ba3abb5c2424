"""Plant faults in the product and count how many its tests find; ``make mutants``.

Verdicts are kept in ``runs/mutants.json``, so that ``--survivors`` asks again about those alone
which nothing had killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from tests.mutants.judges import JUDGES, judges_of
from tests.mutants.judging import judge_module, scratch_folder
from tests.mutants.mutators import Mutant, mutants

RECORD = Path("runs/mutants.json")
EXCUSES = Path(__file__).with_name("survivors.yaml")
LEAST_KILLED = 0.9

Key = tuple[str, str, str]
"""Function, the lines as they were, the lines as they became."""


def main() -> int:
    """Judge the mutants of the modules asked for; 0 if enough are killed and the rest explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all of the table")
    parser.add_argument("--survivors", action="store_true", help="only what survived the last time")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the mutants, drawn at random, at most"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    if unknown := sorted(set(asked.modules) - set(JUDGES)):
        parser.error(f"{unknown[0]} is not one of {', '.join(JUDGES)}")
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    reasons = excuses()
    faults = 0
    totals: Counter[str] = Counter()
    head = f"{'mutants':>8}{'killed':>8}{'timed out':>11}{'harmless':>10}{'survived':>10}"
    print(f"{'module':36}{head}", flush=True)
    with scratch_folder():
        for module in asked.modules or JUDGES:
            known = record.get(module, {}) if asked.survivors else {}
            record[module] = _judge(module, known, asked.share, asked.jobs)
            RECORD.parent.mkdir(exist_ok=True)
            RECORD.write_text(json.dumps(record, indent=1), "utf-8")
            faults += _report(module, record[module], reasons.get(module, {}), totals)
    found = totals["killed"] + totals["timed out"]
    print(f"{found} of {totals['mutants']} mutants found: {found / totals['mutants']:.1%}")
    return int(faults > 0 or found < LEAST_KILLED * totals["mutants"])


def _judge(module: str, known: dict[str, str], share: float, jobs: int) -> dict[str, str]:
    """Return the verdict on every mutant that was judged, now or before, by its key as text."""
    everything = mutants(Path(module).read_text("utf-8"))
    verdicts = {_text(m): known[_text(m)] for m in everything if _text(m) in known}
    drawn = random.Random(0).sample(everything, round(share * len(everything)))
    todo = [m for m in drawn if verdicts.get(_text(m)) in (None, "survived")]
    started = time.monotonic()
    for i, (mutant, verdict) in enumerate(
        judge_module(Path(module), judges_of(module), todo, jobs), start=1
    ):
        verdicts[_text(mutant)] = verdict
        if sys.stderr.isatty():
            seconds = time.monotonic() - started
            print(f"\r{module}: {i} of {len(todo)}, {seconds:.0f} s", end="\r", file=sys.stderr)
    return verdicts


def _text(mutant: Mutant) -> str:
    return json.dumps(mutant.key)


def _report(
    module: str, verdicts: dict[str, str], listed: dict[Key, str], totals: Counter[str]
) -> int:
    """Print a module's row and its survivors; return how many stand there without a reason."""
    counts = Counter(verdicts.values())
    survivors = {tuple(json.loads(text)) for text, v in verdicts.items() if v == "survived"}
    harmless = survivors & listed.keys()
    row = {
        "mutants": len(verdicts),
        "killed": counts["killed"],
        "timed out": counts["timed out"],
        "harmless": len(harmless),
        "survived": len(survivors - harmless),
    }
    totals.update(row)
    print(
        f"{module:36}{row['mutants']:8}{row['killed']:8}{row['timed out']:11}"
        f"{row['harmless']:10}{row['survived']:10}",
        flush=True,
    )
    for function, was, becomes in sorted(survivors - harmless):
        print(f"    {function or 'on import'}\n      - {was}\n      + {becomes}", flush=True)
    stale = {key for key in listed if verdicts.get(json.dumps(key), "survived") != "survived"}
    for function, was, becomes in sorted(stale):
        print(
            f"    no longer survives, take it from {EXCUSES.name}: {function}: {was} -> {becomes}"
        )
    return len(survivors - harmless) + len(stale)


def excuses() -> dict[str, dict[Key, str]]:
    """Return the listed survivors of every module with the reasons why they are harmless."""
    entries = yaml.safe_load(EXCUSES.read_text("utf-8")) or {}
    return {
        module: {(e["in"], e["was"], e["becomes"]): e["why"] for e in rows}
        for module, rows in entries.items()
    }


if __name__ == "__main__":
    sys.exit(main())
