"""DeepLesion's table ``DL_info.csv`` as records: every row is read, or listed with its fault.

Reference:
    Yan et al., "DeepLesion: automated mining of large-scale lesion annotations and universal
    lesion detection with deep learning", Journal of Medical Imaging 2018.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from converters.deeplesion_row import (
    COLUMNS,
    MAX_OUTSIDE_PX,
    SPLITS,
    RowRefused,
    lesion_to_row,
    row_to_lesion,
)
from converters.lesions import UNKNOWN_SPLIT, DeepLesionRefused, Finding, Lesion
from ubr_pretrain.bounded_file import MAX_TABLE_BYTES, require_at_most
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.whole_file import write_atomically


@dataclass(frozen=True)
class DeepLesionTable:
    """What a table holds.

    Attributes:
        lesions: the readable rows, in their order.
        refused: the other rows.
        noticed: what is to be told of readable rows.
        rows: (split, File_name) of every row, readable or not; the split is ``UNKNOWN_SPLIT``
            where the row does not say it.
    """

    lesions: tuple[Lesion, ...]
    refused: tuple[Finding, ...]
    noticed: tuple[Finding, ...]
    rows: tuple[tuple[str, str], ...]


def read_deeplesion(path: Path, max_outside_px: float = MAX_OUTSIDE_PX) -> DeepLesionTable:
    """Read ``DL_info.csv``; rows that cannot be used rightly are listed, the others go on.

    Args:
        path: comma-separated UTF-8 (with or without BOM) under the official header, in any order
            of columns; further columns are ignored.
        max_outside_px: boxes that leave their image by at most this are clipped to it.

    Raises:
        DeepLesionRefused: not a file, not such a table, or columns are missing.
        ValueError: larger than ``MAX_TABLE_BYTES``.
    """
    if not path.is_file():
        raise DeepLesionRefused(f"{path}: no such file")
    require_at_most(path, MAX_TABLE_BYTES)
    lesions: list[Lesion] = []
    refused: list[Finding] = []
    noticed: list[Finding] = []
    rows: list[tuple[str, str]] = []
    with path.open("rb") as file:
        num_lines = sum(1 for _ in file)
    with (
        path.open(encoding="utf-8-sig", newline="") as file,
        closing(ProgressLine(num_lines, only_long=True)) as progress,
    ):
        reader = csv.reader(file, strict=True)
        try:
            header = _checked_header(next(reader, []), path)
            for values in reader:
                if not values:
                    continue
                line = reader.line_num
                progress.show(line, "lines read")
                cells = {name: v.strip() for name, v in zip(header, values, strict=False)}
                name, split = cells.get("File_name", ""), _split(cells)
                rows.append((split, name))
                try:
                    if len(values) != len(header):
                        raise RowRefused("E-ROW", f"{len(values)} cells under {len(header)} names")
                    lesion, notices = row_to_lesion(cells, line, max_outside_px)
                except RowRefused as refusal:
                    refused.append(Finding(refusal.code, line, name[:80], split, refusal.text))
                else:
                    lesions.append(lesion)
                    noticed += [Finding(code, line, name, split, text) for code, text in notices]
        except UnicodeDecodeError as error:
            raise DeepLesionRefused(f"{path}: not UTF-8 text; save it as CSV UTF-8") from error
        except csv.Error as error:
            raise DeepLesionRefused(f"{path}: line {reader.line_num}: {error}") from error
    return DeepLesionTable(tuple(lesions), tuple(refused), tuple(noticed), tuple(rows))


def write_deeplesion(path: Path, lesions: Iterable[Lesion]) -> None:
    """Write the table from which ``read_deeplesion`` makes equal records."""
    with write_atomically(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(lesion_to_row(lesion) for lesion in lesions)


def _split(cells: Mapping[str, str]) -> str:
    return SPLITS.get(cells.get("Train_Val_Test", ""), UNKNOWN_SPLIT)


def _checked_header(header: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in header]
    missing = [name for name in COLUMNS if name not in names]
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise DeepLesionRefused(f"{path}: column given twice: {', '.join(twice)}")
    if not missing:
        return names
    hint = ""
    if any("\0" in name for name in names):
        hint = " (it is UTF-16: save it as CSV UTF-8)"
    elif len(names) == 1 and ";" in names[0]:
        hint = " (it is separated by ';': save it with commas)"
    raise DeepLesionRefused(f"{path}: column missing{hint}: {', '.join(missing)}")
