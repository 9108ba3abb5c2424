"""The tables of an archive of scores: JSON, CSV and Parquet, made from its journal.

    scores:  one row a slice of a volume (CSV, Parquet), or everything in one file (JSON); of
             archives that were read with a stride it says which slices are interpolated.
    volumes: one row a volume, refused ones with their code.
    images:  one row a single slice.

Records are read one at a time, so an archive of any size fits into memory. One run writes a Parquet
file a table; ``gather_scores`` writes a folder of parts a table, which any reader takes for one.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
from pyarrow import parquet

from ubr_pretrain.runtime import to_json
from ubr_pretrain.score_archive import Kind
from ubr_pretrain.scored_volume import slice_columns
from ubr_pretrain.spreadsheet import harmless
from ubr_pretrain.whole_file import write_atomically

Format = Literal["csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "json", "parquet")

NUMBER, COUNT, TEXT, TRUTH = pa.float64(), pa.int64(), pa.string(), pa.bool_()
SLICE_COLUMNS = pa.schema(
    [
        ("volume", TEXT),
        ("slice_index", COUNT),
        ("z_mm", NUMBER),
        ("score", NUMBER),
        ("score_alone", NUMBER),
        ("score_sd", NUMBER),
        ("coordinate", NUMBER),
        ("coordinate_sd", NUMBER),
        ("zone", TEXT),
    ]
)
INTERPOLATED = pa.field("interpolated", TRUTH)
"""A further column of archives that were read with a stride."""

VOLUME_COLUMNS = pa.schema(
    [
        ("volume", TEXT),
        ("subject", TEXT),
        ("num_slices", COUNT),
        ("slice_step_mm", NUMBER),
        ("expected_step_mm", NUMBER),
        ("direction", TEXT),
        ("r", NUMBER),
        ("rank_r", NUMBER),
        ("slope_per_mm", NUMBER),
        ("body_part", TEXT),
        ("body_part_confidence", NUMBER),
        ("coordinate_first", NUMBER),
        ("coordinate_last", NUMBER),
        ("anomalies", TEXT),
        ("notes", TEXT),
        ("code", TEXT),
        ("cause", TEXT),
    ]
)
IMAGE_COLUMNS = pa.schema(
    [
        ("image", TEXT),
        ("subject", TEXT),
        ("score", NUMBER),
        ("score_sd", NUMBER),
        ("coordinate", NUMBER),
        ("coordinate_sd", NUMBER),
        ("zone", TEXT),
        ("pixel_mm", NUMBER),
        ("notes", TEXT),
        ("code", TEXT),
        ("cause", TEXT),
    ]
)
Columns = Mapping[str, list[Any]]
"""Rows of a table in plain values, column by column; None where a value is missing."""

RECORDS_AT_ONCE = 2000
"""Records of which rows are made at a time."""

ROWS_IN_GROUP = 50_000
"""A row group of Parquet has at least so many rows, and not many more than a volume has slices."""

ROWS_IN_PART = 5_000_000
"""A part of a partitioned table has at least so many rows (100 to 200 MB), the last one fewer."""


class Records(Protocol):
    """Where the tables come from: one archive, or all shards of one."""

    @property
    def out(self) -> Path:
        """Where the tables go."""

    @property
    def header(self) -> Mapping[str, Any]:
        """With which weights and settings it was scored."""

    def records(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yield every record of a kind."""


def write_tables(
    archive: Records, formats: Iterable[Format], *, in_parts: bool = False
) -> list[Path]:
    """Write the tables of an archive into its folder, atomically; return their paths.

    A table without rows is written for slices only, so that a reader finds the file it expects; of
    the others, what an earlier archive left there is deleted.

    Args:
        archive: where the records come from.
        formats: of the tables.
        in_parts: make a folder of parts of a Parquet table, not a file.
    """
    written: list[Path] = []
    strided = archive.header.get("stride_mm") is not None
    of_slices = SLICE_COLUMNS.append(INTERPOLATED) if strided else SLICE_COLUMNS
    tables: list[tuple[str, pa.Schema, Callable[[], Iterator[Columns]]]] = [
        ("scores", of_slices, partial(_slice_tables, archive)),
        ("volumes", VOLUME_COLUMNS, partial(_rows, archive, "volumes")),
        ("images", IMAGE_COLUMNS, partial(_rows, archive, "images")),
    ]
    for kind in formats:
        if kind == "json":
            _write_json(archive, archive.out / "scores.json")
            written.append(archive.out / "scores.json")
            continue
        for name, columns, parts in tables:
            as_folder = kind == "parquet" and in_parts
            path = archive.out / (name if as_folder else f"{name}.{kind}")
            if name != "scores" and next(archive.records(name), None) is None:  # type: ignore[arg-type]
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                continue
            if kind == "csv":
                _write_csv(parts(), columns, path)
            elif as_folder:
                _write_parts(parts(), columns, path)
            else:
                _write_parquet(_row_groups(parts(), columns), columns, path)
            written.append(path)
    return written


