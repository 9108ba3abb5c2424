"""Defects that an entry of a COCO file shows by itself: ids, keys, categories, names, areas."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from converters.defects import Defect, shown
from converters.foreign_coco import (
    ForeignAnnotation,
    ForeignCoco,
    ForeignImage,
    number,
    table_name,
)
from converters.lesions import LESION_TYPES, UNKNOWN_TYPE, Lesion
from converters.slice_matching import usable

BACKGROUND = frozenset({"background", "__background__", "_background_", "bg"})
TYPE_KEYS = ("lesion_type", "coarse_lesion_type", "Coarse_lesion_type")
"""Under which of them some files keep DeepLesion's coarse type beside the category."""

AREA_TOLERANCE = 1e-5
"""Relative: single precision, and six printed digits."""

_TYPES = {re.sub(r"\W", "", name): key for key, name in LESION_TYPES.items() if key > 0}
_DRAWN = re.compile(r"key_?slices", re.IGNORECASE)


def check_images(coco: ForeignCoco) -> Iterator[Defect]:
    """Yield what is wrong with entries of ``images``, the table aside."""
    ids: set[Hashable] = set()
    for image in coco.images:
        name = shown(image.file_name) if image.file_name is not None else ""
        slice_name = table_name(image.key) if image.key else name

        def defect(
            code: str,
            found: object,
            expected: str,
            image: ForeignImage = image,
            at: str = slice_name,
        ) -> Defect:
            return Defect(code, coco.name, image.where, at, shown(found), expected)

        if image.id is None:
            yield defect("E-TYPE", "no id", "a whole number as id")
        elif image.id in ids:
            yield defect("E-IMAGEID", image.id, "an id of its own")
        ids.add(image.id)
        if image.file_name is None:
            yield defect("E-TYPE", "no file_name", "a text as file_name")
            continue
        path = PurePosixPath(image.file_name[-1000:].replace("\\", "/"))
        if image.key is None:
            yield defect("E-NAME", image.file_name, "as in 000001_01_01_109.png")
        elif any(_DRAWN.fullmatch(folder) for folder in path.parts[:-1]):
            yield defect("E-DRAWN", image.file_name, "a file of Images_png")
        elif path.suffix.lower() not in (".png", ""):
            yield defect("E-FORMAT", image.file_name, "a 16-bit PNG")


def check_annotations(coco: ForeignCoco) -> Iterator[Defect]:
    """Yield what is wrong with entries of ``annotations``, the table aside."""
    for where, found in coco.malformed:
        yield Defect("E-TYPE", coco.name, where, "", found, "an object")
    listed = {image.id for image in coco.images if image.id is not None}
    backgrounds = {key for key, name in coco.category_names.items() if name in BACKGROUND}
    for key in backgrounds:
        yield Defect("W-BACKGROUND", coco.name, f"category {shown(key)}", "", "background", "none")
    ids: set[Hashable] = set()
    for annotation in coco.annotations:
        entry = annotation.entry

        def defect(
            code: str, found: object, expected: str, annotation: ForeignAnnotation = annotation
        ) -> Defect:
            return Defect(code, coco.name, annotation.where, "", shown(found), expected)

        if annotation.id is None or annotation.id in ids:
            yield defect("E-ID", entry.get("id"), "a whole number of its own")
        elif annotation.id == 0:
            yield defect("E-ID0", 0, "ids from 1")
        ids.add(annotation.id)
        if annotation.image_id is None:
            yield defect("E-TYPE", "no image_id", "the id of an image")
        elif annotation.image_id not in listed:
            yield defect("E-ORPHAN", annotation.image_id, "the id of a listed image")
        category = annotation.category_id
        if category is None or (category != 0 and category not in coco.category_names):
            yield defect("E-CATEGORY", entry.get("category_id"), "a listed category")
        elif category == 0 or category in backgrounds:
            yield defect("E-BACKGROUND", category, "a category from 1 that is a lesion")
        if annotation.box is None:
            yield defect("E-TYPE", entry.get("bbox"), "four numbers as bbox")
        elif not usable(annotation.box):
            code = "E-ZERO" if all(abs(v) < float("inf") for v in annotation.box) else "E-NAN"
            yield defect(code, annotation.box, "finite, w > 0 and h > 0")
        if "iscrowd" not in entry:
            yield defect("W-CROWD", "no iscrowd", "0")
        elif number(entry["iscrowd"]) != 0 and entry["iscrowd"] is not False:
            yield defect("E-CROWD", entry["iscrowd"], "0")
        if not _drawable(entry.get("segmentation")):
            yield defect("E-SEGMENTATION", entry["segmentation"], "polygons of 3 points, or none")


def area_defect(
    annotation: ForeignAnnotation, lesion: Lesion | None
) -> tuple[str, str, str] | None:
    """Return code, found and expected of an area that is not w * h; None where it is.

    The area of the stored box is right, and so is the one of the table's: a wrong box is not
    told of twice.
    """
    if not usable(annotation.box) or annotation.box is None:
        return None
    x, y, w, h = annotation.box
    expected = f"{w * h:.6g} (w * h)"
    if "area" not in annotation.entry:
        return "W-AREA", "no area", expected
    area = number(annotation.entry["area"])
    if area is None:
        return "E-TYPE", shown(annotation.entry["area"]), "a number as area"
    right = [w * h]
    if lesion is not None:
        x1, y1, x2, y2 = lesion.box_xyxy
        right.append((x2 - x1) * (y2 - y1))
    if any(_close(area, value) for value in right):
        return None
    if area.is_integer() and any(abs(area - value) < 1 for value in right):
        return "W-AREAROUNDED", f"{area:.10g}", expected
    patterns = {
        "x * h": x * h,
        "y * w": y * w,
        "x * y": x * y,
        "w * y": w * y,
        "(w + 1) * (h + 1)": (w + 1) * (h + 1),
        "(w - 1) * (h - 1)": (w - 1) * (h - 1),
        "w + h": w + h,
        "w * w": w * w,
        "h * h": h * h,
        "w * h / 2": w * h / 2,
        "(x + w) * (y + h)": (x + w) * (y + h),
    }
    pattern = next((name for name, value in patterns.items() if _close(area, value)), "")
    return "E-AREA", f"{area:.10g}{f' = {pattern}' if pattern else ''}", expected


def category_types(names: Mapping[Hashable, str]) -> dict[Hashable, int]:
    """Return the coarse type of every category, where the categories are coarse types."""
    types = {key: _TYPES.get(re.sub(r"[\W_]", "", name), 0) for key, name in names.items()}
    known = {key: value for key, value in types.items() if value}
    return known if len(known) > 1 else {}


def stated_type(annotation: ForeignAnnotation, types: Mapping[Hashable, int]) -> int | None:
    """Return the coarse type that an annotation claims, None where it claims none."""
    if types:
        return types.get(annotation.category_id)
    for key in TYPE_KEYS:
        value = number(annotation.entry.get(key))
        if value is not None and value != UNKNOWN_TYPE and value.is_integer():
            return int(value)
    return None


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= AREA_TOLERANCE * abs(b)


def _drawable(segmentation: Any) -> bool:
    """Say whether Detectron2 keeps an annotation with this segmentation."""
    if not segmentation or isinstance(segmentation, dict):
        return True
    return isinstance(segmentation, Sequence) and any(
        isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        for polygon in segmentation
    )
