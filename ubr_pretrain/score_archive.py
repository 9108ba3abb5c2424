"""The results of scoring, written as they come: one JSON line a volume, and tables made of them.

``scores.jsonl`` is the truth: a line is appended and synced after every volume, so a run that is
killed has lost nothing, and the same command goes on behind the last whole line. Its first line
says with which weights and settings; a run with others is refused. Every line ends with its CRC-32:
what a disk or an editor changed is no score.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ubr_pretrain.config import config_differences
from ubr_pretrain.held_folder import remove_half_written, took_lock
from ubr_pretrain.runtime import to_json
from ubr_pretrain.scored_volume import SCHEMA_VERSION

JOURNAL = "scores.jsonl"
RESULTS = tuple(
    f"{name}.{form}"
    for name in ("scores", "volumes", "images")
    for form in ("json", "csv", "parquet")
)
"""What may be written beside the journal."""

Kind = Literal["volumes", "images"]

_END = re.compile(rb', "crc32": "([0-9a-f]{8})"}\n')
_END_LENGTH = 23


def to_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of the journal."""
    text = to_json(record).encode()
    return text[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(text)


def of_line(line: bytes) -> dict[str, Any]:
    """Return what a whole line of the journal holds.

    Raises:
        ValueError: it is not what was written.
    """
    end = _END.fullmatch(line, len(line) - _END_LENGTH)
    if end is None:
        raise ValueError("ends with no checksum")
    text = line[: end.start()] + b"}"
    if int(end[1], 16) != zlib.crc32(text):
        raise ValueError("was changed: its checksum is another")
    return json.loads(text)


class ScoreArchive:
    """A folder of results that this process holds.

    Attributes:
        out: the folder.
        header: the first line of the journal.
        goes_on: whether a run before this one began it.
    """

    def __init__(self, out: Path, journal: BinaryIO, header: Mapping[str, Any]) -> None:
        self.out, self.header, self._journal = out, header, journal
        self._lines: dict[str, tuple[int, str, str, bool]] = {}
        journal.seek(0)
        first = journal.readline()
        self.goes_on = first.endswith(b"\n")
        if not self.goes_on:
            journal.seek(0)
            journal.truncate()
            self._append(dict(header))
        while line := journal.readline():
            at = journal.tell() - len(line)
            if not line.endswith(b"\n"):  # killed in the middle of it
                journal.seek(at)
                journal.truncate()
                break
            try:
                self._note(at, of_line(line))
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{out / JOURNAL}: the line at byte {at} is damaged ({error}); remove it, and "
                    "the same command scores its scan again, or use --overwrite"
                ) from error

    def name_for(
        self, name: str, place: str, content: str, taken: Container[str] = frozenset()
    ) -> str:
        """Return the name under which an entry is recorded.

        A second volume of one name, from another place and with another content, gets the hash of
        its place behind its name; nothing that is recorded is replaced by a stranger.

        Args:
            name: that the entry was found by.
            place: where it lies.
            content: of its files.
            taken: names that other entries of this run have been given.
        """
        *candidates, last = possible_names(name, place)
        for candidate in candidates:
            line = self._lines.get(candidate)
            known = line is None or place == line[1] or content == line[2]
            if known and candidate not in taken:
                return candidate
        return last

    def holds(self, name: str, content: str) -> bool:
        """Whether the scores of this content are recorded; what was refused is tried again."""
        line = self._lines.get(name)
        return line is not None and line[2] == content and not line[3]

    def add(
        self,
        kind: Kind,
        name: str,
        place: str,
        content: str,
        record: dict[str, Any],
        **origin: str,
    ) -> None:
        """Append one record and sync it to disk.

        Args:
            kind: of the record.
            name: from ``name_for``.
            place: where the entry lies, as a hash.
            content: of its files, as a hash.
            record: plain values.
            origin: what else is to be known of where it came from.
        """
        names = {"kind": kind, "name": name, "place": place, "content": content, **origin}
        line = {**names, "record": record}
        self._note(self._append(line), line)

    def record(self, name: str) -> dict[str, Any]:
        """Return the newest record of a name."""
        return self._read(self._lines[name][0])["record"]

    def records(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yield the newest record of every name, in the order in which the names came."""
        for line in self.lines():
            if line["kind"] == kind:
                yield line["record"]

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the newest line of every name: its record, and where it came from."""
        for at, *_ in self._lines.values():
            yield self._read(at)

    @property
    def held(self) -> frozenset[tuple[str, str]]:
        """Name and content of everything whose scores are recorded."""
        lines = self._lines.items()
        return frozenset((name, content) for name, (*_, content, bad) in lines if not bad)

    @property
    def names(self) -> frozenset[str]:
        """Of everything that is recorded."""
        return frozenset(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def _note(self, at: int, line: Mapping[str, Any]) -> None:
        refused = "code" in line["record"]
        self._lines[line["name"]] = (at, line["place"], line["content"], refused)

    def _append(self, line: dict[str, Any]) -> int:
        at = self._journal.seek(0, 2)
        self._journal.write(to_line(line))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        return at

    def _read(self, at: int) -> dict[str, Any]:
        self._journal.seek(at)
        return of_line(self._journal.readline())


def possible_names(name: str, place: str) -> tuple[str, str, str]:
    """Return what an entry may be recorded as: its own name, or one that tells it apart.

    Args:
        name: that the entry was found by.
        place: where it lies.
    """
    return name, f"{name}-{place[:8]}", f"{name}-{place}"


def under_name(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a record under another name; a scan that is its own subject stays that."""
    own = "volume" if "volume" in record else "image"
    is_subject = record.get("subject") == record[own]
    return {**record, own: name, **({"subject": name} if is_subject else {})}


@contextmanager
def open_archive(
    out: Path, header: Mapping[str, Any], *, overwrite: bool = False
) -> Iterator[ScoreArchive]:
    """Create or go on with the results in ``out``, and hold them against a second run.

    Args:
        out: the folder; created where it is missing.
        header: what the scores depend on, plain values; ``schema_version`` is added.
        overwrite: start anew, deleting the results and pictures that are there.

    Raises:
        ValueError: not a folder that can be written; held by a live run; results of other weights
            or settings, of another version, or without their journal.
    """
    header = {"schema_version": SCHEMA_VERSION, **header}
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file, not a folder")
    others = [name for name in RESULTS if (out / name).exists()]
    if others and not overwrite and not (out / JOURNAL).exists():
        raise ValueError(f"--out {out}: holds {others[0]}; use --overwrite or another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        journal = (out / JOURNAL).open("a+b")
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be written ({error.strerror})") from error
    with journal:
        if not took_lock(journal):
            raise ValueError(f"--out {out}: another run is writing there")
        if overwrite:
            _empty(out, journal)
        _require_same(out, journal, header)
        remove_half_written(out)
        yield ScoreArchive(out, journal, header)


def _require_same(out: Path, journal: BinaryIO, header: Mapping[str, Any]) -> None:
    journal.seek(0)
    first = journal.readline()
    if not first.endswith(b"\n"):  # new, or killed before anything was written
        return
    try:
        before = of_line(first)
        changes = config_differences(before, json.loads(to_json(header)))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"--out {out}: {JOURNAL} is no journal of scores ({error})") from error
    if changes:
        raise ValueError(
            f"--out {out}: holds scores of other weights or settings ({'; '.join(changes[:3])}); "
            "use --overwrite or another folder"
        )


def _name_in(line: bytes) -> Any:
    """Return the name that a line states; None where it is damaged."""
    try:
        return json.loads(line)["name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _empty(out: Path, journal: BinaryIO) -> None:
    """Delete what an earlier run wrote: its tables, and the pictures and pages of its names."""
    journal.seek(0)
    journal.readline()
    for line in journal:
        if isinstance(name := _name_in(line), str):
            for suffix in (".png", ".html"):
                (out / f"{Path(name).name}{suffix}").unlink(missing_ok=True)
    journal.truncate(0)
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)
