"""The lesions that a detector is judged by: our COCO JSON, checked before anything is computed.

What COCO tools take in silence (annotation id 0 never matches, repeated ids and NaN boxes change
the AP) is refused here, with the entry and the rule named.

Shapes:
    n: lesions of one image; boxes are x1, y1, x2, y2 in pixels of the PNG, 0-based,
       x2 - x1 = width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
)

from lesion_det.garbage import garbage_left
from ubr_pretrain.bounded_file import MAX_COCO_BYTES, require_at_most
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import first_problem

LESION_CATEGORY = 1
"""The one category; background is not a category in COCO."""

EDGE_TOLERANCE_PX = 1e-3
"""x + w of a box clipped to the image may exceed its width by rounding."""


MAX_WHOLE = 2**63 - 1
"""JSON has larger numbers, an array of int64 has not."""

_Whole = Annotated[PositiveInt, Field(le=MAX_WHOLE)]


class GroundTruthRefused(ValueError):  # noqa: N818
    """A COCO JSON from which no metric can be computed rightly."""


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One key slice with its annotated lesions.

    Attributes:
        id: COCO image id, from 1.
        file_name: relative to ``Images_png``: ``000001_01_01/109.png``.
        height_px: rows of the PNG.
        width_px: columns of the PNG.
        patient_index: DeepLesion's patient; the unit of resampling.
        study_index: DeepLesion's study of the patient.
        series_id: DeepLesion's series of the study.
        key_slice_index: number of the annotated slice in its series.
        slice_range: first and last slice number around it that the data set holds.
        spacing_mm_zyx: slice interval, row height, column width.
        boxes_xyxy: [n, 4] float64.
        annotation_ids: [n] int64.
        lesion_types: [n] int64, coarse type 1 to 8, -1 unknown.
        diameters_px: [n, 2] float64, long and short diameter.
        possibly_noisy: [n] bool.
    """

    id: int
    file_name: str
    height_px: int
    width_px: int
    patient_index: int
    study_index: int
    series_id: int
    key_slice_index: int
    slice_range: tuple[int, int]
    spacing_mm_zyx: tuple[float, float, float]
    boxes_xyxy: NDArray[np.float64]
    annotation_ids: NDArray[np.int64]
    lesion_types: NDArray[np.int64]
    diameters_px: NDArray[np.float64]
    possibly_noisy: NDArray[np.bool_]

    @property
    def series_key(self) -> str:
        """Folder of the series: ``000001_01_01``."""
        return str(PurePosixPath(self.file_name).parent)

    @property
    def num_lesions(self) -> int:
        """Number of annotated lesions (about half of those there are)."""
        return len(self.boxes_xyxy)

    @property
    def long_diameters_mm(self) -> NDArray[np.float64]:
        """Long diameter of every lesion, [n]; rows and columns of unequal spacing are averaged.

        To the micrometre: the table's decimals carry no more, and 14.2857 px of 0.7 mm are 10 mm.
        """
        _, row_mm, column_mm = self.spacing_mm_zyx
        return np.round(self.diameters_px[:, 0] * (row_mm + column_mm) / 2, 3)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """All images of one split, in the order of their ids.

    Attributes:
        sha256: of the JSON file; predictions carry it.
        images: every image, also those without lesions (they matter for false positives).
        source: the file's name, for messages.
    """

    sha256: str
    images: tuple[ImageRecord, ...]
    source: str = ""

    @cached_property
    def by_id(self) -> dict[int, ImageRecord]:
        """Images by id."""
        return {image.id: image for image in self.images}

    @property
    def num_lesions(self) -> int:
        """Number of annotated lesions."""
        return sum(image.num_lesions for image in self.images)

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return len({image.patient_index for image in self.images})


