"""Which annotation of a slice is which lesion of the table, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from converters.box_reading import CONVENTIONS, Reading, overlap, read_box
from converters.foreign_coco import ForeignAnnotation
from converters.lesions import Box, Lesion
from converters.official_table import BoxIndex, OfficialSlice

LEAST_OVERLAP = 0.1
"""Boxes that overlap less than this are not the same lesion drawn otherwise."""


@dataclass(frozen=True)
class SliceMatch:
    """The annotations of one slice beside its lesions.

    Attributes:
        read: annotations whose box can be read as that of a lesion.
        duplicates: annotations that can be read as a lesion which another one has.
        merged: annotations around several lesions, with these.
        other: annotations with another box than the lesion that they overlap.
        elsewhere: annotations with the box of a lesion of another slice.
        extra: the remaining annotations.
        unusable: annotations without a finite box that has an area.
        lost: the remaining lesions, those of unusable annotations aside.
    """

    read: tuple[tuple[ForeignAnnotation, Lesion, Reading], ...]
    duplicates: tuple[tuple[ForeignAnnotation, Lesion], ...]
    merged: tuple[tuple[ForeignAnnotation, tuple[Lesion, ...]], ...]
    other: tuple[tuple[ForeignAnnotation, Lesion], ...]
    elsewhere: tuple[tuple[ForeignAnnotation, Lesion], ...]
    extra: tuple[ForeignAnnotation, ...]
    unusable: tuple[ForeignAnnotation, ...]
    lost: tuple[Lesion, ...]


def usable(box: Box | None) -> bool:
    """Say whether x, y, w, h are finite and have an area."""
    return box is not None and all(map(math.isfinite, box)) and box[2] > 0 and box[3] > 0


def match_slice(
    annotations: Sequence[ForeignAnnotation],
    official: OfficialSlice,
    index: BoxIndex,
    scale: tuple[float, float] | None = None,
) -> SliceMatch:
    """Give every lesion its annotation, the simplest readings first.

    Args:
        annotations: of one slice, from all its entries.
        official: the slice in the table.
        index: of the lesions of all slices.
        scale: stated image size over the official one, where they differ.
    """
    boxed = {a.index: a.box for a in annotations if a.box is not None and usable(a.box)}
    by_index = {a.index: a for a in annotations}
    readings = [
        (reading, annotation, i)
        for annotation, box in boxed.items()
        for i, lesion in enumerate(official.lesions)
        if (reading := read_box(box, lesion.box_xyxy, official.size_px, scale)) is not None
    ]
    readings.sort(key=lambda each: (len(each[0].codes), each[1], each[2]))
    read: dict[int, tuple[Lesion, Reading]] = {}
    taken: set[int] = set()
    for reading, annotation, i in readings:
        if annotation not in read and i not in taken:
            read[annotation] = (official.lesions[i], reading)
            taken.add(i)
    free = [lesion for i, lesion in enumerate(official.lesions) if i not in taken]
    left = {a: box for a, box in boxed.items() if a not in read}
    duplicates: dict[int, Lesion] = {}
    for _, annotation, i in readings:
        if annotation in left:
            duplicates[annotation] = official.lesions[i]
            del left[annotation]
    merged: dict[int, tuple[Lesion, ...]] = {}
    if len(free) > 1:
        hull = _hull([lesion.box_xyxy for lesion in free])
        for annotation, box in left.items():
            reading_of_hull = read_box(box, hull, official.size_px)
            if reading_of_hull is not None and reading_of_hull.codes in CONVENTIONS:
                merged[annotation], free = tuple(free), []
                break
    elsewhere = {
        annotation: lesion
        for annotation, box in left.items()
        if annotation not in merged and (lesion := index.find(box)) is not None
    }
    left = {a: box for a, box in left.items() if a not in merged and a not in elsewhere}
    other = _overlapping(left, free)
    free = [lesion for lesion in free if lesion not in other.values()]
    unusable = tuple(a for a in annotations if a.index not in boxed)
    return SliceMatch(
        read=tuple((by_index[a], lesion, reading) for a, (lesion, reading) in read.items()),
        duplicates=tuple((by_index[a], lesion) for a, lesion in duplicates.items()),
        merged=tuple((by_index[a], lesions) for a, lesions in merged.items()),
        other=tuple((by_index[a], lesion) for a, lesion in other.items()),
        elsewhere=tuple((by_index[a], lesion) for a, lesion in elsewhere.items()),
        extra=tuple(by_index[a] for a in left if a not in other),
        unusable=unusable,
        lost=tuple(free[len(unusable) :]),
    )


def _hull(boxes: Sequence[Box]) -> Box:
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _overlapping(left: dict[int, Box], free: Sequence[Lesion]) -> dict[int, Lesion]:
    """Pair what is left by overlap, the largest first."""
    overlaps = sorted(
        (
            (overlap((x, y, x + w, y + h), lesion.box_xyxy), annotation, i)
            for annotation, (x, y, w, h) in left.items()
            for i, lesion in enumerate(free)
        ),
        key=lambda each: (-each[0], each[1], each[2]),
    )
    paired: dict[int, Lesion] = {}
    taken: set[int] = set()
    for iou, annotation, i in overlaps:
        if iou >= LEAST_OVERLAP and annotation not in paired and i not in taken:
            paired[annotation] = free[i]
            taken.add(i)
    return paired
