"""The rows that the paper compares with, on volumes whose grey value is their height."""

import numpy as np
import pytest
import torch

from tests.ubr_pretrain.tiny_cohort import tiny_config
from ubr_pretrain.baselines import (
    OrderClassifier,
    PositionRegressor,
    ZoneClassifier,
    fit,
    network_outputs,
    train_order_classifier,
    train_position_regressor,
    train_zone_classifier,
)
from ubr_pretrain.network_input import network_input
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.starting_trunk import start_trunk
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.ubr_config import Optimiser

CPU = torch.device("cpu")
NUM = 24
CONFIG = tiny_config(
    batch_norm=True, optimiser=Optimiser(name="adamw", lr=1e-3, schedule="cosine"), g=12, m=8
)


def silent(_):
    return None


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Four volumes of 24 slices, brighter from slice to slice."""
    folder = tmp_path_factory.mktemp("store")
    stored = []
    for i in range(4):
        hu = np.random.default_rng(i).normal(0, 10, (NUM, 32, 32))
        hu += np.linspace(-150, 250, NUM)[:, None, None]
        np.save(folder / f"v{i}.npy", hu.astype(np.int16))
        z_mm = tuple(5.0 * z for z in range(NUM))
        stored.append(StoredVolume(f"v{i}", f"s{i}", folder, folder / f"v{i}.npy", z_mm, 5.0, ""))
    return stored


SLICES = np.array([(v, z) for v in range(2) for z in range(NUM)])
ZONES = SLICES[:, 1] * 3 // NUM


def test_the_softmax_learns_zones_that_can_be_seen(volumes):
    model = train_zone_classifier(volumes[:2], SLICES, ZONES, CONFIG, 30, CPU, silent)
    logits = network_outputs(model, volumes[2:], CONFIG.input, CPU)
    assert logits.shape == (2 * NUM, 3)
    assert (logits.argmax(axis=1) == ZONES).mean() > 0.85


def test_pairs_teach_the_order_and_one_branch_the_position(volumes):
    order = train_order_classifier(volumes[:2], CONFIG, 30, CPU, silent)
    hu = torch.from_numpy(volumes[2].slices.astype(np.float32))
    x = network_input(hu, CONFIG.input)
    with torch.no_grad():
        above = order(x[:-6], x[6:]) > 0
        below = order(x[6:], x[:-6]) > 0
    assert above.float().mean() > 0.9
    assert below.float().mean() < 0.1
    positions = SLICES[:, 1] / NUM
    model = train_position_regressor(order, volumes[:2], SLICES, positions, CONFIG, 30, CPU, silent)
    found = network_outputs(model, volumes[3:], CONFIG.input, CPU)
    assert np.corrcoef(found, np.arange(NUM))[0, 1] > 0.95
    assert np.abs(found - np.arange(NUM) / NUM).mean() < 0.15


def test_the_order_classifier_is_siamese():
    order = OrderClassifier(Trunk(width=0.1), 32).eval()
    x, y = torch.randn(2, 5, 3, 32, 32).unbind()
    with torch.no_grad():
        both = torch.cat([order.features(x), order.features(y)], dim=1)
        expected = order.order(torch.relu(order.fc7(both))).squeeze(1)
        assert torch.allclose(order(x, y), expected, atol=1e-6)
    names = {name.split(".")[0] for name, _ in order.named_parameters()}
    assert names == {"trunk", "fc6", "fc7", "order"}


def test_the_position_goes_on_from_the_branch():
    order = OrderClassifier(Trunk(width=0.1), 32).eval()
    regressor = PositionRegressor(order).eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = regressor.position(order.features(x)).squeeze(1)
        assert torch.equal(regressor(x), expected)


def test_the_softmax_averages_the_trunk_over_the_image():
    model = ZoneClassifier(Trunk(width=0.1)).eval()
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = model.fc(model.trunk(x).flatten(2).mean(dim=2))
        assert torch.allclose(model(x), expected, atol=1e-6)


def test_equal_seeds_train_equal_weights(volumes):
    one, two = (
        train_order_classifier(volumes[:2], CONFIG, 2, CPU, silent).state_dict() for _ in range(2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_every_row_starts_from_the_trunk_of_the_regressor():
    torch.manual_seed(0)
    trunk = start_trunk(CONFIG.model_copy(update={"arch": "alexnet"}))
    assert (trunk.arch, trunk.width, trunk.batch_norm) == ("alexnet", 0.1, True)


def test_outputs_follow_the_volumes_laid_end_to_end(volumes):
    trunk = Trunk(width=0.1).eval()
    together = network_outputs(lambda x: trunk(x).mean(dim=(2, 3)), volumes, CONFIG.input, CPU, 7)
    single = network_outputs(lambda x: trunk(x).mean(dim=(2, 3)), volumes[1:2], CONFIG.input, CPU)
    np.testing.assert_allclose(together[NUM : 2 * NUM], single, rtol=1e-4, atol=1e-4)


def test_a_loss_that_is_not_finite_ends_the_training():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="Linear: loss nan at 1"):
        fit(model, CONFIG, 3, lambda _: model.weight.sum() * float("nan"), CPU, silent)
