"""What is to be scored, what is recorded already, and what was passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ubr_pretrain.scans import ImageEntry, Scans, content_of, hash_of, place_of
from ubr_pretrain.score_archive import Kind, ScoreArchive, possible_names
from ubr_pretrain.shards import Unit
from ubr_pretrain.volumes import VolumeEntry

VOLUMES_AT_ONCE = 64
"""Volumes whose headers are held while units are scored one after the other."""

SCANS_AT_ONCE = 1024
"""Slices and what is recorded already, which hold no headers, are told of so many at a time."""


@dataclass(frozen=True)
class ScoringTask:
    """One volume or slice, and the name under which it will be recorded.

    Attributes:
        entry: what is to be read.
        name: in the journal, and of its pictures.
        place: where it lies, as a hash.
        content: of its files, as a hash, before they were read.
        origin: in a shard: hashes of its unit and its series.
    """

    entry: VolumeEntry | ImageEntry
    name: str
    place: str
    content: str
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The table that it belongs to."""
        return "volumes" if isinstance(self.entry, VolumeEntry) else "images"


@dataclass(frozen=True)
class Scored:
    """What became of a task, as it goes into the journal.

    Attributes:
        line: of the journal, but for the record.
        record: plain values; None for a coloured picture that the user did not name: no slice.
        complaint: why it was refused, with the path of the file; None otherwise.
    """

    line: Mapping[str, Any]
    record: dict[str, Any] | None
    complaint: str | None = None

    @classmethod
    def of(cls, task: ScoringTask, record: dict[str, Any] | None, complaint: str | None) -> Scored:
        """Return the outcome of a task."""
        names = {"kind": task.kind, "name": task.name, "place": task.place}
        return cls({**names, "content": task.content, **task.origin}, record, complaint)


@dataclass(frozen=True)
class Plan:
    """What one search says of the work.

    Attributes:
        volumes: to be scored.
        images: to be scored.
        held: names of what is recorded and needs nothing more.
        skipped: how many files are no scans, by reason.
    """

    volumes: Sequence[ScoringTask]
    images: Sequence[ScoringTask]
    held: Sequence[str]
    skipped: Mapping[str, int]


@dataclass(frozen=True)
class Recorded:
    """Knows what needs nothing more; it can be sent to another machine.

    Attributes:
        held: name and content of what is recorded.
        suffixes: of the pictures and pages of a volume.
        out: folder of those.
    """

    held: frozenset[tuple[str, str]]
    suffixes: Sequence[str]
    out: Path

    def __call__(self, task: ScoringTask) -> bool:
        """Whether a task is recorded, with all its side files."""
        if (task.name, task.content) not in self.held:
            return False
        if task.kind == "images":
            return True
        return all((self.out / f"{task.name}{suffix}").exists() for suffix in self.suffixes)


def plan_scans(scans: Scans, archive: ScoreArchive, is_done: Recorded) -> Plan:
    """Plan the one search of a run that is no shard; names are given by the journal."""
    taken: set[str] = set()

    def task_of(entry: VolumeEntry | ImageEntry) -> ScoringTask:
        place, content = place_of(entry), content_of(entry)
        name = archive.name_for(entry.name, place, content, taken)
        taken.add(name)
        return ScoringTask(entry, name, place, content)

    return _plan(scans, task_of, is_done)


def plan_unit(unit: Unit, is_done: Recorded) -> Plan:
    """Plan a unit of an archive in shards; names are given by the unit.

    What the journal has told apart from a namesake of another unit keeps the name it has there.
    """
    own = hash_of(unit.name)

    def task_of(entry: VolumeEntry | ImageEntry) -> ScoringTask:
        origin = {"unit": own}
        if entry.series_uid is not None:
            phase = entry.phase if isinstance(entry, VolumeEntry) else None
            origin["series"] = hash_of(f"{entry.series_uid} {phase or 1}")
        place, content = unit.place_of(entry), content_of(entry)
        name, *apart = possible_names(entry.name, place)
        name = next((other for other in apart if (other, content) in is_done.held), name)
        return ScoringTask(entry, name, place, content, origin)

    return _plan(unit.scans(), task_of, is_done)


def plans_of_units(units: Iterable[Unit], is_done: Recorded) -> Iterator[Plan]:
    """Plan units a few at a time: as many as hold ``VOLUMES_AT_ONCE`` volumes to be scored."""
    few: list[Plan] = []
    volumes = scans = 0
    for unit in units:
        plan = plan_unit(unit, is_done)
        few.append(plan)
        volumes += len(plan.volumes)
        scans += 1 + len(plan.images) + len(plan.held)
        if volumes >= VOLUMES_AT_ONCE or scans >= SCANS_AT_ONCE:
            yield _joined(few)
            few, volumes, scans = [], 0, 0
    yield _joined(few)


def _plan(
    scans: Scans, task_of: Callable[[VolumeEntry | ImageEntry], ScoringTask], is_done: Recorded
) -> Plan:
    tasks = [task_of(entry) for entry in scans.volumes] + list(map(task_of, scans.images))
    held = [task for task in tasks if is_done(task)]
    names = {task.name for task in held}
    pending = [task for task in tasks if task.name not in names]
    return Plan(
        [task for task in pending if task.kind == "volumes"],
        [task for task in pending if task.kind == "images"],
        [task.name for task in held],
        dict(scans.volumes.skipped),
    )


def _joined(plans: Sequence[Plan]) -> Plan:
    skipped: Counter[str] = Counter()
    for plan in plans:
        skipped.update(plan.skipped)
    return Plan(
        [task for plan in plans for task in plan.volumes],
        [task for plan in plans for task in plan.images],
        [name for plan in plans for name in plan.held],
        skipped,
    )
