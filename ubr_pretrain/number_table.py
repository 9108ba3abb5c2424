"""A CSV table of which every number is checked: what pandas would guess is refused here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.bounded_file import MAX_TABLE_BYTES, require_at_most

if TYPE_CHECKING:
    import pandas as pd


MAX_WHOLE = 10**9
"""No volume has so many slices, and float64 holds every whole number below."""


def read_rows(path: Path, dtype: Mapping[str, type] | type) -> pd.DataFrame:
    """Read a table in which no row is longer than its header.

    Of a longer one pandas takes the first cells as names of the rows, and all others move.

    Args:
        path: comma-separated, UTF-8, with a header.
        dtype: of the columns; where it is ``str``, an empty cell is an empty text.

    Raises:
        ValueError: no such table, or it cannot be parsed; the file is named.
    """
    import pandas as pd  # a third of a second that only a table is worth

    require_at_most(path, MAX_TABLE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                dtype=dtype,
                keep_default_na=dtype is not str,
                index_col=False,
                encoding="utf-8-sig",
            )
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # parser errors: ValueErrors
        raise ValueError(f"{path}: no table to read ({' '.join(str(error).split())})") from error


def read_number_table(
    path: Path, words: Sequence[str], whole: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    """Read the named columns of a table; others are passed over.

    Args:
        path: comma-separated, UTF-8, with a header.
        words: columns of text, none of it empty.
        whole: columns of whole numbers in 0..``MAX_WHOLE``.
        numbers: columns of finite numbers.

    Raises:
        ValueError: no such table, a column is missing, or a cell is not what its column holds; the
            file is named, and the line.
    """
    import numpy as np

    table = read_rows(
        path, {**dict.fromkeys(words, str), **dict.fromkeys((*whole, *numbers), float)}
    )
    for column in (*words, *whole, *numbers):
        if column not in table:
            raise ValueError(f"{path}: lacks the column {column}")
        bad = table[column].isna()
        if column not in words:
            bad |= ~np.isfinite(table[column])
        if column in whole:
            bad |= (table[column] < 0) | (table[column] != np.floor(table[column]))
            bad |= table[column] > MAX_WHOLE
        if bad.any():
            line = int(np.flatnonzero(bad)[0]) + 2
            kind = "empty" if column in words else f"no whole number in 0..{MAX_WHOLE}"
            kind = "no finite number" if column in numbers else kind
            raise ValueError(
                f"{path}, line {line}: {column} {_shown(table[column].iloc[line - 2])} is {kind}"
            )
    return table.astype(dict.fromkeys(whole, np.int64))


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
