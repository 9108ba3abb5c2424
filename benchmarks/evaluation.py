"""Judging a detector on as many images as DeepLesion's test split has, 100 detections on each.

    python benchmarks/evaluation.py

COCO AP is compared with pycocotools on equal terms: one range of areas and one limit of detections
on both sides, once from the same two files and once from what each has read of them (its ``COCO``
and list of results; our ``GroundTruth`` and ``Predictions``). The numbers must agree to 1e-12.
"""

import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from table import Row, in_turn, to_markdown

from lesion_det.coco_ap import coco_ap
from lesion_det.evaluate_det import evaluate_predictions
from lesion_det.froc import froc
from lesion_det.ground_truth import read_ground_truth
from lesion_det.predictions import read_coco_results
from lesion_det.topk_recall import lesion_ranks, recall_curve

NUM_IMAGES, NUM_DETECTIONS = 5_000, 100
SIZE = f"{NUM_IMAGES:,} images x {NUM_DETECTIONS} detections"
PASSES = 3
MOST_S = 2.0


def write_split(
    folder: Path, num_images: int = NUM_IMAGES, num_detections: int = NUM_DETECTIONS
) -> tuple[Path, Path]:
    """Write ``test.json`` and results as Detectron2 writes them; up to seven near the lesions."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        return np.concatenate([rng.uniform(0, 430, (count, 2)), rng.uniform(8, 80, (count, 2))], 1)

    images, annotations, results = [], [], []
    for i in range(1, num_images + 1):
        images.append(
            {"id": i, "file_name": f"{i // 3:06d}_{i % 3:02d}_01/005.png"}
            | {"height": 512, "width": 512, "patient_index": i // 3, "study_index": i % 3}
            | {"series_id": 1, "key_slice_index": 5}
            | {"slice_range": [1, 9], "spacing_mm_zyx": [float(rng.choice([1, 5])), 0.8, 0.8]}
        )
        lesions = boxes(int(rng.choice([1, 1, 1, 1, 2, 3])))
        annotations += [
            {"id": len(annotations) + n, "image_id": i, "category_id": 1, "bbox": box.tolist()}
            | {"area": float(box[2] * box[3]), "iscrowd": 0, "lesion_type": int(rng.integers(1, 9))}
            | {"diameters_px": box[2:].tolist()}
            for n, box in enumerate(lesions, start=1)
        ]
        found, near = boxes(num_detections), int(rng.integers(0, min(num_detections, 7) + 1))
        shifts = rng.normal(0, 3, (near, 4))
        found[:near] = np.abs(lesions[rng.integers(len(lesions), size=near)] + shifts)
        scores = np.concatenate([rng.beta(3, 2, near), rng.beta(1, 6, num_detections - near)])
        results += [
            {"image_id": i, "category_id": 1, "bbox": box, "score": score}
            for box, score in zip(found.tolist(), scores.tolist(), strict=True)
        ]
    categories = [{"id": 1, "name": "lesion"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    paths = folder / "test.json", folder / "results.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content), "utf-8")
    return paths


def theirs(truth: Path, results: Path, *, as_it_comes: bool = False) -> tuple[float, float, float]:
    """Return the seconds in which pycocotools reads and evaluates, and its AP."""
    with contextlib.redirect_stdout(io.StringIO()):
        began_s = time.perf_counter()
        coco = COCO(truth)
        listed: list[dict[str, Any]] = json.loads(results.read_bytes())
        read_s = time.perf_counter()
        evaluation = COCOeval(coco, coco.loadRes(listed), "bbox")
        if not as_it_comes:
            evaluation.params.maxDets = [NUM_DETECTIONS]
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        done_s = time.perf_counter()
    return read_s - began_s, done_s - read_s, evaluation.eval["precision"][:, :, 0, 0, -1].mean()


def ours(truth: Path, results: Path) -> tuple[float, float, float]:
    """Return the seconds in which we read and check, and evaluate, and the AP."""
    began_s = time.perf_counter()
    lesions = read_ground_truth(truth)
    detections = read_coco_results(results, lesions)
    read_s = time.perf_counter()
    ap = coco_ap(lesions, detections).ap
    done_s = time.perf_counter()
    assert ap is not None
    return read_s - began_s, done_s - read_s, ap


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        truth, results = write_split(Path(name))
        pairs = [(ours(truth, results), theirs(truth, results)) for _ in range(PASSES)]
        assert all(abs(us[2] - them[2]) < 1e-12 for us, them in pairs), pairs
        read, evaluated, read_by_them, evaluated_by_them = (
            statistics.median(pair[side][part] for pair in pairs)
            for side in (0, 1)
            for part in (0, 1)
        )
        default_s = sum(theirs(truth, results, as_it_comes=True)[:2])
        lesions = read_ground_truth(truth)
        detections = read_coco_results(results, lesions)
        topk_s, froc_s, whole_s = in_turn(
            lambda: recall_curve(lesion_ranks(lesions, detections)),
            lambda: froc(lesions, detections),
            lambda: evaluate_quietly(truth, results, Path(name)),
            repeats=3,
        )
    peer = "pycocotools, the same one range of areas and one limit"
    all_s = read_by_them + evaluated_by_them
    return [
        Row(
            f"COCO AP, {SIZE}, from files",
            read + evaluated,
            all_s,
            "s",
            peer,
            0.25,
            f"both read test.json and results.json: {read:.2f} s here, every entry checked, and "
            f"{read_by_them:.2f} s there; with its own four ranges of areas and three limits, "
            f"which make no difference to AP, pycocotools takes {default_s:.1f} s in all",
        ),
        Row(
            f"COCO AP, {SIZE}, from what was read",
            evaluated,
            evaluated_by_them,
            "s",
            peer,
            0.25,
            f"AP {pairs[0][0][2]:.15f} here, {pairs[0][1][2]:.15f} there",
        ),
        Row(f"top-k recall, k = 1 .. 20, {SIZE}", topk_s, MOST_S, "s", "2 s", 1.0),
        Row(f"FROC, every threshold, {SIZE}", froc_s, MOST_S, "s", "2 s", 1.0),
        Row(
            f"evaluate_det.py, {SIZE}",
            whole_s,
            all_s,
            "s",
            "pycocotools, AP alone, from files",
            None,
            "files read and checked, every metric and its variants, AP, groups, patients drawn "
            "9,999 times for each interval; without imports",
        ),
    ]


def evaluate_quietly(truth: Path, results: Path, folder: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        evaluate_predictions(results, truth, folder / "out")


if __name__ == "__main__":
    print(to_markdown(rows()))
