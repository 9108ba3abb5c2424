"""Detectron2 reads the exported pickle: the trunk whole, and the heads untouched (FAULTS C13)."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from converters.layouts import detectron2_input
from converters.verified_export import export_backbone
from tests.converters.checkpoints import SPEC, write_regressor
from tests.converters.test_model_card import assert_close, features_of, run_card
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.trunk import Architecture, Trunk

pytestmark = [
    pytest.mark.detectron2,
    # Detectron2's own modules, on import, not ours:
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
]
checkpoint = pytest.importorskip("detectron2.checkpoint", reason="Detectron2 is not installed")


def build_detector(arch: Architecture) -> nn.Module:
    """Detectron2's own two-stage detector around a trunk, with heads that no backbone file has."""
    from detectron2.modeling import Backbone, GeneralizedRCNN

    class TrunkBackbone(Trunk, Backbone):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"last": super().forward(images)}

    keys = detectron2_input(SPEC)
    return GeneralizedRCNN(
        backbone=TrunkBackbone(arch, 0.25),
        proposal_generator=nn.Conv2d(8, 8, 3),
        roi_heads=nn.Linear(4, 2),
        pixel_mean=keys.pixel_mean,
        pixel_std=keys.pixel_std,
        input_format=keys.format,
    ).eval()


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_C13_the_checkpointer_loads_every_trunk_tensor_and_misses_only_heads(
    arch: Architecture, batch_norm: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Detectron2's own checkpointer loads every trunk tensor; what it misses is the heads alone."""
    source = write_regressor(tmp_path / "best.safetensors", arch, 0.25, batch_norm=batch_norm)
    export = export_backbone(source, tmp_path / "trunk.pkl", "detectron2")
    detector = build_detector(arch)
    heads = {
        name: tensor.clone()
        for name, tensor in detector.state_dict().items()
        if not name.startswith("backbone.")
    }
    with caplog.at_level(logging.WARNING):
        loaded = checkpoint.DetectionCheckpointer(detector, save_dir=str(tmp_path)).load(
            str(tmp_path / "trunk.pkl")
        )
    assert "roi_heads" in caplog.text
    assert "conv" not in caplog.text.replace("proposal_generator", "")
    for name, tensor in export.backbone.trunk.state_dict().items():
        assert torch.equal(detector.backbone.state_dict()[name], tensor), name
    for name, tensor in heads.items():
        assert torch.equal(detector.state_dict()[name], tensor), name
    assert loaded["input_spec"] == SPEC.model_dump(mode="json")
    assert loaded["provenance"]["pretraining"] == "ubr"


@torch.no_grad()
def test_C11_one_ct_slice_gives_equal_features_in_both_stacks(tmp_path: Path):
    """One CT slice gives equal features here and in Detectron2."""
    source = write_regressor(tmp_path / "best.safetensors", "vgg16", 0.25, batch_norm=True)
    export_backbone(source, tmp_path / "trunk.pkl", "detectron2")
    detector = build_detector("vgg16")
    checkpoint.DetectionCheckpointer(detector, save_dir=str(tmp_path)).load(
        str(tmp_path / "trunk.pkl")
    )
    hu = torch.randint(-1024, 1500, (64, 64), generator=torch.Generator().manual_seed(0)).double()
    unit = ((hu - SPEC.window.lower_hu) / (SPEC.window.upper_hu - SPEC.window.lower_hu)).clip(0, 1)
    three = unit.expand(3, 64, 64)
    detector.double()
    batch = detector.preprocess_image([{"image": 255 * three}])
    theirs = detector.backbone(batch.tensor)["last"]
    mean, std = (torch.tensor(values)[:, None, None] for values in (SPEC.mean, SPEC.std))
    trunk = read_regressor(source).regressor.trunk.double()
    ours = trunk(((SPEC.scale * three - mean) / std)[None])
    assert float((ours - theirs).abs().max() / ours.abs().max()) <= 1e-6


@pytest.mark.parametrize(
    ("arch", "name", "in_channels"),
    [("vgg16", "hub", 3), ("vgg16", "trunk.pkl", 1), ("alexnet", "trunk.pth", 3)],
)
def test_the_code_of_a_card_gives_the_features_of_the_checkpoint(
    arch: Architecture,
    name: str,
    in_channels: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    source = write_regressor(tmp_path / "best.safetensors", arch, 0.25, batch_norm=True)
    export = export_backbone(source, tmp_path / name, "detectron2", in_channels=in_channels)
    card, *_ = export.files
    with caplog.at_level(logging.WARNING):
        names = run_card(card, monkeypatch)
    assert caplog.text == ""
    trunk = read_regressor(source).regressor.trunk
    assert_close(names["features"], features_of(trunk, in_channels))
    backbone = names["model"].state_dict(prefix="")
    assert [row.exported_name for row in export.tensors] == list(backbone)
