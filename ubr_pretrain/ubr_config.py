"""What a UBR training is asked to do; the defaults are what the paper prints.

Free of torch, so that ``--help`` and a refused flag cost a fraction of a second.

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 3; "release" is the authors' Caffe code of 2018.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ubr_pretrain.config import MAX_SEED, Config
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.starting_flags import (
    ExternalInput,
    StartFlag,
    external_flags,
    require_flags,
)
from ubr_pretrain.transferred_blocks import WHOLE, Block

PATHS = frozenset({"data", "store", "anchors", "start", "imagenet_weights", "external"})
"""Fields of ``UbrConfig`` that name places on one machine."""


class Augmentation(Config):
    """Ranges of the random views of a group; all zero is no augmentation.

    Deviation: the paper names none; the released code crops one random patch of a slice.

    Attributes:
        scale: size factor drawn log-uniformly from 1 / (1 + scale) .. 1 + scale.
        shift: translation, as a fraction of the image side, uniform in +- shift.
        rotate_deg: rotation, uniform in +- rotate_deg.
        flip: chance of a left-right flip.
        contrast: HU are multiplied by 1 +- contrast around 0 HU (contrast agent, calibration).
        offset_hu: added, uniform in +- offset_hu.
        noise_hu: standard deviation of added noise, uniform in 0 .. noise_hu.
        stretch: width over height is changed by a factor, log-uniform like ``scale``.
        blur: strength of a 3x3 mean, uniform in 0 .. blur (reconstruction kernel).
        field: chance that only a disc or rectangle was reconstructed, air around it.
        erase: chance of a slice to lose a rectangle to one grey, so that no single organ decides.
    """

    scale: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.0, ge=0, le=0.5)
    rotate_deg: float = Field(0.0, ge=0, le=180)
    flip: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    offset_hu: float = Field(0.0, ge=0)
    noise_hu: float = Field(0.0, ge=0)
    stretch: float = Field(0.0, ge=0, le=1)
    blur: float = Field(0.0, ge=0, le=1)
    field: float = Field(0.0, ge=0, le=1)
    erase: float = Field(0.0, ge=0, le=1)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is changed."""
        return not any(self.model_dump().values())

    @property
    def moves(self) -> bool:
        """Whether pixels change their place."""
        return any((self.scale, self.shift, self.rotate_deg, self.flip, self.stretch))


class Losses(Config):
    """Eq. 1-3 and their readings, and two terms beyond the paper (weight 0 there).

    Deviation: Eq. 1 and 2 leave every volume its own scale and offset. The spacing loss gives all
    volumes one scale, in millimetres; the anchor loss one offset, by slices whose place is known.

    Attributes:
        reduction: "sum" as printed or "mean" as released; with g = 12 and m = 8 the gradient of the
            sum is 84 times that of the mean.
        logit_scale: inside the sigmoid of the order loss; 1 as printed, 2 as released.
        order_weight: of the order loss.
        distance_weight: of the distance loss; 0 trains on the order alone.
        spacing_weight: of the spacing loss.
        anchor_weight: of the anchor loss.
        score_per_mm: slope that both ask for. 0.025 gives the paper's scale: -10 upper chest,
            -5 liver dome, 0 lower abdomen, 5 lower pelvis.
        zero_mm: the coordinate whose score is 0; 687 is the iliac crest.
        slope_tolerance: bodies differ; the spacing loss is silent while a pair of slices is within
            this fraction of the distance asked for.
    """

    reduction: Literal["sum", "mean"] = "sum"
    logit_scale: float = Field(1.0, gt=0)
    order_weight: float = Field(1.0, ge=0)
    distance_weight: float = Field(1.0, ge=0)
    spacing_weight: float = Field(0.0, ge=0)
    anchor_weight: float = Field(0.0, ge=0)
    score_per_mm: float = Field(0.025, gt=0)
    zero_mm: float = 687.0
    slope_tolerance: float = Field(0.3, ge=0, lt=1)


