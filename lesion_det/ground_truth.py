"""The lesions that a detector is judged by: our COCO JSON, checked before anything is computed.

What COCO tools take in silence (annotation id 0 never matches, repeated ids and NaN boxes change
the AP) is refused here, with the entry and the rule named.

Shapes:
    n: lesions of one image; boxes are x1, y1, x2, y2 in pixels of the PNG, 0-based,
       x2 - x1 = width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from converters.distinct_keys import require_distinct_keys
from lesion_det.coco_entries import CocoAnnotation, CocoFile, CocoImage, contradictions
from lesion_det.garbage import garbage_left
from ubr_pretrain.bounded_file import MAX_COCO_BYTES, require_at_most
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import first_problem


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
        GroundTruthRefused: no file; not JSON; a key missing, given twice or of another type; id 0
            or repeated; an image or a lesion listed twice; no images (E-NODATA); an annotation of
            an unknown image or category; a box that is not finite, has no area, or leaves its
            image; an image whose name denies its indices; other counts than those stated.
    """
    if not json_path.is_file():
        raise GroundTruthRefused(f"{json_path}: no such file")
    require_at_most(json_path, MAX_COCO_BYTES)
    data = json_path.read_bytes()
    try:
        coco = CocoFile.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise GroundTruthRefused(f"{json_path}: {first_problem(error)}") from error
    try:
        require_distinct_keys(data)
    except ValueError as error:
        raise GroundTruthRefused(f"{json_path}: {error}") from error
    for problem in contradictions(coco):
        raise GroundTruthRefused(f"{json_path}: {problem}")
    of_image: dict[int, list[CocoAnnotation]] = {image.id: [] for image in coco.images}
    for annotation in sorted(coco.annotations, key=lambda a: a.id):
        of_image[annotation.image_id].append(annotation)
    images = tuple(
        _to_record(image, of_image[image.id]) for image in sorted(coco.images, key=lambda i: i.id)
    )
    return GroundTruth(file_sha256(json_path), images, json_path.name)


def _to_record(image: CocoImage, annotations: list[CocoAnnotation]) -> ImageRecord:
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
