"""A comparison in a second: slices on disk, a tiny detector, a training that only pretends."""

import json
from pathlib import Path

import cv2
import numpy as np

from lesion_det.audit import StartHasher
from lesion_det.curve_hits import hits_to_text
from lesion_det.det_config import DetConfig, DetectorConfig, DetOptimiser
from lesion_det.finished_files import finished_files
from lesion_det.ground_truth import read_ground_truth
from lesion_det.initialization import weight_table_csv
from lesion_det.predictions import Predictions, write_predictions
from lesion_det.splits import read_splits
from lesion_det.topk_recall import lesion_ranks
from tests.lesion_det.toy_split import write_text
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.run_folder import open_run_folder
from ubr_pretrain.trunk import Trunk

SIDE_PX = 96
SKILL = {"random": 0.35, "ubr": 0.6, "imagenet": 0.75, "ubr+imagenet": 0.8}


def write_toy_data(folder: Path, num_train: int = 3, num_val: int = 12) -> tuple[Path, Path]:
    """Write ``coco/{train,val}.json`` and ``Images_png``; return both folders."""
    rng = np.random.default_rng(0)
    (folder / "coco").mkdir(parents=True)
    patient = 0
    for split, count in (("train", num_train), ("val", num_val)):
        images, annotations = [], []
        for i in range(1, count + 1):
            patient += 1
            name = f"{patient:06d}_01_01/005.png"
            boxes = [rng.integers(20, 60, 2).tolist() + rng.integers(8, 20, 2).tolist()]
            if i % 4 == 0:
                boxes.append([30.0, 30.0, 12.0, 10.0])
            _write_slice(folder / "Images_png" / name, boxes, rng)
            images.append(
                {
                    "id": i,
                    "file_name": name,
                    "height": SIDE_PX,
                    "width": SIDE_PX,
                    "patient_index": patient,
                    "study_index": 1,
                    "series_id": 1,
                    "key_slice_index": 5,
                    "slice_range": [5, 5],
                    "spacing_mm_zyx": [2.0, 0.8, 0.8],
                }
            )
            for box in boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i,
                        "category_id": 1,
                        "bbox": [float(v) for v in box],
                        "area": float(box[2] * box[3]),
                        "iscrowd": 0,
                        "lesion_type": -1,
                        "diameters_px": [10.0, 8.0],
                        "possibly_noisy": False,
                    }
                )
        coco = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "lesion"}],
        }
        write_text(folder / "coco" / f"{split}.json", json.dumps(coco))
    return folder / "coco", folder / "Images_png"


def _write_slice(path: Path, boxes_xywh: list[list[float]], rng: np.random.Generator) -> None:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
    hu = np.where((x / 42) ** 2 + (y / 34) ** 2 < 1, 40.0, -1000.0)
    for left, top, width, height in boxes_xywh:
        inside = ((x + SIDE_PX / 2 - left - width / 2) / width) ** 2
        hu[inside + ((y + SIDE_PX / 2 - top - height / 2) / height) ** 2 < 0.25] = 110
    hu += rng.normal(0, 12, hu.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (hu + 32768).astype(np.uint16))


def write_toy_ubr(path: Path, init: str = "random") -> Path:
    """Write a backbone that says it is a regressor's."""
    provenance = Provenance(init=init, pretraining="ubr")
    spec = InputSpec(mean=(60.0,) * 3, std=(70.0,) * 3)
    write_backbone(path, Backbone(Trunk("vgg16", 0.05), spec, provenance))
    return path


def toy_config(coco: Path, images: Path, ubr: Path | None = None) -> DetConfig:
    return DetConfig(
        coco=coco,
        images=images,
        ubr=ubr,
        width=0.05,
        detector=DetectorConfig(fc_dim=8),
        optimiser=DetOptimiser(schedule="drops", drop_at=(0.8,)),
        iterations=40,
        eval_every=10,
        device="cpu",
    )


def pretend_training(config: DetConfig, out: Path) -> int:
    """Leave what ``train_det.train`` leaves, found at the rate of ``SKILL``, less of few labels."""
    truth = read_ground_truth(config.val_files[0])
    rng = np.random.default_rng([config.seed, len(config.init)])
    skill = SKILL[config.init] * config.label_fraction**0.2
    boxes, scores = {}, {}
    for image in truth.images:
        found = image.boxes_xyxy[rng.random(image.num_lesions) < skill]
        near = found + rng.normal(0, 0.4, found.shape)
        corner = rng.uniform(10, 60, (6, 2))
        false = np.concatenate([corner, corner + rng.uniform(8, 24, (6, 2))], axis=1)
        boxes[image.id] = np.concatenate([near, false])
        scores[image.id] = np.concatenate(
            [rng.uniform(0.5, 1, len(near)), rng.uniform(0, 0.8, len(false))]
        )
    answers = Predictions(truth.sha256, boxes, scores)
    starts = StartHasher(read_splits(config).learned)(config)
    with open_run_folder(out, config) as folder:
        lines = [
            {
                "iteration": i,
                "kind": "val",
                "top5_recall": float(hits.mean()),
                "hits": hits_to_text(hits),
            }
            for i, hits in pretend_course(config, lesion_ranks(truth, answers).hits(5)).items()
        ]
        write_text(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        write_predictions(out / "predictions_val.json", answers)
        write_text(out / "weights.csv", weight_table_csv([]) + WEIGHTS)
        folder.update_manifest(
            status="finished",
            iteration=config.iterations,
            seconds=12.5,
            files_sha256=finished_files(out),
            audit=dict(starts.hashes),
            input_spec=starts.input_spec.model_dump(mode="json"),
            machine={"python": "3.11", "device": "cpu", "packages": {"torch": "2.15"}},
        )
    return 0


def pretend_course(config: DetConfig, at_the_end: np.ndarray) -> dict[int, np.ndarray]:
    """Return which lesions each evaluation finds: more and more of those found at the end."""
    found_from = np.random.default_rng([config.seed, 1]).uniform(0.4, 1.0, len(at_the_end))
    steps = range(config.eval_every, config.iterations + 1, config.eval_every)
    course = {i: at_the_end & (found_from < 1 - 0.6 * 0.5 ** (i / 10)) for i in steps}
    return course | {config.iterations: at_the_end}


WEIGHTS = (
    "trunk.conv1_1.weight,a file,8x3x3x3,1.5,True\n"
    'roi_heads.box_head.fc6.weight,"drawn, seed 0",8x8,2.5,False\n'
)
