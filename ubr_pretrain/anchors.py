"""Slices whose place in the body is known, for the anchor loss.

Two kinds of table, told apart by their columns:

- ``volume, index_sup_to_inf, coordinate_mm``: one row a slice (``slice_coordinates.csv`` of
  make_phantoms.py, where synthetic bodies carry their exact place; or written by any other means).
- ``volume, landmark, index_sup_to_inf``: landmarks, as ``landmarks.csv``. Between two of them the
  place is interpolated in millimetres; outside it is known for ``REACH_MM`` more.

Coordinates are millimetres from the vertex of the reference body, growing towards the feet: the
lung apex at 280, the iliac crest at 687.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.bounded_file import MAX_TABLE_BYTES, require_at_most
from ubr_pretrain.landmarks import LANDMARK_COORDINATES, read_landmarks
from ubr_pretrain.number_table import read_number_table

CREST_MM, APEX_MM = 687.0, 280.0
"""Of the reference body: iliac crest (0 on the body coordinate) and lung apex (100)."""

STEADY_LANDMARKS = (
    "C7_T1",
    "lung_apex",
    "carina",
    "liver_dome",
    "iliac_crest",
    "femoral_head_top",
    "pubic_symphysis_lower",
    "lesser_trochanter",
)
"""Those that anchor: kidneys and lung base lie elsewhere in every body, even in another order."""

REACH_MM = 40.0
"""So far beyond the outermost landmark the distance in millimetres still tells the place."""


def read_anchors(
    tables: Iterable[Path], z_mm: Mapping[str, Sequence[float]]
) -> dict[str, Float[ndarray, " z"]]:
    """Return the known coordinates in mm of the slices of volumes, NaN where a slice's is not.

    Args:
        tables: see above; volumes that are not asked for are passed over.
        z_mm: position of every slice of the volumes asked for, by name.

    Raises:
        ValueError: a table that is neither kind, a slice outside its volume, a coordinate that is
            not a number, a slice or volume given twice, or no volume asked for in any table.
    """
    known: dict[str, Float[ndarray, " z"]] = {}
    for path in tables:
        columns = _columns(path)
        found = (
            _from_landmarks(path, z_mm) if "landmark" in columns else _from_coordinates(path, z_mm)
        )
        if twice := sorted(known.keys() & found.keys()):
            raise ValueError(f"{path}: volume {twice[0]!r} is anchored by another table too")
        known |= found
    if not known:
        raise ValueError(f"anchors {' '.join(map(str, tables))}: no training volume is in them")
    return known


def _columns(path: Path) -> list[str]:
    require_at_most(path, MAX_TABLE_BYTES)
    try:
        return list(pd.read_csv(path, nrows=0).columns)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no table of anchors ({' '.join(str(error).split())})") from error


def _from_coordinates(
    path: Path, z_mm: Mapping[str, Sequence[float]]
) -> dict[str, Float[ndarray, " z"]]:
    table = read_number_table(path, ["volume"], ["index_sup_to_inf"], ["coordinate_mm"])
    known = {}
    for name, rows in table[table["volume"].isin(z_mm.keys())].groupby("volume"):
        index, place = rows["index_sup_to_inf"], rows["coordinate_mm"]
        if index.duplicated().any():
            raise ValueError(f"{path}: slice {index[index.duplicated()].iloc[0]} of {name} twice")
        _check_index(path, str(name), index, len(z_mm[str(name)]))
        values = np.full(len(z_mm[str(name)]), np.nan)
        values[index.to_numpy(int)] = place
        known[str(name)] = values
    return known


def _from_landmarks(
    path: Path, z_mm: Mapping[str, Sequence[float]]
) -> dict[str, Float[ndarray, " z"]]:
    marks = defaultdict(list)
    for mark in read_landmarks(path):
        if mark.volume in z_mm and mark.landmark in STEADY_LANDMARKS:
            marks[mark.volume].append((mark.index, landmark_mm(mark.landmark)))
    known = {}
    for name, places in marks.items():
        _check_index(path, name, [index for index, _ in places], len(z_mm[name]))
        known[name] = _between(sorted(places), np.asarray(z_mm[name]), f"{path}: {name}")
    return known


def landmark_mm(landmark: str) -> float:
    """Return where the reference body has a landmark."""
    return CREST_MM - LANDMARK_COORDINATES[landmark] * (CREST_MM - APEX_MM) / 100


def _between(
    places: Sequence[tuple[int, float]], z_mm: Float[ndarray, " z"], where: str
) -> Float[ndarray, " z"]:
    if any(b[1] <= a[1] or b[0] <= a[0] for a, b in pairwise(places)):
        raise ValueError(f"{where}: its landmarks do not run from head to feet")
    at_mm = z_mm[[index for index, _ in places]]
    first_mm, last_mm = places[0][1], places[-1][1]
    known = np.interp(z_mm, at_mm, [place for _, place in places])
    above, below = at_mm[0] - z_mm, z_mm - at_mm[-1]
    known = np.where(above > 0, first_mm - above, known)
    known = np.where(below > 0, last_mm + below, known)
    return np.where(np.maximum(above, below) > REACH_MM, np.nan, known)


def _check_index(path: Path, name: str, index: Iterable[int], num_slices: int) -> None:
    if outside := [i for i in index if not 0 <= i < num_slices]:
        raise ValueError(
            f"{path}: slice {outside[0]} of {name}, which has {num_slices} (counted from 0)"
        )
