"""The record of metrics, and the command that prints it."""

import json
from pathlib import Path

import numpy as np
import pytest

from lesion_det.detector import Detector
from lesion_det.evaluate_det import evaluate_checkpoint, main, metrics_table
from lesion_det.ground_truth import read_ground_truth
from lesion_det.inference import detector_state
from lesion_det.metrics import DetectionMetrics, measure
from lesion_det.predictions import PredictionsRefused, read_predictions, write_predictions
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
    metrics = measure(toy_ground_truth([[], []]), toy_predictions([[], []]), rng())
    assert set(metrics.scalars().values()) == {None}
    assert "NaN" not in metrics.model_dump_json()
    assert "undefined" in metrics_table(metrics)


def test_E05_missing_images_are_listed_or_refused() -> None:
    truth, answer = toy_ground_truth([[LESION], [LESION]]), toy_predictions([[(0.9, LESION)]])
    metrics = measure(truth, answer, rng())
    assert (metrics.missing_images, metrics.top5_recall) == ((2,), 0.5)
    with pytest.raises(PredictionsRefused, match="no predictions for 1 of 2 images: 2"):
        measure(truth, answer, rng(), strict=True)


def test_E06_one_patient_has_no_interval_and_says_so() -> None:
    truth = toy_ground_truth([[LESION], [LESION]], patients=[7, 7])
    metrics = measure(truth, toy_predictions([[(0.9, LESION)], []]), rng())
    assert metrics.top5_recall == 0.5
    assert metrics.top5_recall_interval.low is None
    assert "one patient" in metrics_table(metrics)


def test_recall_by_type_adds_up(coco: Path, predictions: Path) -> None:
    metrics = measure(read_ground_truth(coco), read_predictions(predictions), rng())
    (lung,) = metrics.by_type
    assert (lung.name, lung.num_lesions, lung.recall) == ("lung", 3, pytest.approx(2 / 3))


def test_command_writes_the_metrics_it_prints(
    tmp_path: Path, coco: Path, predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--predictions", str(predictions), "--coco", str(coco), "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    metrics = DetectionMetrics.model_validate_json((out / "metrics.json").read_bytes())
    assert metrics.top5_recall == pytest.approx(2 / 3)
    assert "top-5 recall     0.6667" in printed.out
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
