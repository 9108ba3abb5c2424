"""The journals of all shards of an archive, as one."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ubr_pretrain.checkpoint import write_atomically
from ubr_pretrain.config import config_differences
from ubr_pretrain.runtime import to_json
from ubr_pretrain.score_archive import JOURNAL, Kind, ScoreArchive, under_name
from ubr_pretrain.score_tables import Format, write_tables
from ubr_pretrain.shards import Shard, read_complete

GATHERED = "gathered.json"


@dataclass(frozen=True)
class GatheredScores:
    """All shards of an archive, known to be complete and to fit together.

    Attributes:
        out: folder of the shards, and of the tables.
        header: with which weights and settings all were scored.
        shards: in order.
        renamed: new name by folder and name, of what two shards call alike.
    """

    out: Path
    header: Mapping[str, Any]
    shards: Sequence[Path]
    renamed: Mapping[tuple[Path, str], str] = field(default_factory=dict)

    def records(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yield every record of a kind, shard by shard."""
        own = "volume" if kind == "volumes" else "image"
        for folder in self.shards:
            with _read_shard(folder) as archive:
                for record in archive.records(kind):
                    new = self.renamed.get((folder, record[own]))
                    yield record if new is None else under_name(record, new)


def gather(out: Path, formats: Sequence[Format]) -> dict[str, int]:
    """Write the tables of all shards below ``out``; return how much is in them.

    Raises:
        ValueError: a shard is missing, being written, incomplete, of other weights or settings, of
            another archive, or holds a series that another place holds, too.
    """
    folders = _all_shards(out)
    gathered, counts = _fitting(out, folders)
    write_tables(gathered, formats, in_parts=True)
    with write_atomically(out / GATHERED, "w") as file:
        file.write(to_json({**gathered.header, **counts}, indent=1) + "\n")
    return counts


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
        try:
            fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{folder}: a run is writing there") from error
        if _size_when_complete(folder) is None:
            raise ValueError(f"{folder}: not complete any more; a run began there")
        header = json.loads(journal.readline())
        yield ScoreArchive(folder, journal, header)


def _fitting(out: Path, folders: Sequence[Path]) -> tuple[GatheredScores, dict[str, int]]:
    """Look at every line of every shard; return them as one, and how many there are."""
    header: dict[str, Any] = {}
    archive_sha256 = ""
    series: dict[str, tuple[str, str]] = {}
    names: set[str] = set()
    renamed: dict[tuple[Path, str], str] = {}
    counts = {"shards": len(folders), "volumes": 0, "images": 0, "refused": 0}
    for folder in folders:
        shard = Shard.of_folder(folder)
        with _read_shard(folder) as archive:
            own = {key: value for key, value in archive.header.items() if key != "shard"}
            header = header or own
            if changes := config_differences(header, own):
                raise ValueError(
                    f"{folder}: scored with other weights or settings ({'; '.join(changes[:3])})"
                )
            seen = (read_complete(folder) or {}).get("archive_sha256", "")
            if seen != (archive_sha256 := archive_sha256 or seen):
                raise ValueError(
                    f"{folder}: saw other files in the archive than {folders[0].name}; run both "
                    "again with the same paths: they go on where they are"
                )
            for line in archive.lines():
                counts[line["kind"]] += 1
                counts["refused"] += "code" in line["record"]
                here = (str(shard), line.get("unit", ""))
                if "series" in line and (other := series.setdefault(line["series"], here)) != here:
                    raise ValueError(_spread(line, here, other))
                name = line["name"]
                if name.casefold() in names:
                    name = renamed[folder, line["name"]] = f"{name}-{line['place']}"
                names.add(name.casefold())
    return GatheredScores(out, header, folders, renamed), counts


def _spread(line: Mapping[str, Any], here: tuple[str, str], other: tuple[str, str]) -> str:
    where = " and ".join(f"unit {unit} of shard {shard}" for shard, unit in (other, here))
    path = f" ({line['record']['path']})" if "path" in line["record"] else ""
    return (
        f"series {line['series']}: lies in {where}{path}, recorded as {line['name']}; a shard saw "
        "a part of it: bring its files below one folder, or score that folder without --shard"
    )
