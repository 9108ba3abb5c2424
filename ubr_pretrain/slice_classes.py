"""Tables that name the body part of slices: ``volume, index_sup_to_inf, class``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from ubr_pretrain.number_table import read_rows
from ubr_pretrain.zones import ZONES

BODY_PARTS = ("head_neck", *ZONES, "legs")
"""Classes of a slice, superior to inferior; only chest, abdomen and pelvis count in Table 1."""

OTHER = -1
"""Zone of a slice that is head and neck, or legs."""

COLUMNS = ("volume", "index_sup_to_inf", "class")


def read_slice_classes(paths: Sequence[Path]) -> pd.DataFrame:
    """Read one or more tables as one.

    Returns:
        Columns volume (text), index_sup_to_inf (from 0, counted from the most superior slice),
        class, and zone: 0 chest, 1 abdomen, 2 pelvis, ``OTHER`` for the rest.

    Raises:
        ValueError: no table, a column is missing, an index is no slice number, a class is unknown,
            or a slice is named twice.
    """
    if unreadable := [path for path in paths if not path.is_file()]:
        raise ValueError(f"{unreadable[0]}: no such table of slice classes")
    tables = [_read(path) for path in paths]
    table = pd.concat(tables, ignore_index=True)
    twice = table.duplicated(["volume", "index_sup_to_inf"])
    if twice.any():
        row = table[twice].iloc[0]
        raise ValueError(
            f"{', '.join(map(str, paths[:2]))}: slice {row['index_sup_to_inf']} of "
            f"{row['volume']} is named twice"
        )
    zones = {zone: k for k, zone in enumerate(ZONES)}
    table["zone"] = table["class"].map(lambda name: zones.get(name, OTHER)).astype(np.int64)
    return table


def require_head_first(table: pd.DataFrame, where: str) -> None:
    """Refuse classes that do not run from head to legs; synthetic abnormal volumes have such.

    Args:
        table: of ``read_slice_classes``.
        where: the file, for the message.

    Raises:
        ValueError: naming the volume, and two slices.
    """
    for volume, rows in table.sort_values("index_sup_to_inf").groupby("volume"):
        for upper, lower in pairwise(rows.to_dict("records")):
            if BODY_PARTS.index(lower["class"]) < BODY_PARTS.index(upper["class"]):
                raise ValueError(
                    f"{where}: {volume}: {upper['class']} (slice {upper['index_sup_to_inf']}) lies "
                    f"above {lower['class']} (slice {lower['index_sup_to_inf']}); slices are "
                    "counted from the most superior one"
                )


def _read(path: Path) -> pd.DataFrame:
    table = read_rows(path, str)
    if missing := sorted(set(COLUMNS) - set(table.columns)):
        raise ValueError(f"{path}: lacks the column {missing[0]}")
    index = table["index_sup_to_inf"]
    if (wrong := ~index.str.fullmatch(r"[0-9]{1,9}")).any():
        raise ValueError(f"{path}: index_sup_to_inf {index[wrong].iloc[0]!r} is no slice number")
    if (unknown := ~table["class"].isin(BODY_PARTS)).any():
        name = table.loc[unknown, "class"].iloc[0]
        raise ValueError(f"{path}: class {name!r} is not one of {', '.join(BODY_PARTS)}")
    return table[list(COLUMNS)].assign(index_sup_to_inf=index.astype(np.int64))
