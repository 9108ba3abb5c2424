"""The starts of the comparison: where a detector's trunk comes from, and the proof that it did.

The four arms of the paper are ``random``, ``ubr``, ``imagenet`` and ``ubr+imagenet``. The controls
``ubr-stats`` and ``imagenet-stats`` keep only the mean and standard deviation of every tensor of
their source: is it the features that help, or their scale? ``external`` is a VGG-16 of others.
Any source may be transferred through some block only; the blocks behind it are the random arm's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from lesion_det.det_config import Arm, DetConfig
from ubr_pretrain.backbone import Backbone, Provenance, read_backbone
from ubr_pretrain.checkpoint import CheckpointRefused, checkpoint_kind, file_sha256
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.regressor import read_regressor, regressor_backbone
from ubr_pretrain.source_trunk import read_source_trunk
from ubr_pretrain.starting_flags import (
    StartFlag,
    external_flags,
    require_flags,
)
from ubr_pretrain.transferred_blocks import WHOLE, transfer_blocks, transferred_names
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
        tensors: what ``trunk`` must hold, apart from its own memory, for the proof.
        input_spec: how HU become the trunk's input.
        provenance: how the source was made, without names of subjects.
        source: the file's name, or words; never a path.
        source_sha256: hash of the file, "" where there is none.
        drawn: where the tensors outside ``transferred`` come from, in words.
        transferred: names of the tensors that come from the source.
    """

    arm: Arm
    trunk: Trunk
    tensors: Mapping[str, Tensor]
    input_spec: InputSpec
    provenance: Provenance
    source: str
    source_sha256: str = ""
    drawn: str = ""
    transferred: frozenset[str] = field(default_factory=frozenset)


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
    trunk = Trunk("vgg16", width, stride=config.detector.stride)
    _draw_he(trunk, torch.Generator().manual_seed(seed))
    drawn = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    he = f"He, seed {seed}"
    if arm == "random":
        return Start(
            arm, trunk, drawn, config.random_input, Provenance(init="random"), he, drawn=he
        )
    found, source, sha256 = _read_source(config)
    if (found.trunk.arch, found.trunk.width) != ("vgg16", width):
        raise ValueError(
            f"{source}: is {found.trunk.arch} of width {found.trunk.width}, the detector is vgg16 "
            f"of width {width}; set --width"
        )
    tensors = found.trunk.state_dict()
    if arm.endswith("-stats"):
        tensors = redraw_by_statistics(tensors, torch.Generator().manual_seed(seed))
        source = f"Gaussians with mean and sd of {source}, seed {seed}"
    tensors = transfer_blocks(tensors, drawn, config.transfer_through)
    load_trunk(trunk, tensors, source)
    return Start(
        arm,
        trunk,
        tensors,
        found.input_spec,
        found.provenance.anonymous,
        source,
        sha256,
        he,
        transferred_names(tensors, config.transfer_through),
    )


def _require_flags(config: DetConfig) -> None:
    """Refuse an arm without its file, and a file that the arm would ignore."""
    part = None if config.transfer_through == WHOLE else config.transfer_through
    require_flags(
        config.init,
        (
            StartFlag("--ubr CHECKPOINT", config.ubr, UBR_START, needed=True),
            StartFlag("--imagenet-weights", config.imagenet_weights, IMAGENET_ARMS),
            *external_flags(config.external, config.external_input),
            StartFlag("--transfer_through", part, [a for a in get_args(Arm) if a != "random"]),
        ),
    )


def _read_source(config: DetConfig) -> tuple[Backbone, str, str]:
    """Return the trunk that an arm's file holds, what that file is, and its hash."""
    if config.ubr is not None:
        found = read_ubr_backbone(config.ubr, UBR_START[config.init], config.init)
        return found, config.ubr.name, file_sha256(config.ubr)
    source = read_source_trunk(config, "vgg16")
    return source.backbone, source.words, source.sha256


def read_ubr_backbone(path: Path, required_init: str, arm: Arm) -> Backbone:
    """Read the trunk of a body-part regressor and refuse one that was made for another arm.

    Raises:
        CheckpointRefused: damaged, no regressor's, or started elsewhere than the arm demands.
    """
    try:
        kind = checkpoint_kind(path)
    except CheckpointRefused as error:
        if not path.is_file():
            raise
        ours = path.suffix == ".safetensors"
        raise CheckpointRefused(
            f"{error if ours else f'{path}: not a safetensors file'}; --ubr takes a checkpoint of "
            "train_ubr.py or its export in the ubr layout; give one in another layout as "
            "--external (train_det.py: --init external --external FILE, compare_inits.py: "
            "--external NAME=FILE)"
        ) from error
    if kind == "ubr":
        found = regressor_backbone(read_regressor(path))
    elif kind == "backbone":
        found = read_backbone(path)
    else:
        raise CheckpointRefused(f"{path}: is a {kind!r} file, expected a 'ubr' or a 'backbone' one")
    made = found.provenance
    part = "" if made.began_through == WHOLE else f" through {made.began_through}"
    if made.pretraining != "ubr" or made.init != required_init or part:
        begun_elsewhere = made.init == "external" or part
        hint = ", or give its export as --init external --external FILE" if begun_elsewhere else ""
        raise CheckpointRefused(
            f"{path}: was made with init {made.init}{part}, pretraining {made.pretraining}; "
            f"--init {arm} needs init {required_init}, pretraining ubr{hint}"
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
        source, loaded = head_source, False
        if name in wanted:
            loaded = name.removeprefix("trunk.") in start.transferred
            source = start.source if loaded else start.drawn
            assert torch.equal(tensor.cpu(), wanted[name]), f"{name}: not what {source} holds"
        rows.append(
            WeightRow(
                tensor=name,
                source=source,
                shape=tuple(tensor.shape),
                norm=float(torch.linalg.vector_norm(tensor.double())),
                loaded=loaded,
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
