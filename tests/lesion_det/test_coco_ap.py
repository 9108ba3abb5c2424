"""COCO AP: an independent precision-recall loop, another library, and the cases that break."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lesion_det.coco_ap import CocoAp, coco_ap
from tests.lesion_det.plain_metrics import crowded_splits, plain_iou, splits
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions


def random_split(seed: int, num_images: int = 12):
    rng = np.random.default_rng(seed)

    def box():
        x, y, w, h = rng.uniform(0, 400), rng.uniform(0, 400), *rng.uniform(10, 100, 2)
        return (x, y, x + w, y + h)

    lesions = [[box() for _ in range(rng.integers(0, 4))] for _ in range(num_images)]
    detections = []
    for truths in lesions:
        near = [(rng.uniform(), tuple(np.array(t) + rng.normal(0, 4, 4))) for t in truths]
        detections.append([*near, *((rng.uniform(), box()) for _ in range(3))])
    return lesions, detections


def plain_ap(lesions, detections, threshold: float) -> float:
    """Interpolated AP at 101 recalls, greedy matching in order of the score."""
    ranked = sorted(
        ((score, box, image) for image, found in enumerate(detections) for score, box in found),
        key=lambda d: -d[0],
    )
    free = [list(truths) for truths in lesions]
    true_positive = []
    for _, box, image in ranked:
        candidates = [t for t in free[image] if plain_iou(box, t, 0) >= threshold]
        true_positive.append(bool(candidates))
        if candidates:
            free[image].remove(max(candidates, key=lambda t: plain_iou(box, t, 0)))
    found = np.cumsum(true_positive)
    recall = found / sum(map(len, lesions))
    precision = np.maximum.accumulate((found / np.arange(1, len(found) + 1))[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([precision[i] if i < len(precision) else 0.0 for i in at]))


def to_xywh(box):
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def pycocotools_ap(lesions, detections) -> CocoAp:
    """COCO's own evaluation with its own settings; equal scores come ordered by box."""
    truths = [(image, box) for image, boxes in enumerate(lesions, 1) for box in boxes]
    ranked = [
        {"image_id": image, "category_id": 1, "bbox": to_xywh(box), "score": score}
        for image, found in enumerate(detections, 1)
        for score, box in sorted(found, key=lambda d: (-d[0], *d[1]))
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(1, len(lesions) + 1)],
        "categories": [{"id": 1}],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": 1,
                "bbox": (xywh := to_xywh(box)),
                "area": xywh[2] * xywh[3],
                "iscrowd": 0,
            }
            for number, (image, box) in enumerate(truths, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(ranked), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, *_ = evaluation.stats.tolist()
    return CocoAp(ap=ap, ap50=ap50, ap75=ap75, ar=evaluation.stats[8])


@given(splits() | crowded_splits((0, 5, 99, 100, 101, 130)))
@example(([[(0, 0, 9, 9)], []], [[], [(0.5, (0, 0, 9, 9))]]))
@example(([[(0, 0, 9, 9)]], [[(0.5, (i, 0, 9 + i, 9)) for i in range(101, 0, -1)]]))
@example(([[(0, 0, 9, 9), (0, 0, 9, 9)]], [[(0.5, (0, 0, 9, 9)), (0.5, (0, 0, 9, 9))]]))
def test_every_number_is_that_of_pycocotools(split) -> None:
    lesions, detections = split
    require_pycocotools(lesions, detections)


LESION, SHIFTED = (2, 0, 9, 2), (3, 0, 10, 2)  # an IoU of 0.75, were it not for rounding


@given(crowded_splits((0, 25, 130)), st.sampled_from([0.1, 0.3, 0.7]))
@example(([[LESION]], [[(0.5, SHIFTED)]]), 0.3)
@example(([[LESION]], [[(0.5, SHIFTED)]]), 0.7)
def test_overlaps_that_rounding_decides_are_decided_as_pycocotools_does(split, side) -> None:
    lesions, detections = split

    def moved(box):
        return tuple(side * corner + 0.37 for corner in box)

    require_pycocotools(
        [[moved(box) for box in truths] for truths in lesions],
        [[(score, moved(box)) for score, box in found] for found in detections],
    )


def require_pycocotools(lesions, detections) -> None:
    ours = coco_ap(toy_ground_truth(lesions), toy_predictions(detections))
    if not any(lesions):
        assert ours == CocoAp(ap=None, ap50=None, ap75=None, ar=None)
    elif not any(detections):  # pycocotools raises
        assert ours == CocoAp(ap=0.0, ap50=0.0, ap75=0.0, ar=0.0)
    else:
        theirs = pycocotools_ap(lesions, detections)  # divides by the count + 2e-16
        assert ours.model_dump() == pytest.approx(theirs.model_dump(), rel=0, abs=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_ap_equals_the_plain_loop(seed: int) -> None:
    lesions, detections = random_split(seed)
    result = coco_ap(toy_ground_truth(lesions), toy_predictions(detections))
    per_iou = [plain_ap(lesions, detections, t) for t in np.linspace(0.5, 0.95, 10)]
    assert result.ap50 == pytest.approx(per_iou[0])
    assert result.ap75 == pytest.approx(per_iou[5])
    assert result.ap == pytest.approx(np.mean(per_iou))


def test_E02_equal_scores_give_one_result_for_every_order() -> None:
    """One AP for every order of equal scores."""
    lesions, detections = random_split(9)
    rng = np.random.default_rng(0)
    results = set()
    for _ in range(3):
        flat = [[(0.5, found[i][1]) for i in rng.permutation(len(found))] for found in detections]
        results.add(coco_ap(toy_ground_truth(lesions), toy_predictions(flat)))
    assert len(results) == 1


def test_E01_nothing_found_is_zero_and_no_lesions_is_undefined() -> None:
    """Nothing found is 0; no lesions to find is undefined."""
    lesion = (0, 0, 10, 10)
    assert coco_ap(toy_ground_truth([[lesion]]), toy_predictions([[]])).ap50 == 0.0
    assert coco_ap(toy_ground_truth([[]]), toy_predictions([[(0.9, lesion)]])).ap50 is None


def test_a_lesion_too_small_for_its_place_is_never_found_and_breaks_nothing() -> None:
    speck = (300.0, 300.0, 300.0 + 1e-20, 300.0 + 1e-20)  # is a point, as float64 goes
    lesion = (0.0, 0.0, 10.0, 10.0)
    answers = [(0.9, speck), (0.8, lesion)]
    found = coco_ap(toy_ground_truth([[speck, lesion]]), toy_predictions([answers]))
    assert found.ar == 0.5
    assert coco_ap(toy_ground_truth([[speck]]), toy_predictions([answers])).ap == 0.0


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    lesions, detections = random_split(1)
    coco_ap(toy_ground_truth(lesions), toy_predictions(detections))
    assert capsys.readouterr().out == ""
