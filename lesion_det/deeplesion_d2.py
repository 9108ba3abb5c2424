"""DeepLesion for Detectron2's own loops: datasets, mapper, evaluator, trainer.

``import lesion_det.detector_d2`` registers ``deeplesion_train``, ``deeplesion_val`` and
``deeplesion_test`` where Detectron2 keeps its data (``$DETECTRON2_DATASETS``, or ``datasets``):
``deeplesion/{train,val,test}.json`` of ``deeplesion_to_coco.py`` and ``deeplesion/Images_png``.
``register_deeplesion`` names other folders.

Shapes:
    h, w: rows and columns of the input; k: detections; boxes are x1, y1, x2, y2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data import transforms as T
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm

from lesion_det.batches import trainable_boxes
from lesion_det.boxes import Frame
from lesion_det.det_config import InputConfig
from lesion_det.detectron2_settings import read_input
from lesion_det.ground_truth import read_ground_truth
from lesion_det.metrics import measure
from lesion_det.predictions import Predictions, write_predictions
from lesion_det.slices import prepare_image
from ubr_pretrain.ct import Window
from ubr_pretrain.network_input import grey_image
from ubr_pretrain.runtime import generator
from ubr_pretrain.whole_file import write_atomically

SPLITS = ("train", "val", "test")
BOOTSTRAP_SEED = 0


def register_deeplesion(coco: Path, images: Path, prefix: str = "deeplesion") -> None:
    """Register ``<prefix>_{train,val,test}``, in the place of what had these names.

    Nothing is read before a dataset is asked for.

    Args:
        coco: folder of ``{train,val,test}.json``.
        images: the folder ``Images_png``.
        prefix: of the names.
    """
    for split in SPLITS:
        name, json_path = f"{prefix}_{split}", coco / f"{split}.json"
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)
        DatasetCatalog.register(name, lambda json_path=json_path: _entries(json_path, images))
        MetadataCatalog.get(name).set(
            thing_classes=["lesion"],
            thing_dataset_id_to_contiguous_id={1: 0},
            json_file=str(json_path),
            image_root=str(images),
        )


def _entries(json_path: Path, images: Path) -> list[dict[str, Any]]:
    """Return a split in Detectron2's standard form, the record of every image beside it."""
    return [
        {
            "file_name": str(images / record.file_name),
            "image_id": record.id,
            "height": record.height_px,
            "width": record.width_px,
            "annotations": [
                {"bbox": box.tolist(), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
                for box in record.boxes_xyxy
            ],
            "images": str(images),
            "record": record,
        }
        for record in read_ground_truth(json_path).images
    ]


class LesionMapper:
    """Makes of an entry what ``LesionRCNN`` reads: three slices, 16-bit HU, as ``INPUT.CT`` says.

    Args:
        input_config: slices, pixel size and border.
        window: of HU, onto 0..255.
        augmentations: of Detectron2; they see HU as int16 [h, w, 3].
        is_train: whether the lesions are handed on.
    """

    @configurable
    def __init__(
        self,
        *,
        input_config: InputConfig,
        window: Window,
        augmentations: Sequence[T.Augmentation] = (),
        is_train: bool = True,
    ) -> None:
        self.input_config, self.window, self.is_train = input_config, window, is_train
        self.augmentations = T.AugmentationList(list(augmentations))

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Return the arguments that a configuration states.

        Raises:
            ValueError: ``INPUT.RANDOM_FLIP vertical``: no patient lies on the face in the mirror.
        """
        flip = cfg.INPUT.RANDOM_FLIP
        if flip not in ("none", "horizontal"):
            raise ValueError(f"INPUT.RANDOM_FLIP {flip}: expected none or horizontal")
        input_config, window = read_input(cfg.INPUT.CT)
        return {
            "input_config": input_config,
            "window": window,
            "augmentations": [T.RandomFlip()] if is_train and flip == "horizontal" else [],
            "is_train": is_train,
        }

    def __call__(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry with its ``image`` [3, h, w], 0..255, and the ``frame`` it lies in.

        ``height`` and ``width`` become the input's own, so that detections stay in its pixels;
        ``LesionEvaluator`` takes them back to the PNG.

        Raises:
            ValueError: a slice cannot be read, or a lesion lies in the clipped border.
        """
        record = entry["record"]
        prepared = prepare_image(Path(entry["images"]), record, self.input_config)
        seen = T.AugInput(np.ascontiguousarray(prepared.hu.transpose(1, 2, 0)))
        transforms = self.augmentations(seen)
        height, width = seen.image.shape[:2]
        hu = torch.from_numpy(np.ascontiguousarray(seen.image.transpose(2, 0, 1)))
        mapped = {
            "image": grey_image(hu.float(), self.window),
            "image_id": entry["image_id"],
            "file_name": entry["file_name"],
            "height": height,
            "width": width,
            "frame": prepared.frame,
        }
        if self.is_train:
            boxes = transforms.apply_box(trainable_boxes(record, prepared.frame))
            lesions = Instances((height, width))
            lesions.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
            lesions.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
            mapped["instances"] = lesions
        return mapped


class LesionEvaluator(DatasetEvaluator):
    """Top-5 recall, FROC and average precision as ``evaluate_det.py`` measures them.

    Detectron2's ``COCOEvaluator`` would compare boxes of the clipped, resampled input with boxes of
    the PNG. Writes ``predictions.json`` and ``metrics.json`` into ``out``.

    Args:
        dataset_name: registered by ``register_deeplesion``.
        out: folder of the results.
    """

    def __init__(self, dataset_name: str, out: Path) -> None:
        self.ground_truth = read_ground_truth(Path(MetadataCatalog.get(dataset_name).json_file))
        self.out = out
        self._found: dict[int, tuple[Any, Any]] = {}

    def reset(self) -> None:
        """Forget all detections."""
        self._found = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take the detections of a batch, in pixels of its inputs."""
        for entry, output in zip(inputs, outputs, strict=True):
            frame: Frame = entry["frame"]
            found = output["instances"].to("cpu")
            boxes = frame.to_original(found.pred_boxes.tensor.double().numpy())
            self._found[entry["image_id"]] = boxes, found.scores.double().numpy()

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the metrics in per cent, of the first process; the others return None."""
        of_all = comm.gather(self._found)
        if not comm.is_main_process():
            return None
        found = {image_id: answer for part in of_all for image_id, answer in part.items()}
        predictions = Predictions(
            self.ground_truth.sha256,
            {image_id: boxes for image_id, (boxes, _) in found.items()},
            {image_id: scores for image_id, (_, scores) in found.items()},
        )
        write_predictions(self.out / "predictions.json", predictions)
        metrics = measure(self.ground_truth, predictions, generator(BOOTSTRAP_SEED), strict=True)
        with write_atomically(self.out / "metrics.json", "w") as file:
            file.write(metrics.model_dump_json(indent=2) + "\n")
        shown = {"top5_recall": metrics.top5_recall, "froc_mean": metrics.froc_mean}
        return {"lesion": {name: 100 * value for name, value in shown.items() if value is not None}}


class LesionTrainer(DefaultTrainer):
    """Detectron2's own trainer on DeepLesion; ``train_det.py`` is the one that is compared with.

    Deviation: it samples, drops and stops as Detectron2 does, and knows no ``scale_jitter``.
    ``train_det.py --engine detectron2`` keeps the order of the images, the samples, the schedule
    and the bit-equal continuation.

    Writes the whole configuration as ``OUTPUT_DIR/config.yaml``, which ``convert_detector.py``
    reads beside ``model_final.pth``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        if comm.is_main_process():
            with write_atomically(Path(cfg.OUTPUT_DIR) / "config.yaml", "w") as file:
                file.write(self.cfg.dump())

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Return batches of ``DATASETS.TRAIN``."""
        return build_detection_train_loader(cfg, mapper=LesionMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return the images of a dataset, one after another."""
        mapper = LesionMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> LesionEvaluator:
        """Return our metrics, written below ``OUTPUT_DIR``."""
        return LesionEvaluator(dataset_name, Path(cfg.OUTPUT_DIR) / dataset_name)


_ROOT = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser() / "deeplesion"
register_deeplesion(_ROOT, _ROOT / "Images_png")
