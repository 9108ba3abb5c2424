"""Networks as functions of Hounsfield units, so that any two can be compared on the same slices.

Shapes:
    N: slices; C: channels of the slices; H, W: rows and columns.
    D, h, w: the features of a trunk.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import grey_image
from ubr_pretrain.regressor import Regressor

MARGIN_HU = 100.0
"""Random slices reach that far beyond the window on either side."""


class HuInput(nn.Module):
    """``network_input.normalise`` with its constants as part of a network.

    Args:
        spec: the input convention.
        channels: that the network reads; slices of one channel are repeated.
    """

    def __init__(self, spec: InputSpec, channels: int = 3) -> None:
        super().__init__()
        self.window, self.scale, self.channels = spec.window, spec.scale, channels
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values[:channels])[:, None, None])

    def forward(self, hu: Tensor) -> Tensor:
        """Window and normalise HU."""
        grey = grey_image(hu, self.window, self.scale).expand(-1, self.channels, -1, -1)
        return (grey - self.get_buffer("mean")) / self.get_buffer("std")


class HuFeatures(nn.Module):
    """A trunk behind its input: HU [N, C, H, W] to the last ReLU [N, D, h, w]."""

    def __init__(self, trunk: nn.Module, spec: InputSpec, channels: int = 3) -> None:
        super().__init__()
        self.trunk = trunk
        self.window = HuInput(spec, channels)

    def forward(self, hu: Tensor) -> Tensor:
        """Return the activations of the last ReLU."""
        return self.trunk(self.window(hu))


class HuScores(nn.Module):
    """A body-part regressor behind its input: HU [N, 1, H, W] to one score a slice [N]."""

    def __init__(self, regressor: Regressor, spec: InputSpec) -> None:
        super().__init__()
        self.regressor = regressor
        self.window = HuInput(spec)

    def forward(self, hu: Tensor) -> Tensor:
        """Return one score a slice."""
        return self.regressor(self.window(hu))


def random_slices(spec: InputSpec, shape: tuple[int, int, int, int]) -> Tensor:
    """Return float32 slices [N, C, H, W] of uniform HU about the window, the same on every call."""
    lower, upper = spec.window.lower_hu - MARGIN_HU, spec.window.upper_hu + MARGIN_HU
    unit = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return lower + (upper - lower) * unit


def outputs(network: nn.Module, hu: Tensor) -> Tensor:
    """Return what a network makes of slices, in float64: only its values can tell two apart."""
    with torch.no_grad():
        return copy.deepcopy(network).double().eval()(hu.double())


def relative_difference(reference: Tensor, other: Tensor) -> float:
    """Return the largest difference over the largest output; infinite where shapes differ."""
    if reference.shape != other.shape:
        return float("inf")
    largest = float(reference.abs().max())
    return float((reference - other).abs().max()) / (largest or 1.0)
