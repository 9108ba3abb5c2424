"""Measure a lesion detector: top-5 recall and its variants, FROC, COCO average precision.

Commands:
    evaluate_det.py --checkpoint best.safetensors --coco val.json --images Images_png/ --out eval
    evaluate_det.py --predictions eval/predictions.json --coco val.json --out eval
    evaluate_det.py --predictions coco_instances_results.json --coco val.json --out eval

It writes into ``--out``: ``metrics.json`` (fractions of 1; the printed table is in per cent) and,
from a checkpoint, ``predictions.json``. Predictions carry the hash of the JSON that they answer;
another JSON is refused. A plain list of COCO results, as Detectron2 and MMDetection write it, has
no hash: that its image ids are of this JSON is all that can be checked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_det.det_config import Engine
from ubr_pretrain.config import CommandParser, give_up, refuse

if TYPE_CHECKING:  # torch and its friends are imported once the flags are right
    from lesion_det.ground_truth import GroundTruth
    from lesion_det.metrics import DetectionMetrics
    from lesion_det.predictions import Predictions

BOOTSTRAP_SEED = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and evaluate; return the exit code."""
    parser = CommandParser(
        prog="evaluate_det.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("--checkpoint", type=Path | None, help="of train_det.py")
    parser.add_argument("--predictions", type=Path | None, help="predictions.json, or COCO results")
    parser.add_argument("--coco", type=Path, required=True, help="COCO file of the split")
    parser.add_argument("--images", type=Path | None, help="Images_png, with --checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--engine",
        type=Engine | None,
        help="what computes a checkpoint; default: what it was trained with",
    )
    parser.add_argument("--strict", action="store_true", help="refuse images without predictions")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace results in --out")
    a = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if (a.checkpoint is None) == (a.predictions is None):
        refuse(parser.prog, "name either --checkpoint or --predictions")
    if (a.checkpoint is None) != (a.images is None):
        refuse(parser.prog, "--images goes with --checkpoint")
    if a.engine is not None and a.checkpoint is None:
        refuse(parser.prog, "--engine goes with --checkpoint")
    if (a.out / "metrics.json").exists() and not a.overwrite:
        refuse(parser.prog, f"--out {a.out}: holds metrics; use --overwrite or another folder")
    try:
        if a.checkpoint is None:
            metrics = evaluate_predictions(a.predictions, a.coco, a.out, strict=a.strict)
        else:
            metrics = evaluate_checkpoint(
                a.checkpoint, a.coco, a.images, a.out, device=a.device, engine=a.engine
            )
    except (ValueError, OSError) as error:
        give_up(parser.prog, error)
    from lesion_det.metrics_table import metrics_table

    print(metrics_table(metrics))
    print(a.out / "metrics.json")
    return 0


def evaluate_predictions(
    predictions: Path, coco: Path, out: Path, *, strict: bool = False
) -> DetectionMetrics:
    """Measure a file of predictions and write ``metrics.json`` into ``out``.

    Args:
        predictions: of ``evaluate_det.py`` or ``train_det.py``, or a list of COCO results.
        coco: the split that they answer.
        out: folder of the results.
        strict: refuse images without predictions, instead of counting them as empty.

    Raises:
        ValueError: a file is refused; the predictions answer another JSON; images are missing and
            ``strict``.
    """
    from lesion_det.ground_truth import read_ground_truth
    from lesion_det.predictions import (
        PredictionsRefused,
        is_coco_results,
        read_coco_results,
        read_predictions,
    )

    ground_truth = read_ground_truth(coco)
    if is_coco_results(predictions):
        answers = read_coco_results(predictions, ground_truth)
        print(
            f"{predictions}: a list of COCO results carries no hash of the JSON that it answers; "
            f"taken as of {coco}",
            file=sys.stderr,
        )
    else:
        answers = read_predictions(predictions)
    try:
        return _measure_and_write(ground_truth, answers, out, strict)
    except PredictionsRefused as error:
        raise PredictionsRefused(f"{predictions} on {coco}: {error}") from error


def evaluate_checkpoint(
    checkpoint: Path,
    coco: Path,
    images: Path,
    out: Path,
    *,
    device: str = "auto",
    engine: Engine | None = None,
) -> DetectionMetrics:
    """Detect on every image, write ``predictions.json`` and ``metrics.json`` into ``out``.

    Args:
        checkpoint: of ``train_det.py``.
        coco: the split.
        images: the folder ``Images_png``.
        out: folder of the results.
        device: "auto", "cpu", "cuda", "cuda:N".
        engine: what computes the detector; None: what it was trained with.

    Raises:
        ValueError: the checkpoint, the JSON or a slice is refused.
    """
    from lesion_det.ground_truth import read_ground_truth
    from lesion_det.inference import predict, read_detector
    from lesion_det.predictions import write_predictions
    from lesion_det.prepared_images import PreparedImages
    from lesion_det.slices import require_files
    from ubr_pretrain.runtime import start_ranks

    ground_truth = read_ground_truth(coco)
    require_files(images, ground_truth.images)
    trained = read_detector(checkpoint, engine)
    prepared = PreparedImages(images, trained.input)
    with start_ranks(device) as ranks:
        detector = trained.detector.to(ranks.device)
        predictions = predict(detector, ground_truth, prepared, ranks)
    write_predictions(out / "predictions.json", predictions)
    return _measure_and_write(ground_truth, predictions, out, strict=True)


def _measure_and_write(
    ground_truth: GroundTruth, predictions: Predictions, out: Path, strict: bool
) -> DetectionMetrics:
    import numpy as np

    from lesion_det.metrics import measure
    from ubr_pretrain.whole_file import write_atomically

    rng = np.random.default_rng([BOOTSTRAP_SEED])
    metrics = measure(ground_truth, predictions, rng, strict=strict)
    with write_atomically(out / "metrics.json", "w") as file:
        file.write(metrics.model_dump_json(indent=2) + "\n")
    if metrics.missing_images:
        missing = ", ".join(map(str, metrics.missing_images[:10]))
        print(
            f"{len(metrics.missing_images)} images have no predictions and count as empty: "
            f"{missing}",
            file=sys.stderr,
        )
    if metrics.num_detections == 0:
        print("no detections at all: every sensitivity is 0", file=sys.stderr)
    if metrics.scores_leave_0_to_1:
        print("scores lie outside 0..1; only their order is used", file=sys.stderr)
    count = metrics.num_detections
    if outside := predictions.num_outside(ground_truth):
        print(
            f"{outside} of {count} boxes leave their image by more than a pixel; a list of COCO "
            "results holds x, y, width, height: are these corners, or pixels of another size?",
            file=sys.stderr,
        )
    if repeated := predictions.num_repeated:
        print(
            f"{repeated} of {count} detections are given twice: same image, box and score; each "
            "counts",
            file=sys.stderr,
        )
    return metrics


if __name__ == "__main__":
    raise SystemExit(main())
