"""Whose names the tensors of a trunk take, and what the owner of the names can hold.

===============================  =========================  =======================================
layout                           conv1_1.weight of VGG-16   who reads it
===============================  =========================  =======================================
``ubr``                          ``conv1_1.weight``         this project (``read_backbone``)
``torchvision``                  ``features.0.weight``      ``torchvision.models`` (``.features``)
``torchvision-classifier``       ``features.0.weight``      ``torchvision.models``, the whole model
``detectron2``                   ``backbone.conv1_1...``    Detectron2's ``DetectionCheckpointer``
``mmdetection``                  ``features.0.weight``      ``mmcv.cnn``, MMDetection's ``SSDVGG``
``timm``                         ``features.0.weight``      ``timm.create_model("vgg16")``
``segmentation_models_pytorch``  ``features.0.weight``      ``smp.encoders.get_encoder("vgg16")``
``onnx``                         ``trunk.conv1_1.weight``   ONNX runtimes: HU to features
``onnx-scorer``                  ``regressor.trunk...``     ONNX runtimes: HU to a score a slice
===============================  =========================  =======================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ubr_pretrain.trunk import LAYERS, TORCHVISION_INDEX, Architecture

Layout = Literal[
    "ubr",
    "torchvision",
    "torchvision-classifier",
    "detectron2",
    "mmdetection",
    "timm",
    "segmentation_models_pytorch",
    "onnx",
    "onnx-scorer",
]


@dataclass(frozen=True)
class Naming:
    """What one layout calls the layers of a trunk, and which trunks it has a place for.

    Attributes:
        prefix: before the name of every layer.
        numbered: layers are called by their place in torchvision's ``features``; else by name.
        architectures: of which the library has a network.
        any_width: whether its network can be narrower than the paper's.
        one_channel: whether its network can read one grey channel in place of three.
    """

    prefix: str = ""
    numbered: bool = False
    architectures: tuple[Architecture, ...] = ("vgg16", "alexnet")
    any_width: bool = True
    one_channel: bool = True


NAMINGS: Mapping[Layout, Naming] = {
    "ubr": Naming(one_channel=False),
    "torchvision": Naming("features.", numbered=True),
    "torchvision-classifier": Naming("features.", numbered=True, any_width=False),
    "detectron2": Naming("backbone."),
    "mmdetection": Naming("features.", numbered=True, any_width=False, one_channel=False),
    "timm": Naming("features.", numbered=True, architectures=("vgg16",), any_width=False),
    "segmentation_models_pytorch": Naming("features.", numbered=True, architectures=("vgg16",)),
    "onnx": Naming("trunk."),
    "onnx-scorer": Naming("regressor.trunk.", one_channel=False),
}


def tensor_names(arch: Architecture, layout: Layout) -> dict[str, str]:
    """Map our tensor names to those of ``layout``, one to one.

    Raises:
        ValueError: the layout has no such architecture.
    """
    naming = NAMINGS[layout]
    if arch not in naming.architectures:
        raise ValueError(f"layout {layout} has no {arch}, only {', '.join(naming.architectures)}")
    return {
        f"{layer.name}.{kind}": f"{naming.prefix}{_called(arch, layer.name, naming)}.{kind}"
        for layer in LAYERS[arch]
        for kind in ("weight", "bias")
    }


def require_place(arch: Architecture, width: float, layout: Layout, in_channels: int = 3) -> None:
    """Refuse a trunk for which the owner of the layout has no network.

    Raises:
        ValueError: naming the layout, and what it can hold.
    """
    tensor_names(arch, layout)
    if width != 1.0 and not NAMINGS[layout].any_width:
        raise ValueError(f"layout {layout} has {arch} of width 1 only, this trunk has {width:g}")
    if in_channels != 3 and not NAMINGS[layout].one_channel:
        raise ValueError(f"layout {layout}: its conv1 reads 3 channels, not {in_channels}")


def _called(arch: Architecture, layer: str, naming: Naming) -> str:
    return str(TORCHVISION_INDEX[arch][layer]) if naming.numbered else layer


def rename(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors under their new names; the two sets of names must be the same.

    Raises:
        ValueError: a tensor without a new name, or a name without a tensor.
    """
    if odd := sorted(tensors.keys() ^ names.keys()):
        raise ValueError(f"{odd[0]}: a tensor without a name, or a name without a tensor")
    return {names[name]: tensor for name, tensor in tensors.items()}
