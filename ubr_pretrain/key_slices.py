"""DeepLesion's key slices with the body coordinate that its authors' own regressor gave them.

Only four columns of ``DL_info.csv`` are read, so that a row with an odd box still counts here.

Reference:
    Yan et al., "DeepLesion", J. Med. Imaging 5(3), 2018, and its readme: the third value of
    ``Normalized_lesion_location`` was predicted by their unsupervised body-part regressor.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.number_table import read_rows
from ubr_pretrain.png_slices import read_png_slice
from ubr_pretrain.reading_rules import check_spacing

COLUMNS = ("File_name", "Normalized_lesion_location", "Spacing_mm_px_", "Coarse_lesion_type")
SLICE_NAME = re.compile(r"((\d+)_\d+_\d+)[_/](\d+)\.png", re.ASCII)

LESION_TYPES = {
    "1": "bone", "2": "abdomen", "3": "mediastinum", "4": "liver", "5": "lung", "6": "kidney",
    "7": "soft tissue", "8": "pelvis",
}  # fmt: skip
UNSTATED = "not stated"
"""Of all lesions of the training split."""


@dataclass(frozen=True)
class KeySlice:
    """One row, or the rows of one slice.

    Attributes:
        name: as in the table.
        patient: whose it is.
        location: third value of ``Normalized_lesion_location``, the mean over the slice's lesions.
        lesion_type: of its lesion; of the first, where there are several.
        file: below ``Images_png``.
        spacing_text: its cell of ``Spacing_mm_px_``.
    """

    name: str
    patient: str
    location: float
    lesion_type: str
    file: str
    spacing_text: str

    def read(self, images: Path) -> tuple[NDArray[np.int16], tuple[float, float]]:
        """Return HU [y, x] and (row height, column width) in mm.

        Raises:
            VolumeRefused: E-SPACING, and what ``read_png_slice`` refuses.
        """
        path = images / self.file
        hu = read_png_slice(path)
        try:
            x, y, _ = (float(word) for word in self.spacing_text.split(","))  # z may be NaN
        except ValueError as error:
            rule = f"Spacing_mm_px_ {self.spacing_text[:80]!r} is not x, y, z"
            raise VolumeRefused("E-SPACING", path, rule) from error
        check_spacing(path, (y, x))
        return hu, (y, x)


def read_key_slices(table: Path) -> tuple[list[KeySlice], Counter[str]]:
    """Read ``DL_info.csv``, in whole or in part; a slice with several lesions counts once.

    Returns:
        (the slices in the table's order; how many rows were left out, by reason).

    Raises:
        ValueError: no such table, or a column is missing.
    """
    left_out: Counter[str] = Counter()
    slices = []
    for name, lesions in _read_table(table).groupby("File_name", sort=False):
        match = SLICE_NAME.fullmatch(str(name))
        if match is None:
            left_out["its name is not patient_study_series_slice.png"] += len(lesions)
            continue
        known = lesions[lesions["Normalized_lesion_location"].map(_location).map(math.isfinite)]
        left_out["no location"] += len(lesions) - len(known)
        if len(known):
            slices.append(
                KeySlice(
                    name=str(name),
                    patient=match[2],
                    location=float(known["Normalized_lesion_location"].map(_location).mean()),
                    lesion_type=LESION_TYPES.get(known["Coarse_lesion_type"].iloc[0], UNSTATED),
                    file=f"{match[1]}/{match[3]}.png",
                    spacing_text=known["Spacing_mm_px_"].iloc[0],
                )
            )
    return slices, +left_out


def _read_table(path: Path) -> pd.DataFrame:
    table = read_rows(path, str)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"{path}: lacks the column {missing[0]}")
    return table


def _location(cell: str) -> float:
    """Return the third of three numbers; NaN where it is not there."""
    parts = cell.split(",")
    try:
        return float(parts[2]) if len(parts) == 3 else math.nan
    except ValueError:
        return math.nan
