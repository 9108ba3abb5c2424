"""What a detector training is asked to do; the defaults are what the paper prints.

Where the paper is silent they are those of the authors' later detectors. Free of torch, so that
``--help`` and a refused flag cost a fraction of a second.

Reference:
    Yan, Lu, Summers, ISBI 2018, section 3.3 and Fig. 3c.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ubr_pretrain.config import MAX_SEED, Config
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.reading_rules import MAX_SIDE_PX, MAX_SPACING_MM, MIN_SPACING_MM
from ubr_pretrain.starting_flags import ExternalInput
from ubr_pretrain.transferred_blocks import WHOLE, Block

Arm = Literal[
    "random", "ubr", "imagenet", "ubr+imagenet", "ubr-stats", "imagenet-stats", "external"
]

Engine = Literal["torchvision", "detectron2"]

STEP_EVERY: Mapping[Arm, int] = {
    "random": 20_000,
    "ubr": 20_000,
    "ubr-stats": 20_000,
    "imagenet": 15_000,
    "ubr+imagenet": 15_000,
    "imagenet-stats": 15_000,
    "external": 15_000,
}
"""[P] "/10 in every 20K, 20K, 15K and 15K iterations, respectively", read as one number an arm; a
control steps like its source, a trunk of others like ImageNet's."""

STAGES = (20_000, 40_000, 55_000)
"""The same sentence read as stages of one schedule, which ends at 70,000."""

DROP = 0.1

DATA_PATHS = frozenset({"coco", "train", "val", "test", "images"})
"""Fields of ``DetConfig`` that name what is learned from and judged on."""

PATHS = DATA_PATHS | {"ubr", "imagenet_weights", "external", "cache"}
"""Fields of ``DetConfig`` that name places on one machine; they do not travel with weights."""


MAX_COUNT = 512 * 512
"""Of proposals, detections, features: the places at stride 8 of the largest slice that is read."""


class InputConfig(Config):
    """How key slices become inputs; the defaults are those of the authors' later detectors.

    Attributes:
        slices: "three" (neighbours at ``interval_mm``) or "single" (the key slice three times).
        interval_mm: distance between the three slices.
        pixel_mm: wanted pixel size; None: the pixels of the PNG.
        max_px: longest side, larger images get larger pixels; None: no limit.
        clip_border: cut away what lies around the body, and shift the boxes.
    """

    slices: Literal["three", "single"] = "three"
    interval_mm: float = Field(2.0, ge=MIN_SPACING_MM, le=MAX_SPACING_MM)
    pixel_mm: float | None = Field(0.8, ge=MIN_SPACING_MM, le=MAX_SPACING_MM)
    max_px: int | None = Field(512, ge=32, le=MAX_SIDE_PX)
    clip_border: bool = True


