"""What pycocotools and torchvision take without a word, measured, and what is done here instead."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lesion_det.boxes import require_trainable
from lesion_det.coco_ap import coco_ap
from lesion_det.det_config import DetectorConfig, InputConfig
from lesion_det.detector import Detector
from lesion_det.froc import froc
from lesion_det.ground_truth import GroundTruthRefused, read_ground_truth
from lesion_det.metrics import measure
from lesion_det.predictions import PredictionsRefused, read_coco_results
from lesion_det.slices import prepare_image
from tests.lesion_det.test_coco_ap import random_split, to_xywh
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_split import toy_coco, toy_ground_truth, toy_predictions, write_text
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk

NUM_IMAGES = 5
Coco = dict[str, Any]
Results = list[dict[str, Any]]


def found() -> Results:
    """Return the lesion of every image of the toy split, and a worse box."""
    right = [
        {"image_id": i, "category_id": 1, "bbox": [11.0, 21.0, 30.0, 40.0], "score": 0.9 - i / 100}
        for i in range(1, NUM_IMAGES + 1)
    ]
    wrong = [row | {"bbox": [300.0, 300.0, 9.0, 9.0], "score": 0.95} for row in right]
    return right + wrong


def by_pycocotools(coco: Coco, results: Results) -> float:
    """Return AP50 as COCO's own evaluation computes it."""
    truth = COCO()
    truth.dataset = json.loads(json.dumps(coco))
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


def repeat_ids(coco: Coco) -> None:
    for annotation in coco["annotations"]:
        annotation["id"] = 1


