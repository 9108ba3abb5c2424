"""Trunks of the paper's width in the libraries that have no narrower one: strict, the same values.

MMDetection's library and KerasHub pull in a second OpenCV and TensorFlow; they are no requirement
of the tests, which run where they are installed.
"""

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from converters.verified_export import export_backbone
from tests.converters.checkpoints import SPEC, write_regressor
from tests.converters.test_model_card import assert_close, features_of, run_card
from ubr_pretrain.layouts import Layout
from ubr_pretrain.network_input import normalise
from ubr_pretrain.trunk import Trunk


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "vgg16", 1.0, batch_norm=False)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "alexnet", 1.0, batch_norm=False)


def exported(
    checkpoint: Path, out: Path, layout: Layout, in_channels: int = 3
) -> tuple[Path, Trunk, list[str]]:
    """Export, and return the card, the trunk of three channels, and the names in the file."""
    export = export_backbone(checkpoint, out, layout, in_channels=in_channels)
    card, *_ = export.files
    three = export.backbone.trunk
    if in_channels == 1:
        three = export_backbone(checkpoint, out.parent / "3.pth", "detectron2").backbone.trunk
    return card, three, [row.exported_name for row in export.tensors]


@pytest.mark.parametrize(("name", "in_channels"), [("hub", 1), ("trunk.safetensors", 3)])
def test_timm_loads_the_trunk_and_draws_nothing_but_its_classifier(
    name, in_channels, source, tmp_path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    card, trunk, stored = exported(source, tmp_path / name, "timm", in_channels)
    with caplog.at_level(logging.INFO, logger="timm"):
        names = run_card(card, monkeypatch)
    assert_close(names["features"], features_of(trunk, in_channels))
    assert "Unexpected keys" not in caplog.text
    (missing,) = [r.getMessage() for r in caplog.records if "Missing keys" in r.getMessage()]
    behind = missing.split("(")[1].split(")")[0].split(", ")
    assert {name.partition(".")[0] for name in behind} == {"pre_logits", "head"}
    with torch.device("meta"):
        network = timm.create_model("vgg16", in_chans=in_channels)
    network.prune_intermediate_layers(range(6), prune_head=True)
    weights = next(path for path in card.parent.iterdir() if path.suffix == ".safetensors")
    network.load_state_dict(load_file(weights), strict=True, assign=True)
    assert stored == list(network.state_dict())


def test_timm_reads_mean_and_std_of_a_folder(source, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    exported(source, tmp_path / "hub", "timm")
    monkeypatch.chdir(tmp_path / "hub")
    with torch.device("meta"):
        network = timm.create_model("local-dir:.", features_only=True)
    data = timm.data.resolve_model_data_config(network)
    hu = torch.linspace(-300, 400, 50).expand(1, 3, 1, 50)
    unit = ((hu + 175) / 450).clip(0, 1)
    mean, std = (torch.tensor(data[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close((unit - mean) / std, normalise(hu, SPEC), rtol=1e-5, atol=1e-3)
    assert data["input_size"] == (3, 64, 64)


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_mmengine_loads_mmcvs_own_backbone_strictly(arch, source, alexnet, tmp_path, monkeypatch):
    pytest.importorskip("mmcv", reason="mmcv-lite is not installed")
    checkpoint = source if arch == "vgg16" else alexnet
    card, trunk, stored = exported(checkpoint, tmp_path / "hub", "mmdetection")
    names = run_card(card, monkeypatch)
    assert_close(names["features"], features_of(trunk))
    assert stored == list(names["model"].state_dict())


@pytest.mark.parametrize("name", ["hub", "trunk.pth"])
def test_torchvisions_whole_network_loads_strictly_with_a_random_classifier(
    name, alexnet, tmp_path, monkeypatch
):
    card, trunk, stored = exported(alexnet, tmp_path / name, "torchvision-classifier")
    names = run_card(card, monkeypatch)
    assert_close(names["features"], features_of(trunk))
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet().classifier.state_dict()
    assert stored == [key for key in names["model"].state_dict() if key.startswith("features.")]
    for key, tensor in names["model"].classifier.state_dict().items():
        assert torch.equal(tensor, theirs[key])
    assert "The classifier (fc6, fc7, fc8) is random" in card.read_text("utf-8")


@pytest.mark.keras
@pytest.mark.parametrize("in_channels", [1, 3])
def test_keras_hub_converts_the_timm_folder(in_channels, source, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    keras = pytest.importorskip("keras")
    card, trunk, _ = exported(source, tmp_path / "hub", "timm", in_channels)
    shape = (None, None, in_channels)
    backbone = keras_hub.models.Backbone.from_preset(str(card.parent), image_shape=shape)
    network = keras.Model(backbone.input, backbone.get_layer("block5_conv3").output)
    hu = torch.randint(-1024, 1500, (2, in_channels, 64, 96)).float()
    x = normalise(hu.expand(-1, 3, -1, -1), SPEC)
    with torch.no_grad():
        theirs = network(x[:, :in_channels].permute(0, 2, 3, 1))
        assert_close(torch.as_tensor(theirs).cpu().permute(0, 3, 1, 2), trunk.eval()(x))
