"""Top-k recall and FROC against plain loops, their laws, and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_det.froc import FP_PER_IMAGE, froc
from lesion_det.overlap import HitRule, box_iou, hit_matrix
from lesion_det.topk_recall import lesion_ranks, recall_ceiling, recall_curve, topk_recall
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions

GRID = st.integers(0, 8)  # small integers: IoU of exactly one half, ties and repeated hits abound


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(GRID), draw(GRID)
    return (x1, y1, x1 + draw(st.integers(1, 5)), y1 + draw(st.integers(1, 5)))


@st.composite
def splits(draw: st.DrawFn):
    """Lesions and detections of one to four images."""
    num_images = draw(st.integers(1, 4))
    score = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
    lesions = [draw(st.lists(boxes(), max_size=4)) for _ in range(num_images)]
    detections = [draw(st.lists(st.tuples(score, boxes()), max_size=8)) for _ in range(num_images)]
    return lesions, detections


def plain_iou(a, b, extra):
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(width, 0) * max(height, 0)

    def area(box):
        return (box[2] - box[0] + extra) * (box[3] - box[1] + extra)

    return shared / (area(a) + area(b) - shared)


def plain_hits(a, b, strict, plus_one):
    iou = plain_iou(a, b, 1 if plus_one else 0)
    return iou > 0.5 if strict else iou >= 0.5


@given(splits(), st.integers(1, 6), st.booleans(), st.booleans())
def test_recall_equals_the_plain_loop(split, k, strict, plus_one) -> None:
    lesions, detections = split
    found, per_slice = 0, []
    for truths, answers in zip(lesions, detections, strict=True):
        best = sorted(answers, key=lambda d: (-d[0], *d[1]))[:k]
        of_slice = sum(any(plain_hits(d[1], t, strict, plus_one) for d in best) for t in truths)
        found += of_slice
        if truths:
            per_slice.append(of_slice / len(truths))
    truth, answer = toy_ground_truth(lesions), toy_predictions(detections)
    micro = topk_recall(truth, answer, k, strict=strict, plus_one=plus_one)
    mean = topk_recall(truth, answer, k, rule="per_slice", strict=strict, plus_one=plus_one)
    if per_slice:
        assert micro == pytest.approx(found / sum(map(len, lesions)))
        assert mean == pytest.approx(sum(per_slice) / len(per_slice))
    else:
        assert micro is None
        assert mean is None


@given(splits(), st.booleans())
def test_froc_equals_the_plain_loop(split, strict) -> None:
    lesions, detections = split
    curve = froc(toy_ground_truth(lesions), toy_predictions(detections), HitRule(strict=strict))
    num_lesions = sum(map(len, lesions))
    if num_lesions == 0:
        assert curve.sensitivity_at(1.0) is None
        assert curve.mean_sensitivity() is None
        return
    points = []
    for threshold in [math.inf, *sorted({d[0] for answers in detections for d in answers})[::-1]]:
        found = false = 0
        for truths, answers in zip(lesions, detections, strict=True):
            kept = [box for score, box in answers if score >= threshold]
            found += sum(any(plain_hits(b, t, strict, False) for b in kept) for t in truths)
            false += sum(not any(plain_hits(b, t, strict, False) for t in truths) for b in kept)
        points.append((false / len(lesions), found / num_lesions))
    np.testing.assert_allclose(np.stack([curve.fp_per_image, curve.sensitivity], 1), points)
    for rate in FP_PER_IMAGE:
        assert curve.sensitivity_at(rate) == max(s for fp, s in points if fp <= rate)


@given(splits(), st.randoms())
def test_E02_permuted_detections_change_nothing(split, random) -> None:
    lesions, detections = split
    shuffled = [random.sample(answers, len(answers)) for answers in detections]
    truth = toy_ground_truth(lesions)
    a, b = toy_predictions(detections), toy_predictions(shuffled)
    np.testing.assert_array_equal(lesion_ranks(truth, a).rank, lesion_ranks(truth, b).rank)
    np.testing.assert_array_equal(froc(truth, a).sensitivity, froc(truth, b).sensitivity)


@given(splits())
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
    assert recalls[-1] == pytest.approx(curve.sensitivity[-1])


@given(st.lists(boxes(), max_size=5), st.lists(boxes(), max_size=5))
def test_iou_is_symmetric_within_0_and_1_and_1_with_itself(a, b) -> None:
    first, second = (np.array(x, np.float64).reshape(-1, 4) for x in (a, b))
    iou = box_iou(first, second)
    np.testing.assert_allclose(iou, box_iou(second, first).T)
    assert np.all((iou >= 0) & (iou <= 1))
    np.testing.assert_allclose(np.diag(box_iou(first, first)), 1.0)


def test_E10_iou_of_exactly_one_half_is_no_hit_for_the_paper() -> None:
    lesion, half = np.array([[0.0, 0, 20, 10]]), np.array([[0.0, 0, 10, 10]])
    assert box_iou(half, lesion).item() == 0.5
    assert not hit_matrix(half, lesion).item()
    assert hit_matrix(half, lesion, HitRule(strict=False)).item()


def test_E11_plus_one_pixel_by_hand() -> None:
    lesion, detection = np.array([[0.0, 0, 9, 9]]), np.array([[5.0, 0, 14, 9]])
    # Continuous: 4 x 9 shared of 81 + 81; in whole pixels 5 x 10 of 100 + 100.
    assert box_iou(detection, lesion).item() == pytest.approx(36 / (81 + 81 - 36))
    assert box_iou(detection, lesion, plus_one=True).item() == pytest.approx(50 / 150)


def test_empty_boxes_overlap_nothing() -> None:
    point = np.array([[3.0, 3, 3, 3]])
    assert box_iou(point, point).item() == 0.0


def test_second_hit_of_a_lesion_is_neither_found_nor_false() -> None:
    lesion = (0, 0, 10, 10)
    curve = froc(
        toy_ground_truth([[lesion], []]),
        toy_predictions([[(0.9, lesion), (0.8, (0, 0, 10, 9))], [(0.7, (50, 50, 60, 60))]]),
    )
    assert curve.sensitivity.tolist() == [0, 1, 1, 1]
    assert curve.fp_per_image.tolist() == [0, 0, 0, 0.5]  # both images count


def test_E03_sixth_detection_does_not_count_for_top_5() -> None:
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
    nothing = toy_predictions([[], []])
    with_lesions = toy_ground_truth([[(0, 0, 1, 1)], []])
    assert topk_recall(with_lesions, nothing) == 0.0
    assert froc(with_lesions, nothing).mean_sensitivity() == 0.0
    without = toy_ground_truth([[], []])
    assert topk_recall(without, nothing) is None
    assert froc(without, nothing).sensitivity_at(16.0) is None


@settings(max_examples=20)
@given(splits())
def test_one_best_detection_a_lesion_gives_full_recall(split) -> None:
    lesions, _ = split
    truth = toy_ground_truth(lesions)
    answer = toy_predictions([[(1.0, box) for box in of_image] for of_image in lesions])
    if truth.num_lesions:
        assert topk_recall(truth, answer, k=4) == 1.0
        assert froc(truth, answer).sensitivity_at(0.0) == 1.0
