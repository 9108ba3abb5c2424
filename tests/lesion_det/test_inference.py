"""Answers of several files, their files, and pictures of them."""

from pathlib import Path

import cv2
import pytest

from lesion_det.det_config import DetConfig, InputConfig
from lesion_det.inference import pooled_hits, pooled_recall, read_detector, write_answers
from lesion_det.pictures import draw_detections
from lesion_det.predictions import read_predictions
from lesion_det.prepared_images import PreparedImages
from lesion_det.splits import read_splits
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions
from ubr_pretrain.checkpoint import write_checkpoint

LESION, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (100.0, 100.0, 120.0, 120.0)


def test_the_recall_of_several_files_is_that_of_their_lesions_together() -> None:
    one = toy_ground_truth([[LESION]])
    two = toy_ground_truth([[LESION, ELSEWHERE], []])
    answers = [toy_predictions([[]]), toy_predictions([[(0.9, LESION)], [(0.9, LESION)]])]
    assert pooled_recall(pooled_hits([one, two], answers)) == pytest.approx(1 / 3)
    assert pooled_recall(pooled_hits([one], answers[:1])) == 0.0


def test_without_lesions_there_is_no_recall() -> None:
    assert pooled_recall(pooled_hits([toy_ground_truth([[]])], [toy_predictions([[]])])) is None
    assert pooled_recall(pooled_hits([], [])) is None


def test_several_files_of_answers_are_numbered(tmp_path: Path) -> None:
    answer = toy_predictions([[(0.9, LESION)]])
    assert write_answers(tmp_path, "val", [answer]).name == "predictions_val.json"
    first = write_answers(tmp_path, "test", [answer, answer])
    assert first.name == "predictions_test_1.json"
    again = read_predictions(tmp_path / "predictions_test_2.json")
    assert again.boxes_xyxy[1].tolist() == [list(LESION)]


def test_a_detector_file_whose_tensors_do_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    write_checkpoint(path, {"iteration": 1}, "backbone")
    with pytest.raises(ValueError, match="is a 'backbone' file, expected 'detector'"):
        read_detector(path)


def test_lesions_found_and_missed_have_their_colours(tmp_path: Path) -> None:
    toy = write_toy_deeplesion(tmp_path, {"train": 1, "val": 2})
    (truth,) = read_splits(DetConfig(coco=toy.coco, images=toy.images)).judged
    found = tuple(truth.images[0].boxes_xyxy[0])
    answer = toy_predictions([[(0.9, found)], [(0.8, (1.0, 1.0, 9.0, 9.0))]], truth.sha256)
    prepared = PreparedImages(toy.images, InputConfig())
    draw_detections([truth], [answer], prepared, tmp_path / "p.png")
    picture = cv2.imread(str(tmp_path / "p.png"))[40:]  # below the heading
    colours = {"found": (83, 211, 57), "missed": (28, 159, 255), "wrong": (109, 77, 255)}
    for name, bgr in colours.items():
        near = (abs(picture.astype(int) - bgr).max(axis=2) < 40).sum()
        assert near > 20, name