def volume_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of ``volumes`` for a record; what a refused volume lacks is None."""
    part = record.get("body_part") or {}
    coordinates = (record.get("slices") or {}).get("coordinate") or [None]
    spacing_mm = record.get("spacing_mm_zyx") or [None]
    derived = {
        "slice_step_mm": spacing_mm[0],
        "body_part": part.get("body_part_examined"),
        "body_part_confidence": part.get("confidence"),
        "coordinate_first": coordinates[0],
        "coordinate_last": coordinates[-1],
        "anomalies": _joined(dict.fromkeys(a["code"] for a in record.get("anomalies", ())), " "),
        "notes": _joined(record.get("notes", ()), "; "),
    }
    return {name: derived.get(name, record.get(name)) for name in VOLUME_COLUMNS.names}


def image_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of ``images`` for a record."""
    pixel_mm = record.get("pixel_mm_yx") or [None]
    derived = {"pixel_mm": pixel_mm[0], "notes": _joined(record.get("notes", ()), "; ")}
    return {name: derived.get(name, record.get(name)) for name in IMAGE_COLUMNS.names}


def _joined(words: Iterable[str], by: str) -> str | None:
    return by.join(words) or None


def _slice_tables(archive: Records) -> Iterator[Columns]:
    for record in archive.records("volumes"):
        if "code" not in record:
            yield slice_columns(record)


def _rows(archive: Records, kind: Literal["volumes", "images"]) -> Iterator[Columns]:
    to_row = volume_row if kind == "volumes" else image_row
    records = archive.records(kind)
    while rows := [to_row(record) for record in islice(records, RECORDS_AT_ONCE)]:
        yield {name: [row[name] for row in rows] for name in rows[0]}


def _write_json(archive: Records, path: Path) -> None:
    with write_atomically(path, "w") as file:
        head = to_json(dict(archive.header), indent=1).rstrip().removesuffix("}").rstrip()
        file.write(head)
        for kind in ("volumes", "images"):
            file.write(f',\n "{kind}": [')
            for number, record in enumerate(archive.records(kind)):
                file.write(("," if number else "") + "\n  " + to_json(record))
            file.write("\n ]")
        file.write("\n}\n")


def _write_csv(parts: Iterator[Columns], columns: pa.Schema, path: Path) -> None:
    with write_atomically(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.names)
        for part in parts:
            writer.writerows(zip(*(_cells(part[c.name], c.type) for c in columns), strict=True))


def _cells(values: list[Any], kind: pa.DataType) -> list[Any]:
    """Return what is written: counts are whole numbers whatever else is missing."""
    if kind == TEXT:
        return [harmless(value) for value in values]
    if kind in (COUNT, TRUTH):
        return values
    return [None if value is None else float(value) for value in values]


def _row_groups(parts: Iterable[Columns], columns: pa.Schema) -> Iterator[pa.Table]:
    few: list[pa.Table] = []
    for part in parts:
        few.append(pa.Table.from_pydict({n: part[n] for n in columns.names}, columns))
        if sum(table.num_rows for table in few) >= ROWS_IN_GROUP:
            yield pa.concat_tables(few)
            few = []
    if few:
        yield pa.concat_tables(few)


def _write_parquet(groups: Iterable[pa.Table], columns: pa.Schema, path: Path) -> None:
    with write_atomically(path) as file, parquet.ParquetWriter(file, columns) as writer:
        for group in groups:
            writer.write_table(group)


def _write_parts(parts: Iterator[Columns], columns: pa.Schema, folder: Path) -> None:
    """Write ``folder/part-00000.parquet`` and so on; the folder is replaced once all are there."""
    groups = _row_groups(parts, columns)
    new, old = (folder.with_name(f".{folder.name}.{state}") for state in ("new", "old"))
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    first = next(groups, columns.empty_table())
    for number in count():
        several = _of_one_part(first, groups)
        _write_parquet(several, columns, new / f"part-{number:05d}.parquet")
        if (following := next(groups, None)) is None:
            break
        first = following
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _of_one_part(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    rows = 0
    for group in chain([first], others):
        yield group
        rows += group.num_rows
        if rows >= ROWS_IN_PART:
            return
