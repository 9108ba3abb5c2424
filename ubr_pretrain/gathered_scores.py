"""The journals of all shards of an archive, as one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from ubr_pretrain.config import config_differences
from ubr_pretrain.held_folder import remove_half_written, took_lock
from ubr_pretrain.runtime import to_json
from ubr_pretrain.score_archive import JOURNAL, Kind, ScoreArchive, of_line, under_name
from ubr_pretrain.score_tables import Format, write_tables
from ubr_pretrain.shards import Shard, read_complete
from ubr_pretrain.whole_file import write_atomically

GATHERED = "gathered.json"
LOCK = ".lock"

ALSO = "also found in another unit"
"""Note of a series of which there is an equal copy."""

Line = tuple[Path, str]
"""Of a journal: the folder of its shard, and its name."""


@dataclass
class Tally:
    """What is in the tables, and what was left out.

    Attributes:
        scored: how many, by kind.
        refused: likewise.
        copies: equal to what another unit holds.
        gone: recorded, but not in the archive any more.
    """

    scored: Counter[Kind] = field(default_factory=Counter)
    refused: Counter[Kind] = field(default_factory=Counter)
    copies: int = 0
    gone: int = 0

    def counts(self) -> dict[str, int]:
        """Return how many rows there are, of them refused ones, and what was left out."""
        rows = {kind: self.scored[kind] + self.refused[kind] for kind in ("volumes", "images")}
        left = {"copies": self.copies, "gone": self.gone}
        return {**rows, "refused": self.refused.total(), **left}


@dataclass(frozen=True)
class GatheredScores:
    """All shards of an archive, known to be complete and to fit together.

    Attributes:
        out: folder of the shards, and of the tables.
        header: with which weights and settings all were scored.
        shards: in order.
        renamed: new names of what two shards call alike.
        copied: of what another unit has an equal copy.
        left_out: those copies, and what is not in the archive any more.
        tally: what is in the tables.
    """

    out: Path
    header: Mapping[str, Any]
    shards: Sequence[Path]
    renamed: dict[Line, str] = field(default_factory=dict)
    copied: set[Line] = field(default_factory=set)
    left_out: set[Line] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)

    def records(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yield every record of a kind, shard by shard."""
        for folder in self.shards:
            with _read_shard(folder) as archive:
                for line in archive.lines():
                    key = (folder, line["name"])
                    if line["kind"] != kind or key in self.left_out:
                        continue
                    record = line["record"]
                    if key in self.copied:
                        record = _with_note(record)
                    yield under_name(record, self.renamed[key]) if key in self.renamed else record


def gather(out: Path, formats: Sequence[Format]) -> Tally:
    """Write the tables of all shards below ``out``; return how much is in them.

    Raises:
        ValueError: a shard is missing, being written, incomplete, of other weights or settings, of
            another archive, or holds a series that another unit holds, too, and not equal; another
            process gathers them.
    """
    shards = _all_shards(out)
    with _held(out):
        gathered = _fitting(out, shards)
        write_tables(gathered, formats, in_parts=True)
        counts = {"shards": len(gathered.shards), **gathered.tally.counts()}
        with write_atomically(out / GATHERED, "w") as file:
            file.write(to_json({**gathered.header, **counts}, indent=1) + "\n")
    return gathered.tally


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Keep others from gathering, and clean up after one that was killed."""
    try:
        lock = (out / LOCK).open("a")
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror})") from error
    with lock:
        if not took_lock(lock):
            raise ValueError(f"{out}: another run is gathering there")
        remove_half_written(out)
        yield


def _all_shards(out: Path) -> list[Path]:
    found = {shard: path for path in out.glob("shard-*") if (shard := Shard.of_folder(path))}
    if not found:
        raise ValueError(f"{out}: holds no shard of score_volumes.py --shard")
    numbers = sorted({shard.count for shard in found})
    if len(numbers) > 1:
        raise ValueError(f"{out}: holds shards of {numbers[0]} and of {numbers[1]}; remove one set")
    every = [Shard(number, numbers[0]) for number in range(1, numbers[0] + 1)]
    if missing := [shard for shard in every if shard not in found]:
        raise ValueError(f"{out}: {_named(missing)} missing; run score_volumes.py with it")
    left = [shard for shard in every if _size_when_complete(found[shard]) is None]
    if left:
        raise ValueError(f"{out}: {_named(left)} not complete; the same command goes on there")
    return [found[shard] for shard in every]


def _named(shards: Sequence[Shard]) -> str:
    some = ", ".join(str(shard) for shard in shards[:5])
    more = f" and {len(shards) - 5} more" if len(shards) > 5 else ""
    return f"shard {some}{more} is" if len(shards) == 1 else f"shards {some}{more} are"


def _size_when_complete(folder: Path) -> int | None:
    """Return the size of a shard's journal if it is what it was when the shard was complete."""
    state = read_complete(folder)
    try:
        size = (folder / JOURNAL).stat().st_size
    except OSError:
        return None
    return size if state is not None and state.get("journal_bytes") == size else None


