"""Names of tensors in the three layouts, and the input that Detectron2 must be told."""

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from converters.layouts import detectron2_input, torchvision_features
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec, Window
from ubr_pretrain.layouts import rename, tensor_names
from ubr_pretrain.trunk import Trunk

ARCHITECTURES = ("vgg16", "alexnet")
LAYOUTS = ("ubr", "torchvision", "detectron2")
every_table = pytest.mark.parametrize(
    ("arch", "layout"), [(arch, layout) for arch in ARCHITECTURES for layout in LAYOUTS]
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


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_narrow_features_module_has_torchvisions_order(arch):
    with torch.device("meta"):
        official = getattr(torchvision.models, arch)().features
    narrow = torchvision_features(arch, 0.25)
    whole = torchvision_features(arch, 1.0)
    assert list(narrow.state_dict()) == list(official.state_dict())
    assert [repr(part) for part in whole] == [repr(part) for part in official]
    assert len(narrow) == len(official)
    for ours, theirs in zip(narrow, official, strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, torch.nn.Conv2d):
            assert (ours.kernel_size, ours.stride, ours.padding) == (
                theirs.kernel_size,
                theirs.stride,
                theirs.padding,
            )
        elif isinstance(ours, torch.nn.MaxPool2d):
            assert repr(ours) == repr(theirs)


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


def test_C11_imagenet_weights_get_the_numbers_that_detectron2_users_know():
    keys = detectron2_input(IMAGENET_INPUT)
    assert keys.pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert keys.pixel_std == pytest.approx((58.395, 57.12, 57.375))
