"""The optimiser in one kernel, and its state across devices and memory formats."""

import copy

import pytest
import torch

from ubr_pretrain.optimiser import build_optimiser, load_optimiser
from ubr_pretrain.regressor import Regressor
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.ubr_config import Optimiser

pytestmark = pytest.mark.usefixtures("one_thread")

FORMATS = {True: torch.channels_last, False: torch.contiguous_format}


def network(channels_last: bool) -> Regressor:
    torch.manual_seed(0)
    plain = Regressor(Trunk("alexnet", 0.05), None)
    return plain.to(memory_format=FORMATS[channels_last])


def take_steps(net, optimiser, numbers: range):
    for number in numbers:
        for parameter in net.parameters():
            values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.grad = torch.empty_like(parameter).copy_(values)
        optimiser.step()


def assert_near(one, other):
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_kernel_for_all_parameters_equals_one_for_each(name):
    nets = network(True), network(True)
    config = Optimiser(name=name, lr=1e-2)
    for net, fused in zip(nets, (True, False), strict=True):
        take_steps(net, build_optimiser(net, config, 2.0, fused=fused), range(20))
    assert_near(*nets)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_state_goes_on_in_another_format_and_by_other_kernels(name, fused):
    straight, first, second = network(False), network(not fused), network(fused)
    config = Optimiser(name=name, lr=1e-2)
    take_steps(straight, build_optimiser(straight, config), range(6))

    optimiser = build_optimiser(first, config, fused=not fused)
    take_steps(first, optimiser, range(3))
    state = copy.deepcopy(optimiser.state_dict())
    for held in state["state"].values():  # as a checkpoint keeps them
        held.update({k: v.contiguous() for k, v in held.items() if isinstance(v, torch.Tensor)})
    second.load_state_dict(first.state_dict())
    optimiser = build_optimiser(second, config, fused=fused)
    load_optimiser(optimiser, state)
    assert [group["fused"] for group in optimiser.param_groups] == [fused, fused]
    for parameter, held in optimiser.state.items():
        assert all(v.stride() == parameter.stride() for v in held.values() if v.ndim)
    take_steps(second, optimiser, range(3, 6))
    assert_near(straight, second)


def test_a_cpu_computes_as_it_always_did():
    optimiser = build_optimiser(network(True), Optimiser())
    assert [group["fused"] for group in optimiser.param_groups] == [None, None]


def test_a_learning_rate_of_the_checkpoint_is_kept():
    net = network(True)
    optimiser = build_optimiser(net, Optimiser(lr=0.5))
    state = optimiser.state_dict()
    other = build_optimiser(net, Optimiser(lr=0.1))
    load_optimiser(other, state)
    assert [group["lr"] for group in other.param_groups] == [0.5, 0.5]
