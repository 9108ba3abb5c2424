"""Back-ends: each as good as plain PyTorch on phantom slices, or refused in one line."""

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from tests.ubr_pretrain.test_pretrained import a_body
from ubr_pretrain import network_backend
from ubr_pretrain.hu_networks import random_slices
from ubr_pretrain.network_backend import BF16_TOLERANCE, MOST, TOLERANCE, build_network
from ubr_pretrain.pretrained import read_pretrained
from ubr_pretrain.scorer import read_scorer, scorer_identity
from ubr_pretrain.view_scores import mean_and_sd, score_part, score_views

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "bf16"])
def test_a_backend_scores_phantom_slices_as_pytorch_does(backend: str, monkeypatch) -> None:
    if backend != "bf16":
        pytest.importorskip(backend)
    monkeypatch.setattr(network_backend, "instructions", lambda: {"avx512_bf16"})
    tolerance = BF16_TOLERANCE if backend == "bf16" else TOLERANCE
    trained = read_pretrained().trained
    slices, _ = a_body(trained.input_spec)
    network = build_network(trained, CPU, backend, threads=2)
    side_mm = (trained.input_spec.fov_mm or 1.0) / trained.input_spec.size_px
    parts = [
        score_part(network, trained.input_spec, 3, slices, (side_mm, side_mm), part)
        for part in network.parts(len(slices))
    ]
    scores, sd = mean_and_sd(parts)
    expected, expected_sd = score_views(trained.regressor, slices, trained.input_spec, CPU)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, atol=tolerance * largest, rtol=0)
    np.testing.assert_allclose(sd, expected_sd, atol=2 * tolerance * largest, rtol=0)


def test_a_network_that_cannot_be_compiled_is_refused_in_one_line(monkeypatch) -> None:
    def fails(hu):
        raise TorchDynamoException("no compiler found\nlong story")

    monkeypatch.setattr(torch, "compile", lambda *_args, **_kw: fails)
    with pytest.raises(ValueError, match=r"^backend compiled: no compiler") as refusal:
        build_network(read_pretrained().trained, CPU, "compiled", threads=1)
    assert "\n" not in str(refusal.value)


def test_a_compiled_network_gets_full_batches_and_gives_what_was_asked_for(monkeypatch) -> None:
    shapes = []

    def as_it_is(network, **options):
        assert options["options"] == {"freezing": True}
        return lambda hu: shapes.append(tuple(hu.shape)) or network(hu)

    monkeypatch.setattr(torch, "compile", as_it_is)
    trained = read_pretrained().trained
    network = build_network(trained, CPU, "compiled", threads=1)
    hu = random_slices(trained.input_spec, (5, 1, 64, 64))[:, 0]
    plain = build_network(trained, CPU, threads=1)
    torch.testing.assert_close(network.scores(hu), plain.scores(hu), rtol=1e-5, atol=1e-6)
    assert set(shapes) == {(MOST, 1, 64, 64)}


def test_a_backend_that_disagrees_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(
        network_backend, "_openvino", lambda *_: lambda hu: torch.full((len(hu),), 3.0)
    )
    monkeypatch.setattr(network_backend, "find_spec", lambda _name: True)
    with pytest.raises(ValueError, match=r"backend openvino: its scores .* choose torch"):
        build_network(read_pretrained().trained, CPU, "openvino", threads=1)


def test_impossible_choices_are_refused(monkeypatch) -> None:
    trained = read_pretrained().trained
    with pytest.raises(ValueError, match="backend 'tpu' is none of auto, torch"):
        build_network(trained, CPU, "tpu")
    with pytest.raises(ValueError, match="threads 0 must be >= 1"):
        build_network(trained, CPU, threads=0)
    with pytest.raises(ValueError, match="runs on the CPU, not on meta"):
        build_network(trained, torch.device("meta"), "openvino", threads=1)
    monkeypatch.setattr(network_backend, "instructions", lambda: {"avx2"})
    with pytest.raises(ValueError, match="bf16: no bfloat16 arithmetic on cpu, where it is slower"):
        build_network(read_pretrained().trained, CPU, "bf16", threads=1)


def test_auto_is_pytorch_and_only_others_change_the_identity() -> None:
    scorer = read_scorer(device="cpu", threads=1)
    assert scorer.network.backend == "torch"
    identity = scorer_identity(scorer, None, None)
    assert "backend" not in identity
    object.__setattr__(scorer.network, "backend", "openvino")
    assert scorer_identity(scorer, None, None) == identity | {"backend": "openvino"}


def test_building_a_network_leaves_the_threads_of_the_caller() -> None:
    before = torch.get_num_threads()
    network = build_network(read_pretrained().trained, CPU, threads=3)
    assert torch.get_num_threads() == before
    assert {network.submit(torch.get_num_threads).result() for _ in range(9)} == {1}


@pytest.mark.parametrize("num_slices", [1, 9, 25, 33, 40])
def test_scores_are_the_same_bits_however_many_threads_score(num_slices: int) -> None:
    trained = read_pretrained().trained
    hu = random_slices(trained.input_spec, (num_slices, 1, *[trained.input_spec.size_px] * 2))[:, 0]
    found = set()
    for threads in (1, 2, 3, 4):
        network = build_network(trained, CPU, threads=threads)
        parts = [*network.parts(num_slices)]
        assert [n for part in parts for n in range(num_slices)[part]] == [*range(num_slices)]
        scores = [network.submit(network.scores, hu[part]).result() for part in parts]
        found.add(torch.cat(scores).numpy().tobytes())
    assert len(found) == 1
