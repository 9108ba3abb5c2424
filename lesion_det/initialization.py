"""The starts of the comparison: where a detector's trunk comes from, and the proof that it did.

The four arms of the paper are ``random``, ``ubr``, ``imagenet`` and ``ubr+imagenet``. The controls
``ubr-stats`` and ``imagenet-stats`` keep only the mean and standard deviation of every tensor of
their source: is it the features that help, or their scale? ``external`` is a VGG-16 of others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lesion_det.det_config import Arm, DetConfig
from ubr_pretrain.backbone import Backbone, Provenance, read_backbone, read_imagenet_trunk
from ubr_pretrain.checkpoint import CheckpointRefused, checkpoint_kind, file_sha256
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.regressor import read_regressor, regressor_backbone
from ubr_pretrain.trunk import Trunk, load_trunk

UBR_START: Mapping[str, str] = {"ubr": "random", "ubr+imagenet": "imagenet", "ubr-stats": "random"}
"""Where the body-part regressor of an arm must have started."""

IMAGENET_ARMS = ("imagenet", "imagenet-stats")


@dataclass(frozen=True)
class Start:
    """The trunk that an arm starts from.

    Attributes:
        arm: the strategy.
        trunk: of the detector's stride, to be trained.
        tensors: what the source holds, apart from ``trunk``'s own memory, for the proof.
        input_spec: how HU become the trunk's input.
        provenance: how the source was made.
        source: the file's name, or words; never a path.
        source_sha256: hash of the file, "" where there is none.
    """

    arm: Arm
    trunk: Trunk
    tensors: Mapping[str, Tensor]
    input_spec: InputSpec
    provenance: Provenance
    source: str
    source_sha256: str = ""


@dataclass(frozen=True)
class WeightRow:
    """One tensor of the live detector and where its values come from."""

    tensor: str
    source: str
    shape: tuple[int, ...]
    norm: float
    loaded: bool


def make_start(config: DetConfig) -> Start:
    """Return the trunk that a training starts from.

    Raises:
        ValueError: the arm needs a file that was not given or does not take the one given; the
            file says that it was made otherwise than the arm demands; it does not fit.
    """
    _require_flags(config)
    arm, width, seed = config.init, config.width, config.seed
    generator = torch.Generator().manual_seed(seed)
    trunk = Trunk("vgg16", width, stride=config.detector.stride)
    if arm == "random":
        _draw_he(trunk, generator)
        drawn = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
        made = Provenance(init="random")
        return Start(arm, trunk, drawn, config.random_input, made, f"He, seed {seed}")
    file = config.ubr or config.imagenet_weights or config.external
    found, source = _read_source(config)
    if (found.trunk.arch, found.trunk.width) != ("vgg16", width):
        raise ValueError(
            f"{source}: is {found.trunk.arch} of width {found.trunk.width}, the detector is vgg16 "
            f"of width {width}; set --width"
        )
    tensors = found.trunk.state_dict()
    if arm.endswith("-stats"):
        tensors = redraw_by_statistics(tensors, generator)
        source = f"Gaussians with mean and sd of {source}, seed {seed}"
    load_trunk(trunk, tensors, source)
    sha256 = file_sha256(file) if file else ""
    return Start(arm, trunk, tensors, found.input_spec, found.provenance, source, sha256)


def _require_flags(config: DetConfig) -> None:
    """Refuse an arm without its file, and a file that the arm would ignore."""
    arm = config.init
    for flag, value, takers, needed in (
        ("--ubr CHECKPOINT", config.ubr, UBR_START, True),
        ("--imagenet-weights", config.imagenet_weights, IMAGENET_ARMS, False),
        ("--external FILE", config.external, ("external",), True),
        ("--external_input", config.external_input, ("external",), False),
    ):
        if value is None and needed and arm in takers:
            raise ValueError(f"--init {arm} needs {flag}")
        if value is not None and arm not in takers:
            raise ValueError(f"--init {arm} does not use {flag}")


def _read_source(config: DetConfig) -> tuple[Backbone, str]:
    """Return the trunk that an arm's file holds, and what that file is."""
    arm, width = config.init, config.width
    if config.ubr is not None:
        return read_ubr_backbone(config.ubr, UBR_START[arm], arm), config.ubr.name
    if config.external is not None:
        spec = config.external_input
        spec = IMAGENET_INPUT if spec == "imagenet" else spec
        found = read_external_trunk(config.external, width, spec)
        return found.backbone, f"{config.external.name} ({found.words})"
    file = config.imagenet_weights
    source = file.name if file else "torchvision VGG16_Weights.IMAGENET1K_V1"
    return read_imagenet_trunk(file, "vgg16", width), source


