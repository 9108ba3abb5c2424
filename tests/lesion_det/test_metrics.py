"""The record of metrics, and the command that prints it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from lesion_det.detector import Detector
from lesion_det.evaluate_det import evaluate_checkpoint, main
from lesion_det.ground_truth import read_ground_truth
from lesion_det.inference import detector_state
from lesion_det.metrics import DetectionMetrics, measure
from lesion_det.metrics_table import metrics_table
from lesion_det.predictions import PredictionsRefused, read_predictions, write_predictions
from tests.lesion_det.plain_metrics import (
    any_splits,
    approx,
    plain_froc,
    plain_recall,
    plain_sensitivity,
)
from tests.lesion_det.toy_comparison import toy_config, write_toy_data
from tests.lesion_det.toy_split import (
    toy_coco,
    toy_ground_truth,
    toy_predictions,
    write_text,
)
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk

LESION = (10.0, 20.0, 40.0, 60.0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_text(tmp_path / "val.json", json.dumps(toy_coco(3)))


@pytest.fixture
def predictions(tmp_path: Path, coco: Path) -> Path:
    """Two of three lesions found; a score that is no probability."""
    found = [[(2.5, LESION)], [(0.9, LESION)], [(0.8, (100.0, 100, 120, 120))]]
    path = tmp_path / "predictions.json"
    write_predictions(path, toy_predictions(found, read_ground_truth(coco).sha256))
    return path


def test_record_survives_json_with_every_number() -> None:
    metrics = measure(
        toy_ground_truth([[LESION], []]), toy_predictions([[(0.9, LESION)], []]), rng()
    )
    again = DetectionMetrics.model_validate_json(metrics.model_dump_json())
    assert again == metrics
    assert again.froc_sensitivity[0.5] == 1.0
    assert again.topk_recall[20] == 1.0


def test_E01_undefined_is_null_and_never_minus_one() -> None:
    """What is undefined is null in the JSON and a dash in the table, never -1."""
    metrics = measure(toy_ground_truth([[], []]), toy_predictions([[], []]), rng())
    assert set(metrics.scalars().values()) == {None}
    assert "NaN" not in metrics.model_dump_json()
    assert "undefined" in metrics_table(metrics)


def test_E05_missing_images_are_listed_or_refused() -> None:
    """Counted as images in which nothing was found, and listed; --strict refuses."""
    truth, answer = toy_ground_truth([[LESION], [LESION]]), toy_predictions([[(0.9, LESION)]])
    metrics = measure(truth, answer, rng())
    assert (metrics.missing_images, metrics.top5_recall) == ((2,), 0.5)
    with pytest.raises(PredictionsRefused, match="no predictions for 1 of 2 images: 2"):
        measure(truth, answer, rng(), strict=True)


def test_E06_one_patient_has_no_interval_and_says_so() -> None:
    """The interval is null, and its note says why."""
    truth = toy_ground_truth([[LESION], [LESION]], patients=[7, 7])
    metrics = measure(truth, toy_predictions([[(0.9, LESION)], []]), rng())
    assert metrics.top5_recall == 0.5
    assert metrics.top5_recall_interval.low is None
    assert "one patient" in metrics_table(metrics)


@settings(max_examples=10)
@given(any_splits)
def test_every_number_of_the_record_is_that_of_a_plain_loop(split) -> None:
    lesions, detections = split
    metrics = measure(toy_ground_truth(lesions), toy_predictions(detections), rng())
    micro, per_slice = plain_recall(lesions, detections, 5)
    assert metrics.top5_recall == approx(micro)
    assert metrics.top5_recall_per_slice == approx(per_slice)
    assert metrics.top5_recall_at_least == approx(
        plain_recall(lesions, detections, 5, strict=False)[0]
    )
    assert metrics.top5_recall_plus_one == approx(
        plain_recall(lesions, detections, 5, plus_one=True)[0]
    )
    assert metrics.topk_recall == {
        k: approx(plain_recall(lesions, detections, k)[0]) for k in range(1, 21)
    }
    assert metrics.num_detections == sum(map(len, detections))
    for strict, sensitivity in (
        (True, metrics.froc_sensitivity),
        (False, metrics.froc_at_least),
    ):
        assert list(sensitivity) == [0.5, 1, 2, 4, 8, 16]
        if any(lesions):
            points = plain_froc(lesions, detections, strict)
            assert sensitivity == {rate: plain_sensitivity(points, rate) for rate in sensitivity}
        else:
            assert set(sensitivity.values()) == {None}


def test_counts_hash_and_groups_are_those_of_the_input() -> None:
    elsewhere = (200.0, 200.0, 230.0, 240.0)
    lesions = [[LESION, elsewhere], [LESION], []]
    found = [[(0.9, LESION), (0.4, LESION)], [(1.5, elsewhere)]]
    metrics = measure(toy_ground_truth(lesions, [4, 4, 9]), toy_predictions(found), rng())
    assert (metrics.num_images, metrics.num_patients, metrics.num_lesions) == (3, 2, 3)
    assert (metrics.num_detections, metrics.max_detections_per_image) == (3, 2)
    assert metrics.missing_images == (3,)
    assert metrics.scores_leave_0_to_1
    assert metrics.ground_truth_sha256 == "0" * 64
    assert metrics.top5_recall_ceiling == 1.0
    (size,) = metrics.by_size
    assert (size.name, size.num_lesions, size.num_patients) == ("< 10 mm", 3, 1)
    assert size.recall == pytest.approx(1 / 3)
    many = toy_ground_truth([[(20.0 * i, 0, 20.0 * i + 10, 10) for i in range(8)]])
    assert measure(many, toy_predictions([[]]), rng()).top5_recall_ceiling == 5 / 8


TABLE = """\
images      3
lesions     3 of 3 patients
detections  3, at most 1 an image

