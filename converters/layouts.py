"""Networks and inputs of others in which an exported trunk is to work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import GREY_MAX
from ubr_pretrain.trunk import (
    LAYERS,
    TORCHVISION_INDEX,
    Architecture,
    scaled_channels,
)

SEED = 0
"""Of classifiers that nobody trained."""

_BUILD: Mapping[Architecture, Callable[[], nn.Module]] = {
    "vgg16": torchvision.models.vgg16,
    "alexnet": torchvision.models.alexnet,
}


def torchvision_features(arch: Architecture, width: float, in_channels: int = 3) -> nn.Sequential:
    """Return a ``features`` module as torchvision builds it, its values not yet set.

    At width 1 it is torchvision's own; another one is built in the same order.
    """
    if width == 1.0 and in_channels == 3:
        features = torchvision_network(arch).get_submodule("features")
        assert isinstance(features, nn.Sequential)
        return features.to_empty(device="cpu")
    pool_size = 2 if arch == "vgg16" else 3
    parts: list[nn.Module] = []
    channels = in_channels
    for layer in LAYERS[arch]:
        if layer.pool_before:
            parts.append(nn.MaxPool2d(pool_size, 2))
        assert len(parts) == TORCHVISION_INDEX[arch][layer.name]
        out = scaled_channels(layer.channels, width)
        parts.append(nn.Conv2d(channels, out, layer.kernel, layer.stride, layer.padding))
        parts.append(nn.ReLU(inplace=True))
        channels = out
    return nn.Sequential(*parts, nn.MaxPool2d(pool_size, 2))


def torchvision_network(arch: Architecture) -> nn.Module:
    """Return torchvision's own network, without memory for its 120 million weights yet."""
    with torch.device("meta"):
        return _BUILD[arch]()


def random_classifier(arch: Architecture) -> dict[str, Tensor]:
    """Return the classifier of torchvision's network as it draws it after seed ``SEED``.

    torchvision draws from the global generator, which is left as it was, as those of GPUs are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # torch's own function seeds GPUs too
        tensors = _BUILD[arch]().state_dict()
    return {name: tensor for name, tensor in tensors.items() if name.startswith("classifier.")}


@dataclass(frozen=True)
class UnitStatistics:
    """Mean and standard deviation of every channel of an image that holds 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def unit_statistics(spec: InputSpec, in_channels: int) -> UnitStatistics:
    """Return what timm and segmentation_models_pytorch call mean and std.

    Their images hold ``clip((hu - lower) / (upper - lower), 0, 1)``.
    """
    return UnitStatistics(
        mean=tuple(value / spec.scale for value in spec.mean[:in_channels]),
        std=tuple(value / spec.scale for value in spec.std[:in_channels]),
    )


@dataclass(frozen=True)
class Detectron2Input:
    """The keys of a Detectron2 configuration under which a trunk sees what it was trained on.

    Its mappers hand over 0..255 (``GREY_MAX``), and mean and std are in that unit.
    """

    format: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]


def detectron2_input(spec: InputSpec, in_channels: int = 3) -> Detectron2Input:
    """Return the keys for images that hold ``255 * clip((hu - lower) / (upper - lower), 0, 1)``.

    ``(scale * v - mean) / std == (255 * v - mean * 255 / scale) / (std * 255 / scale)``. The
    format is RGB because the means of ``InputSpec`` stand in the order in which conv1 reads.
    """
    k = GREY_MAX / spec.scale
    return Detectron2Input(
        format="RGB" if in_channels == 3 else "L",
        pixel_mean=tuple(value * k for value in spec.mean[:in_channels]),
        pixel_std=tuple(value * k for value in spec.std[:in_channels]),
    )
