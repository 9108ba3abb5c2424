"""Names of tensors in every layout, and the inputs that libraries must be told."""

from typing import get_args

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from converters.export_backbone import LAYOUTS
from converters.layouts import (
    detectron2_input,
    random_classifier,
    torchvision_features,
    unit_statistics,
)
from converters.weight_files import SUFFIXES
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec, Window
from ubr_pretrain.layouts import NAMINGS, Layout, rename, require_place, tensor_names
from ubr_pretrain.trunk import Trunk

ARCHITECTURES = ("vgg16", "alexnet")
every_table = pytest.mark.parametrize(
    ("arch", "layout"),
    [(arch, layout) for layout, naming in NAMINGS.items() for arch in naming.architectures],
)


@every_table
def test_a_table_names_every_tensor_of_the_trunk_and_no_name_twice(arch, layout):
    names = tensor_names(arch, layout)
    assert list(names) == list(Trunk(arch, 0.125).state_dict())
    assert len(set(names.values())) == len(names)


@every_table
def test_renaming_there_and_back_is_the_identity(arch, layout):
    names = tensor_names(arch, layout)
    back = {theirs: ours for ours, theirs in names.items()}
    tensors = {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    assert rename(rename(tensors, names), back) == tensors


def test_the_command_offers_every_layout():
    assert get_args(Layout) == LAYOUTS == tuple(NAMINGS) == tuple(SUFFIXES)


@pytest.mark.parametrize(
    ("arch", "width", "layout", "in_channels", "said"),
    [
        ("alexnet", 1.0, "timm", 3, "layout timm has no alexnet, only vgg16"),
        ("alexnet", 1.0, "segmentation_models_pytorch", 3, "has no alexnet"),
        ("vgg16", 0.5, "timm", 3, "layout timm has vgg16 of width 1 only, this trunk has 0.5"),
        ("vgg16", 0.5, "mmdetection", 3, "of width 1 only"),
        ("alexnet", 0.25, "torchvision-classifier", 3, "of width 1 only"),
        ("vgg16", 1.0, "mmdetection", 1, "its conv1 reads 3 channels, not 1"),
        ("vgg16", 1.0, "ubr", 1, "layout ubr: its conv1 reads 3 channels, not 1"),
        ("vgg16", 1.0, "onnx-scorer", 1, "its conv1 reads 3 channels"),
    ],
)
def test_what_a_library_has_no_network_for_is_refused(arch, width, layout, in_channels, said):
    with pytest.raises(ValueError, match=said):
        require_place(arch, width, layout, in_channels)


HOLDS = {
    # its first tensor, whether it has AlexNet, narrower networks, one grey channel
    "ubr": ("conv1_1.weight", True, True, False),
    "torchvision": ("features.0.weight", True, True, True),
    "torchvision-classifier": ("features.0.weight", True, False, True),
    "detectron2": ("backbone.conv1_1.weight", True, True, True),
    "mmdetection": ("features.0.weight", True, False, False),
    "timm": ("features.0.weight", False, False, True),
    "segmentation_models_pytorch": ("features.0.weight", False, True, True),
    "onnx": ("trunk.conv1_1.weight", True, True, True),
    "onnx-scorer": ("regressor.trunk.conv1_1.weight", True, True, False),
}


def accepts(*wanted) -> bool:
    try:
        require_place(*wanted)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("layout", NAMINGS)
def test_every_layout_holds_what_its_owner_has_networks_for(layout):
    first, alexnet, narrow, grey = HOLDS[layout]
    assert tensor_names("vgg16", layout)["conv1_1.weight"] == first
    assert accepts("vgg16", 1.0, layout)
    assert accepts("alexnet", 1.0, layout) == alexnet
    assert accepts("vgg16", 0.5, layout) == narrow
    assert accepts("vgg16", 2.0, layout) == narrow
    assert accepts("vgg16", 1.0, layout, 1) == grey
    assert accepts("vgg16", 1.0, layout, 4) == grey


@given(st.data())
def test_a_table_that_misses_or_adds_one_name_is_refused(data: st.DataObject):
    names = tensor_names("vgg16", "torchvision")
    tensors = dict.fromkeys(names, torch.zeros(1))
    odd = data.draw(st.sampled_from(sorted(names)))
    fewer = {name: tensor for name, tensor in tensors.items() if name != odd}
    with pytest.raises(ValueError, match=f"{odd}: a tensor without a name"):
        rename(fewer, names)
    with pytest.raises(ValueError, match="conv9"):
        rename({**tensors, "conv9.weight": torch.zeros(1)}, names)


def test_the_names_are_the_ones_their_readers_know():
    assert tensor_names("vgg16", "torchvision")["conv5_3.bias"] == "features.28.bias"
    assert tensor_names("alexnet", "torchvision")["conv5.weight"] == "features.10.weight"
    assert tensor_names("vgg16", "detectron2")["conv1_1.weight"] == "backbone.conv1_1.weight"
    assert tensor_names("vgg16", "ubr")["conv1_1.weight"] == "conv1_1.weight"
    for layout in ("timm", "segmentation_models_pytorch", "mmdetection", "torchvision-classifier"):
        assert tensor_names("vgg16", layout) == tensor_names("vgg16", "torchvision")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_narrow_features_module_has_torchvisions_order(arch):
    with torch.device("meta"):
        official = getattr(torchvision.models, arch)().features
    narrow = torchvision_features(arch, 0.25)
    whole = torchvision_features(arch, 1.0)
    assert list(narrow.state_dict()) == list(official.state_dict())
    assert [repr(part) for part in whole] == [repr(part) for part in official]
    assert len(narrow) == len(official)
    for in_channels in (1, 2, 3, 4):
        for width in (1.0, 2.0):
            with torch.device("meta"):  # values are not looked at
                built = torchvision_features(arch, width, in_channels)
            assert len(built) == len(official)
            assert built[0].weight.shape[1] == in_channels
            assert built[0].out_channels == width * official[0].out_channels
    channels = 3
    for ours, theirs in zip(narrow, official, strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, torch.nn.Conv2d):
            assert (ours.kernel_size, ours.stride, ours.padding) == (
                theirs.kernel_size,
                theirs.stride,
                theirs.padding,
            )
            assert ours.weight.shape[:2] == (theirs.out_channels // 4, channels)
            channels = ours.out_channels
        else:
            assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_torchvisions_own_features_are_built_without_drawing_values_that_nobody_reads(arch):
    before = torch.get_rng_state()
    torchvision_features(arch, 1.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(),
        IMAGENET_INPUT,
        InputSpec(
            window=Window(lower_hu=-1000, upper_hu=400),
            scale=2.5,
            mean=(0.1, 0.2, 0.3),
            std=(0.5, 2.0, 1.0),
        ),
    ],
)
def test_C11_detectron2_sees_the_input_that_the_trunk_was_trained_on(spec: InputSpec):
    """With the printed numbers Detectron2 normalises to the very input that the trunk was
    trained on."""
    hu = torch.linspace(-1500, 3000, 91).repeat(3, 1)
    window = spec.window
    unit = ((hu - window.lower_hu) / (window.upper_hu - window.lower_hu)).clip(0, 1)
    trained_on = (spec.scale * unit - torch.tensor(spec.mean)[:, None]) / torch.tensor(spec.std)[
        :, None
    ]
    keys = detectron2_input(spec)
    mean, std = (torch.tensor(values)[:, None] for values in (keys.pixel_mean, keys.pixel_std))
    torch.testing.assert_close((255 * unit - mean) / std, trained_on, rtol=1e-5, atol=1e-4)
    assert keys.format == "RGB"


def test_one_channel_is_a_grey_image_for_detectron2():
    """A trunk that reads one channel is told L, and the first channel's mean and std."""
    spec = InputSpec(mean=(50.0, 60.0, 70.0), std=(1.0, 2.0, 3.0))
    grey, colour = detectron2_input(spec, 1), detectron2_input(spec)
    assert grey.format == "L"
    assert (grey.pixel_mean, grey.pixel_std) == (colour.pixel_mean[:1], colour.pixel_std[:1])
    assert len(colour.pixel_mean) == 3


def test_C11_imagenet_weights_get_the_numbers_that_detectron2_users_know():
    """ImageNet's weights get the mean and std that Detectron2's users know."""
    keys = detectron2_input(IMAGENET_INPUT)
    assert keys.pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert keys.pixel_std == pytest.approx((58.395, 57.12, 57.375))


@pytest.mark.parametrize("in_channels", [1, 3])
def test_C11_unit_images_become_the_input_that_the_trunk_was_trained_on(in_channels: int):
    """Images of 0 to 1 become that input with the mean and std that the model card states."""
    spec = InputSpec(mean=(50.0, 60.0, 70.0), std=(1.0, 2.0, 3.0))
    keys = unit_statistics(spec, in_channels)
    assert len(keys.mean) == len(keys.std) == in_channels
    for channel in range(in_channels):
        unit = (0.25 - keys.mean[channel]) / keys.std[channel]
        assert unit == pytest.approx((0.25 * 255 - spec.mean[channel]) / spec.std[channel])


def test_the_random_classifier_is_torchvisions_own_and_leaves_its_generator_alone(monkeypatch):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    seeded = []
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "manual_seed_all", seeded.append)
        drawn = random_classifier("alexnet")
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded  # the generators of GPUs
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet().classifier.state_dict(prefix="classifier.")
    assert list(drawn) == list(theirs)
    assert all(torch.equal(drawn[name], tensor) for name, tensor in theirs.items())
