"""Networks and inputs of others in which an exported trunk is to work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchvision
from torch import nn

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import (
    LAYERS,
    TORCHVISION_INDEX,
    Architecture,
    scaled_channels,
)

GREY_MAX = 255.0
"""Detectron2's mappers hand over 0..255; its PIXEL_MEAN and PIXEL_STD are in that unit."""


def torchvision_features(arch: Architecture, width: float) -> nn.Sequential:
    """Return a ``features`` module as torchvision builds it, its values not yet set.

    At width 1 it is torchvision's own; a narrower one is built in the same order.
    """
    if width == 1.0:
        build = {"vgg16": torchvision.models.vgg16, "alexnet": torchvision.models.alexnet}[arch]
        arguments = {"init_weights": False} if arch == "vgg16" else {}
        with torch.device("meta"):  # the 120 million weights of its classifier stay unallocated
            features: nn.Sequential = build(**arguments).features
        return features.to_empty(device="cpu")
    pool_size = 2 if arch == "vgg16" else 3
    parts: list[nn.Module] = []
    channels = 3
    for layer in LAYERS[arch]:
        if layer.pool_before:
            parts.append(nn.MaxPool2d(pool_size, 2))
        assert len(parts) == TORCHVISION_INDEX[arch][layer.name]
        out = scaled_channels(layer.channels, width)
        parts.append(nn.Conv2d(channels, out, layer.kernel, layer.stride, layer.padding))
        parts.append(nn.ReLU(inplace=True))
        channels = out
    return nn.Sequential(*parts, nn.MaxPool2d(pool_size, 2))


@dataclass(frozen=True)
class Detectron2Input:
    """The keys of a Detectron2 configuration under which a trunk sees what it was trained on."""

    format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]


def detectron2_input(spec: InputSpec) -> Detectron2Input:
    """Return the keys for images that hold ``255 * clip((hu - lower) / (upper - lower), 0, 1)``.

    ``(scale * v - mean) / std == (255 * v - mean * 255 / scale) / (std * 255 / scale)``. The
    format is RGB because the means of ``InputSpec`` stand in the order in which conv1 reads.
    """
    k = GREY_MAX / spec.scale
    mean, std = spec.mean, spec.std
    return Detectron2Input(
        format="RGB",
        pixel_mean=(mean[0] * k, mean[1] * k, mean[2] * k),
        pixel_std=(std[0] * k, std[1] * k, std[2] * k),
    )
