"""A split small enough to reason about: images with given lesions, and answers to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion_det.ground_truth import GroundTruth, ImageRecord
from lesion_det.predictions import Predictions

Box = Sequence[float]
TOY_SHA256 = "0" * 64


def toy_record(image_id: int, lesions_xyxy: Sequence[Box], patient: int = 1) -> ImageRecord:
    n = len(lesions_xyxy)
    return ImageRecord(
        id=image_id,
        file_name=f"{patient:06d}_01_01/{image_id:03d}.png",
        height_px=512,
        width_px=512,
        patient_index=patient,
        study_index=1,
        series_id=1,
        key_slice_index=image_id,
        slice_range=(image_id - 1, image_id + 1),
        spacing_mm_zyx=(5.0, 0.8, 0.8),
        boxes_xyxy=np.array(lesions_xyxy, np.float64).reshape(-1, 4),
        annotation_ids=np.arange(n, dtype=np.int64) + 100 * image_id,
        lesion_types=np.full(n, -1, np.int64),
        diameters_px=np.full((n, 2), 10.0),
        possibly_noisy=np.zeros(n, np.bool_),
    )


def toy_ground_truth(
    lesions: Sequence[Sequence[Box]], patients: Sequence[int] | None = None
) -> GroundTruth:
    """Image i (from 1) has ``lesions[i - 1]``; every image is a patient of its own by default."""
    numbers = patients or range(1, len(lesions) + 1)
    images = tuple(
        toy_record(i, boxes, patient)
        for i, (boxes, patient) in enumerate(zip(lesions, numbers, strict=True), start=1)
    )
    return GroundTruth(TOY_SHA256, images, "toy.json")


def toy_predictions(
    detections: Sequence[Sequence[tuple[float, Box]]], sha256: str = TOY_SHA256
) -> Predictions:
    """Image i (from 1) has ``detections[i - 1]``: (score, box)."""
    boxes = {
        i: np.array([box for _, box in found], np.float64).reshape(-1, 4)
        for i, found in enumerate(detections, start=1)
    }
    scores = {
        i: np.array([score for score, _ in found], np.float64)
        for i, found in enumerate(detections, start=1)
    }
    return Predictions(sha256, boxes, scores)


def toy_coco(num_images: int = 2) -> dict[str, Any]:
    """Return a COCO dictionary as the converter writes it: one 30 x 40 px lesion an image."""
    return {
        "info": {"split": "val"},
        "images": [
            {
                "id": i,
                "file_name": f"{i:06d}_01_01/109.png",
                "height": 512,
                "width": 512,
                "patient_index": i,
                "study_index": 1,
                "series_id": 1,
                "key_slice_index": 109,
                "slice_range": [103, 115],
                "spacing_mm_zyx": [5.0, 0.8, 0.8],
            }
            for i in range(1, num_images + 1)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "bbox": [10.0, 20.0, 30.0, 40.0],
                "area": 1200.0,
                "iscrowd": 0,
                "lesion_type": 5,
                "diameters_px": [20.0, 10.0],
                "possibly_noisy": False,
                "measurement_coordinates": [15.0] * 8,
                "normalized_location": [0.5, 0.5, 0.5],
            }
            for i in range(1, num_images + 1)
        ],
        "categories": [{"id": 1, "name": "lesion"}],
    }


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
