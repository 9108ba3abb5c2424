"""A step of the detector's training, against its bare work and against the loops of others.

    python benchmarks/detector.py    # one table, a minute or two

Ours is ``train_det.py`` as a user starts it, timed by the clock of its TensorBoard records. Bare is
forward, backward, clipping and SGD of the same detector on batches that lie on the device. The
peers: torchvision's Faster R-CNN of the same sizes in a loop as its references describe it
(DataLoader with transforms, every loss read in every step), and Detectron2's SimpleTrainer where
Detectron2 is installed. The first reads the key slice alone, a third of what we read.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from generated import STORED_ZERO_HU, write_lesions
from table import Row, to_markdown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.utils import clip_grad_norm_

from lesion_det.batches import BatchSource
from lesion_det.det_config import DetConfig, DetectorConfig, DetOptimiser, InputConfig
from lesion_det.engine import build_detector, has_detectron2
from lesion_det.ground_truth import ImageRecord
from lesion_det.initialization import make_start
from lesion_det.prepared_images import PreparedImages
from lesion_det.splits import read_splits
from lesion_det.train_det import train
from ubr_pretrain.optimiser import build_optimiser

OURS, BARE = "ours", "bare, on resident data"
TORCHVISION, DETECTRON2 = "torchvision's reference loop", "Detectron2's SimpleTrainer"
AIMS = {BARE: 1.11, TORCHVISION: 1.0, DETECTRON2: 1.0}
"""Nine tenths of the bare speed, and none faster than ours."""

ROUNDS = 2
"""All of them in turn; the faster of each counts, since a busy machine only adds."""

NEVER = 10**9


@dataclass(frozen=True)
class Sizes:
    """Of what is trained.

    Attributes:
        width: of the VGG-16.
        side_px: of an image.
        fc_dim: of fc6 and fc7.
        batch: images of a step.
        steps: that are timed.
        warm: steps before.
        workers: threads of ours, processes of the peers.
        device: where.
        precision: "fp32", "tf32" or "bf16".
    """

    width: float
    side_px: int
    fc_dim: int
    batch: int = 2
    steps: int = 8
    warm: int = 2
    workers: int = 0
    device: str = "cpu"
    precision: str = "fp32"

    @property
    def words(self) -> str:
        """For a reader."""
        return (
            f"Faster R-CNN, VGG-16 x {self.width:g}, fc {self.fc_dim}, {self.batch} images of "
            f"{self.side_px} px, {self.precision}"
        )


SMALL = Sizes(width=0.25, side_px=256, fc_dim=512)


def rows(sizes: Sizes = SMALL) -> list[Row]:
    """Return ours against bare, and against each peer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coco, images = write_lesions(folder, max(8, sizes.batch), sizes.side_px)
        config = config_of(sizes, coco, images)
        runs = (folder / f"run{k}" for k in range(ROUNDS))
        works: dict[str, Callable[[], float]] = {
            OURS: lambda: our_step_s(config, sizes, next(runs)),
            BARE: lambda: bare_step_s(config, sizes),
            TORCHVISION: lambda: reference_step_s(config, sizes),
        }
        if has_detectron2():
            works[DETECTRON2] = lambda: detectron2_step_s(config, sizes)
        seconds = dict.fromkeys(works, math.inf)
        for _ in range(ROUNDS):
            for name, work in works.items():
                seconds[name] = min(seconds[name], work())
        return [
            Row(f"detector step, {sizes.words}", seconds[OURS], s, "s", name, AIMS[name])
            for name, s in seconds.items()
            if name != OURS
        ]


def config_of(sizes: Sizes, coco: Path, images: Path) -> DetConfig:
    """Return the configuration of our training: no evaluation and no checkpoint but the last."""
    return DetConfig(
        coco=coco,
        images=images,
        width=sizes.width,
        input=InputConfig(max_px=sizes.side_px, clip_border=False),
        detector=DetectorConfig(fc_dim=sizes.fc_dim),
        optimiser=DetOptimiser(lr=1e-5),
        batch=sizes.batch,
        iterations=sizes.warm + sizes.steps,
        eval_every=NEVER,
        save_every=NEVER,
        workers=sizes.workers,
        device=sizes.device,
        precision=sizes.precision,
        deterministic=not sizes.device.startswith("cuda"),
    )


def our_step_s(config: DetConfig, sizes: Sizes, out: Path) -> float:
    """Train, and return the seconds of a step."""
    train(config, out)
    return recorded_step_s(out, sizes.warm)


def recorded_step_s(run: Path, warm: int) -> float:
    """Return the seconds of a step of a run, without the first ``warm``, by its own records."""
    board = EventAccumulator(str(run / "tb"), {"scalars": 0})
    board.Reload()
    times_s = [event.wall_time for event in board.Scalars("train/loss")][warm - 1 :]
    return (times_s[-1] - times_s[0]) / (len(times_s) - 1)


def bare_step_s(config: DetConfig, sizes: Sizes) -> float:
    """Return the seconds of a step of the bare detector."""
    start = make_start(config)
    device = torch.device(sizes.device)
    detector = build_detector("torchvision", start.trunk, start.input_spec, config.detector, 0)
    detector.to(device).train()
    optimiser = build_optimiser(detector, config.optimiser)
    records = read_splits(config).learned
    source = BatchSource(records, PreparedImages(config.images, config.input), config)
    examples = [source.example(1, place) for place in range(config.batch)]
    hu = [example.hu.to(device) for example in examples]
    boxes = [example.boxes_xyxy.to(device) for example in examples]
    seeds = [example.seed for example in examples]

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            losses = detector.losses(hu, boxes, seeds)
        sum(losses.values()).backward()
        clip_grad_norm_(detector.parameters(), config.optimiser.max_grad_norm)
        optimiser.step()

    return timed_s(step, sizes)


