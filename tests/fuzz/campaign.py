"""Many inputs of every kind, each behind limits; what was found is written as it is found.

Every input is known by its kind, seed and number: ``--replay KIND --seed S --index N`` makes it
again. Faults of ours are saved with their files.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.originals import VOLUMES, Files
from tests.fuzz.outcome import Outcome, Work
from tests.fuzz.worker import serve
from ubr_pretrain.whole_file import write_atomically

START_S = 120.0
"""Longest time to the first word: a child takes all imports first."""

HANG_S = 30.0
"""Longer without a word is a hang; an input takes milliseconds."""

AT_ONCE = 2000
"""Inputs of one child, so that no leak of a library adds up."""

SAVED = 25
"""Faults of one kind and name that are saved with their files; all are counted."""


@dataclass
class Campaign:
    """What has been tried.

    Attributes:
        out: figures, and a folder of faults.
        seed: of all inputs.
        counts: outcomes by kind.
        seconds: by kind.
        examples: the first of every outcome worth a word, by kind.
    """

    out: Path
    seed: int
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def num_inputs(self) -> int:
        """Inputs so far."""
        return sum(counter.total() for counter in self.counts.values())

    @property
    def num_faults(self) -> int:
        """Outcomes that somebody has to look at."""
        return sum(
            count
            for counter in self.counts.values()
            for name, count in counter.items()
            if name.split()[0].isupper()
        )

    def take(self, kind: str, outcome: Outcome) -> None:
        """Count an outcome; keep what is worth a word, save what is a fault."""
        self.counts[kind][outcome.name] += 1
        told = [e for e in self.examples[kind] if e["outcome"] == outcome.name]
        if (outcome.is_fault or outcome.detail) and len(told) < SAVED:
            self.examples[kind].append(
                {
                    "outcome": outcome.name,
                    "index": outcome.index,
                    "seed": self.seed,
                    "how": outcome.how,
                    "detail": outcome.detail,
                }
            )
            if outcome.is_fault:
                self._save(kind, outcome)

    def _save(self, kind: str, outcome: Outcome) -> None:
        folder = self.out / "faults" / f"{kind}-{self.seed}-{outcome.index}"
        for name, content in files_of(kind, self.seed, outcome.index).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        text = "\n".join((outcome.name, *outcome.how, outcome.detail))
        (folder / "fault.txt").write_text(text, "utf-8", "backslashreplace")

    def write(self) -> None:
        """Write ``fuzz.json`` and ``fuzz.md``."""
        self.out.mkdir(parents=True, exist_ok=True)
        content = {
            "seed": self.seed,
            "inputs": self.num_inputs,
            "faults": self.num_faults,
            "seconds": {kind: round(s, 1) for kind, s in self.seconds.items()},
            "outcomes": {kind: dict(c.most_common()) for kind, c in self.counts.items()},
            "examples": self.examples,
        }
        with write_atomically(self.out / "fuzz.json", "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        with write_atomically(self.out / "fuzz.md", "w") as file:
            file.write(self.table())

    def table(self) -> str:
        """Return inputs by kind and outcome as Markdown."""
        columns = {
            "refused": "refused",
            "equal": "equal to the original",
            "voxels": "only the voxels touched",
            "pixels": "damaged pixels",
            "other": "another volume",
            "parsed": "as a plain parse",
        }
        lines = [
            f"| kind | inputs | {' | '.join(columns)} | faults | inputs a second |",
            "|---|" + "---:|" * (len(columns) + 3),
        ]
        for kind, counter in self.counts.items():
            cells = [
                sum(n for name, n in counter.items() if name.startswith(start))
                for start in columns.values()
            ]
            faults = counter.total() - sum(cells)
            rate = counter.total() / max(self.seconds[kind], 1e-9)
            shown = " | ".join(f"{cell:,}" for cell in cells)
            lines.append(f"| {kind} | {counter.total():,} | {shown} | {faults} | {rate:.0f} |")
        total = f"{self.num_inputs:,} inputs, {self.num_faults} faults, seed {self.seed}, "
        return (
            "\n".join([*lines, "", f"{total}{sum(self.seconds.values()) / 60:.1f} minutes."]) + "\n"
        )


def files_of(kind: str, seed: int, index: int) -> Files:
    """Return the files of an input."""
    if kind in VOLUMES:
        from tests.fuzz.volume_cases import mutated

        return mutated(kind, seed, index)[1]
    from tests.fuzz.record_cases import mutated_record

    return mutated_record(kind, seed, index)[0]


def run(campaign: Campaign, kind: str, first: int, count: int) -> None:
    """Try ``count`` inputs of a kind from number ``first`` on; no child ends without a word."""
    began, end = time.monotonic(), first + count
    mute: frozenset[tuple[int, str]] = frozenset()
    while first < end:
        work = Work(kind, campaign.seed, first, end - first)
        place, phase, problem = _watch(campaign, work, mute)
        if not problem:
            break
        if phase.startswith("judge "):  # it is not ours that fell: ask the others
            mute |= {(place, phase.removeprefix("judge "))}
            first = place
            continue
        campaign.take(kind, Outcome(place, f"FAULT {problem}", f"in phase {phase or 'start'}"))
        first = place + 1
    campaign.seconds[kind] += time.monotonic() - began


def _watch(
    campaign: Campaign, work: Work, mute: frozenset[tuple[int, str]]
) -> tuple[int, str, str]:
    """Run one child; return where it ended, and why where it did not end by itself."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs, work, mute), daemon=True)
    child.start()
    theirs.close()
    place, phase, problem = work.first, "", ""
    patience_s = START_S
    try:
        while (word := _next(ours, patience_s)) is not None:
            patience_s = HANG_S
            if isinstance(word, Outcome):
                campaign.take(work.kind, word)
                place, phase = word.index + 1, ""
            else:
                place, phase = word
    except TimeoutError:
        problem = "HANG"
    except (EOFError, OSError):
        child.join(5)
        problem = f"CRASH {child.exitcode}"
    finally:
        child.kill()
        child.join()
        ours.close()
    return place, phase, problem


def _next(pipe: Connection, patience_s: float) -> Any:
    if not pipe.poll(patience_s):
        raise TimeoutError
    return pipe.recv()


def shares(kinds: Sequence[str], inputs: int) -> dict[str, int]:
    """Return how many inputs each kind gets: the quick ones more."""
    weights = {kind: _weight(kind) for kind in kinds}
    total = sum(weights.values())
    return {kind: max(1, -(-inputs * weight // total)) for kind, weight in weights.items()}


def _weight(kind: str) -> int:
    if kind == "command-line":
        return 1
    if kind.startswith("dicom"):
        return 3 if kind.endswith(("j2k", "jpeg-lossless", "enhanced")) else 6
    return 16 if kind in VOLUMES else 9
