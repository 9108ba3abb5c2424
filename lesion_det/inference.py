"""A trained detector's answers, in pixels of the PNG.

Shapes:
    k: detections of one image; L: lesions of all validation files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray

from lesion_det.boxes import Boxes
from lesion_det.det_config import PATHS, Arm, DetConfig, Engine, InputConfig
from lesion_det.detector import Detector
from lesion_det.detector_description import read_description
from lesion_det.engine import LesionDetector, build_detector
from lesion_det.ground_truth import GroundTruth
from lesion_det.metrics import TOP_K
from lesion_det.predictions import Predictions, write_predictions
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import PreparedImage
from lesion_det.topk_recall import lesion_ranks
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint
from ubr_pretrain.runtime import Ranks, Stopped, StopRequest
from ubr_pretrain.trunk import Trunk, require_network


def predict(
    detector: LesionDetector,
    ground_truth: GroundTruth,
    prepared: PreparedImages,
    ranks: Ranks,
    *,
    bf16: bool = False,
) -> Predictions:
    """Detect on every image of ``ground_truth``, one at a time, and return all ranks' answers.

    An image's answer does not depend on what it would share a batch with. The ranks share the
    images; the detector is left in the mode that it was in.
    """
    answers = predict_all(detector, [ground_truth], prepared, ranks, StopRequest(), bf16=bf16)
    assert answers is not None, "nobody asked it to stop"
    return answers[0]


def predict_all(
    detector: LesionDetector,
    ground_truths: Sequence[GroundTruth],
    prepared: PreparedImages,
    ranks: Ranks,
    stop: StopRequest,
    *,
    bf16: bool = False,
) -> list[Predictions] | None:
    """Predict on several files; None, on all ranks, where a signal came to one of them.

    Nobody waits for the end of thousands of images, nor, in a single process, of one.
    """
    was_training = detector.training
    detector.eval()
    answers = []
    for ground_truth in ground_truths:
        found: dict[int, tuple[Boxes, NDArray[np.float64]]] = {}
        for record in ground_truth.images[ranks.rank :: ranks.world_size]:
            if stop.signal is not None:
                break
            with suppress(Stopped), nullcontext() if ranks.world_size > 1 else stop.at_once():
                answer = detect_original(detector, prepared[record], ranks.device, bf16=bf16)
                found[record.id] = answer
        signals, of_ranks = zip(*ranks.gather_objects((stop.signal or 0, found)), strict=True)
        if any(signals):
            stop.signal = stop.signal or max(signals)
            return None
        answers.append(_together(ground_truth, of_ranks))
    detector.train(was_training)
    return answers


def _together(
    ground_truth: GroundTruth,
    of_ranks: Sequence[Mapping[int, tuple[Boxes, NDArray[np.float64]]]],
) -> Predictions:
    of_all = {image_id: answer for found in of_ranks for image_id, answer in found.items()}
    return Predictions(
        ground_truth.sha256,
        {image_id: boxes for image_id, (boxes, _) in of_all.items()},
        {image_id: scores for image_id, (_, scores) in of_all.items()},
    )


def pooled_hits(
    ground_truths: Sequence[GroundTruth], answers: Sequence[Predictions]
) -> Bool[np.ndarray, " L"]:
    """Return which lesions of all files together the best five detections hit."""
    hits = [
        lesion_ranks(truth, answer).hits(TOP_K)
        for truth, answer in zip(ground_truths, answers, strict=True)
    ]
    return np.concatenate([np.empty(0, np.bool_), *hits])


def pooled_recall(hits: Bool[np.ndarray, " L"]) -> float | None:
    """Return the primary metric, micro top-5 recall; None where there are no lesions."""
    return float(hits.mean()) if hits.size else None


def detect_original(
    detector: LesionDetector, prepared: PreparedImage, device: torch.device, *, bf16: bool = False
) -> tuple[Boxes, NDArray[np.float64]]:
    """Return the boxes, in pixels of the PNG, and scores of one image."""
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        boxes, scores = detector.detect(torch.from_numpy(prepared.hu).to(device))
    return (
        prepared.frame.to_original(boxes.double().cpu().numpy()),
        scores.double().cpu().numpy(),
    )


def write_answers(out: Path, split: str, answers: Sequence[Predictions]) -> Path:
    """Write ``predictions_<split>.json``, numbered where there are several; return the first."""
    numbers = [""] if len(answers) == 1 else [f"_{i}" for i in range(1, len(answers) + 1)]
    paths = [out / f"predictions_{split}{number}.json" for number in numbers]
    for path, answer in zip(paths, answers, strict=True):
        write_predictions(path, answer)
    return paths[0] if paths else out


@dataclass(frozen=True)
class TrainedDetector:
    """A detector from a checkpoint, in eval mode, with what is needed to use it rightly."""

    detector: LesionDetector
    input: InputConfig
    arm: Arm
    provenance: Provenance


def detector_state(
    detector: LesionDetector, config: DetConfig, provenance: Provenance
) -> dict[str, Any]:
    """Return the part of a training checkpoint from which ``read_detector`` rebuilds it."""
    return {
        "arm": config.init,
        "width": config.width,
        "input": config.input.model_dump(mode="json"),
        "input_spec": detector.input_spec.model_dump(mode="json"),
        "detector_config": config.detector.model_dump(mode="json"),
        "provenance": provenance.model_dump(mode="json"),
        "config": config.model_dump(mode="json", exclude=set(PATHS)),
        "detector": detector.state_dict(),
    }


def read_detector(path: Path, engine: Engine | None = None) -> TrainedDetector:
    """Read the detector of a training checkpoint; every tensor must fit.

    Args:
        path: of ``train_det.py``, or of ``convert_detector.py``.
        engine: what computes it; None: what it was trained with.

    Raises:
        CheckpointRefused: damaged, not a detector checkpoint, or tensors missing or misshapen.
        ValueError: the engine is not installed.
    """
    state = read_checkpoint(path, "detector")
    said, tensors = read_description(state, str(path)), state.get("detector")
    config = said.detector_config
    trained_with = said.config.get("engine", "torchvision")
    if not isinstance(tensors, dict) or trained_with not in get_args(Engine):
        raise CheckpointRefused(
            f"{path}: engine {trained_with!r} and a {type(tensors).__name__} of tensors describe "
            "no detector"
        )

    def trunk() -> Trunk:
        return Trunk("vgg16", said.width, stride=config.stride)

    def network() -> Detector:  # the tensors do not depend on the engine
        return Detector(trunk(), said.input_spec, config, head_seed=None)

    try:
        require_network(network, tensors, str(path))
    except ValueError as error:
        raise CheckpointRefused(str(error)) from error
    detector = build_detector(
        engine or trained_with, trunk(), said.input_spec, config, head_seed=None
    )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointRefused(f"{path}: {name} holds values that are not finite")
    detector.load_state_dict(tensors)
    return TrainedDetector(
        detector.eval().requires_grad_(False), said.input, said.arm, said.provenance
    )
