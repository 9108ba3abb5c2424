"""What a command does not need, it does not import: most of a short run is imports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.stats import t

from lesion_det.ground_truth import read_ground_truth
from lesion_det.predictions import write_predictions
from lesion_det.significance import half_width
from tests.lesion_det.toy_split import toy_coco, toy_predictions, write_text

RUN = """
import importlib, sys
module, unneeded, *arguments = sys.argv[1:]
assert importlib.import_module(module).main(arguments) == 0
loaded = set(unneeded.split()) & set(sys.modules)
assert not loaded, loaded
"""


def run_without(unneeded: str, module: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-c", RUN, module, unneeded, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_predictions_are_evaluated_without_torch(tmp_path: Path) -> None:
    coco = write_text(tmp_path / "val.json", json.dumps(toy_coco(3)))
    found = [[(0.5, (10.0, 20.0, 40.0, 60.0))], [], []]
    predictions = toy_predictions(found, read_ground_truth(coco).sha256)
    write_predictions(tmp_path / "predictions.json", predictions)
    run_without(
        "torch pandas matplotlib cv2 scipy.stats sklearn",
        "lesion_det.evaluate_det",
        *("--predictions", tmp_path / "predictions.json", "--coco", coco, "--out", tmp_path),
    )


def test_a_scan_is_scored_without_what_only_pictures_and_training_need(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).normal(0, 100, (12, 32, 32)).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((8.0, 8.0, 5.0))
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    run_without(
        "matplotlib pandas scipy.stats scipy.optimize sklearn tensorboard torchvision jinja2 ray",
        "ubr_pretrain.score_volumes",
        *(tmp_path / "scan.nii.gz", "--out", tmp_path / "scores", "--pictures", "false"),
    )


@pytest.mark.parametrize("num_patients", [2, 30, 4000])
@pytest.mark.parametrize("alpha", [0.05, 0.0002, 0.731, 1.0])
def test_half_width_has_the_quantiles_of_student_to_the_last_bit(alpha, num_patients) -> None:
    of_seeds, of_patients = t.isf(alpha / 2, 2) * 0.03, t.isf(alpha / 2, num_patients - 1) * 0.01
    expected = float(np.hypot(of_seeds, of_patients))
    assert half_width(alpha, 0.03, 3, 0.01, num_patients) == expected
