"""The losses against the printed equations, written as plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ubr_pretrain.losses import (
    anchor_loss,
    distance_loss,
    order_loss,
    spacing_loss,
    ubr_loss,
)
from ubr_pretrain.ubr_config import Losses

SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 9)),
    elements=st.floats(-50, 50, allow_nan=False),
)


def order_by_loops(scores: np.ndarray, logit_scale: float) -> float:
    total = 0.0
    for group in scores:
        for j in range(len(group) - 1):
            x = logit_scale * (group[j + 1] - group[j])
            # -log sigmoid(x) = log(1 + exp(-x)), arranged so that exp cannot overflow
            total += math.log1p(math.exp(-abs(x))) + max(-x, 0.0)
    return total


def distance_by_loops(scores: np.ndarray) -> float:
    total = 0.0
    for group in scores:
        for j in range(len(group) - 2):
            x = abs((group[j + 2] - group[j + 1]) - (group[j + 1] - group[j]))
            total += 0.5 * x * x if x < 1 else x - 0.5
    return total


@given(SCORES, st.sampled_from([0.5, 1.0, 2.0]))
def test_losses_equal_the_printed_equations(scores, logit_scale):
    tensor = torch.from_numpy(scores)
    assert order_loss(tensor, logit_scale).item() == pytest.approx(
        order_by_loops(scores, logit_scale), rel=1e-9, abs=1e-9
    )
    assert distance_loss(tensor).item() == pytest.approx(
        distance_by_loops(scores), rel=1e-9, abs=1e-9
    )


@given(SCORES, st.floats(-30, 30))
def test_adding_a_constant_changes_neither_loss(scores, constant):
    tensor = torch.from_numpy(scores)
    for loss in (lambda scores: order_loss(scores, 2.0), distance_loss):
        assert loss(tensor + constant).item() == pytest.approx(
            loss(tensor).item(), rel=1e-9, abs=1e-9
        )


@given(SCORES)
def test_the_mean_is_the_sum_over_its_number_of_terms(scores):
    tensor = torch.from_numpy(scores)
    g, m = scores.shape
    summed = ubr_loss(tensor, Losses(reduction="sum"), g)
    mean = ubr_loss(tensor, Losses(reduction="mean"), g)
    assert mean.order.item() == pytest.approx(summed.order.item() / (g * (m - 1)))
    if m == 2:
        assert mean.distance is None
        assert mean.total == mean.order
    else:
        assert mean.distance.item() == pytest.approx(summed.distance.item() / (g * (m - 2)))
        assert mean.total.item() == pytest.approx(mean.order.item() + mean.distance.item())


def test_losses_of_shares_of_a_batch_add_up_to_the_loss_of_the_batch():
    scores = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for reduction in ("sum", "mean"):
        reading = Losses(reduction=reduction, distance_weight=0.7)
        whole = ubr_loss(scores, reading, 6).total
        parts = sum(ubr_loss(part, reading, 6).total for part in scores.split([1, 2, 3]))
        torch.testing.assert_close(whole, parts)


def test_a_line_costs_no_distance_and_order_falls_as_it_steepens():
    line = torch.arange(8.0)[None]
    assert distance_loss(3 * line).item() == 0
    losses = [order_loss(slope * line, 1.0).item() for slope in (-1.0, 0.0, 1.0, 4.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] == pytest.approx(7 * math.log(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("height", [0.0, 1e-30, 1e4])
def test_N50_steps_of_any_size_have_the_loss_and_the_slope_of_their_limits(dtype, height):
    """Score steps of 0 and of 1e4 keep losses and gradients right in float32 and in bfloat16."""
    scores = torch.tensor([[height, -height, height]], dtype=dtype, requires_grad=True)
    order, distance = order_loss(scores, 2.0), distance_loss(scores)
    (order_slope,) = torch.autograd.grad(order, scores)
    (distance_slope,) = torch.autograd.grad(distance, scores)
    # log sigmoid(x) tends to x far below zero and to 0 far above it; at zero it is -log 2
    step = 2 * scores[0, 0].item() if height == 1e4 else 0.0
    close = {"rel": 4 * torch.finfo(dtype).eps, "abs": 1e-20}
    assert order.item() == pytest.approx(2 * step or 2 * math.log(2), **close)
    assert distance.item() == pytest.approx(max(2 * step - 0.5, 0.0), **close)
    assert order_slope.tolist() == [[2.0, -2.0, 0.0] if step else [1.0, 0.0, -1.0]]
    assert distance_slope[0].tolist() == pytest.approx(
        [1.0, -2.0, 1.0] if step else [0.0] * 3, abs=1e-20
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_N51_the_gradient_of_every_loss_is_the_quotient_of_finite_differences(seed):
    """Gradients of all four losses and of their sum agree with finite differences in float64."""
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(0, 2, (2, 4)), requires_grad=True)
    z_mm = torch.tensor(rng.uniform(1, 40, (2, 4)).cumsum(1))
    known_mm = torch.tensor(
        np.where(rng.random((2, 4)) < 0.5, rng.uniform(600, 800, 8).reshape(2, 4), np.nan)
    )
    reading = Losses(spacing_weight=0.7, anchor_weight=1.3, order_weight=0.9, distance_weight=1.1)
    for loss in (
        lambda s: order_loss(s, 2.0),
        distance_loss,
        lambda s: spacing_loss(s, z_mm, 0.025, 0.3),
        lambda s: anchor_loss(s, known_mm, 0.025, 687.0),
        lambda s: ubr_loss(s, reading, 2, z_mm, known_mm).total,
    ):
        assert torch.autograd.gradcheck(loss, scores, eps=1e-6, atol=1e-4)


def test_slices_of_known_place_may_be_told_or_are_found():
    scores, known_mm = torch.arange(6.0).view(2, 3), torch.tensor([[1.0, torch.nan, 3.0]] * 2)
    found = anchor_loss(scores, known_mm, 0.025, 687.0)
    told = anchor_loss(scores, known_mm, 0.025, 687.0, torch.tensor([0, 2, 3, 5]))
    assert told == found > 0
    assert anchor_loss(scores, known_mm, 0.025, 687.0, torch.tensor([2])) < found


@given(st.integers(2, 6), st.integers(1, 4), st.sampled_from(["sum", "mean"]))
def test_the_total_is_the_weighted_sum_of_terms_over_their_numbers(m, g, reduction):
    rng = np.random.default_rng(m + 10 * g)
    scores, z_mm = (torch.from_numpy(rng.normal(size=(g, m)).cumsum(1)) for _ in range(2))
    reading = Losses(
        reduction=reduction,
        logit_scale=0.5,
        order_weight=2.0,
        distance_weight=3.0,
        spacing_weight=5.0,
        anchor_weight=7.0,
        slope_tolerance=0.1,
    )
    terms = ubr_loss(scores, reading, g, z_mm, z_mm)
    counts = {"order": m - 1, "distance": m - 2, "spacing": m * (m - 1) / 2, "anchor": m}
    sums = {
        "order": order_by_loops(scores.numpy(), 0.5),
        "distance": distance_by_loops(scores.numpy()),
        "spacing": spacing_by_loops(scores.numpy(), z_mm.numpy(), reading.score_per_mm, 0.1),
        "anchor": anchor_by_loops(scores.numpy(), z_mm.numpy(), reading),
    }
    if m == 2:
        del sums["distance"]
    weights = {"order": 2, "distance": 3, "spacing": 5, "anchor": 7}
    expected = {
        name: value / (g * counts[name] if reduction == "mean" else 1)
        for name, value in sums.items()
    }
    expected["loss"] = sum(weights[name] * value for name, value in expected.items())
    assert {name: term.item() for name, term in terms.named().items()} == pytest.approx(expected)
    only = ubr_loss(scores, Losses(), g)
    assert only.spacing is only.anchor is None


def anchor_by_loops(scores, known_mm, reading: Losses) -> float:
    total = 0.0
    for score, place in zip(scores.ravel(), known_mm.ravel(), strict=True):
        x = abs(score / reading.score_per_mm + reading.zero_mm - place) / 100
        total += x * x / 0.4 if x < 0.2 else x - 0.1
    return total


def spacing_by_loops(scores, z_mm, score_per_mm: float, tolerance: float) -> float:
    total = 0.0
    for group, places in zip(scores, z_mm, strict=True):
        for j in range(len(group)):
            for k in range(j + 1, len(group)):
                true_mm = places[k] - places[j]
                off_mm = abs((group[k] - group[j]) / score_per_mm - true_mm) - tolerance * true_mm
                x = max(0.0, off_mm) / 100
                total += x * x / 0.4 if x < 0.2 else x - 0.1
    return total


@given(SCORES, st.floats(0.1, 40), st.sampled_from([0.0, 0.3]))
def test_the_spacing_loss_equals_its_loops(scores, step_mm, tolerance):
    z_mm = np.cumsum(np.full(scores.shape, step_mm), axis=1)
    loss = spacing_loss(torch.from_numpy(scores), torch.from_numpy(z_mm), 0.025, tolerance)
    expected = spacing_by_loops(scores, z_mm, 0.025, tolerance)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.floats(0.71, 1.29), st.floats(-20, 20))
def test_a_body_within_the_tolerance_costs_no_spacing_wherever_it_lies(stretch, offset):
    z_mm = torch.tensor([[0.0, 8.0, 30.0, 31.0, 400.0]], dtype=torch.float64)
    scores = offset + 0.025 * stretch * z_mm
    assert spacing_loss(scores, z_mm, 0.025, 0.3).item() < 1e-12
    assert spacing_loss(-scores, z_mm, 0.025, 0.3).item() > 1


def test_anchors_pull_known_slices_alone_to_their_place():
    scores = torch.tensor([[-10.0, 0.0, 5.0]], requires_grad=True)
    known_mm = torch.tensor([[287.0, torch.nan, 887.0 + 50.0]])
    loss = anchor_loss(scores, known_mm, 0.025, 687.0)
    assert loss.item() == pytest.approx(0.5 - 0.1)  # 50 mm off, beyond the quadratic part
    loss.backward()
    np.testing.assert_allclose(scores.grad, [[0.0, 0.0, -1 / (0.025 * 100)]], rtol=1e-5)


def test_losses_in_millimetres_of_shares_of_a_batch_add_up():
    rng = torch.Generator().manual_seed(0)
    scores, z_mm, known = (
        torch.randn(6, 8, dtype=torch.float64, generator=rng).cumsum(1) for _ in range(3)
    )
    known[::2] = torch.nan
    for reduction in ("sum", "mean"):
        reading = Losses(reduction=reduction, spacing_weight=2.0, anchor_weight=3.0)
        whole = ubr_loss(scores, reading, 6, z_mm, known)
        assert whole.anchor.item() > 0
        shares = zip(*(x.split([1, 2, 3]) for x in (scores, z_mm, known)), strict=True)
        parts = sum(ubr_loss(s, reading, 6, z, k).total for s, z, k in shares)
        torch.testing.assert_close(whole.total, parts)


def test_a_loss_in_millimetres_is_refused_without_positions():
    with pytest.raises(ValueError, match="spacing loss needs z_mm"):
        ubr_loss(torch.zeros(1, 3), Losses(spacing_weight=1.0), 1)
    with pytest.raises(ValueError, match="anchor loss needs known_mm"):
        ubr_loss(torch.zeros(1, 3), Losses(anchor_weight=1.0), 1)
