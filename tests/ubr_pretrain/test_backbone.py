"""A trunk as a file: what was written is what loads; anything else is refused."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from ubr_pretrain.backbone import (
    Backbone,
    Provenance,
    read_backbone,
    read_imagenet_trunk,
    write_backbone,
)
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint, write_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.regressor import (
    Regressor,
    read_regressor,
    regressor_backbone,
    regressor_state,
)
from ubr_pretrain.trunk import Trunk, torchvision_names

SPEC = InputSpec(std=(64.0, 64.0, 64.0), fov_mm=512.0, size_px=64)
MADE = Provenance(init="random", pretraining="ubr", iterations=3, config={"lr": 0.1})


def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_written_backbone_loads_equal_with_its_record(tmp_path):
    trunk = Trunk(width=0.1)
    write_backbone(tmp_path / "b.safetensors", Backbone(trunk, SPEC, MADE))
    again = read_backbone(tmp_path / "b.safetensors")
    assert torch.equal(again.trunk(image()), trunk(image()))
    assert again.input_spec == SPEC
    assert again.provenance == MADE


def test_C07_a_backbone_that_lacks_a_tensor_is_refused(tmp_path):
    """Refused; the tensor is named."""
    file = tmp_path / "b.safetensors"
    write_backbone(file, Backbone(Trunk(width=0.1), SPEC, MADE))
    state = read_checkpoint(file, "backbone")
    del state["conv4_2.weight"]
    write_checkpoint(file, state, "backbone")
    with pytest.raises(CheckpointRefused, match=r"conv4_2\.weight"):
        read_backbone(file)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_regressors_checkpoint_gives_its_scores_and_its_folded_trunk(tmp_path, batch_norm):
    torch.manual_seed(3)
    regressor = Regressor(Trunk(width=0.1, batch_norm=batch_norm), None)
    regressor.train()
    regressor(image())  # moves the running statistics
    regressor.eval()
    write_checkpoint(tmp_path / "u", regressor_state(regressor, SPEC, MADE), "ubr")
    trained = read_regressor(tmp_path / "u")
    assert torch.equal(trained.regressor(image()), regressor(image()))
    backbone = regressor_backbone(trained)
    assert backbone.provenance.folded_batch_norm is batch_norm
    expected = regressor.trunk(image())
    torch.testing.assert_close(backbone.trunk(image()), expected, rtol=1e-4, atol=1e-5)


def test_pool6_is_the_mean_over_the_map():
    regressor = Regressor(Trunk(width=0.1))
    features = torch.relu(regressor.conv6(regressor.trunk(image())))
    expected = torch.stack([f.flatten(1).sum(1) / f[0].numel() for f in features])
    torch.testing.assert_close(regressor.pool6(image()), expected)
    scores = expected @ regressor.fc7.weight[0] + regressor.fc7.bias
    torch.testing.assert_close(regressor(image()), scores)


def torchvision_file(path, arch="vgg16"):
    model = getattr(torchvision.models, arch)(weights=None, num_classes=3)
    torch.save(model.state_dict(), path)
    return model


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_a_local_file_of_torchvisions_layout_is_an_imagenet_start(tmp_path, arch):
    model = torchvision_file(tmp_path / "w.pth", arch)
    backbone = read_imagenet_trunk(tmp_path / "w.pth", arch)
    theirs = model.features.state_dict()
    for ours, name in torchvision_names(arch, prefix="").items():
        assert torch.equal(backbone.trunk.state_dict()[ours], theirs[name])
    assert backbone.input_spec == IMAGENET_INPUT
    assert backbone.provenance.init == "imagenet"


def test_a_safetensors_file_of_the_layout_serves_too(tmp_path):
    trunk = Trunk(width=0.1)
    named = {name: trunk.state_dict()[own] for own, name in torchvision_names("vgg16").items()}
    save_file({k: v.contiguous() for k, v in named.items()}, tmp_path / "w.safetensors")
    again = read_imagenet_trunk(tmp_path / "w.safetensors", "vgg16", 0.1).trunk
    assert torch.equal(again(image()), trunk(image()))


def test_C04_another_architecture_is_refused(tmp_path):
    """An ImageNet start of VGG-19, VGG-16 with batch norms, VGG-11 or AlexNet is refused by
    name."""
    for arch in ("vgg19", "vgg16_bn", "alexnet", "vgg11"):
        torchvision_file(tmp_path / f"{arch}.pth", arch)
        with pytest.raises(CheckpointRefused, match=arch):
            read_imagenet_trunk(tmp_path / f"{arch}.pth", "vgg16")


def test_C02_html_and_empty_files_are_refused(tmp_path):
    """HTML and empty files in the place of ImageNet weights are refused by name."""
    for name, content in (("a.pth", b"<html>404</html>"), ("b.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointRefused, match=name):
            read_imagenet_trunk(tmp_path / name, "vgg16")


def test_a_trunk_of_ours_in_torchvisions_names_is_not_taken_for_imagenets(tmp_path):
    trunk = Trunk(width=0.1)
    named = {name: trunk.state_dict()[own] for own, name in torchvision_names("vgg16").items()}
    file = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in named.items()}, file, {"provenance": "ubr"})
    with pytest.raises(CheckpointRefused, match="exported by this project"):
        read_imagenet_trunk(file, "vgg16", 0.1)
    torchvision_file(tmp_path / "w.pth")
    (tmp_path / "w.json").write_text('{"provenance": {"pretraining": "ubr"}}')
    with pytest.raises(CheckpointRefused, match="exported by this project"):
        read_imagenet_trunk(tmp_path / "w.pth", "vgg16")


def test_imagenet_has_no_narrow_trunk():
    with pytest.raises(ValueError, match=r"width 0\.25"):
        read_imagenet_trunk(None, "vgg16", 0.25)
