"""COCO average precision, computed by faster-coco-eval from what has been checked already.

AP uses at most 100 detections an image and hits at IoU >= threshold, as COCO defines it; that is
not the rule of top-5 recall and FROC.

Shapes:
    I: IoU thresholds 0.50, 0.55, ... 0.95; R: recalls 0.00, 0.01, ... 1.00.
"""

from __future__ import annotations

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float64

from lesion_det.ground_truth import LESION_CATEGORY, GroundTruth
from lesion_det.predictions import Predictions
from ubr_pretrain.config import Config

MAX_DETECTIONS = 100
"""COCO's limit of detections an image."""

EVERY_AREA_PX = (0.0, 1e10)
"""COCO's small, medium and large are not asked for: a lesion's size is said in mm."""

AT_50, AT_75 = 0, 5
"""Places of these IoU thresholds among the ten."""


class CocoAp(Config):
    """Average precision of the one class, a fraction of 1; None where there are no lesions.

    Attributes:
        ap: mean over IoU 0.50, 0.55, ... 0.95.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ar: recall averaged over the same IoUs; COCO's AR of at most 100 detections an image,
            however few of them a detector keeps.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None


def coco_ap(ground_truth: GroundTruth, predictions: Predictions) -> CocoAp:
    """Return COCO's average precision; 0 where nothing was detected.

    COCO writes -1 where there are no lesions, here it is None. Equal scores are ordered by image
    id, then box.
    """
    if ground_truth.num_lesions == 0:
        return CocoAp(ap=None, ap50=None, ap75=None, ar=None)
    evaluation = COCOeval_faster(
        _lesions(ground_truth), _detections(ground_truth, predictions), "bbox"
    )
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [list(EVERY_AREA_PX)]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    # One class, one range of areas, one limit of detections.
    precision: Float64[np.ndarray, "I R"] = evaluation.eval["precision"][:, :, 0, 0, 0]
    recall: Float64[np.ndarray, " I"] = evaluation.eval["recall"][:, 0, 0, 0]
    return CocoAp(
        ap=float(precision.mean()),
        ap50=float(precision[AT_50].mean()),
        ap75=float(precision[AT_75].mean()),
        ar=float(recall.mean()),
    )


def _lesions(ground_truth: GroundTruth) -> COCO:
    annotations = []
    for image in ground_truth.images:
        for annotation_id, box in zip(image.annotation_ids, image.boxes_xyxy, strict=True):
            annotations.append(_annotation(int(annotation_id), image.id, box))
    return _coco(ground_truth, annotations)


def _detections(ground_truth: GroundTruth, predictions: Predictions) -> COCO:
    annotations: list[dict[str, object]] = []
    for image in ground_truth.images:
        boxes, scores = predictions.boxes_xyxy[image.id], predictions.scores[image.id]
        for box, score in zip(boxes, scores, strict=True):
            annotation = _annotation(len(annotations) + 1, image.id, box)
            annotations.append(annotation | {"score": float(score)})
    return _coco(ground_truth, annotations)


def _annotation(number: int, image_id: int, box_xyxy: np.ndarray) -> dict[str, object]:
    x1, y1, x2, y2 = box_xyxy.tolist()
    return {
        "id": number,
        "image_id": image_id,
        "category_id": LESION_CATEGORY,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
    }


def _coco(ground_truth: GroundTruth, annotations: list[dict[str, object]]) -> COCO:
    return COCO(
        {
            "images": [{"id": image.id} for image in ground_truth.images],
            "annotations": annotations,
            "categories": [{"id": LESION_CATEGORY, "name": "lesion"}],
        }
    )
