"""The convolutional trunk that is pretrained and transferred: VGG-16 or AlexNet, conv1 to conv5.

Shapes:
    N: images; C: input channels, 3 unless conv1 was replaced by one of 1; H, W: input pixels.
    D: ``out_channels``; h, w: H, W over ``stride`` (rounded down at each pool).

Reference:
    VGG-16 "D": Simonyan, Zisserman, ICLR 2015. AlexNet: torchvision's single-column layout
    (Krizhevsky, arXiv:1404.5997). He initialisation: He et al., ICCV 2015.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Architecture = Literal["vgg16", "alexnet"]


@dataclass(frozen=True)
class ConvShape:
    """One convolution of a trunk and whether a max-pool stands in front of it."""

    name: str
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool_before: bool = False


VGG16 = tuple(
    ConvShape(f"conv{block}_{i}", channels, pool_before=block > 1 and i == 1)
    for block, (channels, depth) in enumerate(
        [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1
    )
    for i in range(1, depth + 1)
)
ALEXNET = (
    ConvShape("conv1", 64, kernel=11, stride=4, padding=2),
    ConvShape("conv2", 192, kernel=5, padding=2, pool_before=True),
    ConvShape("conv3", 384, pool_before=True),
    ConvShape("conv4", 256),
    ConvShape("conv5", 256),
)
LAYERS: Mapping[str, tuple[ConvShape, ...]] = {"vgg16": VGG16, "alexnet": ALEXNET}


class Trunk(nn.Module):
    """conv1..conv5 with their ReLUs, ending at the last ReLU (no last pool).

    VGG-16 pools four times (stride 16): conv6 of the regressor and the RPN of Faster R-CNN both
    read relu5_3. Tensors are named after the layers (``conv1_1.weight``), so that a table of names
    is all a conversion needs.

    Args:
        arch: "vgg16" or "alexnet".
        width: multiplies every channel count; 1.0 is the paper's.
        batch_norm: a batch norm behind every convolution, for training from scratch only.
            Deviation: the paper's trunk has none; ``fold_batch_norm`` removes it exactly.
        stride: 16, or 8 without pool4 (VGG-16 only; the authors' later detectors).
    """

    def __init__(
        self,
        arch: Architecture = "vgg16",
        width: float = 1.0,
        *,
        batch_norm: bool = False,
        stride: Literal[8, 16] = 16,
    ) -> None:
        super().__init__()
        if width <= 0:
            raise ValueError(f"width {width} must be > 0")
        if arch == "alexnet" and stride != 16:
            raise ValueError("only vgg16 has a stride-8 form")
        self.arch, self.width, self.stride = arch, width, stride
        self.layers = LAYERS[arch]
        self.batch_norm = batch_norm
        channels = 3
        for layer in self.layers:
            out = scaled_channels(layer.channels, width)
            conv = nn.Conv2d(channels, out, layer.kernel, layer.stride, layer.padding)
            nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            self.add_module(layer.name, conv)
            if batch_norm:
                self.add_module(f"bn_{layer.name}", nn.BatchNorm2d(out))
            channels = out
        self.out_channels = channels

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        """Return the activations of the last ReLU."""
        x = images
        for _, x in self.activations(images):  # noqa: B007
            pass
        return x

    def activations(self, images: Float[Tensor, "N C H W"]) -> Iterator[tuple[str, Tensor]]:
        """Yield (layer, its activations after the ReLU) from the input on."""
        x = images
        for layer in self.layers:
            if layer.pool_before and not (self.stride == 8 and layer.name == "conv5_1"):
                x = self._pool(x)
            x = self.get_submodule(layer.name)(x)
            if self.batch_norm:
                x = self.get_submodule(f"bn_{layer.name}")(x)
            x = torch.relu_(x)
            yield layer.name, x

    def _pool(self, x: Tensor) -> Tensor:
        size = 2 if self.arch == "vgg16" else 3
        return nn.functional.max_pool2d(x, size, 2)

    def convolutions(self) -> Iterator[tuple[str, nn.Conv2d]]:
        """Yield (name, convolution) from the input on."""
        for layer in self.layers:
            conv = self.get_submodule(layer.name)
            assert isinstance(conv, nn.Conv2d)
            yield layer.name, conv


def scaled_channels(channels: int, width: float) -> int:
    """Channel count at a width multiplier, at least 8."""
    return max(8, round(channels * width))


def is_width(value: object) -> bool:
    """Whether a value of a file can be the width multiplier of a trunk."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def fold_batch_norm(trunk: Trunk) -> Trunk:
    """Return a trunk without batch norm that computes what ``trunk.eval()`` computes.

    ``gamma * (w x + b - mean) / sqrt(var + eps) + beta`` is a convolution with
    ``w * k`` and ``(b - mean) * k + beta``, ``k = gamma / sqrt(var + eps)``; formed in float64.
    """
    if not trunk.batch_norm:
        return copy.deepcopy(trunk)
    plain = Trunk(trunk.arch, trunk.width, stride=trunk.stride)
    for name, conv in trunk.convolutions():
        bn = trunk.get_submodule(f"bn_{name}")
        assert isinstance(bn, nn.BatchNorm2d)
        assert bn.running_var is not None
        assert bn.running_mean is not None
        assert conv.bias is not None
        k = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        weight = conv.weight.double() * k[:, None, None, None]
        bias = (conv.bias.double() - bn.running_mean.double()) * k + bn.bias.double()
        folded = plain.get_submodule(name)
        folded.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return plain.train(trunk.training)


TORCHVISION_INDEX: Mapping[str, Mapping[str, int]] = {
    "vgg16": dict(
        zip(
            (layer.name for layer in VGG16),
            (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
            strict=True,
        )
    ),
    "alexnet": {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10},
}
"""Where a layer stands in ``torchvision.models.vgg16().features`` and ``alexnet().features``."""


def torchvision_names(arch: Architecture, prefix: str = "features.") -> dict[str, str]:
    """Map our tensor names to torchvision's, one to one."""
    return {
        f"{name}.{kind}": f"{prefix}{index}.{kind}"
        for name, index in TORCHVISION_INDEX[arch].items()
        for kind in ("weight", "bias")
    }


def load_trunk(trunk: Trunk, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy ``tensors`` (our names) into a trunk without batch norm; every one must fit.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape, not plain floating-point
            numbers, or not finite; the message names ``source``, the tensor and both shapes.
    """
    own = trunk.state_dict()
    if missing := sorted(own.keys() - tensors.keys()):
        raise ValueError(
            f"{source}: lacks {len(missing)} of {len(own)} trunk tensors: {missing[0]} ..."
        )
    if unknown := sorted(tensors.keys() - own.keys()):
        raise ValueError(f"{source}: has tensors that the trunk lacks: {', '.join(unknown[:3])}")
    for name, tensor in tensors.items():
        require_plain_floats(tensor, f"{source}: {name}")
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"{source}: {name} is {tuple(tensor.shape)}, {trunk.arch} of width {trunk.width} "
                f"needs {tuple(own[name].shape)}"
            )
        if not torch.isfinite(tensor.float()).all():
            raise ValueError(f"{source}: {name} holds values that are not finite")
    trunk.load_state_dict(dict(tensors))


def require_network(
    network: Callable[[], nn.Module], tensors: Mapping[str, Any], source: str
) -> None:
    """Refuse tensors that are not exactly a network's, before room is made for the network.

    Args:
        network: builds it; only its names and shapes are computed.
        tensors: of a file whose own words say what the network is.
        source: the file, for the message.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape, or there can be no such
            network.
    """
    try:
        with torch.device("meta"):
            own = network().state_dict()
    except (RuntimeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{source}: describes a network that cannot be ({reason})") from error
    if missing := sorted(own.keys() - tensors.keys()):
        raise ValueError(f"{source}: lacks {len(missing)} of {len(own)} tensors: {missing[0]} ...")
    if unknown := sorted(tensors.keys() - own.keys()):
        raise ValueError(f"{source}: has tensors that the network lacks: {', '.join(unknown[:3])}")
    for name, tensor in tensors.items():
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        if found != tuple(own[name].shape):
            raise ValueError(f"{source}: {name} is {found}, not {tuple(own[name].shape)}")


def require_plain_floats(tensor: Tensor, called: str) -> None:
    """Refuse a tensor whose values are not all there, or are no floating-point numbers.

    Raises:
        ValueError: sparse, without values (on the device ``meta``), or of another type.
    """
    if tensor.layout != torch.strided:
        raise ValueError(f"{called} is stored as {tensor.layout}, not densely")
    if tensor.is_meta:
        raise ValueError(f"{called} has a shape but no values (device meta)")
    if not tensor.is_floating_point():
        raise ValueError(f"{called} holds {tensor.dtype}, not floating-point numbers")
