"""What a training of the detector leaves behind at its end: answers, numbers, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lesion_det.det_config import DetConfig
from lesion_det.detectron2_files import write_detectron2
from lesion_det.engine import LesionDetector
from lesion_det.inference import detector_state, pooled_hits, pooled_recall, write_answers
from lesion_det.pictures import draw_detections
from lesion_det.predictions import Predictions
from lesion_det.prepared_images import PreparedImages
from lesion_det.splits import Splits
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically


def write_results(
    out: Path,
    config: DetConfig,
    splits: Splits,
    prepared: PreparedImages,
    detector: LesionDetector,
    provenance: Provenance,
    answers: Sequence[Predictions],
    test_answers: Sequence[Predictions],
    recalls: tuple[float | None, float | None],
) -> Path:
    """Write answers on every file, ``metrics.json``, and pictures of hits and misses.

    Args:
        out: the run folder.
        config: of the training.
        splits: the files that were judged.
        prepared: their images.
        detector: as it is after the last iteration.
        provenance: of its trunk.
        answers: on the validation files.
        test_answers: on the test files.
        recalls: top-5 recall on the validation files, at the end and the best along the training.

    Returns:
        The first file of answers.
    """
    first = write_answers(out, "val", answers)
    write_answers(out, "test", test_answers)
    recall, best = recalls
    metrics = {
        "arm": config.init,
        "seed": config.seed,
        "iteration": config.iterations,
        "top5_recall": recall,
        "best_top5_recall": best,
        "test_top5_recall": pooled_recall(pooled_hits(splits.tested, test_answers)),
        "num_lesions": sum(truth.num_lesions for truth in splits.judged),
    }
    with write_atomically(out / "metrics.json", "w") as file:
        file.write(to_json(metrics, indent=2) + "\n")
    if config.engine == "detectron2":
        write_detectron2(out / "detectron2", detector_state(detector, config, provenance))
    draw_detections(splits.judged, answers, prepared, out / "pictures" / "detections.png")
    return first