class Optimiser(Config):
    """How the weights move.

    Attributes:
        name: "sgd" (momentum) or "adamw".
        lr: learning rate.
        momentum: of SGD.
        weight_decay: on weights; biases and batch norms have none.
        bias_lr_factor: learning rate of biases over that of weights; 2 in the released code.
        schedule: "constant"; "step": a tenth after every ``step_every``; "cosine": down to zero.
        step_every: iterations between steps.
        warmup: iterations of linear warm-up.
        max_grad_norm: gradients are clipped to this norm; None: not clipped.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.002, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    bias_lr_factor: float = Field(1.0, gt=0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_every: int = Field(5000, ge=1)
    warmup: int = Field(0, ge=0)
    max_grad_norm: float | None = Field(None, gt=0)

    def lr_at(self, iteration: int, num_iterations: int) -> float:
        """Return the learning rate of ``iteration`` (counted from 1)."""
        lr = self.lr * min(1.0, iteration / self.warmup) if self.warmup else self.lr
        if self.schedule == "step":
            lr *= 0.1 ** ((iteration - 1) // self.step_every)
        if self.schedule == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * (iteration - 1) / num_iterations))
        return lr


class UbrConfig(Config):
    """One training of the body-part regressor.

    Attributes:
        data: files, folders or DICOM trees.
        holdout: names of volumes or subjects that are never trained on.
        holdout_fraction: of the other subjects, held out as well.
        allow_leakage: train on patients of DeepLesion's validation and test splits too; a detector
            that starts from such a trunk must not be judged on them.
        source_weights: how often each entry of ``data`` is drawn from, relative to the others;
            none: every volume equally often.
        store: folder of decoded slices; None: ``slices/`` in the run folder.
        anchors: tables of slices whose place in the body is known, as ``make_phantoms.py`` and
            ``place_slices.py`` write them, or landmarks; read by the anchor loss. Training volumes
            alone use them.
        oversample: the slice store holds ``oversample`` times ``input.size_px`` pixels a side, so
            that views are cut from finer slices.
        arch: trunk.
        width: channel multiplier; 1 is the paper's.
        batch_norm: Deviation, for training from scratch; folded at export.
        init: where the trunk starts: at random, from ImageNet's weights, or from a trunk of others.
        start: a checkpoint of train_ubr.py to start from with other anchors, data or losses (a
            second stage); its network, input and ``init`` must be those of this configuration.
        imagenet_weights: file of torchvision's layout; None: torchvision's cache or download.
        external: a trunk of others (file, or folder of a hub), in a layout that
            ``ubr_pretrain.layouts`` knows.
        external_input: how HU become its input: "imagenet" as for torchvision's weights, or a
            description of its own; None: as the file says, where this project wrote it.
        transfer_through: the last block of the trunk that comes from ``init``; those behind it are
            drawn as for a random start. conv5: the whole trunk.
        head_std: Gaussian of conv6 and fc7; None: He and 0.01 (what a trunk from scratch needs).
        input: how HU become the network's input. A trunk from elsewhere brings its own scale, mean
            and std (and its window, if it was trained on CT); what is left at the default here
            gives way to them, anything else is refused.
        g: groups (volumes) of a batch.
        m: slices of a group.
        start_rule: "uniform", or "ends" as released.
        min_interval_mm: neighbouring slices of a group are at least this far apart (as far as the
            scan is long enough). Deviation: the paper has no such limit (0); slices of 1 mm look
            alike, so their order teaches a trunk from scratch little but noise.
        losses: see ``Losses``.
        augmentation: see ``Augmentation``.
        optimiser: see ``Optimiser``.
        iterations: length of the training.
        eval_every: iterations between validations (and ``best`` checkpoints).
        save_every: iterations between ``last`` checkpoints.
        seed: of everything.
        device: "auto", "cpu", "cuda", "cuda:N".
        precision: "fp32" (float32 on every device), "tf32" (products of a GPU with 10 bits of
            mantissa), or "bf16" autocast.
        memory_format: of the network; "auto": channels last, but for fp32 on CUDA.
        residence: where the slices lie: "device", "host" (pinned for a GPU), or "disk", mapped into
            memory; "auto": in the GPU's memory or pinned where half of what is free is enough, else
            on disk; on disk for a CPU. It changes no result.
        compile: translate the network with torch.compile first; equal up to rounding.
        deterministic: keep a GPU to the convolutions that give the same bits in every run; a CPU
            always does. What cuDNN does not compute may still add up in another order there.
    """

    data: tuple[Path, ...] = ()
    holdout: tuple[str, ...] = ()
    holdout_fraction: float = Field(0.1, ge=0, lt=1)
    allow_leakage: bool = False
    source_weights: tuple[float, ...] = ()
    store: Path | None = None
    anchors: tuple[Path, ...] = ()
    oversample: int = Field(1, ge=1, le=4)
    arch: Literal["vgg16", "alexnet"] = "vgg16"
    width: float = Field(1.0, gt=0, le=4)
    batch_norm: bool = False
    init: Literal["random", "imagenet", "external"] = "random"
    start: Path | None = None
    imagenet_weights: Path | None = None
    external: Path | None = None
    external_input: ExternalInput = None
    transfer_through: Block = WHOLE
    head_std: float | None = Field(0.001, gt=0)
    input: InputSpec = InputSpec()
    g: int = Field(12, ge=1)
    m: int = Field(8, ge=2)
    start_rule: Literal["uniform", "ends"] = "uniform"
    min_interval_mm: float = Field(0.0, ge=0)
    losses: Losses = Losses()
    augmentation: Augmentation = Augmentation()
    optimiser: Optimiser = Optimiser()
    iterations: int = Field(1500, ge=1)
    eval_every: int = Field(250, ge=1)
    save_every: int = Field(50, ge=1)
    seed: int = Field(0, ge=0, le=MAX_SEED)
    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    residence: Literal["auto", "device", "host", "disk"] = "auto"
    compile: bool = False
    deterministic: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> UbrConfig:
        part = None if self.transfer_through == WHOLE else self.transfer_through
        flags = (
            StartFlag("--imagenet-weights", self.imagenet_weights, ("imagenet",)),
            *external_flags(self.external, self.external_input),
            StartFlag("--transfer_through", part, ("imagenet", "external")),
        )
        if self.start is None:
            require_flags(self.init, flags)
        elif given := [flag.words for flag in flags if flag.value is not None]:
            raise ValueError(f"{given[0]}: not used with --start, whose network began earlier")
        if self.source_weights and (
            len(self.source_weights) != len(self.data) or min(self.source_weights) <= 0
        ):
            raise ValueError(
                f"source_weights {self.source_weights}: one number > 0 for each of the "
                f"{len(self.data)} entries of data"
            )
        if bool(self.anchors) != (self.losses.anchor_weight > 0):
            raise ValueError(
                f"anchors {[str(path) for path in self.anchors]} with losses.anchor_weight "
                f"{self.losses.anchor_weight}: one needs the other"
            )
        if self.init != "random" and self.batch_norm:
            raise ValueError(f"--init {self.init} has no batch norm: set --batch_norm false")
        return self
