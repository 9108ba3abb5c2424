"""The cells of a comparison: one training each, read back from its run folder in any state."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, ValidationError

from lesion_det.curve_hits import text_to_hits
from lesion_det.finished_files import require_unchanged
from lesion_det.ground_truth import GroundTruth
from lesion_det.kept_metrics import measure_once
from lesion_det.metrics import TOP_K, DetectionMetrics
from lesion_det.predictions import Predictions, complete_predictions, read_predictions
from lesion_det.topk_recall import lesion_ranks
from ubr_pretrain.config import Config, first_problem
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import generator

BOOTSTRAP_SEED = 20171
"""A report made twice from the same cells shows the same intervals."""

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


class _Run(BaseModel):
    """What a comparison reads of ``run.json``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    status: str = ""
    iteration: int = 0
    seconds: float | None = None
    audit: Mapping[str, str] = {}
    input_spec: Mapping[str, Any] = {}
    provenance: Mapping[str, Any] = {}
    machine: Mapping[str, Any] = {}
    files_sha256: Mapping[str, str] | None = None


class _Evaluation(BaseModel):
    """One along the training, as ``metrics.jsonl`` has it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    iteration: int
    top5_recall: float | None = None
    hits: str | None = None


def is_finished(folder: Path) -> bool:
    """Whether the training in a folder has come to its end; of a damaged one nobody knows."""
    try:
        return _read_run(folder).status == "finished"
    except ValueError:
        return False


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

    A finished cell whose answers cannot be read, are not what they were when it finished, or are of
    other lesions, is a failed one: the others are compared without it.
    """
    try:
        run = _read_run(folder)
    except ValueError as error:
        run, failure = _Run(), _reason(error, folder)
    if run.status == "finished" and not failure:
        failure = _other_start(run.audit, expected)
    status = _status(run, failure)
    predictions, metrics, curve_hits = None, None, {}
    evaluations: tuple[_Evaluation, ...] = ()
    weights: tuple[Mapping[str, str], ...] = ()
    try:
        if status == "finished":
            require_unchanged(folder, run.files_sha256 or {})
        evaluations = _read_evaluations(folder / "metrics.jsonl")
        curve_hits = {
            evaluation.iteration: text_to_hits(evaluation.hits, ground_truth.num_lesions)
            for evaluation in evaluations
            if evaluation.hits is not None
        }
        weights = _read_weights(folder / "weights.csv")
        if status == "finished":
            predictions = read_predictions(folder / "predictions_val.json")
            metrics = measure_once(folder, ground_truth, predictions, generator(BOOTSTRAP_SEED))
            if run.files_sha256 is None:  # finished before hashes were written down
                _require_last_hits(ground_truth, predictions, curve_hits.get(run.iteration))
    except ValueError as error:
        if status == "finished":
            status, failure = "failed", _reason(error, folder)
        predictions, metrics, curve_hits = None, None, {}
    cell = Cell(
        arm=key.arm,
        seed=key.seed,
        fraction=key.fraction,
        status=status,
        reason=failure,
        seconds=run.seconds,
        curve=tuple((e.iteration, e.top5_recall) for e in evaluations),
        metrics=metrics,
        audit=run.audit,
        input_spec=run.input_spec,
        provenance=run.provenance,
        machine=run.machine,
    )
    return CellAnswers(cell, predictions, weights, curve_hits)


def _read_run(folder: Path) -> _Run:
    """Return what ``run.json`` says, nothing where there is none yet.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return _Run.model_validate(RunFolder(folder).read_manifest())
    except ValidationError as error:
        raise ValueError(f"{folder / 'run.json'}: {first_problem(error)}") from error


def _read_evaluations(file: Path) -> tuple[_Evaluation, ...]:
    records = (r for r in read_metrics(file) if isinstance(r, dict) and r.get("kind") == "val")
    try:
        return tuple(_Evaluation.model_validate(record) for record in records)
    except ValidationError as error:
        raise ValueError(f"{file}: {first_problem(error)}") from error


def _read_weights(file: Path) -> tuple[Mapping[str, str], ...]:
    if not file.is_file():
        return ()
    with file.open(encoding="utf-8", newline="") as rows:
        return tuple(csv.DictReader(rows))


def _reason(error: ValueError, folder: Path) -> str:
    """Return why the files of a cell cannot be used; paths are of its folder, as reports are."""
    words = " ".join(str(error).split()).replace(f"{folder}/", "")
    return f"{words}; put it back, or delete its folder to train it again"


def _other_start(audit: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Return in what a finished cell started from something else, "" where in nothing."""
    other = [name for name, digest in expected.items() if audit.get(name) != digest]
    if not other:
        return ""
    return f"was trained from another {', '.join(other)} than the arm has now; delete its folder"


def _status(run: _Run, failure: str) -> CellStatus:
    if failure:
        return "failed"
    if run.status == "finished":
        return "finished"
    return "interrupted" if run.status else "not started"


def _require_last_hits(
    ground_truth: GroundTruth, predictions: Predictions, last: Bool[np.ndarray, " L"] | None
) -> None:
    """Refuse answers that find other lesions than the evaluation at the end of the training did.

    Raises:
        ValueError: so it is, or ``metrics.jsonl`` lacks that evaluation.
    """
    if last is None:
        raise ValueError("metrics.jsonl: lacks the evaluation at the end of the training")
    complete, _ = complete_predictions(ground_truth, predictions)
    if not np.array_equal(lesion_ranks(ground_truth, complete).hits(TOP_K), last):
        raise ValueError(
            "predictions_val.json: finds other lesions than metrics.jsonl says of the end of the "
            "training"
        )
