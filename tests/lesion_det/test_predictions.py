"""Predictions are ranked, finite, and tied to one ground truth."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_det.evaluate_det import main as evaluate_det
from lesion_det.predictions import (
    Predictions,
    PredictionsRefused,
    complete_predictions,
    is_coco_results,
    read_coco_results,
    read_predictions,
    write_predictions,
)
from tests.lesion_det.toy_split import toy_coco, toy_ground_truth, toy_predictions, write_text

finite = st.floats(-1e6, 1e6)


@st.composite
def detection_lists(draw: st.DrawFn) -> list[tuple[float, tuple[float, ...]]]:
    def one() -> tuple[float, tuple[float, ...]]:
        x = sorted([draw(finite), draw(finite)])
        y = sorted([draw(finite), draw(finite)])
        # Few distinct scores, so that ties are common.
        return draw(st.sampled_from([0.1, 0.5, 0.9])), (x[0], y[0], x[1], y[1])

    return [one() for _ in range(draw(st.integers(0, 6)))]


@given(detection_lists(), st.randoms())
def test_E02_order_of_equal_scores_is_forgotten(detections, random) -> None:
    """Detections are ranked by score, then box: their order in the file is forgotten."""
    shuffled = list(detections)
    random.shuffle(shuffled)
    a, b = toy_predictions([detections]), toy_predictions([shuffled])
    np.testing.assert_array_equal(a.boxes_xyxy[1], b.boxes_xyxy[1])
    assert np.all(np.diff(a.scores[1]) <= 0)


@given(st.lists(detection_lists(), min_size=1, max_size=3))
def test_written_predictions_read_back_equal(tmp_path_factory, detections) -> None:
    path = tmp_path_factory.mktemp("p") / "predictions.json"
    before = toy_predictions(detections)
    write_predictions(path, before)
    after = read_predictions(path)
    assert after.ground_truth_sha256 == before.ground_truth_sha256
    for image_id in before.scores:
        np.testing.assert_array_equal(after.boxes_xyxy[image_id], before.boxes_xyxy[image_id])
        np.testing.assert_array_equal(after.scores[image_id], before.scores[image_id])


@pytest.mark.parametrize(
    ("detection", "complaint"),
    [
        ((0.5, (0, 0, np.nan, 1)), "image 2, detection 1: box"),
        ((0.5, (0, 0, np.inf, 1)), "image 2, detection 1: box"),
        ((0.5, (5, 0, 4, 1)), "image 2, detection 1: box"),
        ((0.5, (0, 5, 1, 4)), "image 2, detection 1: box"),
        ((np.nan, (0, 0, 1, 1)), "image 2, detection 1: score nan"),
        ((np.inf, (0, 0, 1, 1)), "image 2, detection 1: score inf"),
    ],
)
def test_E01_number_that_would_falsify_a_metric_is_refused(detection, complaint) -> None:
    """NaN or infinite boxes and scores, and corners out of order: refused, image and index
    named."""
    with pytest.raises(PredictionsRefused, match=complaint):
        toy_predictions([[], [(0.9, (0, 0, 1, 1)), detection]])


def test_mismatched_shapes_are_refused() -> None:
    with pytest.raises(PredictionsRefused, match=r"image 1: boxes \(2, 4\) and scores \(1,\)"):
        Predictions("", {1: np.zeros((2, 4))}, {1: np.zeros(1)})
    with pytest.raises(PredictionsRefused, match="image 2: has boxes or scores, not both"):
        Predictions("", {1: np.zeros((0, 4)), 2: np.zeros((0, 4))}, {1: np.zeros(0)})


def test_E04_predictions_of_another_ground_truth_are_refused() -> None:
    """Predictions carry the hash of their ground truth; another one is refused."""
    with pytest.raises(PredictionsRefused, match="another file"):
        complete_predictions(toy_ground_truth([[]]), toy_predictions([[]], sha256="f" * 64))


def test_E01_detection_on_an_unknown_image_is_refused() -> None:
    """Detections on images that the ground truth lacks are refused, the ids named."""
    with pytest.raises(PredictionsRefused, match=r"toy\.json lacks: 2, 3"):
        complete_predictions(toy_ground_truth([[]]), toy_predictions([[], [], []]))


def test_E05_image_without_an_entry_counts_as_empty_and_is_listed() -> None:
    """An image without an entry counts as empty and is listed."""
    complete, missing = complete_predictions(
        toy_ground_truth([[], [], []]), toy_predictions([[(0.5, (0, 0, 1, 1))]])
    )
    assert missing == (2, 3)
    assert [len(complete.scores[i]) for i in (1, 2, 3)] == [1, 0, 0]


def test_E12_scores_that_are_no_probabilities_are_accepted_and_noticed() -> None:
    """Ranked all the same, and noticed: only their order counts."""
    assert toy_predictions([[(-3.0, (0, 0, 1, 1)), (7.0, (0, 0, 1, 1))]]).scores_leave_0_to_1
    assert not toy_predictions([[(0.0, (0, 0, 1, 1)), (1.0, (0, 0, 1, 1))], []]).scores_leave_0_to_1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "predictions.json"),
        ('{"format": 2, "ground_truth_sha256": "", "images": []}', "format 2, expected 1"),
        (
            '{"format": 1, "ground_truth_sha256": "", "images": ['
            '{"image_id": 4, "boxes_xyxy": [], "scores": []},'
            '{"image_id": 4, "boxes_xyxy": [], "scores": []}]}',
            "image 4 occurs more than once",
        ),
        (
            '{"format": 1, "ground_truth_sha256": "", "images": ['
            '{"image_id": 4, "boxes_xyxy": [[0, 0, NaN, 1]], "scores": [1]}]}',
            "image 4, detection 0",
        ),
    ],
)
def test_damaged_file_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PredictionsRefused, match=complaint) as refusal:
        read_predictions(write_text(tmp_path / "predictions.json", text))
    assert "predictions.json" in str(refusal.value)


def result(**changes: object) -> dict[str, object]:
    return {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3.5, 4], "score": 0.5} | changes


def test_coco_results_are_ranked_corner_boxes_of_the_given_ground_truth(tmp_path: Path) -> None:
    truth = toy_ground_truth([[], [], []])
    listed = [
        result(score=0.2),
        result(image_id=3, segmentation={"size": [512, 512]}),
        result(bbox=[0, 0, 0, 0]),
    ]
    path = write_text(tmp_path / "results.json", "\n " + json.dumps(listed))
    assert is_coco_results(path)
    answers = read_coco_results(path, truth)
    assert answers.ground_truth_sha256 == truth.sha256
    assert answers.scores.keys() == {1, 3}  # of image 2 it says nothing
    assert answers.boxes_xyxy[1].tolist() == [[0, 0, 0, 0], [1, 2, 4.5, 6]]
    assert answers.scores[1].tolist() == [0.5, 0.2]
    assert complete_predictions(truth, answers)[1] == (2,)


def test_our_file_and_a_missing_one_are_no_coco_results(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.json", toy_predictions([[]]))
    assert not is_coco_results(tmp_path / "predictions.json")
    assert not is_coco_results(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ([result(), result(category_id=0)], "result 1 is of category 0, expected 1"),
        ([result(), result(image_id=9)], r"result 1 is of image 9, which toy\.json lacks"),
        (
            [result(), result(bbox=[1, 2, -3, 4])],
            r"result 1, of image 1: bbox \[1\.0, 2\.0, -3\.0, 4",
        ),
        ([result(score=float("nan"))], "image 1, detection 0: score nan"),
        ([result(score="0.5")], r"0\.score: Input should be a valid number"),
        ([result(bbox=[1, 2, 3])], r"0\.bbox\.3: Field required"),
        ([{"image_id": 1}], r"0\.category_id: Field required"),
    ],
)
def test_coco_results_that_would_falsify_a_metric_are_refused(
    tmp_path: Path, listed: list[dict[str, object]], complaint: str
) -> None:
    path = write_text(tmp_path / "results.json", json.dumps(listed))
    with pytest.raises(PredictionsRefused, match=rf"results\.json: .*{complaint}"):
        read_coco_results(path, toy_ground_truth([[]]))


@pytest.mark.parametrize(
    "bbox", [[0, 0, 1e300, 1e300], [1e308, 0, 1e308, 1], [-1e9, 0, 1, 1], [5, 5, 1, 1e999]]
)
def test_N69_boxes_beyond_reason_are_refused_as_the_file_has_them(
    tmp_path: Path, bbox: list[float]
) -> None:
    """A box of numbers whose squares overflow: one line with the entry and the very numbers of the
    file, before anything is computed from them, in either form of detections."""
    listed = json.dumps([result(), result(bbox=bbox)])
    words = re.escape(str([float(value) for value in bbox]))
    with pytest.raises(PredictionsRefused, match=rf"result 1, of image 1: bbox {words} is not x, "):
        read_coco_results(write_text(tmp_path / "r.json", listed), toy_ground_truth([[]]))
    with pytest.raises(PredictionsRefused, match=rf"image 1, detection 0: box {words} is not x1"):
        toy_predictions([[(0.5, bbox)]])


@pytest.mark.parametrize("blanks", [0, 64, 65, 4096, 10_000])
@pytest.mark.parametrize(("text", "is_list"), [("[]", True), ('{"format": 1}', False), ("", False)])
def test_N69_a_list_is_told_by_its_first_sign_however_far_it_is(
    tmp_path: Path, blanks: int, text: str, is_list: bool
) -> None:
    """Blanks before a list of results, however many, do not make it another file."""
    path = write_text(tmp_path / "results.json", " \n" * (blanks // 2) + " " * (blanks % 2) + text)
    assert is_coco_results(path) == is_list


def test_N69_a_key_given_twice_in_predictions_is_refused(tmp_path: Path) -> None:
    """Predictions whose list of images is given twice are refused by the name of the key."""
    text = '{"format": 1, "ground_truth_sha256": "", "images": [], "images": []}'
    with pytest.raises(PredictionsRefused, match=r"p\.json: key 'images' occurs more than once"):
        read_predictions(write_text(tmp_path / "p.json", text))


def test_N69_answers_to_another_file_name_both_files(tmp_path: Path, capsys) -> None:
    """Detections that answer another ground truth: both paths in the one line."""
    truth = write_text(tmp_path / "val.json", json.dumps(toy_coco(1)))
    answers = tmp_path / "predictions.json"
    write_predictions(answers, toy_predictions([[]]))
    with pytest.raises(SystemExit) as ended:
        evaluate_det(
            ["--predictions", str(answers), "--coco", str(truth), "--out", str(tmp_path / "out")]
        )
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"evaluate_det.py: error: {answers} on {truth}: the predictions answer")
    assert said.count("\n") == 1
