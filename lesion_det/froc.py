"""Free-response ROC: sensitivity against false positives per image.

At a threshold t the detections with score >= t count. A lesion is found when one of them hits it;
a detection that hits no lesion is a false positive; a further hit of a lesion already found is
neither. Every image counts in the denominator, with or without lesions. All detections that the
predictions hold are used: the detector's own limit per image is the only one.

Shapes:
    T: distinct scores, falling, after +inf; L: lesions; K: detections of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lesion_det.ground_truth import GroundTruth
from lesion_det.overlap import PAPER_RULE, HitRule, hit_matrix
from lesion_det.predictions import Predictions

FP_PER_IMAGE = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Operating points reported on DeepLesion."""


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """Sensitivity and false positives per image as the threshold falls; both never fall.

    Attributes:
        threshold: [T] +inf, then every distinct score.
        fp_per_image: [T].
        sensitivity: [T]; empty arrays where there are no lesions.
    """

    threshold: Float64[np.ndarray, " T"]
    fp_per_image: Float64[np.ndarray, " T"]
    sensitivity: Float64[np.ndarray, " T"]

    def sensitivity_at(self, fp_per_image: float) -> float | None:
        """Return the best sensitivity that costs at most ``fp_per_image``; None if undefined.

        No interpolation: a point on the curve is a threshold that can be used. A detector that
        never makes that many false positives gets its final sensitivity.
        """
        if len(self.sensitivity) == 0:
            return None
        last = int(np.searchsorted(self.fp_per_image, fp_per_image, side="right")) - 1
        return float(self.sensitivity[last])

    def mean_sensitivity(self, rates: Sequence[float] = FP_PER_IMAGE[:4]) -> float | None:
        """Return the mean sensitivity at ``rates``: 0.5, 1, 2 and 4 by default."""
        values = [self.sensitivity_at(rate) for rate in rates]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined else None


def froc(
    ground_truth: GroundTruth, predictions: Predictions, rule: HitRule = PAPER_RULE
) -> FrocCurve:
    """Return the FROC curve.

    Args:
        ground_truth: the lesions; about half of those in DeepLesion are not annotated, so its
            false positives are an upper bound.
        predictions: an entry for every image.
        rule: what a hit is.
    """
    if ground_truth.num_lesions == 0:
        return FrocCurve(np.empty(0), np.empty(0), np.empty(0))
    lesion_scores: list[Float64[np.ndarray, " n"]] = []
    false_scores: list[Float64[np.ndarray, " k"]] = []
    for image in ground_truth.images:
        scores = predictions.scores[image.id]
        hit = hit_matrix(predictions.boxes_xyxy[image.id], image.boxes_xyxy, rule)
        false_scores.append(scores[~hit.any(axis=1)])
        hit_scores = np.where(hit, scores[:, None], -np.inf)
        lesion_scores.append(hit_scores.max(axis=0, initial=-np.inf))
    of_lesions = np.sort(np.concatenate(lesion_scores))
    of_false = np.sort(np.concatenate(false_scores))
    scores = np.concatenate([predictions.scores[image.id] for image in ground_truth.images])
    threshold = np.concatenate([[np.inf], np.unique(scores)[::-1]])

    def at_least(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " T"]:
        return (len(values) - np.searchsorted(values, threshold)).astype(np.float64)

    return FrocCurve(
        threshold,
        at_least(of_false) / len(ground_truth.images),
        at_least(of_lesions) / ground_truth.num_lesions,
    )