in per cent:
top-5 recall        66.7
  95 % interval     LOW to HIGH (by patients)
per slice           66.7
IoU >= 0.5          66.7
+1 pixel            66.7
ceiling            100.0
FROC @ 0.5          66.7
FROC @ 1            66.7
FROC @ 2            66.7
FROC @ 4            66.7
FROC @ 8            66.7
FROC @ 16           66.7
FROC mean           66.7
AP                  66.3
AP50                66.3
AP75                66.3
AR (COCO, <= 100)   66.7

recall @ 1-10    66.7   66.7   66.7   66.7   66.7   66.7   66.7   66.7   66.7   66.7
recall @ 11-20   66.7   66.7   66.7   66.7   66.7   66.7   66.7   66.7   66.7   66.7

top-5 recall by type:
  lung   66.7  LOW to HIGH 3 lesions of 3 patients

top-5 recall by long diameter:
  10-30 mm   66.7  LOW to HIGH 3 lesions of 3 patients

top-5 recall by slice interval:
  > 2.5 mm   66.7  LOW to HIGH 3 lesions of 3 patients"""


def test_table_is_in_per_cent_with_groups_and_their_intervals(
    coco: Path, predictions: Path
) -> None:
    metrics = measure(read_ground_truth(coco), read_predictions(predictions), rng())
    drawn = re.compile(r"\d+\.\d to \d+\.\d *")  # every group is resampled on its own
    assert drawn.sub("LOW to HIGH ", metrics_table(metrics)) == TABLE


def test_list_of_coco_results_gives_the_metrics_of_our_file(
    tmp_path: Path, coco: Path, predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = read_predictions(predictions)
    results = write_text(
        tmp_path / "coco_instances_results.json",
        json.dumps(
            [
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
                for image_id in answers.scores
                for (x1, y1, x2, y2), score in zip(
                    answers.boxes_xyxy[image_id].tolist(), answers.scores[image_id], strict=True
                )
            ]
        ),
    )
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for file, out in ((predictions, ours), (results, theirs)):
        assert main(["--predictions", str(file), "--coco", str(coco), "--out", str(out)]) == 0
    assert (ours / "metrics.json").read_bytes() == (theirs / "metrics.json").read_bytes()
    error = capsys.readouterr().err
    assert error.count("carries no hash of the JSON that it answers") == 1


@pytest.mark.parametrize(
    ("listed", "notes"),
    [
        ([[480, 490, 32, 22], [480, 490, 33, 23], [-1, 0, 5, 5]], []),
        (
            [[300, 20, 340, 60], [10, 300, 30, 340], [0, 0, 5, 5], [-1.5, 0, 5, 5]],
            [
                "3 of 4 boxes leave their image by more than a pixel; a list of COCO results holds "
                "x, y, width, height: are these corners, or pixels of another size?"
            ],
        ),
        (
            [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]],
            ["3 of 5 detections are given twice: same image, box and score; each counts"],
        ),
    ],
)
def test_N95_boxes_of_another_form_and_repeated_detections_are_counted_in_a_note(
    tmp_path: Path,
    coco: Path,
    listed: list[list[float]],
    notes: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """evaluate_det.py measures them, and says how many boxes leave their image by more than a pixel
    (corners in place of width and height do) and how many detections stand there again."""
    results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5} for box in listed]
    elsewhere = {"image_id": 2, "category_id": 1, "bbox": listed[0], "score": 0.5}
    other_score = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.25}
    if not notes:
        results += [elsewhere, other_score, other_score | {"score": 0.125}]
    file = write_text(tmp_path / "results.json", json.dumps(results))
    out = str(tmp_path / "out")
    assert main(["--predictions", str(file), "--coco", str(coco), "--out", out]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if " boxes leave " in line or " given twice" in line] == notes


def test_E05_list_that_names_no_image_counts_as_empty_or_is_refused(
    tmp_path: Path, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for a COCO list of results, which cannot say that nothing was found."""
    results = write_text(tmp_path / "results.json", "[]")
    flags = ["--predictions", str(results), "--coco", str(coco), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as exit_:
        main([*flags, "--strict"])
    assert exit_.value.code == 2
    assert "no predictions for 3 of 3 images" in capsys.readouterr().err
    assert main(flags) == 0
    assert "3 images have no predictions and count as empty: 1, 2, 3" in capsys.readouterr().err


def test_command_writes_the_metrics_it_prints(
    tmp_path: Path, coco: Path, predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--predictions", str(predictions), "--coco", str(coco), "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    metrics = DetectionMetrics.model_validate_json((out / "metrics.json").read_bytes())
    assert metrics.top5_recall == pytest.approx(2 / 3)
    assert "top-5 recall        66.7\n" in printed.out
    assert "scores lie outside 0..1" in printed.err

    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "holds metrics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--predictions", "{p}", "--coco", "{other}"], "another file"),
        (["--predictions", "{absent}", "--coco", "{coco}"], "no such file"),
        (["--coco", "{coco}"], "either --checkpoint or --predictions"),
        (["--predictions", "{p}", "--coco", "{coco}", "--images", "."], "goes with --checkpoint"),
        (["--checkpoint", "{p}", "--coco", "{coco}"], "--images goes with --checkpoint"),
    ],
)
def test_E04_refused_input_is_one_line_and_exit_2(
    tmp_path: Path,
    coco: Path,
    predictions: Path,
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """evaluate_det.py: exit code 2 and one line."""
    other = write_text(tmp_path / "train.json", json.dumps(toy_coco(4)))
    places = {"p": predictions, "coco": coco, "other": other, "absent": tmp_path / "absent.json"}
    flags = [argument.format_map(places) for argument in arguments]
    with pytest.raises(SystemExit) as exit_:
        main([*flags, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert complaint in error
    assert error.count("\n") == 1


def test_checkpoint_and_its_predictions_give_the_same_metrics(tmp_path: Path) -> None:
    coco, images = write_toy_data(tmp_path, num_train=1, num_val=2)
    config = toy_config(coco, images)
    detector = Detector(Trunk("vgg16", config.width), InputSpec(), config.detector, 0)
    provenance = Provenance(init="random")
    checkpoint = tmp_path / "last.safetensors"
    write_checkpoint(checkpoint, detector_state(detector, config, provenance), "detector")
    first, second = tmp_path / "a", tmp_path / "b"
    from_checkpoint = evaluate_checkpoint(
        checkpoint, coco / "val.json", images, first, device="cpu"
    )
    answers = ["--predictions", str(first / "predictions.json"), "--strict"]
    assert main([*answers, "--coco", str(coco / "val.json"), "--out", str(second)]) == 0
    assert (first / "metrics.json").read_bytes() == (second / "metrics.json").read_bytes()
    assert from_checkpoint.num_images == 2
