"""Top-k recall and FROC against plain loops, their laws, and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from lesion_det.coco_ap import coco_ap
from lesion_det.froc import FP_PER_IMAGE, froc
from lesion_det.overlap import HitRule, box_iou, hit_matrix
from lesion_det.topk_recall import lesion_ranks, recall_ceiling, recall_curve, topk_recall
from tests.lesion_det.plain_metrics import (
    any_splits,
    approx,
    boxes,
    plain_froc,
    plain_hits,
    plain_recall,
    plain_sensitivity,
    splits,
)
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions


@given(any_splits, st.booleans(), st.booleans())
def test_recall_equals_the_plain_loop_for_every_k_and_rule(split, strict, plus_one) -> None:
    lesions, detections = split
    truth, answer = toy_ground_truth(lesions), toy_predictions(detections)
    rules = {"strict": strict, "plus_one": plus_one}
    for k in range(1, 21):
        micro, mean = plain_recall(lesions, detections, k, **rules)
        assert topk_recall(truth, answer, k, **rules) == approx(micro)
        assert topk_recall(truth, answer, k, rule="per_slice", **rules) == approx(mean)
    curve = recall_curve(lesion_ranks(truth, answer, HitRule(**rules)))
    assert list(curve) == list(range(1, 21))
    assert curve[20] == approx(micro)


@given(any_splits, st.booleans())
def test_froc_equals_the_plain_loop(split, strict) -> None:
    lesions, detections = split
    curve = froc(toy_ground_truth(lesions), toy_predictions(detections), HitRule(strict=strict))
    if not any(lesions):
        assert curve.sensitivity_at(1.0) is None
        assert curve.mean_sensitivity() is None
        return
    points = plain_froc(lesions, detections, strict)
    np.testing.assert_allclose(np.stack([curve.fp_per_image, curve.sensitivity], 1), points)
    assert FP_PER_IMAGE == (0.5, 1, 2, 4, 8, 16)
    for rate in FP_PER_IMAGE:
        assert curve.sensitivity_at(rate) == plain_sensitivity(points, rate)
    first_four = [plain_sensitivity(points, rate) for rate in (0.5, 1, 2, 4)]
    assert curve.mean_sensitivity() == pytest.approx(sum(first_four) / 4)


@given(any_splits)
def test_froc_of_one_lesion_an_image_is_the_roc_of_scikit_learn(split) -> None:
    lesions, detections = [truths[:1] for truths in split[0]], split[1]
    never = -1.0  # below every score
    positive, negative = [], []
    for truths, answers in zip(lesions, detections, strict=True):
        hits = [bool(truths) and plain_hits(box, truths[0], True, False) for _, box in answers]
        scores = [score for score, _ in answers]
        positive += [max((s for s, hit in zip(scores, hits, strict=True) if hit), default=never)][
            : len(truths)
        ]
        negative += [s for s, hit in zip(scores, hits, strict=True) if not hit]
    assume(positive and negative)
    labels = [1] * len(positive) + [0] * len(negative)
    fpr, tpr, thresholds = roc_curve(labels, positive + negative, drop_intermediate=False)
    curve = froc(toy_ground_truth(lesions), toy_predictions(detections))
    # A threshold at which only repeated hits join is a point of ours alone.
    shared = np.isin(curve.threshold, thresholds)
    theirs = thresholds > never
    np.testing.assert_array_equal(curve.threshold[shared], thresholds[theirs])
    np.testing.assert_allclose(curve.sensitivity[shared], tpr[theirs])
    fp_per_image = fpr[theirs] * len(negative) / len(lesions)
    np.testing.assert_allclose(curve.fp_per_image[shared], fp_per_image)
    assert shared[-1] or curve.sensitivity[-1] == curve.sensitivity[shared][-1]


@given(any_splits, st.randoms())
def test_E02_permuted_detections_change_nothing(split, random) -> None:
    """No metric changes with the order of the detections."""
    lesions, detections = split
    shuffled = [random.sample(answers, len(answers)) for answers in detections]
    truth = toy_ground_truth(lesions)
    a, b = toy_predictions(detections), toy_predictions(shuffled)
    np.testing.assert_array_equal(lesion_ranks(truth, a).rank, lesion_ranks(truth, b).rank)
    np.testing.assert_array_equal(froc(truth, a).sensitivity, froc(truth, b).sensitivity)


@settings(max_examples=30)
@given(any_splits)
def test_N54_E12_metrics_know_the_order_of_scores_and_nothing_else(split) -> None:
    """Scores near zero, huge, or below zero: whatever keeps their order keeps every metric."""
    lesions, detections = split
    truth, answer = toy_ground_truth(lesions), toy_predictions(detections)
    ranks, curve, ap = lesion_ranks(truth, answer).rank, froc(truth, answer), coco_ap(truth, answer)
    for change in (
        lambda score: (score - 0.5) * 1e308,
        lambda score: score * 1e-300,
        lambda score: np.log(score + 1e-9),
    ):
        changed = toy_predictions([[(change(s), box) for s, box in d] for d in detections])
        np.testing.assert_array_equal(lesion_ranks(truth, changed).rank, ranks)
        same = froc(truth, changed)
        np.testing.assert_array_equal(same.sensitivity, curve.sensitivity)
        np.testing.assert_array_equal(same.fp_per_image, curve.fp_per_image)
        assert coco_ap(truth, changed) == ap


@given(any_splits)
def test_laws_of_recall_and_froc(split) -> None:
    lesions, detections = split
    truth, answer = toy_ground_truth(lesions), toy_predictions(detections)
    curve = froc(truth, answer)
    assert np.all(np.diff(curve.fp_per_image) >= 0)
    assert np.all(np.diff(curve.sensitivity) >= 0)
    if truth.num_lesions == 0:
        return
    recalls = list(recall_curve(lesion_ranks(truth, answer)).values())
    assert recalls == sorted(recalls)
    at_least = recall_curve(lesion_ranks(truth, answer, HitRule(strict=False)))
    assert all(a <= b for a, b in zip(recalls, at_least.values(), strict=True))
    # With every detection counted, both metrics speak of the same lesions.
    all_counted = topk_recall(truth, answer, k=max(map(len, detections)))
    assert all_counted == pytest.approx(curve.sensitivity[-1])


@given(st.lists(boxes(), max_size=5), st.lists(boxes(), max_size=5))
def test_iou_is_symmetric_within_0_and_1_and_1_with_itself(a, b) -> None:
    first, second = (np.array(x, np.float64).reshape(-1, 4) for x in (a, b))
    iou = box_iou(first, second)
    np.testing.assert_allclose(iou, box_iou(second, first).T)
    assert np.all((iou >= 0) & (iou <= 1))
    np.testing.assert_allclose(np.diag(box_iou(first, first)), 1.0)


def test_E10_iou_of_exactly_one_half_is_no_hit_for_the_paper() -> None:
    """No hit, as the paper says (larger than 0.5); the variant >= 0.5 is reported beside it."""
    lesion, half = np.array([[0.0, 0, 20, 10]]), np.array([[0.0, 0, 10, 10]])
    assert box_iou(half, lesion).item() == 0.5
    assert not hit_matrix(half, lesion).item()
    assert hit_matrix(half, lesion, HitRule(strict=False)).item()


def test_E11_plus_one_pixel_by_hand() -> None:
    """Widths are x2 - x1; the variant with + 1 is right by hand, and reported beside it."""
    lesion, detection = np.array([[0.0, 0, 9, 9]]), np.array([[5.0, 0, 14, 9]])
    # Continuous: 4 x 9 shared of 81 + 81; in whole pixels 5 x 10 of 100 + 100.
    assert box_iou(detection, lesion).item() == pytest.approx(36 / (81 + 81 - 36))
    assert box_iou(detection, lesion, plus_one=True).item() == pytest.approx(50 / 150)


def test_empty_boxes_overlap_nothing() -> None:
    point = np.array([[3.0, 3, 3, 3]])
    assert box_iou(point, point).item() == 0.0
    assert not hit_matrix(point, point, HitRule(iou=0.0)).any()


def test_negative_zero_is_zero() -> None:
    lesion = (0, 0, 10, 10)
    answer = toy_predictions([[(0.0, lesion), (-0.0, (50, 50, 60, 60))]])
    curve = froc(toy_ground_truth([[lesion]]), answer)
    assert curve.threshold.tolist() == [np.inf, 0.0]
    assert curve.sensitivity_at(1.0) == 1.0


def test_detection_without_area_takes_its_place_and_is_a_false_positive() -> None:
    lesion, line = (0, 0, 10, 10), (0, 0, 10, 0)
    truth, answer = toy_ground_truth([[lesion]]), toy_predictions([[(0.9, line), (0.5, lesion)]])
    assert topk_recall(truth, answer, k=1) == 0.0
    assert topk_recall(truth, answer, k=2) == 1.0
    curve = froc(truth, answer)
    assert curve.fp_per_image.tolist() == [0, 1, 1]
    assert curve.sensitivity_at(0.5) == 0.0


def test_detection_that_hits_two_lesions_finds_both_and_is_never_false() -> None:
    lesions = [(0, 0, 10, 10), (0, 0, 10, 9)]
    truth, answer = toy_ground_truth([lesions]), toy_predictions([[(0.9, (0, 0, 10, 10))]])
    assert topk_recall(truth, answer, k=1) == 1.0
    assert froc(truth, answer).sensitivity_at(0.0) == 1.0


def test_detections_of_one_score_join_the_curve_together() -> None:
    lesion = (0, 0, 10, 10)
    ties = [(0.5, lesion), (0.5, (50, 50, 60, 60)), (0.5, (70, 70, 80, 80))]
    curve = froc(toy_ground_truth([[lesion], []]), toy_predictions([ties, []]))
    assert curve.threshold.tolist() == [np.inf, 0.5]
    assert curve.sensitivity_at(0.5) == 0.0  # the lesion costs one false positive an image
    assert curve.sensitivity_at(1.0) == 1.0


def test_second_hit_of_a_lesion_is_neither_found_nor_false() -> None:
    lesion = (0, 0, 10, 10)
    curve = froc(
        toy_ground_truth([[lesion], []]),
        toy_predictions([[(0.9, lesion), (0.8, (0, 0, 10, 9))], [(0.7, (50, 50, 60, 60))]]),
    )
    assert curve.sensitivity.tolist() == [0, 1, 1, 1]
    assert curve.fp_per_image.tolist() == [0, 0, 0, 0.5]  # both images count


def test_E03_sixth_detection_does_not_count_for_top_5() -> None:
    """Top-5 recall counts five detections an image, whatever COCO's limit."""
    lesion = (0, 0, 10, 10)
    elsewhere = [(0.9, (100.0 + i, 0, 110 + i, 10)) for i in range(5)]
    truth, answer = toy_ground_truth([[lesion]]), toy_predictions([[*elsewhere, (0.5, lesion)]])
    assert topk_recall(truth, answer) == 0.0
    assert topk_recall(truth, answer, k=6) == 1.0