class DetectorConfig(Config):
    """What of Faster R-CNN is set by a preset.

    Attributes:
        stride: 16, or 8 without pool4.
        fc_dim: size of fc6 and fc7.
        anchor_sizes_px: sides of the square anchors, each also at 1:2 and 2:1.
        rpn_batch: anchors of one image that the RPN learns from.
        roi_batch: proposals of one image that the head learns from.
        train_top_n: proposals before and after suppression, in training.
        test_top_n: the same at inference.
        max_detections: detections of one image that are kept.
    """

    stride: Literal[8, 16] = 16
    fc_dim: int = Field(4096, ge=1, le=MAX_COUNT)
    anchor_sizes_px: tuple[int, ...] = (16, 24, 32, 48, 96)
    rpn_batch: int = Field(32, ge=2, le=MAX_COUNT)
    roi_batch: int = Field(32, ge=4, le=MAX_COUNT)
    train_top_n: tuple[int, int] = (12000, 2000)
    test_top_n: tuple[int, int] = (6000, 300)
    max_detections: int = Field(50, ge=1, le=MAX_COUNT)

    @field_validator("anchor_sizes_px")
    @classmethod
    def _has_anchors(cls, sizes_px: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes_px or not all(1 <= side <= MAX_SIDE_PX for side in sizes_px):
            raise ValueError(f"at least one side is needed, all of 1 to {MAX_SIDE_PX} px")
        return sizes_px

    @field_validator("train_top_n", "test_top_n")
    @classmethod
    def _keeps_proposals(cls, top_n: tuple[int, int]) -> tuple[int, int]:
        if not all(1 <= count <= MAX_COUNT for count in top_n):
            raise ValueError(f"both numbers must be 1 to {MAX_COUNT}")
        return top_n


class DetOptimiser(Config):
    """How the weights move.

    Deviation: the paper does not say that gradients are clipped. A random VGG-16 on grey values of
    0..255 diverges at its learning rate within three iterations; clipped to a norm of 10, the same
    in all arms, it trains.

    Attributes:
        name: "sgd" (momentum) or "adamw".
        lr: learning rate.
        momentum: of SGD.
        weight_decay: on weights; biases have none.
        schedule: "per_arm": a tenth after every 20,000 iterations of random and ubr, 15,000 of the
            others; "staged": a tenth after 20,000, 40,000 and 55,000; "drops": a tenth after each
            of ``drop_at``, the same in all arms.
        drop_at: fractions of the iterations.
        warmup: iterations of linear warm-up.
        max_grad_norm: gradients are clipped to this norm; None: not clipped.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.002, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["per_arm", "staged", "drops"] = "per_arm"
    drop_at: tuple[float, ...] = ()
    warmup: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(10.0, gt=0)

    @field_validator("drop_at")
    @classmethod
    def _drops_on_the_way(cls, drop_at: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share < 1 for share in drop_at):
            raise ValueError("fractions of the iterations must be > 0 and < 1")
        return drop_at

    def lr_at(self, iteration: int, num_iterations: int, arm: Arm) -> float:
        """Return the learning rate of ``iteration`` (counted from 1)."""
        done = iteration - 1
        if self.schedule == "per_arm":
            drops = done // STEP_EVERY[arm]
        elif self.schedule == "staged":
            drops = sum(done >= stage for stage in STAGES)
        else:
            drops = sum(done >= fraction * num_iterations for fraction in self.drop_at)
        warm = min(1.0, iteration / self.warmup) if self.warmup else 1.0
        return self.lr * warm * DROP**drops


class DetConfig(Config):
    """One training of the lesion detector.

    Attributes:
        init: where the trunk starts: one of the paper's four arms, or a control.
        ubr: checkpoint of ``train_ubr.py`` or file of ``export_backbone.py``.
        imagenet_weights: file of torchvision's layout; None: torchvision's cache or download.
        external: a VGG-16 of others (file, or folder of a hub), in a layout that
            ``ubr_pretrain.layouts`` knows.
        external_input: how HU become its input: "imagenet" as for torchvision's weights, or a
            description of its own; None: as the file says, where this project wrote it.
        transfer_through: the last block of the trunk that comes from the start; those behind it
            are drawn as the random arm draws them. conv5: the whole trunk.
        coco: folder of ``train.json`` and ``val.json``, used where no files are named.
        train: COCO files to train on.
        val: COCO files to evaluate on along the training.
        test: COCO files to evaluate on once, at the end.
        allow_leakage: accept patients that are both trained on and evaluated on.
        label_fraction: of the training patients, those that are learned from; the patients of a
            smaller fraction are among those of a larger one of the same seed.
        images: the folder ``Images_png``.
        width: channel multiplier of the trunk; 1 is the paper's.
        engine: the library that computes the detector; losses, answers and checkpoints are alike.
        input: see ``InputConfig``.
        random_input: how HU become the input of a trunk that comes from no file.
        detector: see ``DetectorConfig``.
        optimiser: see ``DetOptimiser``.
        flip: mirror every second image left to right.
        scale_jitter: every image is resized by a factor between 1 / (1 + this) and 1 + this.
        batch: images of an iteration, over all ranks. Losses are means over anchors and proposals:
            several ranks equal one process as long as every image yields as many of them as
            ``detector.rpn_batch`` and ``detector.roi_batch`` ask for.
        iterations: length of the training.
        eval_every: iterations between evaluations (and ``best`` checkpoints).
        save_every: iterations between ``last`` checkpoints.
        cache: folder of decoded inputs, shared by the runs that name it; None: in the run folder.
        workers: threads that prepare the coming batches; 0 prepares them in turn.
        seed: of everything.
        device: "auto", "cpu", "cuda", "cuda:N".
        precision: "fp32" (float32 on every device), "tf32" (products of a GPU with 10 bits of
            mantissa), or "bf16" autocast on CUDA.
        deterministic: keep a GPU to the convolutions that give the same bits in every run; a CPU
            always does. What cuDNN does not compute may still add up in another order there.
    """

    init: Arm = "random"
    ubr: Path | None = None
    imagenet_weights: Path | None = None
    external: Path | None = None
    external_input: ExternalInput = None
    transfer_through: Block = WHOLE
    coco: Path | None = None
    train: tuple[Path, ...] = ()
    val: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    allow_leakage: bool = False
    label_fraction: float = Field(1.0, gt=0, le=1)
    images: Path = Path("Images_png")
    width: float = Field(1.0, gt=0, le=4)
    engine: Engine = "torchvision"
    input: InputConfig = InputConfig()
    random_input: InputSpec = InputSpec()
    detector: DetectorConfig = DetectorConfig()
    optimiser: DetOptimiser = DetOptimiser()
    flip: bool = False
    scale_jitter: float = Field(0.0, ge=0, lt=1)
    batch: int = Field(2, ge=1)
    iterations: int = Field(60_000, ge=1)
    eval_every: int = Field(2500, ge=1)
    save_every: int = Field(500, ge=1)
    cache: Path | None = None
    workers: int = Field(0, ge=0)
    seed: int = Field(0, ge=0, le=MAX_SEED)
    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool = True

    @model_validator(mode="after")
    def _has_data(self) -> DetConfig:
        if self.coco is None and not (self.train and self.val):
            raise ValueError("name --coco FOLDER, or --train and --val files")
        return self

    @property
    def train_files(self) -> tuple[Path, ...]:
        """COCO files to train on."""
        return self.train or (_in(self.coco, "train.json"),)

    @property
    def val_files(self) -> tuple[Path, ...]:
        """COCO files to evaluate on."""
        return self.val or (_in(self.coco, "val.json"),)


def _in(folder: Path | None, name: str) -> Path:
    assert folder is not None
    return folder / name