def timed_s(step: Callable[[], object], sizes: Sizes) -> float:
    """Return the seconds of one of many steps, the device's work included."""
    wait = torch.cuda.synchronize if sizes.device.startswith("cuda") else lambda: None
    for _ in range(sizes.warm):
        step()
    wait()
    began_s = time.perf_counter()
    for _ in range(sizes.steps):
        step()
    wait()
    return (time.perf_counter() - began_s) / sizes.steps


def weights(config: DetConfig) -> dict[str, torch.Tensor]:
    """Return those that every side begins with: other ones propose more or fewer boxes to NMS."""
    start = make_start(config)
    return build_detector(
        "torchvision", start.trunk, start.input_spec, config.detector, 0
    ).state_dict()


class KeySlices(torch.utils.data.Dataset):
    """Images and targets as torchvision's references have them."""

    def __init__(self, records: list[ImageRecord], images: Path) -> None:
        from torchvision.transforms import v2

        self.records, self.images = records, images
        self.transforms = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float32)])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        from torchvision import tv_tensors

        record = self.records[index]
        stored = cv2.imread(str(self.images / record.file_name), cv2.IMREAD_UNCHANGED)
        hu = torch.from_numpy(stored.astype(np.float32) - STORED_ZERO_HU)
        grey = ((hu + 175) / 450).clamp(0, 1)
        boxes = torch.from_numpy(record.boxes_xyxy.astype(np.float32))
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(hu.shape)),
            "labels": torch.ones(len(boxes), dtype=torch.int64),
        }
        return self.transforms(tv_tensors.Image(grey.expand(3, -1, -1)), target)


def reference_step_s(config: DetConfig, sizes: Sizes) -> float:
    """Return the seconds of a step of torchvision's detector in a loop like its references'."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    device, parts = torch.device(sizes.device), config.detector
    trunk = make_start(config).trunk
    model = FasterRCNN(
        trunk,
        num_classes=None,
        min_size=sizes.side_px,
        max_size=sizes.side_px,
        rpn_anchor_generator=AnchorGenerator((parts.anchor_sizes_px,), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_train=parts.train_top_n[0],
        rpn_post_nms_top_n_train=parts.train_top_n[1],
        rpn_batch_size_per_image=parts.rpn_batch,
        box_batch_size_per_image=parts.roi_batch,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_head=TwoMLPHead(trunk.out_channels * 49, parts.fc_dim),
        box_predictor=FastRCNNPredictor(parts.fc_dim, 2),
    )
    model.load_state_dict(
        {name.replace("trunk.", "backbone.", 1): t for name, t in weights(config).items()}
    )
    model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=5e-4)
    data = KeySlices(read_splits(config).learned, config.images)
    loader = torch.utils.data.DataLoader(
        data, sizes.batch, shuffle=True, num_workers=sizes.workers, collate_fn=_together
    )
    batches = _for_ever(loader)

    def step() -> None:
        images, targets = next(batches)
        images = [image.to(device) for image in images]
        targets = [{name: t.to(device) for name, t in target.items()} for target in targets]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            losses = model(images, targets)
            loss = sum(losses.values())
        shown = {name: term.item() for name, term in losses.items()}
        assert np.isfinite(sum(shown.values()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return timed_s(step, sizes)


def _together(batch: list[tuple[Any, Any]]) -> tuple[Any, ...]:
    return tuple(zip(*batch, strict=True))


def _for_ever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def detectron2_step_s(config: DetConfig, sizes: Sizes) -> float:
    """Return the seconds of a step of Detectron2's own trainer and loader on its detector."""
    from detectron2.data import build_detection_train_loader
    from detectron2.engine import SimpleTrainer
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer

    from lesion_det.deeplesion_d2 import LesionMapper, register_deeplesion
    from lesion_det.detector_d2 import build_cfg
    from lesion_det.detectron2_settings import DetectorSettings

    spec = make_start(config).input_spec
    cfg = build_cfg(DetectorSettings(config.width, config.detector, config.input, spec))
    assert config.coco is not None
    register_deeplesion(config.coco, config.images, "benchmark")
    cfg.DATASETS.TRAIN = ("benchmark_train",)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = sizes.device, ""
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = sizes.workers, sizes.batch
    cfg.SOLVER.BASE_LR = 1e-5
    model = build_model(cfg).train()
    start = make_start(config)
    same = build_detector("detectron2", start.trunk, start.input_spec, config.detector, 0)
    assert isinstance(same.model, nn.Module)
    model.load_state_dict(same.model.state_dict())
    loader = build_detection_train_loader(cfg, mapper=LesionMapper(cfg, is_train=True))
    trainer = SimpleTrainer(model, loader, build_optimizer(cfg, model))
    trainer.train(0, sizes.warm)
    began_s = time.perf_counter()
    trainer.train(sizes.warm, sizes.warm + sizes.steps)
    if sizes.device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - began_s) / sizes.steps


if __name__ == "__main__":
    print(to_markdown(rows()))
