"""Recall of the k best detections of every slice: the metric of the paper's Fig. 3c.

    recall@k = (lesions hit by at least one of the k best detections of their slice) / (lesions)

One detection may hit two lesions; a second hit of a lesion adds nothing. Detections beyond k do
not matter, so the number that a detector may return is this metric's own limit. Equal scores are
ordered by box coordinates (``Predictions``), never by accident.

Shapes:
    L: lesions of all images, by image id, then annotation id.

Reference:
    Yan, Lu, Summers, ISBI 2018, section 3.3: "average recall of the top-5 detections on each slice,
    IoU larger than 0.5". Deviation: "average" is read as micro (over lesions); the mean over slices
    is reported beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lesion_det.ground_truth import GroundTruth
from lesion_det.overlap import PAPER_RULE, HitRule, hit_matrix
from lesion_det.predictions import Predictions

NEVER = np.iinfo(np.int64).max
"""Rank of a lesion that no detection hits."""

Rule = Literal["micro", "per_slice"]


@dataclass(frozen=True, eq=False)
class LesionRanks:
    """For every lesion the rank of the first detection that hits it.

    Attributes:
        rank: [L] from 1; ``NEVER`` where nothing hits.
        image_id: [L] the lesion's image.
        patient_index: [L] the lesion's patient, the unit of resampling.
    """

    rank: Int64[np.ndarray, " L"]
    image_id: Int64[np.ndarray, " L"]
    patient_index: Int64[np.ndarray, " L"]

    def hits(self, k: int) -> Bool[np.ndarray, " L"]:
        """Return which lesions the k best detections hit."""
        return self.rank <= k

    def recall(self, k: int, rule: Rule = "micro") -> float | None:
        """Return recall@k over lesions ("micro"), or its mean over slices with lesions.

        None where there are no lesions: undefined, not 0.
        """
        if len(self.rank) == 0:
            return None
        hits = self.hits(k).astype(np.float64)
        if rule == "micro":
            return float(hits.mean())
        _, slice_of_lesion = np.unique(self.image_id, return_inverse=True)
        found: Float64[np.ndarray, " slices"] = np.bincount(slice_of_lesion, weights=hits)
        return float((found / np.bincount(slice_of_lesion)).mean())


def lesion_ranks(
    ground_truth: GroundTruth, predictions: Predictions, rule: HitRule = PAPER_RULE
) -> LesionRanks:
    """Return the rank of the first hit of every lesion.

    Args:
        ground_truth: the lesions.
        predictions: an entry for every image (``complete_predictions``).
        rule: what a hit is.
    """
    ranks: list[Int64[np.ndarray, " n"]] = []
    for image in ground_truth.images:
        hit = hit_matrix(predictions.boxes_xyxy[image.id], image.boxes_xyxy, rule)
        rank = np.arange(1, len(hit) + 1)[:, None]
        ranks.append(np.where(hit, rank, NEVER).min(axis=0, initial=NEVER))
    counts = [image.num_lesions for image in ground_truth.images]
    patients = [image.patient_index for image in ground_truth.images]
    return LesionRanks(
        rank=np.concatenate(ranks),
        image_id=np.repeat(np.array([i.id for i in ground_truth.images], np.int64), counts),
        patient_index=np.repeat(np.array(patients, np.int64), counts),
    )


def topk_recall(
    ground_truth: GroundTruth,
    predictions: Predictions,
    k: int = 5,
    iou: float = 0.5,
    rule: Rule = "micro",
    *,
    strict: bool = True,
    plus_one: bool = False,
) -> float | None:
    """Return recall@k; the defaults are the primary metric.

    Args:
        ground_truth: the lesions.
        predictions: an entry for every image.
        k: detections counted on a slice.
        iou: threshold of a hit.
        rule: "micro" over lesions, or "per_slice": mean over slices that have lesions.
        strict: IoU > ``iou`` rather than >=.
        plus_one: the released code's boxes, one pixel wider and higher.

    Returns:
        The recall; None where there are no lesions.
    """
    return lesion_ranks(ground_truth, predictions, HitRule(iou, strict, plus_one)).recall(k, rule)


def recall_ceiling(ground_truth: GroundTruth, k: int) -> float | None:
    """Return the recall that k detections a slice can reach where each hits one lesion.

    Below 1 where a slice has more than k lesions; None where there are no lesions.
    """
    if ground_truth.num_lesions == 0:
        return None
    reachable = sum(min(image.num_lesions, k) for image in ground_truth.images)
    return reachable / ground_truth.num_lesions


def recall_curve(ranks: LesionRanks, ks: Sequence[int] = range(1, 21)) -> dict[int, float | None]:
    """Return micro recall for every k."""
    return {k: ranks.recall(k) for k in ks}
