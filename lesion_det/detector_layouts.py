"""One detector, two sets of names: torchvision's parts as we assemble them, and Detectron2's.

==============================================  ===============================================
ours (torchvision's parts)                      Detectron2
==============================================  ===============================================
``trunk.conv1_1.weight`` ...                    ``backbone.conv1_1.weight`` ...
``rpn.head.conv.0.0``                           ``proposal_generator.rpn_head.conv``
``rpn.head.cls_logits``, ratio-major            ``...rpn_head.objectness_logits``, size-major
``rpn.head.bbox_pred``, ratio-major             ``...rpn_head.anchor_deltas``, size-major
``roi_heads.box_head.fc6``, ``fc7``             ``roi_heads.box_head.fc1``, ``fc2``
``roi_heads.box_predictor.cls_score``           the same, background last instead of first
``roi_heads.box_predictor.bbox_pred``           the same, without background's four rows
==============================================  ===============================================

Background's four rows of box regression are never read. They are kept beside Detectron2's tensors
(``BACKGROUND_BOX``), so that the way there and back is bit for bit the identity.

Shapes:
    S: anchor sizes; R: aspect ratios; D: features. Per location, torchvision's anchor
    r * S + s is Detectron2's s * R + r.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lesion_det.detector import ASPECT_RATIOS

HEAD_NAMES: Mapping[str, str] = {
    "rpn.head.conv.0.0": "proposal_generator.rpn_head.conv",
    "rpn.head.cls_logits": "proposal_generator.rpn_head.objectness_logits",
    "rpn.head.bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
    "roi_heads.box_head.fc6": "roi_heads.box_head.fc1",
    "roi_heads.box_head.fc7": "roi_heads.box_head.fc2",
    "roi_heads.box_predictor.cls_score": "roi_heads.box_predictor.cls_score",
    "roi_heads.box_predictor.bbox_pred": "roi_heads.box_predictor.bbox_pred",
}
"""Layers of the heads, one to one."""

BOX_LAYER = "roi_heads.box_predictor.bbox_pred"
CLASS_LAYER = "roi_heads.box_predictor.cls_score"
BACKGROUND_BOX = "background_box"
"""First part of the names of what Detectron2 has no place for."""

BOX_ROWS = 4


def ratio_to_size_major(rows: Tensor, num_sizes: int) -> Tensor:
    """Reorder what belongs to the anchors of one location: torchvision's order to Detectron2's.

    Args:
        rows: [R * S * k, ...], k rows an anchor.
        num_sizes: S; R follows.
    """
    return _swapped(rows, outer=_num_ratios(rows, num_sizes), inner=num_sizes)


def size_to_ratio_major(rows: Tensor, num_sizes: int) -> Tensor:
    """Undo ``ratio_to_size_major``."""
    return _swapped(rows, outer=num_sizes, inner=_num_ratios(rows, num_sizes))


def to_detectron2(state: Mapping[str, Tensor], num_sizes: int) -> dict[str, Tensor]:
    """Return a detector's tensors under Detectron2's names and in its order.

    Args:
        state: of ``Detector``, complete.
        num_sizes: anchor sizes.

    Returns:
        What ``GeneralizedRCNN.load_state_dict`` takes, and ``background_box.{weight,bias}``.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith("trunk."):
            converted[f"backbone.{layer.removeprefix('trunk.')}.{kind}"] = tensor
            continue
        theirs = f"{HEAD_NAMES[layer]}.{kind}"
        if layer in ("rpn.head.cls_logits", "rpn.head.bbox_pred"):
            converted[theirs] = ratio_to_size_major(tensor, num_sizes)
        elif layer == CLASS_LAYER:
            converted[theirs] = tensor.roll(-1, 0)
        elif layer == BOX_LAYER:
            converted[f"{BACKGROUND_BOX}.{kind}"] = tensor[:BOX_ROWS]
            converted[theirs] = tensor[BOX_ROWS:]
        else:
            converted[theirs] = tensor
    return converted


def from_detectron2(tensors: Mapping[str, Tensor], num_sizes: int) -> dict[str, Tensor]:
    """Return the tensors of ``to_detectron2`` as a state of ``Detector``.

    Background's box regression is zero where ``tensors`` does not hold it.

    Raises:
        ValueError: a name that is none of this detector's.
    """
    ours = {theirs: name for name, theirs in HEAD_NAMES.items()}
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if layer == BACKGROUND_BOX:
            continue
        if layer.startswith("backbone."):
            state[f"trunk.{layer.removeprefix('backbone.')}.{kind}"] = tensor
        elif layer not in ours:
            raise ValueError(f"{name}: no tensor of this detector")
        elif ours[layer] in ("rpn.head.cls_logits", "rpn.head.bbox_pred"):
            state[f"{ours[layer]}.{kind}"] = size_to_ratio_major(tensor, num_sizes)
        elif layer == CLASS_LAYER:
            state[name] = tensor.roll(1, 0)
        elif layer == BOX_LAYER:
            background = tensors.get(f"{BACKGROUND_BOX}.{kind}", torch.zeros_like(tensor))
            state[name] = torch.cat([background, tensor])
        else:
            state[f"{ours[layer]}.{kind}"] = tensor
    return state


def _num_ratios(rows: Tensor, num_sizes: int) -> int:
    assert len(rows) % (num_sizes * len(ASPECT_RATIOS)) == 0
    return len(ASPECT_RATIOS)


def _swapped(rows: Tensor, outer: int, inner: int) -> Tensor:
    grid = rows.reshape(outer, inner, -1)
    return grid.transpose(0, 1).reshape(rows.shape).contiguous()
