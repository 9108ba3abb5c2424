"""An archive in shards: which part of it is whose, told by names alone.

The unit is what lies directly below a given path: a folder, or a file that is a volume or a picture
by itself. Loose files of a path that belong together (numbered slices, DICOM) are one unit. A unit
goes to the shard that a hash of its name says, so every shard finds its own from the listing of the
given paths; it opens nothing else, and need not know of the others.

What is found in a unit is named without knowing the other units: a DICOM series by its UID, a unit
that is one file by its stem, anything else with a hash of its place, counted from the given path:
the archive may be mounted elsewhere. A series that lies in two units is recorded for both, with
the place of each; ``gather_scores`` makes one row of equal copies and refuses what is not equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from ubr_pretrain.cohort import VOLUME_SUFFIX
from ubr_pretrain.folder_walk import Listing, listings
from ubr_pretrain.png_slices import slice_number
from ubr_pretrain.runtime import to_json
from ubr_pretrain.scans import (
    PICTURE_SUFFIXES,
    ImageEntry,
    Scans,
    find_listed_scans,
    find_scans,
    hash_of,
)
from ubr_pretrain.volumes import VolumeEntry
from ubr_pretrain.whole_file import write_atomically

MAX_SHARDS = 100_000
COMPLETE = "complete.json"
"""In the folder of a shard once everything of it is recorded."""

Entry = TypeVar("Entry", VolumeEntry, ImageEntry)

_WRITTEN = re.compile(r"(\d+)/(\d+)")
_FOLDER = re.compile(r"shard-(\d{5,})-of-(\d{5,})")


@dataclass(frozen=True, order=True)
class Shard:
    """One of ``count`` shards; ``number`` runs from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "I/N".

        Raises:
            ValueError: no such thing.
        """
        match = _WRITTEN.fullmatch(text.strip())
        number, count = (int(part) for part in match.groups()) if match else (0, 0)
        if not 1 <= number <= count <= MAX_SHARDS:
            raise ValueError(f"--shard {text}: must be I/N with 1 <= I <= N <= {MAX_SHARDS}")
        return cls(number, count)

    @classmethod
    def of_folder(cls, folder: Path) -> Self | None:
        """Return the shard whose results a folder holds, by its name."""
        match = _FOLDER.fullmatch(folder.name)
        return cls(int(match[1]), int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def folder(self, out: Path) -> Path:
        """Return where below ``out`` the results of this shard lie."""
        return out / f"shard-{self.number:05d}-of-{self.count:05d}"

    def holds(self, unit: Unit) -> bool:
        """Whether a unit is of this shard."""
        digest = hashlib.sha256(os.fsencode(unit.name)).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1


@dataclass(frozen=True)
class Unit:
    """A part of an archive that is scored by itself.

    Attributes:
        name: of the given path and of what lies below it; the same wherever it is mounted.
        root: the given path, absolute.
        path: the folder or file; the given path itself for its loose files.
        files: where it is no folder.
        alone: whether no other unit would name a volume as its own stem does.
        tops: all given paths, without links in them.
    """

    name: str
    root: Path
    path: Path
    files: tuple[Path, ...] = ()
    alone: bool = True
    tops: frozenset[Path] = frozenset()

    def scans(self) -> Scans:
        """Find what lies in the unit, under the names it has among all units."""
        if self.path == self.root and not self.files:  # a given path that is a file
            found = find_scans([self.path])
        else:
            listed = [Listing(self.root, self.files)] if self.files else self._listings()
            found = find_listed_scans(listed)
        found.volumes[:] = map(self._named, found.volumes)
        return replace(found, images=tuple(map(self._named, found.images)))

    def place_of(self, entry: VolumeEntry | ImageEntry) -> str:
        """Return a hash of where an entry lies, counted from the given path."""
        phase = entry.phase if isinstance(entry, VolumeEntry) else None
        below = os.path.relpath(entry.path, self.root)
        return hash_of(f"{_own_name(self.root)}/{below} {(entry.series_uid, phase)}")

    def _listings(self) -> Iterator[Listing]:
        """Walk the folder, but follow no link into another unit: that one holds what is there."""
        own = Path(os.path.realpath(self.path))

        def is_of_another(path: Path) -> bool:
            real = Path(os.path.realpath(path))
            top = _top_of(real, self.tops)
            return top is not None and not (own.is_relative_to(top) and real.is_relative_to(own))

        for listing in listings([self.path]):
            if not is_of_another(listing.folder):
                links = {f for f in listing.files if os.path.islink(f)}  # noqa: PTH114  (never raises)
                files = tuple(f for f in listing.files if f not in links or not is_of_another(f))
                yield replace(listing, files=files)

    def _named(self, entry: Entry) -> Entry:
        """Return an entry with its name among those of all units."""
        if entry.series_uid is not None or (self.alone and entry.path == self.path):
            return entry
        # two stems of one unit were told apart by where they are mounted
        mounted = hashlib.sha256(os.fsencode(Path.cwd() / entry.path)).hexdigest()[:8]
        name = f"{entry.name.removesuffix(f'-{mounted}')}-{self.place_of(entry)}"
        own = name if entry.subject == entry.name else entry.subject
        return replace(entry, name=name, subject=own)


def find_units(paths: Sequence[Path]) -> list[Unit]:
    """List the units of an archive, those of all shards.

    A link that leads back into the given paths is passed over: what it shows is met where it lies.

    Raises:
        ValueError: a path that cannot be listed, that lies in another, or has the name of another.
    """
    roots = [path.resolve() for path in paths]
    tops = frozenset(roots)
    given = Counter(roots)
    for root in roots:
        if (above := root if given[root] > 1 else _top_of(root.parent, tops)) is not None:
            raise ValueError(
                f"{root}: lies in {above}; shards need paths of which none is in another"
            )
    if twice := [name for name, n in Counter(map(_own_name, roots)).items() if n > 1]:
        raise ValueError(f"{twice[0]}: two of the paths have this name; give their parent folders")
    units = [unit for path in paths for unit in _units_below(path.absolute(), tops)]
    times = Counter(map(_stem_key, units))
    return [replace(unit, alone=times[_stem_key(unit)] == 1, tops=tops) for unit in units]


def _top_of(path: Path, tops: frozenset[Path]) -> Path | None:
    """Return which of some folders a path is or lies in; its way up is short, they may be many."""
    return next((above for above in (path, *path.parents) if above in tops), None)


def _units_below(root: Path, tops: frozenset[Path]) -> Iterator[Unit]:
    name = _own_name(root)
    if not root.is_dir():
        yield Unit(name, root, root)
        return
    try:
        with os.scandir(root) as listing:
            nodes = sorted(listing, key=lambda node: node.name)
    except OSError as error:
        raise ValueError(f"{root}: cannot be listed ({error.strerror})") from error
    loose = []
    for node in nodes:
        path = root / node.name
        target = Path(os.path.realpath(path))  # Path.resolve raises where links form a loop
        if node.is_symlink() and _top_of(target, tops) is not None:
            continue
        if node.is_dir():
            yield Unit(f"{name}/{node.name}", root, path)
        elif _stands_alone(path):
            yield Unit(f"{name}/{node.name}", root, path, (path,))
        else:
            loose.append(path)
    if loose:
        yield Unit(f"{name}/", root, root, tuple(loose))


def _stands_alone(path: Path) -> bool:
    """Whether a file is a volume or a slice by itself, as far as its name tells."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or suffix == ".dcm":
        return False
    if suffix in PICTURE_SUFFIXES:
        return slice_number(path) is None
    return VOLUME_SUFFIX.search(path.name) is not None


