"""What is exported: networks as they were trained, and the trunk as it is transferred."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from converters.layouts import torchvision_features
from converters.one_channel import is_exact, one_channel_convolution, to_one_channel
from ubr_pretrain.backbone import Backbone, read_backbone
from ubr_pretrain.checkpoint import CheckpointRefused, checkpoint_kind
from ubr_pretrain.hu_networks import (
    HuFeatures,
    HuScores,
    outputs,
    random_slices,
    relative_difference,
)
from ubr_pretrain.layouts import NAMINGS, Layout, rename, tensor_names
from ubr_pretrain.regressor import Regressor, read_regressor, regressor_backbone
from ubr_pretrain.trunk import Trunk, load_trunk


@dataclass(frozen=True)
class Source:
    """What a checkpoint holds.

    Attributes:
        backbone: the trunk as it is transferred: batch norms folded, one channel where asked for.
        features: what it must compute: the trunk as it was trained.
        regressor: the whole network, batch norms folded; None: the file holds a trunk alone.
        scores: what that must compute: the regressor as it was trained.
        border: relative difference of ``backbone`` from the trunk of three channels, where
            ``features`` is of one channel for that reason; None: there is none.
    """

    backbone: Backbone
    features: HuFeatures
    regressor: Regressor | None = None
    scores: HuScores | None = None
    border: float | None = None


def read_source(checkpoint: Path, in_channels: int = 3) -> Source:
    """Read a training checkpoint of ``train_ubr.py`` or a backbone file.

    Raises:
        CheckpointRefused: ``checkpoint`` is damaged or of another kind.
    """
    match checkpoint_kind(checkpoint):
        case "ubr":
            read = read_regressor(checkpoint)
            backbone = regressor_backbone(read)
            features = HuFeatures(read.regressor.trunk, read.input_spec)
            whole = copy.deepcopy(read.regressor)
            whole.trunk = backbone.trunk
            source = Source(backbone, features, whole, HuScores(read.regressor, read.input_spec))
        case "backbone":
            backbone = read_backbone(checkpoint)
            source = Source(backbone, HuFeatures(backbone.trunk, backbone.input_spec))
        case kind:
            raise CheckpointRefused(f"{checkpoint}: is a {kind!r} file, expected ubr or backbone")
    source = replace(source, backbone=replace(backbone, provenance=backbone.provenance.anonymous))
    return source if in_channels == 3 else _one_channel(source)


def _one_channel(source: Source) -> Source:
    """Return the source for one channel; what it changes at the border is measured."""
    spec, one = source.backbone.input_spec, to_one_channel(source.backbone)
    if is_exact(spec):
        return Source(one, source.features)
    features = HuFeatures(one.trunk, one.input_spec, 1)
    hu = random_slices(spec, (1, 1, spec.size_px, spec.size_px))
    border = relative_difference(outputs(source.features, hu), outputs(features, hu))
    return Source(one, features, border=border)


def fresh_network(
    tensors: Mapping[str, Tensor], backbone: Backbone, layout: Layout, in_channels: int = 3
) -> nn.Module:
    """Load what was read back, strictly, into a new network of the layout's kind."""
    arch, width, prefix = backbone.trunk.arch, backbone.trunk.width, NAMINGS[layout].prefix
    in_trunk = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if NAMINGS[layout].numbered:
        features = torchvision_features(arch, width, in_channels)
        features.load_state_dict({n.removeprefix(prefix): t for n, t in in_trunk.items()})
        return features[:-1]  # a trunk ends at the last ReLU, before torchvision's last pool
    ours = {theirs: name for name, theirs in tensor_names(arch, layout).items()}
    trunk = Trunk(arch, width)
    if in_channels == 1:
        name, conv = next(trunk.convolutions())
        trunk.register_module(name, one_channel_convolution(conv))
    load_trunk(trunk, rename(in_trunk, ours), "the written file")
    return trunk