@contextmanager
def _read_shard(folder: Path) -> Iterator[ScoreArchive]:
    """Open a complete shard for reading, and keep writers off."""
    with (folder / JOURNAL).open("rb") as journal:
        if not took_lock(journal, shared=True):
            raise ValueError(f"{folder}: a run is writing there")
        if _size_when_complete(folder) is None:
            raise ValueError(f"{folder}: not complete any more; a run began there")
        header = of_line(journal.readline())
        yield ScoreArchive(folder, journal, header)


class _Place(NamedTuple):
    """Where a series was met first.

    Attributes:
        key: its line.
        unit: hash of its unit.
        scores: digest of its record.
        where: its path, where that is recorded.
    """

    key: Line
    unit: str
    scores: bytes
    where: str | None

    def is_copied_by(self, other: Self) -> bool:
        """Whether another unit holds the same, as far as the scores tell."""
        return self.unit != other.unit and self.scores == other.scores


def _fitting(out: Path, folders: Sequence[Path]) -> GatheredScores:
    """Look at every line of every shard; return them as one."""
    gathered = GatheredScores(out, {}, folders)
    archive_sha256 = ""
    series: dict[str, _Place] = {}
    unequal: dict[Line, list[str | None]] = {}
    names: set[str] = set()
    for folder in folders:
        with _read_shard(folder) as archive:
            own = dict(archive.header)
            if own.pop("shard", None) != str(Shard.of_folder(folder)):
                raise ValueError(
                    f"{folder}: its {JOURNAL} is that of shard {archive.header.get('shard')}; "
                    "remove the folder, and run score_volumes.py with its own shard"
                )
            gathered = replace(gathered, header=gathered.header or own)
            if changes := config_differences(gathered.header, own):
                raise ValueError(
                    f"{folder}: scored with other weights or settings ({'; '.join(changes[:3])})"
                )
            state = read_complete(folder) or {}
            seen = state.get("archive_sha256", "")
            if seen != (archive_sha256 := archive_sha256 or seen):
                raise ValueError(
                    f"{folder}: saw other files in the archive than {folders[0].name}; run both "
                    "again with the same paths: they go on where they are"
                )
            gone = frozenset(state.get("gone", ()))
            for line in archive.lines():
                key = (folder, line["name"])
                if line["name"] in gone:
                    gathered.left_out.add(key)
                    gathered.tally.gone += 1
                    continue
                if "series" in line:
                    here = _place(key, line)
                    first = series.setdefault(line["series"], here)
                    if first.is_copied_by(here):
                        gathered.copied.add(first.key)
                        gathered.left_out.add(key)
                        gathered.tally.copies += 1
                        continue
                    if first.unit != here.unit:
                        unequal.setdefault(first.key, [first.where]).append(here.where)
                bad = "code" in line["record"]
                (gathered.tally.refused if bad else gathered.tally.scored)[line["kind"]] += 1
                name = line["name"]
                if name.casefold() in names:
                    name = gathered.renamed[key] = f"{name}-{line['place']}"
                names.add(name.casefold())
    if unequal:
        raise ValueError(_unequal(out, unequal))
    return gathered


def _place(key: Line, line: Mapping[str, Any]) -> _Place:
    record = under_name(line["record"], "")  # a copy in the same shard has another name
    scores = {name: value for name, value in record.items() if name not in ("path", "notes")}
    digest = hashlib.sha256(to_json(scores).encode()).digest()
    return _Place(key, line.get("unit", ""), digest, record.get("path"))


def _with_note(record: dict[str, Any]) -> dict[str, Any]:
    if "code" in record:
        return {**record, "cause": f"{record['cause']}; {ALSO}"}
    return {**record, "notes": [*record["notes"], ALSO]}


def _unequal(out: Path, places: Mapping[Line, Sequence[str | None]]) -> str:
    """Say which series lie in several units, and how to find them."""
    some = []
    for (folder, name), where in list(places.items())[:5]:
        paths = " and ".join(path for path in where if path is not None)
        some.append(f"{name} of {folder.name}{f' ({paths})' if paths else ''}")
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    are = "1 series lies" if len(places) == 1 else f"{len(places)} series lie"
    known = any(path is not None for where in places.values() for path in where)
    find = "" if known else "; run score_volumes.py with --with-paths to see where (another --out)"
    return (
        f"{out}: {are} in two units and not equal there: {', '.join(some)}{more}; bring the files "
        f"of each below one folder, or remove one of them{find}"
    )