def test_ceiling_falls_where_a_slice_has_more_than_k_lesions() -> None:
    lesions = [[(i * 20, 0, i * 20 + 10, 10) for i in range(7)], [(0, 0, 10, 10)]]
    truth = toy_ground_truth(lesions)
    assert recall_ceiling(truth, 5) == pytest.approx(6 / 8)
    assert recall_ceiling(truth, 7) == 1.0
    assert recall_ceiling(toy_ground_truth([[]]), 5) is None
    perfect = toy_predictions([[(0.9, box) for box in of_image] for of_image in lesions])
    assert topk_recall(truth, perfect) == recall_ceiling(truth, 5)


def test_E01_nothing_found_is_zero_and_no_lesions_is_undefined() -> None:
    """Nothing found is 0; no lesions to find is undefined."""
    nothing = toy_predictions([[], []])
    with_lesions = toy_ground_truth([[(0, 0, 1, 1)], []])
    assert topk_recall(with_lesions, nothing) == 0.0
    assert froc(with_lesions, nothing).mean_sensitivity() == 0.0
    without = toy_ground_truth([[], []])
    assert topk_recall(without, nothing) is None
    assert froc(without, nothing).sensitivity_at(16.0) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 10))
def test_ceiling_is_what_perfect_detections_of_lesions_apart_reach(counts, k) -> None:
    lesions = [[(20 * i, 0, 20 * i + 10, 10) for i in range(count)] for count in counts]
    truth = toy_ground_truth(lesions)
    perfect = toy_predictions([[(0.9, box) for box in of_image] for of_image in lesions])
    assert recall_ceiling(truth, k) == topk_recall(truth, perfect, k)
    reachable = sum(len(of_image[:k]) for of_image in lesions)
    assert recall_ceiling(truth, k) == (reachable / sum(counts) if sum(counts) else None)


@settings(max_examples=20)
@given(splits())
def test_one_best_detection_a_lesion_gives_full_recall(split) -> None:
    lesions, _ = split
    truth = toy_ground_truth(lesions)
    answer = toy_predictions([[(1.0, box) for box in of_image] for of_image in lesions])
    if truth.num_lesions:
        assert topk_recall(truth, answer, k=4) == 1.0
        assert froc(truth, answer).sensitivity_at(0.0) == 1.0
