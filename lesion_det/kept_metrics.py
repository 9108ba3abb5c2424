"""The metrics of a finished cell, kept beside its answers from one report to the next."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lesion_det.ground_truth import GroundTruth
from lesion_det.metrics import DetectionMetrics, measure
from lesion_det.predictions import Predictions
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import Config
from ubr_pretrain.whole_file import write_atomically

METRICS_FILE = "comparison_metrics.json"


class _Measured(Config):
    """The metrics of a cell, sealed with the answers that they are of."""

    metrics: DetectionMetrics
    sha256: str


def measure_once(
    folder: Path, ground_truth: GroundTruth, predictions: Predictions, rng: np.random.Generator
) -> DetectionMetrics:
    """Measure a cell once; on the full validation set that takes seconds, of fifty cells minutes.

    What was measured is believed where it is sealed: edited, or of other answers, it is measured
    again.

    Args:
        folder: of the cell.
        ground_truth: of the validation images.
        predictions: what ``predictions_val.json`` there holds.
        rng: draws the resamples of the intervals.

    Raises:
        PredictionsRefused: the predictions answer another ground truth.
    """
    file, answers = folder / METRICS_FILE, file_sha256(folder / "predictions_val.json")
    if file.is_file():
        try:
            before = _Measured.model_validate_json(file.read_bytes())
        except ValidationError:  # damaged, or of another version
            pass
        else:
            metrics = before.metrics
            known = metrics.ground_truth_sha256 == ground_truth.sha256
            if known and before.sha256 == _seal(metrics, answers):
                return metrics
    metrics = measure(ground_truth, predictions, rng)
    with write_atomically(file, "w") as out:
        sealed = _Measured(metrics=metrics, sha256=_seal(metrics, answers))
        out.write(sealed.model_dump_json(indent=2) + "\n")
    return metrics


def _seal(metrics: DetectionMetrics, answers_sha256: str) -> str:
    return hashlib.sha256(f"{answers_sha256} {metrics.model_dump_json()}".encode()).hexdigest()
