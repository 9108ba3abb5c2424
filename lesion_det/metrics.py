"""Everything that is reported about one set of predictions, in one frozen record."""

from __future__ import annotations

import numpy as np

from lesion_det.coco_ap import CocoAp, coco_ap
from lesion_det.froc import FP_PER_IMAGE, froc
from lesion_det.ground_truth import GroundTruth
from lesion_det.lesion_groups import Groups, groups_by_interval, groups_by_size, groups_by_type
from lesion_det.overlap import HitRule
from lesion_det.predictions import Predictions, PredictionsRefused, complete_predictions
from lesion_det.significance import ArmHits, Interval, pooled_recall
from lesion_det.topk_recall import LesionRanks, lesion_ranks, recall_ceiling, recall_curve
from ubr_pretrain.config import Config

TOP_K = 5


class GroupRecall(Config):
    """Top-5 recall of the lesions of one group.

    Attributes:
        name: of the group: "lung", "10-30 mm".
        num_lesions: in the group.
        num_patients: who have these lesions.
        recall: share of them that was found.
        interval: the same with its 95 % interval, those patients resampled.
    """

    name: str
    num_lesions: int
    num_patients: int
    recall: float
    interval: Interval


class DetectionMetrics(Config):
    """Metrics of one set of predictions, fractions of 1; None where there are no lesions to find.

    Attributes:
        top5_recall: primary: micro, IoU > 0.5.
        top5_recall_interval: the same with its patient-clustered 95 % interval.
        top5_recall_per_slice: mean over slices with lesions instead of over lesions.
        top5_recall_at_least: IoU >= 0.5 instead of >.
        top5_recall_plus_one: boxes one pixel wider and higher, as the authors' code counts.
        top5_recall_ceiling: what five detections a slice can reach (slices with > 5 lesions).
        topk_recall: micro recall for k = 1 .. 20.
        froc_sensitivity: by false positives per image (an upper bound: half of the lesions of
            DeepLesion are not annotated).
        froc_mean: mean sensitivity at 0.5, 1, 2 and 4.
        froc_at_least: ``froc_sensitivity`` with IoU >= 0.5, the rule of published figures.
        coco: average precision.
        by_type: top-5 recall by coarse lesion type; groups without lesions are left out.
        by_size: by long diameter in mm.
        by_interval: by slice interval.
        num_images: images, with and without lesions.
        num_patients: patients.
        num_lesions: annotated lesions.
        num_detections: over all images.
        max_detections_per_image: the most that an image has; FROC uses them all, AP 100.
        missing_images: ids without an entry, counted as images in which nothing was found.
        scores_leave_0_to_1: whether a score is no probability; only their order is used.
        ground_truth_sha256: of the COCO JSON.
    """

    top5_recall: float | None
    top5_recall_interval: Interval
    top5_recall_per_slice: float | None
    top5_recall_at_least: float | None
    top5_recall_plus_one: float | None
    top5_recall_ceiling: float | None
    topk_recall: dict[int, float | None]
    froc_sensitivity: dict[float, float | None]
    froc_mean: float | None
    froc_at_least: dict[float, float | None]
    coco: CocoAp
    by_type: tuple[GroupRecall, ...]
    by_size: tuple[GroupRecall, ...]
    by_interval: tuple[GroupRecall, ...]
    num_images: int
    num_patients: int
    num_lesions: int
    num_detections: int
    max_detections_per_image: int
    missing_images: tuple[int, ...]
    scores_leave_0_to_1: bool
    ground_truth_sha256: str

    def scalars(self) -> dict[str, float | None]:
        """Return every single number under the name that tables print."""
        return {
            "top-5 recall": self.top5_recall,
            "per slice": self.top5_recall_per_slice,
            "IoU >= 0.5": self.top5_recall_at_least,
            "+1 pixel": self.top5_recall_plus_one,
            "ceiling": self.top5_recall_ceiling,
            **{f"FROC @ {rate:g}": value for rate, value in self.froc_sensitivity.items()},
            "FROC mean": self.froc_mean,
            "AP": self.coco.ap,
            "AP50": self.coco.ap50,
            "AP75": self.coco.ap75,
            "AR (COCO, <= 100)": self.coco.ar,
        }


def measure(
    ground_truth: GroundTruth,
    predictions: Predictions,
    rng: np.random.Generator,
    *,
    strict: bool = False,
) -> DetectionMetrics:
    """Return every metric.

    Args:
        ground_truth: the lesions.
        predictions: answers to exactly that JSON.
        rng: draws the resamples of the intervals.
        strict: refuse predictions that lack an image, instead of counting it as empty.

    Raises:
        PredictionsRefused: the predictions answer another ground truth, or lack images and
            ``strict``.
    """
    complete, missing = complete_predictions(ground_truth, predictions)
    if missing and strict:
        raise PredictionsRefused(
            f"no predictions for {len(missing)} of {len(ground_truth.images)} images: "
            f"{', '.join(map(str, missing[:10]))}"
        )
    ranks = lesion_ranks(ground_truth, complete)
    at_least = HitRule(strict=False)
    curve, curve_at_least = froc(ground_truth, complete), froc(ground_truth, complete, at_least)
    arm = ArmHits((0,), ranks.hits(TOP_K)[None], ranks.patient_index)
    return DetectionMetrics(
        top5_recall=ranks.recall(TOP_K),
        top5_recall_interval=pooled_recall(arm, rng),
        top5_recall_per_slice=ranks.recall(TOP_K, "per_slice"),
        top5_recall_at_least=lesion_ranks(ground_truth, complete, at_least).recall(TOP_K),
        top5_recall_plus_one=lesion_ranks(ground_truth, complete, HitRule(plus_one=True)).recall(
            TOP_K
        ),
        top5_recall_ceiling=recall_ceiling(ground_truth, TOP_K),
        topk_recall=recall_curve(ranks),
        froc_sensitivity={rate: curve.sensitivity_at(rate) for rate in FP_PER_IMAGE},
        froc_mean=curve.mean_sensitivity(),
        froc_at_least={rate: curve_at_least.sensitivity_at(rate) for rate in FP_PER_IMAGE},
        coco=coco_ap(ground_truth, complete),
        by_type=_by_group(groups_by_type(ground_truth), ranks, rng),
        by_size=_by_group(groups_by_size(ground_truth), ranks, rng),
        by_interval=_by_group(groups_by_interval(ground_truth), ranks, rng),
        num_images=len(ground_truth.images),
        num_patients=ground_truth.num_patients,
        num_lesions=ground_truth.num_lesions,
        num_detections=complete.num_detections,
        max_detections_per_image=max(len(scores) for scores in complete.scores.values()),
        missing_images=missing,
        scores_leave_0_to_1=complete.scores_leave_0_to_1,
        ground_truth_sha256=ground_truth.sha256,
    )


def _by_group(
    groups: Groups, ranks: LesionRanks, rng: np.random.Generator
) -> tuple[GroupRecall, ...]:
    hits = ranks.hits(TOP_K)
    rows = []
    for name, members in groups.items():
        found, patients = hits[members], ranks.patient_index[members]
        rows.append(
            GroupRecall(
                name=name,
                num_lesions=len(found),
                num_patients=len(np.unique(patients)),
                recall=float(found.mean()),
                interval=pooled_recall(ArmHits((0,), found[None], patients), rng),
            )
        )
    return tuple(rows)
