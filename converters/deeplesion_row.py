"""One row of ``DL_info.csv`` -> one record, and back.

The table counts pixels from 1; here 1 is subtracted once, from boxes and measured points alike.

Reference:
    Column meanings: the readme of DeepLesion (Yan et al., Journal of Medical Imaging 2018).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from converters.lesions import DECIMALS, LESION_TYPES, Box, KeySlice, Lesion, Split
from ubr_pretrain.spreadsheet import harmless

SPLITS: Mapping[str, Split] = {"1": "train", "2": "val", "3": "test"}

COLUMNS = (
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)

BOX_MARGIN_PX = 5.0
"""An official box is the extent of the four measured points, enlarged by this on every side."""

BOX_TOLERANCE_PX = 0.01
"""The table prints six digits; no official box of val and test is further than 0.0005 px off."""

MAX_OUTSIDE_PX = 8.0
"""How far a box may leave its image before its row is refused instead of the box clipped.

Deviation: not 1 px. Three official boxes of val and test leave their image, by up to 5.65 px (the
5 px margin, around points drawn just over the border); refusing them would lose official lesions.
"""

MAX_SPACING_MM = 50.0
SQUARE_WITHIN = 1e-3
"""Relative: CT pixels are square, and the table prints six digits; unequal ones are other axes."""

OLDEST_YEARS = 125
MAX_SIDE_PX = 4096

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e-\d+)?", re.ASCII | re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class RowRefused(ValueError):  # noqa: N818
    """A row that cannot be used rightly; ``code`` says which rule it breaks."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code}  {text}")


def row_to_lesion(
    cells: Mapping[str, str], line: int, max_outside_px: float
) -> tuple[Lesion, list[tuple[str, str]]]:
    """Return the record of one row, and what is to be told of it as (code, text).

    Args:
        cells: by column name, without surrounding blanks.
        line: of the table, for messages.
        max_outside_px: a box that leaves its image by at most this is clipped to it.

    Raises:
        RowRefused: a cell cannot be read, breaks its rule, or contradicts another.
    """
    age, notices = _age(cells)
    key_slice = _key_slice(cells, age)
    drawn = tuple(
        round(value - 1, DECIMALS) for value in _numbers(cells, "Measurement_coordinates", 8)
    )
    box, of_box = _box(cells, key_slice, drawn, max_outside_px)
    long_px, short_px = _numbers(cells, "Lesion_diameters_Pixel_", 2)
    if min(long_px, short_px) < 0:
        raise _refusal(cells, "Lesion_diameters_Pixel_", "a diameter is not negative")
    x, y, z = _numbers(cells, "Normalized_lesion_location", 3)
    lesion = Lesion(
        key_slice=key_slice,
        box_xyxy=box,
        measurement_xy=drawn,
        diameters_px=(long_px, short_px),
        normalized_location=(x, y, z),
        lesion_type=int(_choice(cells, "Coarse_lesion_type", [str(k) for k in LESION_TYPES])),
        possibly_noisy=_choice(cells, "Possibly_noisy", ["0", "1"]) == "1",
        line=line,
    )
    return lesion, [*notices, *of_box]


def lesion_to_row(lesion: Lesion) -> tuple[str, ...]:
    """Return the cells in the table's own spelling: pixels from 1, sizes as x, y, z."""
    key_slice = lesion.key_slice
    gender, age = key_slice.patient_gender, key_slice.patient_age
    return (
        key_slice.table_name,
        str(key_slice.patient_index),
        str(key_slice.study_index),
        str(key_slice.series_id),
        str(key_slice.key_slice_index),
        _joined(round(value + 1, DECIMALS) for value in lesion.measurement_xy),
        _joined(round(value + 1, DECIMALS) for value in lesion.box_xyxy),
        _joined(lesion.diameters_px),
        _joined(lesion.normalized_location),
        str(lesion.lesion_type),
        str(int(lesion.possibly_noisy)),
        _joined(key_slice.slice_range),
        _joined(reversed(key_slice.spacing_mm_zyx)),
        _joined((key_slice.width_px, key_slice.height_px)),
        _joined(key_slice.window_hu),
        harmless(gender),
        "" if age is None else _joined([age]),
        next(code for code, split in SPLITS.items() if split == key_slice.split),
    )


def _key_slice(cells: Mapping[str, str], age: float | None) -> KeySlice:
    if cells["Train_Val_Test"] not in SPLITS:
        raise _refusal(cells, "Train_Val_Test", "must be 1, 2 or 3", "E-SPLIT")
    first, last = _whole_numbers(cells, "Slice_range", 2)
    width, height = _whole_numbers(cells, "Image_size", 2, "E-SIZE")  # x, y as in the spacing
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise _refusal(cells, "Image_size", f"sides must be 1 to {MAX_SIDE_PX} px", "E-SIZE")
    lower, upper = _numbers(cells, "DICOM_windows", 2)
    if not lower < upper:
        raise _refusal(cells, "DICOM_windows", "lower end, upper end: it must have a width")
    key_slice = KeySlice(
        split=SPLITS[cells["Train_Val_Test"]],
        patient_index=_whole_numbers(cells, "Patient_index", 1)[0],
        study_index=_whole_numbers(cells, "Study_index", 1)[0],
        series_id=_whole_numbers(cells, "Series_ID", 1)[0],
        key_slice_index=_whole_numbers(cells, "Key_slice_index", 1)[0],
        slice_range=(first, last),
        spacing_mm_zyx=_spacing_mm_zyx(cells),
        height_px=height,
        width_px=width,
        window_hu=(lower, upper),
        patient_gender=cells["Patient_gender"],
        patient_age=age,
    )
    # Comparing with the name that the indices make finds a wrong index and a path out of the
    # image folder alike.
    if cells["File_name"] not in (key_slice.table_name, key_slice.file_name):
        rule = f"the index columns make it {key_slice.table_name} or {key_slice.file_name}"
        raise _refusal(cells, "File_name", rule, "E-NAME")
    if not first <= key_slice.key_slice_index <= last:
        raise _refusal(cells, "Slice_range", f"lacks the key slice {key_slice.key_slice_index}")
    return key_slice