def start_at_zero(coco: Coco) -> None:
    for annotation in coco["annotations"]:
        annotation["id"] -= 1


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (start_at_zero, r"annotations\.0\.id: Input should be greater than 0"),
        (repeat_ids, "annotation id 1 occurs more than once"),
    ],
)
def test_M12_E01_annotation_numbers_that_change_the_ap_are_refused(
    tmp_path: Path, spoil: Callable[[Coco], None], complaint: str
) -> None:
    """Refused by name; pycocotools gives a lower AP for the same boxes and says nothing."""
    sound, spoiled = toy_coco(NUM_IMAGES), toy_coco(NUM_IMAGES)
    spoil(spoiled)
    assert by_pycocotools(spoiled, found()) < by_pycocotools(sound, found()) - 0.05
    assert read_ground_truth(write_text(tmp_path / "a.json", json.dumps(sound))).num_lesions == 5
    with pytest.raises(GroundTruthRefused, match=complaint):
        read_ground_truth(write_text(tmp_path / "b.json", json.dumps(spoiled)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bbox": [float("nan"), 300.0, 9.0, 9.0]}, r"result 5, of image 1: bbox"),
        ({"bbox": [300.0, 300.0, -9.0, 9.0]}, r"result 5, of image 1: bbox"),
        ({"score": float("nan")}, r"image 1, detection \d: score nan"),
        ({"score": float("inf")}, r"image 1, detection \d: score inf"),
        ({"category_id": 7}, "result 5 is of category 7, expected 1"),
        ({"image_id": 77}, "result 5 is of image 77"),
        ({"bbox": [1.0, 2.0, 3.0]}, r"5\.bbox"),
    ],
)
def test_M12_E01_detections_that_would_falsify_an_ap_are_refused(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    """NaN, infinity, negative sides, unknown images and categories: refused, image and index
    named; pycocotools counts most of them, and raises its AP for a NaN box."""
    truth = read_ground_truth(write_text(tmp_path / "a.json", json.dumps(toy_coco(NUM_IMAGES))))
    results = found()
    results[NUM_IMAGES] |= change
    if "bbox" in change and len(change["bbox"]) == 4 and np.isnan(change["bbox"][0]):
        assert by_pycocotools(toy_coco(NUM_IMAGES), results) >= by_pycocotools(
            toy_coco(NUM_IMAGES), found()
        )
    path = write_text(tmp_path / "results.json", json.dumps(results))
    with pytest.raises(PredictionsRefused, match=complaint):
        read_coco_results(path, truth)


def test_M12_E01_no_detections_at_all_have_an_ap_of_zero(tmp_path: Path) -> None:
    """An empty list is AP 0 and a sensitivity of 0; pycocotools raises IndexError."""
    truth = read_ground_truth(write_text(tmp_path / "a.json", json.dumps(toy_coco(NUM_IMAGES))))
    with pytest.raises(IndexError):
        by_pycocotools(toy_coco(NUM_IMAGES), [])
    nothing = toy_predictions([[]] * NUM_IMAGES, truth.sha256)
    assert coco_ap(truth, nothing).ap50 == 0.0
    assert froc(truth, nothing).sensitivity_at(0.5) == 0.0


def test_E01_without_lesions_or_images_there_is_no_sensitivity() -> None:
    """FROC, AP and recall of a split without lesions are undefined (null), never inf, NaN or -1."""
    truth = toy_ground_truth([[], []])
    curve = froc(truth, toy_predictions([[(0.9, (0, 0, 5, 5))], []]))
    assert curve.sensitivity_at(1.0) is None
    assert curve.mean_sensitivity() is None
    assert coco_ap(truth, toy_predictions([[], []])).ap is None


def test_E01_an_image_without_lesions_counts_for_false_alarms() -> None:
    """Detections on images without lesions lower FROC and AP: such images are never dropped."""
    lesion = (10.0, 10.0, 40.0, 40.0)
    alone = toy_ground_truth([[lesion]]), toy_predictions([[(0.5, lesion)]])
    with_empty = (
        toy_ground_truth([[lesion], []]),
        toy_predictions([[(0.5, lesion)], [(0.9, lesion), (0.8, (60.0, 60.0, 90.0, 90.0))]]),
    )
    assert froc(*alone).sensitivity_at(0.5) == 1.0
    assert froc(*with_empty).sensitivity_at(0.5) == 0.0
    assert coco_ap(*with_empty).ap50 < coco_ap(*alone).ap50


def test_E03_detections_beyond_the_hundredth_count_for_froc_and_not_for_ap() -> None:
    """AP takes 100 detections an image, as COCO does; FROC takes all, and the metrics state the
    most that an image has."""
    lesion = (10.0, 10.0, 40.0, 40.0)
    others = [(0.9 - i / 1000, (100.0 + i, 300.0, 120.0 + i, 320.0)) for i in range(119)]
    truth, answer = toy_ground_truth([[lesion]]), toy_predictions([[*others, (0.1, lesion)]])
    metrics = measure(truth, answer, np.random.default_rng(0))
    assert metrics.max_detections_per_image == 120
    assert metrics.coco.ap50 == 0.0
    assert metrics.top5_recall == 0.0
    assert froc(truth, answer).sensitivity_at(119.0) == 1.0


def test_M13_E02_orders_of_equal_scores_give_one_ap_and_not_three() -> None:
    """One result for every order of equal scores; pycocotools gives another for each."""
    lesions, detections = random_split(3, 30)
    coco = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(lesions) + 1)],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": to_xywh(box), "area": 100.0,
             "iscrowd": 0}
            for n, (i, box) in enumerate(
                ((i, box) for i, boxes in enumerate(lesions, 1) for box in boxes), start=1)
        ],
    }  # fmt: skip
    theirs, ours = set(), set()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shuffled = [
            [(0.5, found_[k][1]) for k in rng.permutation(len(found_))] for found_ in detections
        ]
        results = [
            {"image_id": i, "category_id": 1, "bbox": to_xywh(box), "score": score}
            for i, boxes in enumerate(shuffled, 1)
            for score, box in boxes
        ]
        rows = [results[k] for k in rng.permutation(len(results))]
        theirs.add(round(by_pycocotools(coco, rows), 6))
        ours.add(coco_ap(toy_ground_truth(lesions), toy_predictions(shuffled)))
    assert len(theirs) == 3
    assert len(ours) == 1


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    spec = InputSpec(scale=1.0, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
    config = DetectorConfig(
        stride=8, fc_dim=16, anchor_sizes_px=(8, 16), train_top_n=(50, 20), test_top_n=(50, 20)
    )
    return Detector(Trunk("vgg16", 0.05, stride=8), spec, config, head_seed=0)


@pytest.mark.parametrize("box", [(8.0, 8.0, float("nan"), 30.0), (8.0, 8.0, 500.0, 30.0)])
def test_M14_a_box_that_poisons_the_losses_is_refused_before_them(
    box: tuple[float, ...], detector: Detector
) -> None:
    """A NaN box, or one that leaves its image, is refused with the slice and the box; torchvision
    takes it: its losses are NaN or too large, and a NaN box may end the process (SIGSEGV)."""
    images, features = detector.train()._features([torch.zeros(3, 64, 64, dtype=torch.int16)])

    def loss(xyxy: tuple[float, ...]) -> float:
        for sampler in detector._samplers:
            sampler.seeds = [0]
        targets = [{"boxes": torch.tensor([xyxy]), "labels": torch.ones(1, dtype=torch.int64)}]
        with torch.no_grad():  # behind it a NaN box ends the process: roi_align reads anywhere
            return float(detector.rpn(images, features, targets)[1]["loss_rpn_box_reg"])

    sound, poisoned = loss((8.0, 8.0, 30.0, 30.0)), loss(box)
    assert np.isnan(poisoned) or poisoned > 1.2 * sound
    with pytest.raises(ValueError, match=r"a/109\.png: box 0 \(8\.00, 8\.00"):
        require_trainable(np.array([box]), 64, 64, "a/109.png")


def test_M14_an_image_of_no_numbers_cannot_reach_the_detector(
    detector: Detector, tmp_path: Path
) -> None:
    """Inputs are whole HU (int16), which know no NaN; torchvision finds nothing in an image of
    NaN, or crashes, but never says why."""
    with contextlib.suppress(RuntimeError, AssertionError):
        boxes, _ = detector.eval().detect(torch.full((3, 64, 64), float("nan")))
        assert len(boxes) == 0
    toy = write_toy_deeplesion(tmp_path, {"val": 1})
    (record,) = toy.records("val")
    assert prepare_image(toy.images, record, InputConfig(max_px=64)).hu.dtype == np.int16
