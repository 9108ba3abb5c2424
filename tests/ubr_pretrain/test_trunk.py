"""The trunk against torchvision, and the exactness of folding batch norms."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from ubr_pretrain.trunk import (
    TORCHVISION_INDEX,
    Trunk,
    fold_batch_norm,
    load_trunk,
    torchvision_names,
)


def image(side: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_trunk_computes_what_torchvisions_features_compute(arch):
    model = getattr(torchvision.models, arch)(weights=None, num_classes=2).features.eval()
    trunk = Trunk(arch)
    theirs = model.state_dict()
    names = torchvision_names(arch, prefix="")
    load_trunk(trunk, {ours: theirs[name] for ours, name in names.items()}, "torchvision")
    x = image()
    torch.testing.assert_close(trunk(x), model[:-1](x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_name_tables_cover_every_tensor_once(arch):
    names = torchvision_names(arch)
    assert set(names) == set(Trunk(arch, 0.1).state_dict())
    assert len(set(names.values())) == len(names)
    features = getattr(torchvision.models, arch)(weights=None, num_classes=2).features
    for index in TORCHVISION_INDEX[arch].values():
        assert isinstance(features[index], nn.Conv2d)


def test_stride_8_keeps_the_tensors_and_doubles_the_map():
    coarse, fine = Trunk(width=0.1), Trunk(width=0.1, stride=8)
    assert coarse.state_dict().keys() == fine.state_dict().keys()
    assert coarse(image()).shape[-2:] == (4, 4)
    assert fine(image()).shape[-2:] == (8, 8)


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_folded_trunk_equals_the_trunk_in_eval_mode(arch):
    torch.manual_seed(0)
    trunk = Trunk(arch, 0.25, batch_norm=True)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 3)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    trunk.eval()
    folded = fold_batch_norm(trunk)
    assert not folded.batch_norm
    expected = trunk(image(96))
    error = (folded(image(96)) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


def test_N55_channels_that_never_varied_or_that_are_off_fold_without_a_nan():
    """Batch norms of dead channels (variance or scale 0) and of loud ones fold exactly."""
    torch.manual_seed(1)
    trunk = Trunk("vgg16", 0.1, batch_norm=True).eval()
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var[0], module.running_var[1] = 0.0, 1e6
            module.running_mean[1] = 300.0
            nn.init.constant_(module.weight[2], 0.0)
    folded, wanted = fold_batch_norm(trunk), copy.deepcopy(trunk).double()(image().double())
    assert all(torch.isfinite(tensor).all() for tensor in folded.state_dict().values())
    assert (folded(image()) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    kernel, norm = folded.get_submodule("conv1_1"), trunk.get_submodule("bn_conv1_1")
    scale = (norm.weight[0] / norm.eps**0.5).double()
    expected = (trunk.get_submodule("conv1_1").weight[0].double() * scale).float()
    torch.testing.assert_close(kernel.weight[0], expected)
    assert not kernel.weight[2].any()


def test_loading_is_all_or_nothing():
    trunk = Trunk(width=0.1)
    good = Trunk(width=0.1).state_dict()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}

    def refused(tensors, message):
        with pytest.raises(ValueError, match=message):
            load_trunk(trunk, tensors, "file")
        assert all(torch.equal(before[name], t) for name, t in trunk.state_dict().items())

    refused(
        {k: v for k, v in good.items() if k != "conv3_2.bias"}, r"file: lacks 1 .*conv3_2\.bias"
    )
    refused({**good, "fc6.weight": torch.zeros(1)}, "fc6.weight")
    refused(
        {**good, "conv1_1.weight": torch.zeros(8, 1, 3, 3)}, r"conv1_1\.weight is \(8, 1, 3, 3\)"
    )
    refused({**good, "conv1_1.bias": torch.full((8,), torch.nan)}, r"conv1_1\.bias .*not finite")
    load_trunk(trunk, good, "file")
    assert all(torch.equal(good[name], t) for name, t in trunk.state_dict().items())
