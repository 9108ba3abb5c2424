"""conv1 of one channel computes what that of three does; where it does not, the card says so."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from converters.one_channel import is_exact, to_one_channel
from converters.verified_export import export_backbone
from converters.weight_files import read_weights
from tests.converters.checkpoints import SPEC, write_regressor
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.trunk import Architecture, Trunk

MADE = Provenance(init="random")


@torch.no_grad()
def first_layer(backbone: Backbone, grey: Tensor, channels: int) -> Tensor:
    """conv1 in float64 on a grey image, the input formed by the printed equation."""
    spec = backbone.input_spec
    image = torch.stack(
        [(spec.scale * grey - spec.mean[c]) / spec.std[c] for c in range(channels)], dim=1
    )
    _, conv = next(backbone.trunk.convolutions())
    return torch.conv2d(
        image.double(), conv.weight.double(), conv.bias.double(), conv.stride, conv.padding
    )


def interior(x: Tensor, arch: Architecture) -> Tensor:
    """Without the positions whose kernel reaches into the padding."""
    border = {"vgg16": 1, "alexnet": 2}[arch]
    return x[..., border:-border, border:-border]


def random_backbone(arch: Architecture, spec: InputSpec, seed: int) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = Trunk(arch, 0.125)
        _, conv = next(trunk.convolutions())
        torch.nn.init.normal_(conv.bias)
    return Backbone(trunk, spec, MADE)


numbers = st.floats(0.05, 100.0)
triples = st.tuples(numbers, numbers, numbers)


@settings(max_examples=25)
@given(st.sampled_from(["vgg16", "alexnet"]), triples, triples, st.integers(0, 99))
def test_inside_the_image_one_channel_is_three_whatever_their_statistics(arch, mean, std, seed):
    three = random_backbone(arch, InputSpec(mean=mean, std=std), seed)
    one = to_one_channel(three)
    grey = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(seed)).double()
    expected, found = first_layer(three, grey, 3), first_layer(one, grey, 1)
    error = interior(expected - found, arch).abs().max() / expected.abs().max()
    assert float(error) <= 1e-5  # float32 weights
    assert len(set(one.input_spec.mean)) == len(set(one.input_spec.std)) == 1


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_with_shared_statistics_the_weights_are_the_sum_and_the_border_is_equal_too(arch):
    three = random_backbone(arch, InputSpec(), 3)
    one = to_one_channel(three)
    (_, before), (_, after) = (next(b.trunk.convolutions()) for b in (three, one))
    assert is_exact(three.input_spec)
    assert one.input_spec == three.input_spec
    assert torch.equal(after.weight, before.weight.double().sum(1, keepdim=True).float())
    assert torch.equal(after.bias, before.bias)
    grey = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)).double()
    expected, found = first_layer(three, grey, 3), first_layer(one, grey, 1)
    assert float((expected - found).abs().max() / expected.abs().max()) <= 1e-6


def test_the_chosen_mean_makes_the_border_error_least():
    three = random_backbone("vgg16", IMAGENET_INPUT, 4)
    chosen = to_one_channel(three).input_spec.mean[0]
    _, conv = next(three.trunk.convolutions())
    std = torch.tensor(IMAGENET_INPUT.std).double()[:, None, None]
    mean = torch.tensor(IMAGENET_INPUT.mean).double()[:, None, None]

    def border_error(candidate: float) -> float:
        """Sum over all filters and taps of what padding with ``candidate`` changes."""
        return float(
            (conv.weight.detach().double() / std * (candidate - mean)).sum(1).square().sum()
        )

    assert border_error(chosen) < border_error(chosen + 0.001)
    assert border_error(chosen) < border_error(chosen - 0.001)


def test_the_border_of_other_statistics_is_measured_and_stated(tmp_path: Path):
    write_backbone(tmp_path / "b.safetensors", random_backbone("vgg16", IMAGENET_INPUT, 5))
    export = export_backbone(
        tmp_path / "b.safetensors", tmp_path / "hub", "torchvision", in_channels=1
    )
    assert export.border is not None
    assert 1e-6 < export.border < 0.2
    assert export.activation_difference <= 1e-6
    card = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert f"differ by {export.border:.1e} of the largest" in card


@pytest.mark.parametrize("layout", ["torchvision", "segmentation_models_pytorch", "detectron2"])
def test_a_ubr_trunk_of_one_channel_computes_what_the_checkpoint_does(layout, tmp_path: Path):
    source = write_regressor(tmp_path / "best.safetensors", "vgg16", 0.125, batch_norm=True)
    export = export_backbone(source, tmp_path / "hub", layout, in_channels=1)
    assert export.border is None
    assert export.activation_difference <= 1e-6
    assert export.backbone.input_spec == SPEC
    *_, weights = export.files
    tensors = read_weights(weights, layout)
    assert tensors[export.tensors[0].exported_name].shape == (8, 1, 3, 3)
