"""One COCO file against the table: its entries, its images, and every lesion with its box.

A defect is told of where it arises: a box that counts from 1 is not also out of its image, a lesion
that stands on another image is not also lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

from converters.box_reading import rounded_convention, settled
from converters.defects import Defect, shown
from converters.entry_checks import (
    area_defect,
    category_types,
    check_annotations,
    check_images,
    stated_type,
)
from converters.file_summary import FileSummary, summarised
from converters.foreign_coco import (
    ForeignAnnotation,
    ForeignCoco,
    ForeignImage,
    SliceKey,
    number,
    table_name,
)
from converters.lesions import UNKNOWN_TYPE, Lesion
from converters.official_table import BoxIndex, OfficialSlice, OfficialTable
from converters.slice_matching import SliceMatch, match_slice, usable
from converters.split_checks import SplitFile
from ubr_pretrain.journal import ProgressLine

OUTSIDE_PX = 0.001
"""A box clipped to its image may exceed it by rounding."""


def audit_file(
    file: SplitFile, official: OfficialTable, index: BoxIndex
) -> tuple[FileSummary, list[Defect]]:
    """Compare one file with the table.

    Args:
        file: the file.
        official: the table.
        index: of all its lesions.
    """
    coco = file.coco
    defects = [*check_images(coco), *check_annotations(coco)]
    slices, unplaced = _by_slice(coco)
    matches: dict[SliceKey, SliceMatch] = {}
    line = ProgressLine(len(slices), only_long=True)
    for done, (key, (entries, placed)) in enumerate(slices.items(), start=1):
        line.show(done, f"images of {ascii(coco.name)[1:-1]} compared")
        if (known := official.slices.get(key)) is not None:
            defects += _check_size(coco, known, entries)
            matches[key] = match_slice(placed, known, index, _scale(known, entries[0]))
        elif key not in official.unread:
            defects += [
                Defect("E-UNKNOWN", coco.name, image.where, table_name(key), "listed", "not listed")
                for image in entries
            ]
            unplaced += placed
        else:
            continue
        defects += [
            Defect("E-DUPIMAGE", coco.name, image.where, table_name(key), "listed again", "once")
            for image in entries[1:]
        ]
    line.close()
    # an orphan may hold the lesion that another slice lacks
    kept = {le for match in matches.values() for _, le in match.elsewhere}
    kept |= {
        lesion
        for each in unplaced
        if each.box is not None
        and usable(each.box)
        and (lesion := index.find(each.box)) is not None
    }
    convention = rounded_convention([r for match in matches.values() for _, _, r in match.read])
    types = category_types(coco.category_names)
    for key, match in matches.items():
        defects += _lesion_defects(coco.name, official.slices[key], match, kept, convention)
        defects += _type_defects(coco.name, key, match, types)
    of_lesion = {
        annotation.index: lesion
        for match in matches.values()
        for annotation, lesion in [*((a, le) for a, le, _ in match.read), *match.other]
    }
    for annotation in coco.annotations:
        if (area := area_defect(annotation, of_lesion.get(annotation.index))) is not None:
            lesion = of_lesion.get(annotation.index)
            name = lesion.key_slice.table_name if lesion is not None else ""
            defects.append(Defect(area[0], coco.name, annotation.where, name, area[1], area[2]))
    return summarised(file, matches.values(), convention, defects), defects


def _by_slice(
    coco: ForeignCoco,
) -> tuple[
    dict[SliceKey, tuple[list[ForeignImage], list[ForeignAnnotation]]], list[ForeignAnnotation]
]:
    """Group entries by the slice that their image names; and the annotations of none."""
    entries: defaultdict[SliceKey, list[ForeignImage]] = defaultdict(list)
    keys: dict[Hashable, SliceKey | None] = {}
    for image in coco.images:
        if image.id is not None:
            keys.setdefault(image.id, image.key)
        if image.key is not None:
            entries[image.key].append(image)
    annotations: defaultdict[SliceKey, list[ForeignAnnotation]] = defaultdict(list)
    unplaced: list[ForeignAnnotation] = []
    for annotation in coco.annotations:
        key = keys.get(annotation.image_id) if annotation.image_id is not None else None
        (annotations[key] if key is not None else unplaced).append(annotation)
    return {key: (images, annotations[key]) for key, images in entries.items()}, unplaced


def _check_size(
    coco: ForeignCoco, known: OfficialSlice, entries: Sequence[ForeignImage]
) -> Iterator[Defect]:
    width, height = known.size_px
    for image in entries:
        if tuple(map(number, image.size)) != (width, height):
            found = f"{shown(image.size[0])}x{shown(image.size[1])}"
            name = known.key_slice.table_name
            yield Defect("E-SIZE", coco.name, image.where, name, found, f"{width}x{height}")


def _scale(known: OfficialSlice, image: ForeignImage) -> tuple[float, float] | None:
    """Return stated over official size, None where they are equal or nothing is stated."""
    width, height = (number(side) or 0.0 for side in image.size)
    if (width, height) == known.size_px or not (0 < width < 1e5 and 0 < height < 1e5):
        return None
    return width / known.size_px[0], height / known.size_px[1]


def _lesion_defects(
    name: str,
    known: OfficialSlice,
    match: SliceMatch,
    kept: Collection[Lesion],
    convention: tuple[str, ...],
) -> Iterator[Defect]:
    slice_name = known.key_slice.table_name

    def defect(code: str, annotation: ForeignAnnotation, expected: str) -> Defect:
        return Defect(code, name, annotation.where, slice_name, shown(annotation.box), expected)

    for annotation, lesion, reading in match.read:
        right = settled(reading, convention)
        for code in right.codes:
            yield defect(code, annotation, _xywh(lesion))
        if right.right_within:
            yield from _outside(name, annotation, known)
    for annotation, lesion in match.duplicates:
        yield defect("E-DUPLICATE", annotation, f"one of line {lesion.line}")
    for annotation, lesions in match.merged:
        lines = ", ".join(str(lesion.line) for lesion in lesions)
        yield defect("E-MERGED", annotation, f"{len(lesions)} boxes, of lines {lines}")
    for annotation, lesion in match.other:
        yield defect("E-OTHERBOX", annotation, _xywh(lesion))
        yield from _outside(name, annotation, known)
    for annotation, lesion in match.elsewhere:
        yield defect("E-ELSEWHERE", annotation, f"on {lesion.key_slice.table_name}")
    for annotation in match.extra:
        yield defect("E-EXTRA", annotation, "no annotation")
        yield from _outside(name, annotation, known)
    for lesion in match.lost:
        if lesion not in kept:
            code = "W-NOISY" if lesion.possibly_noisy else "E-LOST"
            where = f"line {lesion.line} of the table"
            yield Defect(code, name, where, slice_name, "no annotation", _xywh(lesion))


def _outside(name: str, annotation: ForeignAnnotation, known: OfficialSlice) -> Iterator[Defect]:
    assert annotation.box is not None
    x, y, w, h = annotation.box
    (width, height), slice_name = known.size_px, known.key_slice.table_name
    out_px = max(-x, -y, x + w - width, y + h - height)
    if out_px > OUTSIDE_PX:
        expected = f"within {width}x{height} (it is {out_px:.2f} px outside)"
        yield Defect(
            "E-OUTSIDE", name, annotation.where, slice_name, shown(annotation.box), expected
        )


def _type_defects(
    name: str, key: SliceKey, match: SliceMatch, types: Mapping[Hashable, int]
) -> Iterator[Defect]:
    pairs = [(a, le) for a, le, _ in match.read] + list(match.other)
    for annotation, lesion in pairs:
        stated = stated_type(annotation, types)
        if stated is None or stated == lesion.lesion_type:
            continue
        code = "W-UNTYPED" if lesion.lesion_type == UNKNOWN_TYPE else "E-LESIONTYPE"
        where, expected = annotation.where, str(lesion.lesion_type)
        yield Defect(code, name, where, table_name(key), str(stated), expected)


def _xywh(lesion: Lesion) -> str:
    x1, y1, x2, y2 = lesion.box_xyxy
    return shown((x1, y1, x2 - x1, y2 - y1))
