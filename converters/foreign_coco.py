"""Someone else's COCO JSON, read without trust: what is odd in an entry is kept, not refused.

Shapes:
    A box is four numbers as stored; what they mean is for the audit to find out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.distinct_keys import distinct_keys
from converters.lesions import Box, DeepLesionRefused
from ubr_pretrain.bounded_file import MAX_COCO_BYTES, require_at_most
from ubr_pretrain.checkpoint import file_sha256

MAX_NAME_CHARS = 1000

SliceKey = tuple[int, int, int, int]
"""Patient, study, series, slice: ``KeySlice.order``."""

_SLICE = re.compile(
    r"(?:^|[/\\])(\d{1,6})_(\d{1,3})_(\d{1,3})[_/\\](\d{1,4})(?:\.\w{1,5})?$", re.ASCII
)


@dataclass(frozen=True)
class ForeignImage:
    """One entry of ``images``.

    Attributes:
        index: its place in the list.
        id: as stored; None where there is none that can be looked up.
        file_name: as stored; None where it is no text.
        size: width, height as stored.
        key: the slice that the name says, None where it says none.
    """

    index: int
    id: Hashable
    file_name: str | None
    size: tuple[object, object]
    key: SliceKey | None

    @property
    def where(self) -> str:
        """The entry, for messages."""
        return f"images[{self.index}]"


@dataclass(frozen=True)
class ForeignAnnotation:
    """One entry of ``annotations``.

    Attributes:
        index: its place in the list.
        id: as stored; None where there is none that can be looked up.
        image_id: as stored, likewise.
        category_id: as stored, likewise.
        box: the four numbers, which may be infinite or NaN; None where there are no four numbers.
        entry: all that is stored.
    """

    index: int
    id: Hashable
    image_id: Hashable
    category_id: Hashable
    box: Box | None
    entry: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The entry, for messages."""
        return f"annotations[{self.index}]"


@dataclass(frozen=True)
class ForeignCoco:
    """A COCO file.

    Attributes:
        name: of the file.
        info: its ``info``, empty where it is none.
        malformed: (entry, what is wrong) of entries from which nothing can be read.
        category_names: by id, as text in small letters; later entries win.
    """

    name: str
    sha256: str
    info: Mapping[str, Any]
    images: tuple[ForeignImage, ...]
    annotations: tuple[ForeignAnnotation, ...]
    category_names: Mapping[Hashable, str]
    malformed: tuple[tuple[str, str], ...]


def read_foreign_coco(path: Path) -> ForeignCoco:
    """Read a COCO JSON of any dialect.

    Raises:
        DeepLesionRefused: no file, not JSON, or without a list of images and one of annotations.
        ValueError: larger than ``MAX_COCO_BYTES``.
    """
    if not path.is_file():
        raise DeepLesionRefused(f"{path}: no such file")
    require_at_most(path, MAX_COCO_BYTES)
    try:
        coco = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=distinct_keys)
    except RecursionError:
        raise DeepLesionRefused(f"{path}: not a COCO file (nested too deep)") from None
    except (OSError, ValueError) as error:
        raise DeepLesionRefused(f"{path}: not a JSON file ({error})") from error
    if not isinstance(coco, dict):
        raise DeepLesionRefused(f"{path}: a JSON {type(coco).__name__}, a COCO file is an object")
    for key in ("images", "annotations"):
        if not isinstance(coco.get(key), list):
            raise DeepLesionRefused(f"{path}: not a COCO file: {key!r} is no list")
    malformed: list[tuple[str, str]] = []
    categories = coco.get("categories")
    named = {
        _key(each.get("id")): str(each.get("name", "")).strip().lower()
        for each in (categories if isinstance(categories, list) else [])
        if isinstance(each, dict)
    }
    info = coco.get("info")
    return ForeignCoco(
        name=path.name,
        sha256=file_sha256(path),
        info=info if isinstance(info, dict) else {},
        images=tuple(_image(i, each) for i, each in _objects(coco, "images", malformed)),
        annotations=tuple(_annotation(i, e) for i, e in _objects(coco, "annotations", malformed)),
        category_names={key: name for key, name in named.items() if key is not None},
        malformed=tuple(malformed),
    )


def slice_key(file_name: str) -> SliceKey | None:
    """Return the slice that a path ends in, in any of the usual spellings.

    ``000001_01_01_109.png``, ``000001_01_01/109.png``, with folders in front, with another
    ending or none, with either slash.
    """
    match = _SLICE.search(file_name[-MAX_NAME_CHARS:])
    return (int(match[1]), int(match[2]), int(match[3]), int(match[4])) if match else None


def table_name(key: SliceKey) -> str:
    """Return the ``File_name`` of the table."""
    patient, study, series, number = key
    return f"{patient:06d}_{study:02d}_{series:02d}_{number:03d}.png"


def number(value: object) -> float | None:
    """Return a JSON number, infinite where it is too large; None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _objects(
    coco: Mapping[str, Any], name: str, malformed: list[tuple[str, str]]
) -> list[tuple[int, Mapping[str, Any]]]:
    objects: list[tuple[int, Mapping[str, Any]]] = []
    for index, entry in enumerate(coco[name]):
        if isinstance(entry, dict):
            objects.append((index, entry))
        else:
            malformed.append((f"{name}[{index}]", type(entry).__name__))
    return objects


def _key(value: object) -> Hashable:
    """Return what can be looked up: a whole number or a text; else None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _image(index: int, entry: Mapping[str, Any]) -> ForeignImage:
    name = entry.get("file_name")
    return ForeignImage(
        index=index,
        id=_key(entry.get("id")),
        file_name=name if isinstance(name, str) else None,
        size=(entry.get("width"), entry.get("height")),
        key=slice_key(name) if isinstance(name, str) else None,
    )


def _annotation(index: int, entry: Mapping[str, Any]) -> ForeignAnnotation:
    stored = entry.get("bbox")
    numbers = [number(each) for each in stored[:5]] if isinstance(stored, list) else []
    box: Box | None = None
    if len(numbers) == 4:
        a, b, c, d = numbers
        if a is not None and b is not None and c is not None and d is not None:
            box = (a, b, c, d)
    return ForeignAnnotation(
        index=index,
        id=_key(entry.get("id")),
        image_id=_key(entry.get("image_id")),
        category_id=_key(entry.get("category_id")),
        box=box,
        entry=entry,
    )
