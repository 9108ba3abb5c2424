"""What one audited file is, in a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from converters.box_reading import settled
from converters.defects import Defect
from converters.foreign_coco import ForeignAnnotation
from converters.lesions import Lesion
from converters.slice_matching import SliceMatch
from converters.split_checks import SplitFile


@dataclass(frozen=True)
class FileSummary:
    """What one file is.

    Attributes:
        split: that it is taken for, and ``told_by`` what.
        num_compared: annotations whose lesion in the table was found.
        readings: how their boxes had to be read -> how many; "" is as they should be.
        area_patterns: what wrong areas are, as in ``x * h`` -> how many; "" is not known.
        median_px: their x, y, w, h beyond the table's, clipping aside; None where there are none.
    """

    name: str
    sha256: str
    split: str
    told_by: str
    num_images: int
    num_annotations: int
    num_categories: int
    num_compared: int
    readings: dict[str, int]
    area_patterns: dict[str, int]
    median_px: tuple[float, float, float, float] | None


def summarised(
    file: SplitFile,
    matches: Iterable[SliceMatch],
    convention: tuple[str, ...],
    defects: Iterable[Defect],
) -> FileSummary:
    """Return the numbers of one file.

    Args:
        file: the file.
        matches: of its slices.
        convention: of its rounded boxes.
        defects: found in it.
    """
    read = [each for match in matches for each in match.read]
    readings = Counter(", ".join(settled(reading, convention).codes) for _, _, reading in read)
    differences = [_difference_px(annotation, lesion) for annotation, lesion, _ in read]
    coco = file.coco
    return FileSummary(
        name=coco.name,
        sha256=coco.sha256,
        split=file.split,
        told_by=file.told_by,
        num_images=len(coco.images),
        num_annotations=len(coco.annotations),
        num_categories=len(coco.category_names),
        num_compared=len(read),
        readings=dict(readings.most_common()),
        area_patterns=dict(
            Counter(
                defect.found.partition(" = ")[2] for defect in defects if defect.code == "E-AREA"
            ).most_common()
        ),
        median_px=_medians(differences) if differences else None,
    )


def _difference_px(annotation: ForeignAnnotation, lesion: Lesion) -> tuple[float, ...]:
    assert annotation.box is not None
    x1, y1, x2, y2 = lesion.box_xyxy
    return tuple(a - b for a, b in zip(annotation.box, (x1, y1, x2 - x1, y2 - y1), strict=True))


def _medians(rows: Sequence[tuple[float, ...]]) -> tuple[float, float, float, float]:
    x, y, w, h = (round(median(column), 3) for column in zip(*rows, strict=True))
    return x, y, w, h