def read_ubr_backbone(path: Path, required_init: str, arm: Arm) -> Backbone:
    """Read the trunk of a body-part regressor and refuse one that was made for another arm.

    Raises:
        CheckpointRefused: damaged, no regressor's, or started elsewhere than the arm demands.
    """
    kind = checkpoint_kind(path)
    if kind == "ubr":
        found = regressor_backbone(read_regressor(path))
    elif kind == "backbone":
        found = read_backbone(path)
    else:
        raise CheckpointRefused(f"{path}: is a {kind!r} file, expected a 'ubr' or a 'backbone' one")
    made = found.provenance
    if made.pretraining != "ubr" or made.init != required_init:
        raise CheckpointRefused(
            f"{path}: was made with init {made.init}, pretraining {made.pretraining}; "
            f"--init {arm} needs init {required_init}, pretraining ubr"
        )
    return found


def redraw_by_statistics(
    tensors: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Return Gaussian tensors with the mean and standard deviation of each of ``tensors``."""
    return {
        name: torch.randn(tensor.shape, generator=generator) * tensor.std(correction=0)
        + tensor.mean()
        for name, tensor in tensors.items()
    }


def _draw_he(trunk: Trunk, generator: torch.Generator) -> None:
    """Redraw the convolutions from a generator of their own (the biases are zero)."""
    for _, conv in trunk.convolutions():
        torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)


def weight_table(start: Start, live: Mapping[str, Tensor], head_source: str) -> list[WeightRow]:
    """Account for every tensor of the live detector.

    Args:
        start: where the trunk came from.
        live: the detector's state.
        head_source: where the rest came from, in words.

    Raises:
        AssertionError: a live trunk tensor is not bit for bit the start's.
    """
    wanted = {f"trunk.{name}": tensor for name, tensor in start.tensors.items()}
    assert wanted.keys() == {name for name in live if name.startswith("trunk.")}
    rows = []
    for name, tensor in live.items():
        if in_trunk := name in wanted:
            assert torch.equal(tensor.cpu(), wanted[name]), f"{name}: not what {start.source} holds"
        rows.append(
            WeightRow(
                tensor=name,
                source=start.source if in_trunk else head_source,
                shape=tuple(tensor.shape),
                norm=float(torch.linalg.vector_norm(tensor.double())),
                loaded=in_trunk and start.arm != "random",
            )
        )
    return rows


def weight_table_csv(rows: Sequence[WeightRow]) -> str:
    """Return the table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tensor", "source", "shape", "l2_norm", "loaded"])
    for row in rows:
        shape = "x".join(map(str, row.shape))
        writer.writerow([row.tensor, row.source, shape, f"{row.norm:.9g}", row.loaded])
    return text.getvalue()


def weight_table_text(rows: Sequence[WeightRow]) -> str:
    """Return the table for a terminal."""
    lines = [
        f"{row.tensor:<40} {'x'.join(map(str, row.shape)):<16} {row.norm:>12.5g}  "
        f"{'loaded from ' if row.loaded else ''}{row.source}"
        for row in rows
    ]
    loaded = sum(row.loaded for row in rows)
    return "\n".join([*lines, f"{loaded} of {len(rows)} tensors loaded from a file"])
