"""The cells of a comparison: one training each, read back from its run folder in any state."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from pydantic import ValidationError

from lesion_det.curve_hits import text_to_hits
from lesion_det.ground_truth import GroundTruth
from lesion_det.metrics import DetectionMetrics, measure
from lesion_det.predictions import Predictions, read_predictions
from ubr_pretrain.checkpoint import write_atomically
from ubr_pretrain.config import Config
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.runtime import generator

BOOTSTRAP_SEED = 20171
"""A report made twice from the same cells shows the same intervals."""

METRICS_FILE = "comparison_metrics.json"

CellStatus = Literal["finished", "failed", "interrupted", "not started"]


class CellKey(NamedTuple):
    """One training of a comparison.

    Attributes:
        arm: the start: one of ``Arm``, or the name of an external trunk.
        seed: of everything.
        fraction: of the training patients whose labels are learned from.
    """

    arm: str
    seed: int
    fraction: float = 1.0

    @property
    def name(self) -> str:
        """Its folder below ``cells``: ``ubr-seed0``, ``ubr-seed0-labels25`` for a quarter."""
        labels = "" if self.fraction == 1 else f"-labels{100 * self.fraction:.10g}"
        return f"{self.arm}-seed{self.seed}{labels}"

    @property
    def words(self) -> str:
        """The same for a reader."""
        labels = "" if self.fraction == 1 else f", {100 * self.fraction:.10g} % of the labels"
        return f"{self.arm}, seed {self.seed}{labels}"


class Cell(Config):
    """One training of one arm.

    Attributes:
        arm: the start.
        seed: of order, head and sampling.
        fraction: of the training patients that it learned from.
        status: only finished cells enter averages.
        reason: why it failed.
        seconds: wall time of its last session.
        curve: (iteration, top-5 recall) along the training.
        metrics: at the end; None unless finished.
        audit: hashes of what must be equal between arms, as the training recorded them.
        input_spec: how HU became the trunk's input.
        provenance: how the trunk was made.
        machine: versions and hardware.
    """

    arm: str
    seed: int
    fraction: float = 1.0
    status: CellStatus
    reason: str = ""
    seconds: float | None = None
    curve: tuple[tuple[int, float | None], ...] = ()
    metrics: DetectionMetrics | None = None
    audit: Mapping[str, str] = {}
    input_spec: Mapping[str, Any] = {}
    provenance: Mapping[str, Any] = {}
    machine: Mapping[str, Any] = {}

    @property
    def key(self) -> CellKey:
        """Which one it is."""
        return CellKey(self.arm, self.seed, self.fraction)

    @property
    def name(self) -> str:
        """Its folder below ``cells``."""
        return self.key.name


@dataclass(frozen=True, eq=False)
class CellAnswers:
    """A cell with the detections behind its numbers.

    Attributes:
        cell: the numbers.
        predictions: at the end; None unless finished.
        weights: the rows of ``weights.csv``.
        curve_hits: by iteration, which lesions the evaluations along the training found.
    """

    cell: Cell
    predictions: Predictions | None
    weights: tuple[Mapping[str, str], ...] = ()
    curve_hits: Mapping[int, Bool[np.ndarray, " L"]] = field(default_factory=dict)


def is_finished(folder: Path) -> bool:
    """Whether the training in a folder has come to its end."""
    return _read_manifest(folder).get("status") == "finished"


def read_cell(
    folder: Path,
    key: CellKey,
    ground_truth: GroundTruth,
    *,
    expected: Mapping[str, str],
    failure: str = "",
) -> CellAnswers:
    """Read the run folder of one cell, in whatever state it is.

    Args:
        folder: may be absent.
        key: which one it is.
        ground_truth: of the validation images.
        expected: hashes of what it must have started from; another start is a failure.
        failure: why its training ended, "" where it did not fail.

    A finished cell whose answers cannot be read, or are of other lesions, is a failed one: the
    others are compared without it.
    """
    manifest = _read_manifest(folder)
    if manifest.get("status") == "finished" and not failure:
        failure = _other_start(manifest.get("audit", {}), expected)
    records = [r for r in read_metrics(folder / "metrics.jsonl") if r.get("kind") == "val"]
    status = _status(manifest, failure)
    predictions, metrics, curve_hits = None, None, {}
    try:
        curve_hits = {
            record["iteration"]: text_to_hits(record["hits"], ground_truth.num_lesions)
            for record in records
            if "hits" in record
        }
        if status == "finished":
            predictions = read_predictions(folder / "predictions_val.json")
            metrics = _metrics(folder, ground_truth, predictions)
    except ValueError as error:
        if status == "finished":
            failure = " ".join(str(error).split()).replace(f"{folder}/", "")
            status, failure = "failed", f"{failure}; delete its folder to train it again"
        predictions, curve_hits = None, {}
    cell = Cell(
        arm=key.arm,
        seed=key.seed,
        fraction=key.fraction,
        status=status,
        reason=failure,
        seconds=manifest.get("seconds"),
        curve=tuple((record["iteration"], record.get("top5_recall")) for record in records),
        metrics=metrics,
        audit=manifest.get("audit", {}),
        input_spec=manifest.get("input_spec", {}),
        provenance=manifest.get("provenance", {}),
        machine=manifest.get("machine", {}),
    )
    weights: tuple[Mapping[str, str], ...] = ()
    if (folder / "weights.csv").is_file():
        with (folder / "weights.csv").open(encoding="utf-8", newline="") as file:
            weights = tuple(csv.DictReader(file))
    return CellAnswers(cell, predictions, weights, curve_hits)


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _other_start(audit: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Return in what a finished cell started from something else, "" where in nothing."""
    other = [name for name, digest in expected.items() if audit.get(name) != digest]
    if not other:
        return ""
    return f"was trained from another {', '.join(other)} than the arm has now; delete its folder"


def _status(manifest: Mapping[str, Any], failure: str) -> CellStatus:
    if failure:
        return "failed"
    if manifest.get("status") == "finished":
        return "finished"
    return "interrupted" if manifest else "not started"


def _metrics(folder: Path, ground_truth: GroundTruth, predictions: Predictions) -> DetectionMetrics:
    """Measure a cell once; on the full validation set COCO AP takes a minute."""
    file = folder / METRICS_FILE
    if file.is_file():
        try:
            metrics = DetectionMetrics.model_validate_json(file.read_bytes())
        except ValidationError:  # of another version: measured again
            file.unlink()
        else:
            if metrics.ground_truth_sha256 == ground_truth.sha256:
                return metrics
    metrics = measure(ground_truth, predictions, generator(BOOTSTRAP_SEED))
    with write_atomically(file, "w") as out:
        out.write(metrics.model_dump_json(indent=2) + "\n")
    return metrics
