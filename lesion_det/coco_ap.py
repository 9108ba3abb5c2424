"""COCO average precision, computed by pycocotools from what has been checked already.

AP uses at most 100 detections an image and hits at IoU >= threshold, as COCO defines it; that is
not the rule of top-5 recall and FROC.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lesion_det.ground_truth import LESION_CATEGORY, GroundTruth
from lesion_det.predictions import Predictions
from ubr_pretrain.config import Config

MAX_DETECTIONS = 100
"""COCO's limit of detections an image."""


class CocoAp(Config):
    """Average precision of the one class; None where there are no lesions.

    Attributes:
        ap: mean over IoU 0.50, 0.55, ... 0.95.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ar100: recall averaged over the same IoUs.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ar100: float | None


def coco_ap(ground_truth: GroundTruth, predictions: Predictions) -> CocoAp:
    """Return COCO's average precision.

    pycocotools raises on empty predictions and returns -1 without lesions; here the first is 0 and
    the second None. Equal scores are ordered by image id, then box.
    """
    if ground_truth.num_lesions == 0:
        return CocoAp(ap=None, ap50=None, ap75=None, ar100=None)
    if predictions.num_detections == 0:
        return CocoAp(ap=0.0, ap50=0.0, ap75=0.0, ar100=0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports by printing
        evaluation = COCOeval(_lesions(ground_truth), _detections(ground_truth, predictions))
        evaluation.params.iouType = "bbox"
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, *_, ar100 = evaluation.stats[:9].tolist()
    return CocoAp(ap=ap, ap50=ap50, ap75=ap75, ar100=ar100)


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
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id} for image in ground_truth.images],
        "annotations": annotations,
        "categories": [{"id": LESION_CATEGORY, "name": "lesion"}],
    }
    coco.createIndex()
    return coco
