"""The random trunk behind a regressor is drawn again, bit for bit, from the regressor's file."""

from pathlib import Path

import pytest
import torch

import ubr_pretrain
from lesion_det.layer_similarity import filter_cosine
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.starting_trunk import rebuild_random_start
from ubr_pretrain.train_ubr import train
from ubr_pretrain.ubr_config import Optimiser

WEIGHTS = Path(ubr_pretrain.__file__).with_name("weights") / "scorer.safetensors"

STANDSTILL = Optimiser(name="sgd", lr=1e-300, weight_decay=0.0)
"""Steps too small for float32: what such a training writes is what it started from."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"), count=2)


def trained(cohort, out, **changes):
    settings = {"iterations": 1, "g": 2, "seed": 5, "holdout": (), "optimiser": STANDSTILL}
    assert train(tiny_config(cohort, **settings | changes), out) == 0
    return out / "checkpoints" / "last.safetensors"


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_rebuilt_start_is_the_one_that_the_training_drew(cohort, tmp_path, batch_norm):
    file = trained(cohort, tmp_path / "run", batch_norm=batch_norm)
    found = read_regressor(file)
    state = torch.random.get_rng_state()
    rebuilt = rebuild_random_start(found.provenance)
    assert torch.equal(torch.random.get_rng_state(), state)
    true = dict(found.regressor.trunk.convolutions())
    for name, conv in rebuilt.convolutions():
        assert torch.equal(conv.weight, true[name].weight), name
        assert torch.equal(conv.bias, true[name].bias), name
    assert rebuilt.batch_norm is batch_norm


def test_the_start_of_a_second_stage_is_the_first_ones(cohort, tmp_path):
    first = trained(cohort, tmp_path / "first")
    second = read_regressor(trained(cohort, tmp_path / "second", start=first, seed=6))
    expected = rebuild_random_start(read_regressor(first).provenance).state_dict()
    found = rebuild_random_start(second.provenance).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "made",
    [
        Provenance(init="random", pretraining="ubr"),
        Provenance(init="imagenet", pretraining="ubr", config={"width": 0.1}),
        Provenance(init="random", config={"width": 0.1}),
    ],
)
def test_a_file_that_does_not_say_from_where_it_started_is_refused(made):
    with pytest.raises(ValueError, match="does not say from which random trunk it started"):
        rebuild_random_start(made)


def test_the_start_of_the_weights_in_the_package_is_drawn_too():
    """Their training weighed several sources, which its file names no more."""
    found = read_regressor(WEIGHTS)
    trained = found.regressor.trunk.state_dict()["conv2_1.weight"]

    def cosine(start):
        return filter_cosine(start.state_dict()["conv2_1.weight"], trained)

    first = found.provenance.config["first_stage"]
    other = first | {"config": first["config"] | {"seed": 7}}
    elsewhere = found.provenance.model_copy(update={"config": {"first_stage": other}})
    assert cosine(rebuild_random_start(found.provenance)) > 0.5
    assert abs(cosine(rebuild_random_start(elsewhere))) < 0.1
