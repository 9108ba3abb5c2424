"""Files that other libraries save themselves are read, and compute what the library computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.ct import IMAGENET_INPUT
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.trunk import Architecture

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def without_classifier(model: nn.Module) -> dict[str, Tensor]:
    """A state whose classifier keeps its names but not its 480 MB."""
    return {
        name: tensor[:1].clone() if "features." not in name else tensor
        for name, tensor in model.state_dict().items()
    }


def seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = build()
        model.eval()  # mmcv's returns None
        return model


def require_same(
    file: Path,
    features: Callable[[Tensor], Tensor],
    ignored: dict[str, int],
    arch: Architecture = "vgg16",
) -> None:
    found = read_external_trunk(file, 1.0, IMAGENET_INPUT, arch)
    assert dict(found.ignored) == ignored
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.backbone.trunk(images), features(images))


def test_torchvisions_vgg16_with_its_classifier(tmp_path: Path) -> None:
    model = seeded(torchvision.models.vgg16)
    torch.save(without_classifier(model), tmp_path / "w.pth")
    require_same(tmp_path / "w.pth", model.features[:-1], {"classifier": 6})


def test_torchvisions_alexnet_starts_an_alexnet_and_no_vgg16(tmp_path: Path) -> None:
    model = seeded(torchvision.models.alexnet)
    torch.save(without_classifier(model), tmp_path / "w.pth")
    require_same(tmp_path / "w.pth", model.features[:-1], {"classifier": 6}, "alexnet")
    with pytest.raises(CheckpointRefused, match="expected 13 convolutions, found 5"):
        read_external_trunk(tmp_path / "w.pth", 1.0, IMAGENET_INPUT)


def test_timms_vgg16_with_its_head(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    model = seeded(lambda: timm.create_model("vgg16", pretrained=False))
    save_file(without_classifier(model), tmp_path / "model.safetensors")
    require_same(tmp_path, model.features[:-1], {"head": 2, "pre_logits": 4})


def test_a_whole_segmentation_model_gives_its_encoder(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = seeded(lambda: smp.Unet("vgg16", encoder_weights=None, decoder_channels=(8,) * 5))
    state = model.state_dict()
    decoder = sum(name.startswith("decoder.") for name in state)
    state = {f"module.{name}": tensor for name, tensor in state.items()}  # as two GPUs save it
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    require_same(
        tmp_path / "w.pth",
        model.encoder.features[:-1],
        {"decoder": decoder, "segmentation_head": 2},
    )


def test_an_encoder_of_one_channel_gives_what_it_computes(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    encoder = seeded(lambda: smp.encoders.get_encoder("vgg16", in_channels=1, weights=None))
    torch.save(encoder.state_dict(), tmp_path / "w.pth")
    grey_input = IMAGENET_INPUT.model_copy(update={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    found = read_external_trunk(tmp_path / "w.pth", 1.0, grey_input)
    grey = torch.randn(1, 1, 48, 48, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        theirs = encoder.features[:-1].double()(grey)
        ours = found.backbone.trunk.double()(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(CheckpointRefused, match="conv1 reads one channel, so its input has one"):
        read_external_trunk(tmp_path / "w.pth", 1.0, IMAGENET_INPUT)


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_mmcvs_networks_alone_and_as_a_backbone(tmp_path: Path, arch: Architecture) -> None:
    cnn = pytest.importorskip("mmcv.cnn")
    model = seeded(lambda: cnn.VGG(16) if arch == "vgg16" else cnn.AlexNet())
    layers = model.features[:-1]
    torch.save(model.state_dict(), tmp_path / "alone.pth")
    require_same(tmp_path / "alone.pth", layers, {}, arch)
    detector = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    heads = {"neck.l2_norm.weight": torch.zeros(2), "bbox_head.reg.bias": torch.zeros(2)}
    tail = {"backbone.features.31.weight": torch.zeros(2, 2, 3, 3)} if arch == "vgg16" else {}
    content = {"meta": {"epoch": 12, "classes": ["a"]}, "state_dict": detector | heads | tail}
    torch.save(content, tmp_path / "detector.pth")
    behind = {"features behind the last pool": 1} if tail else {}
    require_same(tmp_path / "detector.pth", layers, {"bbox_head": 1, **behind, "neck": 1}, arch)


@pytest.mark.parametrize("name", ["vgg13", "vgg19", "vgg11", "vgg16_bn", "resnet18"])
def test_C04_an_encoder_of_another_depth_is_refused_not_half_loaded(
    tmp_path: Path, name: str
) -> None:
    """VGG-13 and VGG-19 encoders of another library are refused, not loaded in part."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        state = smp.Unet(name, encoder_weights=None).state_dict()
    torch.save({k: torch.zeros(()).expand(t.shape) for k, t in state.items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointRefused) as refusal:
        read_external_trunk(tmp_path / "w.pth", 1.0, IMAGENET_INPUT)
    assert str(refusal.value).startswith(f"{tmp_path / 'w.pth'}: ")
    assert "\n" not in str(refusal.value)