def _box(
    cells: Mapping[str, str], key_slice: KeySlice, drawn: tuple[float, ...], max_outside_px: float
) -> tuple[Box, list[tuple[str, str]]]:
    """Return the box inside its image, and what is to be told of it."""
    x1, y1, x2, y2 = (value - 1 for value in _numbers(cells, "Bounding_boxes", 4, "E-BOX"))
    if not (x1 < x2 and y1 < y2):
        raise _refusal(cells, "Bounding_boxes", "x1 < x2 and y1 < y2 must hold", "E-BOX")
    width, height = key_slice.width_px, key_slice.height_px
    inside = (_clip(x1, width), _clip(y1, height), _clip(x2, width), _clip(y2, height))
    outside_px = _distance((x1, y1, x2, y2), inside)
    size = f"{width}x{height} image"
    if outside_px > max_outside_px or not (inside[0] < inside[2] and inside[1] < inside[3]):
        rule = f"{outside_px:.2f} px outside the {size}, at most {max_outside_px:g} are clipped"
        raise _refusal(cells, "Bounding_boxes", rule, "E-BOX")
    notices = []
    if outside_px > 10**-DECIMALS:
        notices.append(("W-CLIPPED", f"box clipped: {outside_px:.2f} px outside the {size}"))
    xs, ys, margin = drawn[0::2], drawn[1::2], BOX_MARGIN_PX
    expected = (min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin)
    off_px = _distance((x1, y1, x2, y2), expected)
    if off_px > BOX_TOLERANCE_PX:
        rule = f"the extent of its measured points enlarged by {margin:g} px"
        notices.append(("W-MEASURE", f"box is {off_px:.2f} px off {rule}"))
    return inside, notices


def _clip(value: float, limit: int) -> float:
    return round(min(max(value, 0.0), float(limit)), DECIMALS)


def _distance(a: Box, b: Box) -> float:
    return max(abs(left - right) for left, right in zip(a, b, strict=True))


def _refusal(cells: Mapping[str, str], column: str, rule: str, code: str = "E-CELL") -> RowRefused:
    return RowRefused(code, f"{column} {cells[column][:80]!r}: {rule}")


def _numbers(
    cells: Mapping[str, str], column: str, count: int, code: str = "E-CELL"
) -> tuple[float, ...]:
    """Return the finite numbers of a cell; a positive exponent is a spreadsheet's rounding."""
    parts = [part.strip() for part in cells[column].split(",")]
    if len(parts) == count and all(_NUMBER.fullmatch(part) for part in parts):
        numbers = tuple(float(part) for part in parts)
        if all(math.isfinite(number) for number in numbers):
            return numbers
    raise _refusal(cells, column, f"must be {count} decimal number(s)", code)


def _whole_numbers(
    cells: Mapping[str, str], column: str, count: int, code: str = "E-CELL"
) -> tuple[int, ...]:
    parts = [part.strip() for part in cells[column].split(",")]
    if len(parts) != count or not all(_WHOLE_NUMBER.fullmatch(part) for part in parts):
        raise _refusal(cells, column, f"must be {count} whole number(s)", code)
    return tuple(int(part) for part in parts)


def _choice(cells: Mapping[str, str], column: str, allowed: list[str]) -> str:
    if cells[column] not in allowed:
        raise _refusal(cells, column, f"must be one of {', '.join(allowed)}")
    return cells[column]


def _spacing_mm_zyx(cells: Mapping[str, str]) -> tuple[float, float, float]:
    x, y, z = _numbers(cells, "Spacing_mm_px_", 3, "E-SPACING")
    if not all(0 < value <= MAX_SPACING_MM for value in (x, y, z)):
        rule = f"three numbers > 0 and <= {MAX_SPACING_MM:g} mm are needed"
        raise _refusal(cells, "Spacing_mm_px_", rule, "E-SPACING")
    if not math.isclose(x, y, rel_tol=SQUARE_WITHIN):
        rule = "the pixels are not square; it is x, y, z"
        raise _refusal(cells, "Spacing_mm_px_", rule, "E-SPACING")
    return z, y, x


def _age(cells: Mapping[str, str]) -> tuple[float | None, list[tuple[str, str]]]:
    """Return the age in years, None where it is not known, and what is to be told of it."""
    if cells["Patient_age"].lower() in ("", "nan"):
        return None, []
    age = _numbers(cells, "Patient_age", 1)[0]
    if 0 <= age <= OLDEST_YEARS:
        return age, []
    rule = f"not 0 to {OLDEST_YEARS} years, taken as unknown"
    return None, [("W-AGE", f"Patient_age {cells['Patient_age'][:80]!r}: {rule}")]


def _joined(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.15g}" for value in values)
