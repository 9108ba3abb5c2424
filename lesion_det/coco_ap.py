"""COCO average precision of one class, as pycocotools defines and rounds it.

AP uses at most 100 detections an image and hits at IoU >= threshold, as COCO defines it; that is
not the rule of top-5 recall and FROC. In every image the detections choose in order of their score:
each takes the lesion that it overlaps most among those not yet taken (the later one of equals) and
reaches the threshold with, or is a false positive.

Pairs of a detection and a lesion that no threshold asks for are left out at once, and precision is
computed where it can change: at the true positives. Half a million detections take a third of a
second; libraries spend seconds on one Python dictionary each (``benchmarks/evaluation.py``).

Shapes:
    I: IoU thresholds 0.50, 0.55, ... 0.95; R: recalls 0.00, 0.01, ... 1.00; C: candidates, the
    detections that overlap a lesion by the lowest threshold; P: their pairs with such lesions;
    k, n: detections and lesions of one image; D, L: of all.

Reference:
    Lin et al., ECCV 2014; cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lesion_det.ground_truth import GroundTruth
from lesion_det.predictions import Predictions
from ubr_pretrain.config import Config

MAX_DETECTIONS = 100
"""COCO's limit of detections an image."""

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)

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
    candidate, matched = _matches(ground_truth, predictions)
    scores = np.concatenate(
        [predictions.scores[i.id][:MAX_DETECTIONS] for i in ground_truth.images]
    )
    place = np.empty(len(scores), np.int64)
    place[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    true_positives = [np.sort(place[candidate[found]]) for found in matched.T]
    precision = np.stack(
        [_precision(places, ground_truth.num_lesions) for places in true_positives]
    )
    recall = np.array([len(places) / ground_truth.num_lesions for places in true_positives])
    return CocoAp(
        ap=float(precision.mean()),
        ap50=float(precision[AT_50].mean()),
        ap75=float(precision[AT_75].mean()),
        ar=float(recall.mean()),
    )


def _precision(places: Int64[np.ndarray, " found"], num_lesions: int) -> Float64[np.ndarray, " R"]:
    """Return the best precision at each recall or beyond it, 0 where a recall is not reached.

    Args:
        places: of the true positives among all detections by falling score, from 1.
        num_lesions: to be found.
    """
    found = np.arange(1, len(places) + 1)
    best_beyond = np.maximum.accumulate((found / places)[::-1])[::-1]
    reached_by = np.searchsorted(found / num_lesions, RECALLS)
    return np.append(best_beyond, 0.0)[reached_by]


def _matches(
    ground_truth: GroundTruth, predictions: Predictions
) -> tuple[Int64[np.ndarray, " C"], Bool[np.ndarray, "C I"]]:
    """Return the candidates' places among all detections, and whether each takes a lesion.

    The first candidates of all images choose together, then the second ones, and so on.
    """
    detection, lesion, iou, turn = _pairs(ground_truth, predictions)
    candidate, of_pair = np.unique(detection, return_inverse=True)
    matched = np.empty((len(candidate), len(IOUS)), np.bool_)  # every candidate has its turn
    taken = np.zeros((ground_truth.num_lesions, len(IOUS)), np.bool_)
    order = np.lexsort((lesion, iou, of_pair, turn))  # the last key first
    turns = np.flatnonzero(np.diff(turn[order])) + 1
    for pairs in np.split(order, turns) if len(order) else ():
        firsts = np.flatnonzero(np.diff(of_pair[pairs], prepend=-1))
        possible = (iou[pairs, None] >= IOUS) & ~taken[lesion[pairs]]
        numbered = np.where(possible, np.arange(len(pairs))[:, None], -1)
        best = np.maximum.reduceat(numbered, firsts)  # a candidate's last pair overlaps most
        chosen, at = np.nonzero(best >= 0)
        taken[lesion[pairs[best[chosen, at]]], at] = True
        matched[of_pair[pairs[firsts]]] = best >= 0
    return candidate, matched


def _pairs(
    ground_truth: GroundTruth, predictions: Predictions
) -> tuple[
    Int64[np.ndarray, " P"],
    Int64[np.ndarray, " P"],
    Float64[np.ndarray, " P"],
    Int64[np.ndarray, " P"],
]:
    """Return of every pair its detection, its lesion, their IoU, and the detection's turn.

    The turn counts the candidates of an image from 1.
    """
    columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
    num_detections = num_lesions = 0
    for image in ground_truth.images:
        boxes_xyxy = predictions.boxes_xyxy[image.id][:MAX_DETECTIONS]
        iou = _coco_iou(boxes_xyxy, image.boxes_xyxy)
        near = iou >= IOUS[0]
        rank, lesion = np.nonzero(near)
        turn = np.cumsum(near.any(axis=1))
        values = (rank + num_detections, lesion + num_lesions, iou[near], turn[rank])
        for column, value in zip(columns, values, strict=True):
            column.append(value)
        num_detections += len(boxes_xyxy)
        num_lesions += image.num_lesions
    detections, lesions, ious, turns = (np.concatenate(column) for column in columns)
    return detections, lesions, ious, turns


def _coco_iou(
    detections_xyxy: Float64[np.ndarray, "k 4"], lesions_xyxy: Float64[np.ndarray, "n 4"]
) -> Float64[np.ndarray, "k n"]:
    """Return the IoU to the last bit as COCO tools have it, whose boxes are x, y, w, h.

    0 where nothing is shared: a lesion far from the corner may be too small for its area.
    """
    (low, size), (low_of, size_of) = (
        (boxes[..., :2], boxes[..., 2:] - boxes[..., :2])
        for boxes in (detections_xyxy[:, None], lesions_xyxy[None])
    )
    sides = np.minimum(low + size, low_of + size_of) - np.maximum(low, low_of)
    shared = np.maximum(sides, 0.0).prod(axis=-1)
    union = size.prod(axis=-1) + size_of.prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
