"""The records in the middle of every conversion: a lesion, its key slice, a finding about either.

Shapes:
    Coordinates are pixels from 0, x to the right and y down, read as continuous corners:
    ``x2 - x1`` is a box's width, no pixel is added, and a box may reach ``width_px``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "val", "test"]
UNKNOWN_SPLIT = "unknown"
Box = tuple[float, float, float, float]

UNKNOWN_TYPE = -1
LESION_TYPES: Mapping[int, str] = {
    UNKNOWN_TYPE: "unknown",
    1: "bone",
    2: "abdomen",
    3: "mediastinum",
    4: "liver",
    5: "lung",
    6: "kidney",
    7: "soft tissue",
    8: "pelvis",
}
"""DeepLesion's coarse types; every train row is unknown."""

DECIMALS = 6
"""Sums and differences of coordinates are rounded to this, so a round trip returns them exactly."""


class DeepLesionRefused(ValueError):  # noqa: N818
    """A table, or a set of rows, that cannot be converted without the risk of a wrong result."""


@dataclass(frozen=True)
class KeySlice:
    """The annotated slice of a series, and what is known of it.

    Attributes:
        slice_range: first and last slice number of the series around the key slice, inclusive.
        spacing_mm_zyx: slice interval, row height, column width.
        window_hu: lower and upper end of the window that the radiologist saw.
        patient_gender: as the table says it, "" where it is silent.
        patient_age: in years, None where the table is silent.
    """

    split: Split
    patient_index: int
    study_index: int
    series_id: int
    key_slice_index: int
    slice_range: tuple[int, int]
    spacing_mm_zyx: tuple[float, float, float]
    height_px: int
    width_px: int
    window_hu: tuple[float, float]
    patient_gender: str
    patient_age: float | None

    @property
    def series(self) -> str:
        """Folder of the series in ``Images_png``."""
        return f"{self.patient_index:06d}_{self.study_index:02d}_{self.series_id:02d}"

    @property
    def file_name(self) -> str:
        """The PNG, relative to ``Images_png``: ``000001_01_01/109.png``."""
        return f"{self.series}/{self.key_slice_index:03d}.png"

    @property
    def table_name(self) -> str:
        """The ``File_name`` of the table: ``000001_01_01_109.png``."""
        return self.file_name.replace("/", "_")

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Sort key: patient, study, series, slice."""
        return self.patient_index, self.study_index, self.series_id, self.key_slice_index


@dataclass(frozen=True)
class Lesion:
    """One measured lesion on its key slice: a row of the table, an annotation of the COCO file.

    Attributes:
        box_xyxy: inside the image, x1 < x2 and y1 < y2.
        measurement_xy: x, y of the ends of the long, then of the short diameter, as drawn: they
            may lie just outside the image.
        diameters_px: long, short.
        normalized_location: x, y, z in the body, 0..1; z was predicted by the authors' regressor.
        lesion_type: a key of ``LESION_TYPES``.
        line: where it stood in the table, 0 where it did not come from one; not compared.
    """

    key_slice: KeySlice
    box_xyxy: Box
    measurement_xy: tuple[float, ...]
    diameters_px: tuple[float, float]
    normalized_location: tuple[float, float, float]
    lesion_type: int
    possibly_noisy: bool
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Finding:
    """Something about one row or image that the reader of the result must know.

    Attributes:
        code: ``E-...`` where it was left out for a fault, ``W-...`` otherwise.
        line: line of the table, the header being 1; 0 where it is of none.
        file_name: of the row or image, or what else it is about.
        split: ``UNKNOWN_SPLIT`` where the row does not say it.
        text: the value and the rule.
    """

    code: str
    line: int
    file_name: str
    split: str
    text: str

    def __str__(self) -> str:
        name = self.file_name if self.file_name.isprintable() else ascii(self.file_name)
        line = f"line {self.line}  " if self.line else ""
        return f"{self.code}  {line}{name}  {self.text}"


def finding(code: str, lesion: Lesion, text: str) -> Finding:
    """Return a finding about the row that ``lesion`` came from."""
    key_slice = lesion.key_slice
    return Finding(code, lesion.line, key_slice.table_name, key_slice.split, text)
