"""Detectron2 reads the exported pickle: the trunk whole, and the heads untouched (FAULTS C13)."""

from pathlib import Path

import pytest
import torch
from torch import nn

from converters.export_backbone import export_backbone
from converters.layouts import detectron2_input
from tests.converters.checkpoints import SPEC, write_regressor
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.trunk import Trunk

pytestmark = pytest.mark.detectron2
checkpoint_module = pytest.importorskip(
    "detectron2.checkpoint", reason="Detectron2 is not installed"
)


class Detector(nn.Module):
    """What Detectron2 sees of a detector: a backbone, and heads that no backbone file holds."""

    def __init__(self, arch, width: float) -> None:
        super().__init__()
        self.backbone = Trunk(arch, width)
        self.roi_heads = nn.Linear(4, 2)


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_C13_the_checkpointer_loads_every_trunk_tensor_and_only_those(
    arch, batch_norm: bool, tmp_path: Path
):
    source = write_regressor(tmp_path / "best.safetensors", arch, 0.25, batch_norm=batch_norm)
    export = export_backbone(source, tmp_path / "trunk.pkl", "detectron2")
    detector = Detector(arch, 0.25)
    heads = {name: t.clone() for name, t in detector.roi_heads.state_dict().items()}
    loaded = checkpoint_module.DetectionCheckpointer(detector, save_dir=str(tmp_path)).load(
        str(tmp_path / "trunk.pkl")
    )
    for name, tensor in export.backbone.trunk.state_dict().items():
        assert torch.equal(detector.backbone.state_dict()[name], tensor), name
    for name, tensor in detector.roi_heads.state_dict().items():
        assert torch.equal(tensor, heads[name]), name
    assert loaded["input_spec"] == SPEC.model_dump(mode="json")
    assert loaded["provenance"]["pretraining"] == "ubr"


def test_C11_one_image_gives_equal_features_through_both_normalisations(tmp_path: Path):
    source = write_regressor(tmp_path / "best.safetensors", "vgg16", 0.25, batch_norm=True)
    export_backbone(source, tmp_path / "trunk.pkl", "detectron2")
    detector = Detector("vgg16", 0.25).eval()
    checkpoint_module.DetectionCheckpointer(detector, save_dir=str(tmp_path)).load(
        str(tmp_path / "trunk.pkl")
    )
    hu = torch.randint(-1024, 1500, (64, 64), generator=torch.Generator().manual_seed(0)).double()
    window = SPEC.window
    unit = ((hu - window.lower_hu) / (window.upper_hu - window.lower_hu)).clip(0, 1)
    unit = unit.expand(1, 3, 64, 64)
    keys = detectron2_input(SPEC)
    mean, std = (torch.tensor(v)[:, None, None] for v in (keys.pixel_mean, keys.pixel_std))
    theirs = detector.double().backbone((255 * unit - mean) / std)
    mean, std = (torch.tensor(v)[:, None, None] for v in (SPEC.mean, SPEC.std))
    trunk = read_regressor(source).regressor.trunk.double()
    ours = trunk((SPEC.scale * unit - mean) / std)
    assert float((ours - theirs).abs().max() / ours.abs().max()) <= 1e-6