def _own_name(root: Path) -> str:
    return root.resolve().name


def _stem_key(unit: Unit) -> str:
    """Return a key that is equal wherever the names made of two stems are."""
    name = unit.path.name
    stem = VOLUME_SUFFIX.sub("", name) if VOLUME_SUFFIX.search(name) else unit.path.stem
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", stem)).strip("_").casefold()


def names_sha256(units: Iterable[Unit]) -> str:
    """Return a digest of the names of units: two shards that saw one archive have the same."""
    digest = hashlib.sha256()
    for name in sorted(os.fsencode(unit.name) for unit in units):
        digest.update(name + b"\0")
    return digest.hexdigest()


def mark_complete(folder: Path, journal: Path, archive_sha256: str, gone: Iterable[str]) -> None:
    """Note that everything of a shard is recorded.

    Args:
        folder: of the shard.
        journal: of the shard; nothing may be added to it later.
        archive_sha256: of the names of all units, those of other shards included.
        gone: names of what is recorded from before and lies in no unit any more.
    """
    size = journal.stat().st_size
    state = {"archive_sha256": archive_sha256, "journal_bytes": size, "gone": sorted(gone)}
    with write_atomically(folder / COMPLETE, "w") as file:
        file.write(to_json(state) + "\n")


def read_complete(folder: Path) -> dict[str, Any] | None:
    """Return what ``mark_complete`` wrote; None where a shard is not complete."""
    try:
        return json.loads((folder / COMPLETE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
