"""Arithmetic and layout of a training: what a device cannot do is refused, the rest is equal."""

import pytest
import torch
from torch import nn

from tests.command_line import refused_line
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import compiled_network
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.compiled_network import compiled
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.runtime import seed_everything, set_precision
from ubr_pretrain.starting_regressor import memory_format
from ubr_pretrain.train_ubr import main, train

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def plain(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    assert train(tiny_config(cohort, **GENTLE), out) == 0
    return out


GENTLE = {"optimiser": {"name": "sgd", "lr": 1e-3}, "losses": {"reduction": "mean"}}
"""SGD: AdamW's first steps are the signs of gradients, which rounding can turn over."""


def losses(run):
    return [r["loss"] for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "train"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "tf32"], "precision tf32: needs CUDA"),
        (["--deterministic", "false"], "deterministic false: needs CUDA"),
    ],
)
def test_what_a_cpu_cannot_do_is_one_line_and_no_folder(cohort, tmp_path, capsys, flags, message):
    arguments = ["--data", str(cohort), "--device", "cpu", "--out", str(tmp_path / "run"), *flags]
    assert message in refused_line(main, capsys, arguments)
    assert not (tmp_path / "run").exists()


def test_bf16_trains_alike_to_its_eight_bits(cohort, plain, tmp_path):
    assert train(tiny_config(cohort, precision="bf16", **GENTLE), tmp_path / "run") == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=0.02)
    assert losses(tmp_path / "run") != losses(plain)


def test_memory_formats_are_equal_up_to_rounding(cohort, plain, tmp_path):
    config = tiny_config(cohort, memory_format="contiguous", **GENTLE)
    assert train(config, tmp_path / "run") == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=1e-5)
    one, other = (
        read_checkpoint(run / "checkpoints/last.safetensors", "ubr")["regressor"]
        for run in (plain, tmp_path / "run")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_the_format_follows_the_arithmetic(cohort):
    def chosen(device, **changes):
        return memory_format(tiny_config(cohort, **changes), device)

    assert chosen(CPU) == torch.channels_last
    assert chosen(GPU) == torch.contiguous_format
    assert chosen(GPU, precision="tf32") == torch.channels_last
    assert chosen(GPU, precision="bf16") == torch.channels_last
    assert chosen(GPU, memory_format="channels_last") == torch.channels_last
    assert chosen(CPU, memory_format="contiguous") == torch.contiguous_format


def test_kernels_are_chosen_for_speed_only_where_asked():
    try:
        seed_everything(0, deterministic=False)
        assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)
    finally:
        seed_everything(0)
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)


def test_fp32_is_float32_on_a_gpu_and_tf32_is_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    try:
        for precision, allowed in (("tf32", True), ("fp32", False), ("bf16", False)):
            set_precision(precision, GPU, deterministic=True)
            assert (cudnn.allow_tf32, cublas.allow_tf32) == (allowed, allowed), precision
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_an_old_gpu_is_refused_by_name(monkeypatch, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Titan")
    with pytest.raises(ValueError, match=f"precision {precision}: Titan has no such arithmetic"):
        set_precision(precision, GPU, deterministic=True)


def test_compile_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(compiled_network.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=r"compile: needs a C\+\+ compiler"):
        compiled(torch.nn.Identity(), CPU)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch 2.11's own
def test_a_translated_network_has_the_gradients_and_names_of_the_plain_one():
    """Not the regressor: the checks of its shapes, which run in tests alone, are not translated."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3), nn.Flatten(0))
    names = [*network.state_dict()]
    x = torch.randn(2, 3, 12, 12)
    found = []
    for forward in (network, compiled(network, CPU)):
        network.zero_grad()
        scores = forward(x)
        scores.square().sum().backward()
        found.append([scores.detach(), *(p.grad.clone() for p in network.parameters())])
    for plain, translated in zip(*found, strict=True):
        torch.testing.assert_close(translated, plain, rtol=1e-5, atol=1e-5)
    assert [*network.state_dict()] == names
