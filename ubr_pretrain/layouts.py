"""What each layout calls the tensors of a trunk, one to one.

==============  ==============================  ================================================
layout          conv1_1.weight of VGG-16        who reads it
==============  ==============================  ================================================
``ubr``         ``conv1_1.weight``              this project (``read_backbone``)
``torchvision`` ``features.0.weight``           ``torchvision.models.vgg16``, ``alexnet``
``detectron2``  ``backbone.conv1_1.weight``     Detectron2's ``DetectionCheckpointer``
==============  ==============================  ================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ubr_pretrain.trunk import Architecture, torchvision_names

Layout = Literal["ubr", "torchvision", "detectron2"]


def tensor_names(arch: Architecture, layout: Layout) -> dict[str, str]:
    """Map our tensor names to those of ``layout``, one to one."""
    theirs = torchvision_names(arch)
    match layout:
        case "torchvision":
            return theirs
        case "detectron2":
            return {ours: f"backbone.{ours}" for ours in theirs}
        case "ubr":
            return {ours: ours for ours in theirs}


def rename(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors under their new names; the two sets of names must be the same.

    Raises:
        ValueError: a tensor without a new name, or a name without a tensor.
    """
    if odd := sorted(tensors.keys() ^ names.keys()):
        raise ValueError(f"{odd[0]}: a tensor without a name, or a name without a tensor")
    return {names[name]: tensor for name, tensor in tensors.items()}