@garbage_left()
def read_ground_truth(json_path: Path) -> GroundTruth:
    """Read a COCO JSON as ``deeplesion_to_coco.py`` writes it.

    Raises:
        GroundTruthRefused: no file; not JSON; a key missing or of another type; id 0 or repeated;
            an image listed twice; no images (E-NODATA); an annotation of an unknown image or
            category; a box that is not finite, has no area, or leaves its image.
    """
    if not json_path.is_file():
        raise GroundTruthRefused(f"{json_path}: no such file")
    require_at_most(json_path, MAX_COCO_BYTES)
    try:
        coco = _Coco.model_validate_json(json_path.read_bytes(), strict=True)
    except ValidationError as error:
        raise GroundTruthRefused(f"{json_path}: {first_problem(error)}") from error
    if not coco.images:
        raise GroundTruthRefused(f"{json_path}: E-NODATA  holds no images")
    _require_distinct(json_path, "image id", (image.id for image in coco.images))
    _require_distinct(json_path, "file_name", (image.file_name for image in coco.images))
    _require_distinct(json_path, "annotation id", (a.id for a in coco.annotations))
    if sorted(category.id for category in coco.categories) != [LESION_CATEGORY]:
        raise GroundTruthRefused(
            f"{json_path}: categories {[c.id for c in coco.categories]}, expected one, id "
            f"{LESION_CATEGORY} (lesion)"
        )
    of_image: dict[int, list[_Annotation]] = {image.id: [] for image in coco.images}
    sizes = {image.id: (image.width, image.height) for image in coco.images}
    for annotation in sorted(coco.annotations, key=lambda a: a.id):
        if annotation.image_id not in of_image:
            raise GroundTruthRefused(
                f"{json_path}: annotation {annotation.id} is of image {annotation.image_id}, "
                "which is not listed"
            )
        if problem := _annotation_problem(annotation, *sizes[annotation.image_id]):
            raise GroundTruthRefused(f"{json_path}: annotation {annotation.id}: {problem}")
        of_image[annotation.image_id].append(annotation)
    images = tuple(
        _to_record(image, of_image[image.id]) for image in sorted(coco.images, key=lambda i: i.id)
    )
    return GroundTruth(file_sha256(json_path), images, json_path.name)


def require_inside(file_name: str) -> str:
    """Return a name of a file below a folder; refuse one that may lead out of it, on any system.

    Raises:
        ValueError: absolute, with a drive, a backslash, a ``..`` or what no name can hold.
    """
    path, windows = PurePosixPath(file_name), PureWindowsPath(file_name)
    climbs = path.is_absolute() or ".." in path.parts or bool(windows.drive)
    if climbs or not {"\\", "\0"}.isdisjoint(file_name):
        raise ValueError(f"{file_name!r:.200} leaves the folder of images")
    return file_name


_PositiveMm = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_DiameterPx = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Image(_Entry):
    id: _Whole
    file_name: Annotated[str, Field(min_length=1), AfterValidator(require_inside)]
    height: _Whole
    width: _Whole
    patient_index: int
    study_index: int
    series_id: int
    key_slice_index: int
    slice_range: tuple[int, int]
    spacing_mm_zyx: tuple[_PositiveMm, _PositiveMm, _PositiveMm]


class _Annotation(_Entry):
    id: _Whole
    image_id: int
    category_id: int
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    iscrowd: int = 0
    lesion_type: Annotated[int, Field(ge=-1, le=MAX_WHOLE)] = -1
    diameters_px: tuple[_DiameterPx, _DiameterPx]
    possibly_noisy: bool = False


class _Category(_Entry):
    id: int


class _Coco(_Entry):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _annotation_problem(annotation: _Annotation, width_px: int, height_px: int) -> str:
    """Return what is wrong with one annotation, "" where nothing is."""
    x, y, w, h = annotation.bbox
    if annotation.category_id != LESION_CATEGORY:
        return f"category {annotation.category_id} is unknown"
    if annotation.iscrowd:
        return "iscrowd 1 has no meaning for lesions"
    if not (w > 0 and h > 0):
        return f"bbox {list(annotation.bbox)} has no area"
    slack = EDGE_TOLERANCE_PX
    if x < -slack or y < -slack or x + w > width_px + slack or y + h > height_px + slack:
        return f"bbox {list(annotation.bbox)} leaves its {width_px}x{height_px} px image"
    return ""


def _require_distinct(path: Path, what: str, values: Iterable[int | str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise GroundTruthRefused(f"{path}: {what} {repeated[0]} occurs more than once")


def _to_record(image: _Image, annotations: list[_Annotation]) -> ImageRecord:
    xywh = np.array([a.bbox for a in annotations], dtype=np.float64).reshape(-1, 4)
    return ImageRecord(
        id=image.id,
        file_name=image.file_name,
        height_px=image.height,
        width_px=image.width,
        patient_index=image.patient_index,
        study_index=image.study_index,
        series_id=image.series_id,
        key_slice_index=image.key_slice_index,
        slice_range=image.slice_range,
        spacing_mm_zyx=image.spacing_mm_zyx,
        boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        annotation_ids=np.array([a.id for a in annotations], dtype=np.int64),
        lesion_types=np.array([a.lesion_type for a in annotations], dtype=np.int64),
        diameters_px=np.array([a.diameters_px for a in annotations], np.float64).reshape(-1, 2),
        possibly_noisy=np.array([a.possibly_noisy for a in annotations], dtype=np.bool_),
    )
