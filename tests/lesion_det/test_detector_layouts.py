"""torchvision's names and orders against Detectron2's: one to one, nothing lost."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lesion_det.det_config import DetectorConfig
from lesion_det.detector import ASPECT_RATIOS, Detector
from lesion_det.detector_layouts import (
    from_detectron2,
    ratio_to_size_major,
    size_to_ratio_major,
    to_detectron2,
)
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk

SIZES = (12, 24, 40, 64)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    config = DetectorConfig(stride=8, fc_dim=16, anchor_sizes_px=SIZES)
    detector = Detector(Trunk("vgg16", 0.1, stride=8), InputSpec(), config, 0)
    generator = torch.Generator().manual_seed(0)
    drawn = detector.state_dict()
    return {name: torch.randn(t.shape, generator=generator) for name, t in drawn.items()}


def test_there_and_back_is_the_identity(state: dict[str, Tensor]) -> None:
    there = to_detectron2(state, len(SIZES))
    back = from_detectron2(there, len(SIZES))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    # Two more names than tensors: background's rows, which Detectron2 has no place for.
    assert len(there) == len(state) + 2
    assert sum(t.numel() for t in there.values()) == sum(t.numel() for t in state.values())


DETECTRON2_HEADS = {
    "proposal_generator.rpn_head.conv": (3,),
    "proposal_generator.rpn_head.objectness_logits": (1,),
    "proposal_generator.rpn_head.anchor_deltas": (1,),
    "roi_heads.box_head.fc1": (),
    "roi_heads.box_head.fc2": (),
    "roi_heads.box_predictor.cls_score": (),
    "roi_heads.box_predictor.bbox_pred": (),
}
"""Layers of the heads of Detectron2's GeneralizedRCNN, and the sides of their kernels."""


def test_names_are_those_of_detectron2_and_rows_those_of_its_heads(
    state: dict[str, Tensor],
) -> None:
    there = to_detectron2(state, len(SIZES))
    layers = {name.rpartition(".")[0] for name in there}
    assert {name for name in layers if not name.startswith("backbone.")} == {
        *DETECTRON2_HEADS,
        "background_box",
    }
    for name, tensor in state.items():
        if name.startswith("trunk."):
            assert there[name.replace("trunk.", "backbone.")] is tensor
    for layer, kernel in DETECTRON2_HEADS.items():
        assert there[f"{layer}.weight"].shape[2:] == kernel * 2
    num_anchors = len(SIZES) * len(ASPECT_RATIOS)
    rpn = "proposal_generator.rpn_head"
    assert len(there[f"{rpn}.objectness_logits.bias"]) == num_anchors
    assert len(there[f"{rpn}.anchor_deltas.bias"]) == 4 * num_anchors
    assert there["roi_heads.box_predictor.bbox_pred.weight"].shape == (4, 16)
    assert there["background_box.weight"].shape == (4, 16)


def test_rows_of_every_rpn_layer_are_reordered_by_anchors(state: dict[str, Tensor]) -> None:
    there, ratios, sizes = to_detectron2(state, len(SIZES)), len(ASPECT_RATIOS), len(SIZES)
    for ours, theirs, rows in (
        ("cls_logits", "objectness_logits", 1),
        ("bbox_pred", "anchor_deltas", 4),
    ):
        for kind in ("weight", "bias"):
            before = state[f"rpn.head.{ours}.{kind}"]
            after = there[f"proposal_generator.rpn_head.{theirs}.{kind}"]
            for r, s, row in itertools.product(range(ratios), range(sizes), range(rows)):
                from_, to = (r * sizes + s) * rows + row, (s * ratios + r) * rows + row
                assert torch.equal(after[to], before[from_])


def test_rows_that_are_no_whole_anchors_are_no_layer_of_this_detector() -> None:
    with pytest.raises(AssertionError):
        ratio_to_size_major(torch.zeros(len(SIZES) * len(ASPECT_RATIOS) + 1), len(SIZES))


def test_without_background_s_box_rows_only_they_are_zero(state: dict[str, Tensor]) -> None:
    there = to_detectron2(state, len(SIZES))
    kept = {name: t for name, t in there.items() if not name.startswith("background_box")}
    back = from_detectron2(kept, len(SIZES))
    box = "roi_heads.box_predictor.bbox_pred"
    for name, tensor in state.items():
        if name.startswith(box):
            assert torch.equal(back[name][4:], tensor[4:])
            assert not back[name][:4].any()
        else:
            assert torch.equal(back[name], tensor), name


def test_an_unknown_tensor_is_refused(state: dict[str, Tensor]) -> None:
    there = to_detectron2(state, len(SIZES)) | {"roi_heads.mask_head.conv.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"mask_head.conv.weight: no tensor of this detector"):
        from_detectron2(there, len(SIZES))


def test_classes_put_the_lesion_first_and_background_last(state: dict[str, Tensor]) -> None:
    there = to_detectron2(state, len(SIZES))
    name = "roi_heads.box_predictor.cls_score.weight"
    background, lesion = state[name]
    assert torch.equal(there[name], torch.stack([lesion, background]))


def test_anchor_rows_follow_the_anchors_themselves() -> None:
    """Label torchvision's rows by the very anchor they belong to; the order is then ours to see."""
    anchors = AnchorGenerator((SIZES,), (ASPECT_RATIOS,)).cell_anchors[0]
    areas_and_ratios = [
        ((x2 - x1) * (y2 - y1), (y2 - y1) / (x2 - x1)) for x1, y1, x2, y2 in anchors.tolist()
    ]
    moved = ratio_to_size_major(torch.arange(len(anchors)), len(SIZES)).tolist()
    wanted = [(size**2, ratio) for size in SIZES for ratio in ASPECT_RATIOS]
    for row, (area, ratio) in zip(moved, wanted, strict=True):
        found_area, found_ratio = areas_and_ratios[row]
        assert found_area == pytest.approx(area, rel=0.15)  # torchvision rounds the corners
        assert found_ratio == pytest.approx(ratio, rel=0.15)


@given(st.integers(1, 7), st.integers(1, 5))
def test_reordering_undoes_itself_and_keeps_groups_together(num_sizes: int, rows: int) -> None:
    count = num_sizes * len(ASPECT_RATIOS)
    tensor = torch.arange(count * rows).reshape(count * rows, 1)
    moved = ratio_to_size_major(tensor, num_sizes)
    assert torch.equal(size_to_ratio_major(moved, num_sizes), tensor)
    groups = moved.reshape(count, rows)
    assert (groups.diff(dim=1) == 1).all()
    assert (groups[:, 0] % rows == 0).all()
