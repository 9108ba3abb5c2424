"""The figures of a loop of kills, written down kill by kill: a stop of the loop loses none."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ubr_pretrain.whole_file import write_atomically


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        kind: of work.
        name: of its form.
        round: which run of this work, from its start to its end.
        target: who got it.
        real: whether it was a process as a user types it; False: a fork of one.
        moment: that was drawn.
        stage: what the work was doing.
        seconds: that the attempt had lived.
        faults: what was not as it must be after it.
    """

    kind: str
    name: str
    round: int
    target: str
    real: bool
    moment: str
    stage: str
    seconds: float
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """A work that has come to its end after any number of kills.

    Attributes:
        kind: of work.
        name: of its form.
        round: which run.
        kills: that it survived.
        differences: from the run that nobody disturbed.
    """

    kind: str
    name: str
    round: int
    kills: int
    differences: tuple[str, ...] = ()


class Toll:
    """What a loop of kills has found so far: ``events.jsonl`` and two summaries of it.

    Attributes:
        folder: of these files.
        kills: in order.
        ends: in order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._events = folder, folder / "events.jsonl"
        self.kills: list[Kill] = []
        self.ends: list[End] = []
        folder.mkdir(parents=True, exist_ok=True)
        if self._events.is_file():
            for line in self._events.read_text("utf-8").splitlines():
                event = json.loads(line)
                event = {k: tuple(v) if isinstance(v, list) else v for k, v in event.items()}
                if "target" in event:
                    self.kills.append(Kill(**event))
                else:
                    self.ends.append(End(**event))

    @property
    def faults(self) -> list[str]:
        """Everything that was not as it must be."""
        kills = [f"{k.kind}, {k.name}, run {k.round}: {f}" for k in self.kills for f in k.faults]
        ends = [f"{e.kind}, {e.name}, run {e.round}: {d}" for e in self.ends for d in e.differences]
        return kills + ends

    def of_kind(self, kind: str) -> int:
        """Return how often work of a kind was killed."""
        return sum(kill.kind == kind for kill in self.kills)

    def next_round(self, kind: str) -> int:
        """Return the number of the next run of a kind; one that was cut short is not repeated."""
        events = (*self.kills, *self.ends)
        return 1 + max((event.round for event in events if event.kind == kind), default=0)

    def add(self, event: Kill | End) -> None:
        """Take a kill, or an end, into the figures."""
        (self.kills if isinstance(event, Kill) else self.ends).append(event)  # type: ignore[arg-type]
        with self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(event)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.write()

    def write(self) -> None:
        """Write ``figures.json`` and ``figures.md``."""
        with write_atomically(self.folder / "figures.json", "w") as file:
            json.dump(self.figures(), file, indent=1)
        with write_atomically(self.folder / "figures.md", "w") as file:
            file.write(self.table())

    def figures(self) -> dict[str, Any]:
        """Return the counts in plain values."""
        kinds = dict.fromkeys(event.kind for event in (*self.kills, *self.ends))
        return {
            "kills": len(self.kills),
            "finished": len(self.ends),
            "faults": self.faults,
            "kinds": {kind: self._of(kind) for kind in kinds},
        }

    def _of(self, kind: str) -> dict[str, Any]:
        kills = [kill for kill in self.kills if kill.kind == kind]
        ends = [end for end in self.ends if end.kind == kind]
        return {
            "kills": len(kills),
            "most_in_one_run": max((end.kills for end in ends), default=0),
            "real_processes": sum(kill.real for kill in kills),
            "targets": Counter(kill.target for kill in kills),
            "stages": dict(Counter(kill.stage for kill in kills).most_common()),
            "finished": len(ends),
            "different": sum(bool(end.differences) for end in ends),
            "faulty_kills": sum(bool(kill.faults) for kill in kills),
        }

    def table(self) -> str:
        """Return the figures as Markdown."""
        lines = [
            "| work | kills | of them: process, session, child | killed while | finished runs "
            "| other than undisturbed | faults after a kill |",
            "|---|---|---|---|---|---|---|",
        ]
        for kind, of in self.figures()["kinds"].items():
            targets = ", ".join(str(of["targets"][t]) for t in ("process", "group", "child"))
            stages = ", ".join(f"{stage} {count}" for stage, count in of["stages"].items())
            counts = f"{of['finished']} | {of['different']} | {of['faulty_kills']}"
            lines.append(f"| {kind} | {of['kills']} | {targets} | {stages} | {counts} |")
        lines += ["", *(f"- {fault}" for fault in self.faults)]
        return "\n".join(lines).rstrip() + "\n"
