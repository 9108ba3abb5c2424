"""A trunk as a file: its tensors, the input it was trained on, and how it was made.

The file is safetensors with our tensor names (``conv1_1.weight``) at the top level and the rest in
the metadata, so that any safetensors reader can open it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint, write_checkpoint
from ubr_pretrain.config import Config, first_problem
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.foreign_weights import parse_json, read_foreign_weights
from ubr_pretrain.imagenet_weights import imagenet_weights, require_torchvisions
from ubr_pretrain.transferred_blocks import WHOLE, Block
from ubr_pretrain.trunk import (
    Architecture,
    Trunk,
    is_width,
    load_trunk,
    require_network,
    torchvision_names,
)

Init = Literal["random", "imagenet", "external"]

PRIVATE = frozenset(
    {"holdout", "data", "store", "anchors", "start", "imagenet_weights", "external"}
)
"""Fields of a training's configuration that name patients, or places on one machine; they do not
leave with weights."""


class Provenance(Config):
    """How a trunk was made; an arm of the comparison checks it before it starts.

    Attributes:
        init: where its training began: "random", "imagenet", or "external" (a file of others, which
            does not say more).
        pretraining: "ubr" (trained as a body-part regressor) or "none" (as initialised).
        iterations: training iterations behind it.
        data_sha256: hash of the manifest of the training volumes, "" where none were used.
        num_volumes: number of training volumes.
        config: the resolved configuration of the training run.
        code_version: version of this project that wrote it.
        folded_batch_norm: whether batch norms were folded into the convolutions.
        source: name of the file (or of torchvision's weights) that its training began from, "" for
            a random start.
        source_sha256: hash of that file, "" where there is none.
    """

    init: Init
    pretraining: Literal["ubr", "none"] = "none"
    iterations: int = 0
    data_sha256: str = ""
    num_volumes: int = 0
    config: Mapping[str, Any] = Field(default_factory=dict)
    code_version: str = ""
    folded_batch_norm: bool = False
    source: str = ""
    source_sha256: str = ""

    @property
    def first_stage(self) -> Provenance:
        """How the first of several trainings made it; itself where there was one."""
        if "first_stage" not in self.config:
            return self
        return Provenance.model_validate(self.config["first_stage"]).first_stage

    @property
    def began_through(self) -> Block:
        """The last block that its training began with from ``init``, not drawn."""
        return self.first_stage.config.get("transfer_through", WHOLE)

    @property
    def anonymous(self) -> Provenance:
        """The same, its first stages included, without names of subjects or places."""
        return self.model_copy(update={"config": without_names(self.config)})


def without_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, its first stages included, without names of subjects or places."""
    return {
        key: without_names(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in PRIVATE
    }


@dataclass(frozen=True)
class Backbone:
    """A trunk without batch norm, with what is needed to use it rightly."""

    trunk: Trunk
    input_spec: InputSpec
    provenance: Provenance


def write_backbone(path: Path, backbone: Backbone) -> None:
    """Write ``backbone`` and read it back: a file that was written is a file that loads.

    Raises:
        ValueError: the trunk still has batch norms (``fold_batch_norm`` first).
    """
    trunk = backbone.trunk
    if trunk.batch_norm:
        raise ValueError(f"{path}: fold the batch norms before writing a backbone")
    state: dict[str, Any] = {
        "arch": trunk.arch,
        "width": trunk.width,
        "input_spec": backbone.input_spec.model_dump(mode="json"),
        "provenance": backbone.provenance.model_dump(mode="json"),
        **trunk.state_dict(),
    }
    write_checkpoint(path, state, "backbone")
    again = read_backbone(path)
    for name, tensor in trunk.state_dict().items():
        assert torch.equal(again.trunk.state_dict()[name], tensor.cpu()), name
    assert again.input_spec == backbone.input_spec


def read_backbone(path: Path) -> Backbone:
    """Read a backbone file; every tensor must fit the architecture that the file states.

    Raises:
        CheckpointRefused: damaged, of another kind, an entry missing or wrong, or a tensor missing
            or misshapen.
    """
    state = read_checkpoint(path, "backbone")
    spec, provenance = read_entries(state, str(path))
    entries = {key: state.pop(key, None) for key in ("arch", "width", "input_spec", "provenance")}
    arch, width = entries["arch"], entries["width"]
    if arch not in get_args(Architecture) or not is_width(width):
        raise CheckpointRefused(
            f"{path}: arch {arch!r} and width {width!r}; expected one of "
            f"{', '.join(get_args(Architecture))} and a number > 0"
        )
    width = float(width)
    try:
        require_network(lambda: Trunk(arch, width), state, str(path))
        trunk = Trunk(arch, width)
        load_trunk(trunk, state, str(path))
    except ValueError as error:
        raise CheckpointRefused(str(error)) from error
    return Backbone(trunk, spec, provenance)


def read_entries(about: Mapping[str, Any], source: str) -> tuple[InputSpec, Provenance]:
    """Return the input and the making of a trunk from what its file says of itself.

    Args:
        about: ``input_spec`` and ``provenance``, each a mapping or JSON of one.
        source: the file, for the message.

    Raises:
        CheckpointRefused: one is missing, or not what this project writes.
    """
    values = {}
    for key in ("input_spec", "provenance"):
        value = about.get(key)
        values[key] = parse_json(value, f"{source}: {key}") if isinstance(value, str) else value
    try:
        key = "input_spec"
        spec = InputSpec.model_validate(values[key])
        key = "provenance"
        return spec, Provenance.model_validate(values[key])
    except ValidationError as error:
        problem = " ".join(first_problem(error).split())
        raise CheckpointRefused(f"{source}: {key} is not ours: {problem}") from error


def read_imagenet_trunk(file: Path | None, arch: Architecture, width: float = 1.0) -> Backbone:
    """Return an ImageNet trunk from torchvision's weights or from a local file of that layout.

    Args:
        file: ``vgg16-*.pth`` / ``alexnet-*.pth`` as torchvision stores it (read with
            ``weights_only=True``), or a ``.safetensors`` of the same names; None: torchvision's
            own cache or download, held to its hash, as is a file of that name.
        arch: "vgg16" or "alexnet".
        width: must be 1.0 for torchvision's own weights; a file may hold a narrower trunk.

    Raises:
        ValueError: the weights cannot be had, or do not fit; the message says what to do.
    """
    if file is None and width != 1.0:
        raise ValueError(
            f"no ImageNet weights exist for width {width}; give --imagenet-weights FILE"
        )
    if file is not None:
        require_torchvisions(file, arch)
    tensors = _read_torchvision_file(file or imagenet_weights(arch))
    source = str(file or f"torchvision {arch}")
    names = torchvision_names(arch)
    features = {name: t for name, t in tensors.items() if name.startswith("features.")}
    if any(name.endswith("running_mean") for name in features):
        raise CheckpointRefused(f"{source}: has batch norms; expected plain {arch}")
    if unknown := sorted(features.keys() - set(names.values())):
        raise CheckpointRefused(f"{source}: not torchvision's {arch} ({unknown[0]} is unknown)")
    trunk = Trunk(arch, width)
    ours = {own: features[theirs] for own, theirs in names.items() if theirs in features}
    try:
        load_trunk(trunk, ours, source)
    except ValueError as error:
        raise CheckpointRefused(str(error)) from error
    return Backbone(trunk, IMAGENET_INPUT, Provenance(init="imagenet"))


def _read_torchvision_file(file: Path) -> dict[str, Tensor]:
    tensors, about = read_foreign_weights(file)
    if "provenance" in about:  # a trunk of ours in torchvision's names: no ImageNet arm
        raise CheckpointRefused(
            f"{file}: was exported by this project ({about['provenance']}), not ImageNet's weights"
        )
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointRefused(f"{file}: not a flat dictionary of tensors as torchvision saves it")
    return dict(tensors)
