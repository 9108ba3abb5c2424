"""A trunk that reads one grey channel where it was trained on three.

The three channels of a CT slice hold one grey value g, so that conv1 sees

    sum_c w_c (g - mean_c) / std_c + b  =  w (g - mean) / std + bias,

    w = std * sum_c w_c / std_c,   bias = b + sum_c (mean - mean_c) / std_c * sum_taps w_c.

Where the channels share mean and std this is the sum of the weights, and exact everywhere. Where
they do not (ImageNet's statistics) it is exact in the interior alone: at the border the padding is
zero, which is ``mean_c`` to the three channels and ``mean`` to the one. ``mean`` is chosen such
that this difference is least over all filters and taps.

Shapes:
    D: filters of conv1; k: its kernel.

Reference:
    timm (``in_chans=1``) and segmentation_models_pytorch (``in_channels=1``) sum the weights too,
    and leave mean and std to their user.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from ubr_pretrain.backbone import Backbone
from ubr_pretrain.ct import InputSpec

MEAN_DIGITS = 6
"""Decimal places of the chosen mean: any mean is exact in the interior, a short one is readable."""


def to_one_channel(backbone: Backbone) -> Backbone:
    """Return the trunk whose conv1 reads one grey channel, with the input that it then needs.

    Its ``InputSpec`` has three equal means and standard deviations: those of the one channel.
    """
    trunk = copy.deepcopy(backbone.trunk)
    name, conv = next(trunk.convolutions())
    spec = backbone.input_spec
    mean_c, std_c = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (spec.mean, spec.std)
    )
    w_c = conv.weight.detach().double() / std_c  # D 3 k k
    summed, weighted = w_c.sum(1), (w_c * mean_c).sum(1)
    std = float(std_c.median())  # any will do; the shared one where there is one
    mean = spec.mean[0]
    if not is_exact(spec):
        least = (summed * weighted).sum() / summed.square().sum()
        mean = round(float(least), MEAN_DIGITS)
    one = one_channel_convolution(conv)
    assert conv.bias is not None
    bias = conv.bias.detach().double() + (mean * summed - weighted).sum(dim=(1, 2))
    one.load_state_dict({"weight": (std * summed)[:, None].float(), "bias": bias.float()})
    trunk.register_module(name, one)
    only = spec.model_copy(update={"mean": (mean,) * 3, "std": (std,) * 3})
    return Backbone(trunk, only, backbone.provenance)


def is_exact(spec: InputSpec) -> bool:
    """Whether one channel can stand for the three at the border, too."""
    return len(set(spec.mean)) == len(set(spec.std)) == 1


def one_channel_convolution(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution like ``conv`` for one channel, its values not those of ``conv``."""
    return nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
