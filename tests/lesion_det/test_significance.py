"""The bootstrap against scipy, its laws, and the cases in which there is nothing to resample."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from lesion_det.significance import (
    ArmHits,
    PairDifference,
    all_pairs,
    holm,
    judge_claims,
    pair_difference,
    pooled_recall,
)


def arm(hits, patients=None, seeds=None) -> ArmHits:
    table = np.atleast_2d(np.asarray(hits, dtype=bool))
    numbers = np.arange(table.shape[1]) if patients is None else np.asarray(patients)
    return ArmHits(tuple(seeds or range(len(table))), table, numbers.astype(np.int64))


def test_one_seed_one_lesion_a_patient_is_scipys_percentile_bootstrap() -> None:
    draw = np.random.default_rng(3)
    a, b = draw.random(120) < 0.7, draw.random(120) < 0.55
    ours = pair_difference("a", arm(a), "b", arm(b), np.random.default_rng(0))
    theirs = bootstrap(
        (a.astype(float) - b.astype(float),), np.mean, method="percentile", rng=1
    ).confidence_interval
    assert ours.value == pytest.approx(a.mean() - b.mean())
    # Multiples of 1/120; two draws of 9999 samples may differ by one step.
    assert ours.low == pytest.approx(theirs.low, abs=0.0085)
    assert ours.high == pytest.approx(theirs.high, abs=0.0085)


def test_clusters_widen_the_interval() -> None:
    hits = np.repeat(np.random.default_rng(0).random(30) < 0.5, 10)
    clustered = pooled_recall(arm(hits, np.repeat(np.arange(30), 10)), np.random.default_rng(0))
    alone = pooled_recall(arm(hits), np.random.default_rng(0))
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_spread_over_seeds_is_in_the_interval() -> None:
    draw = np.random.default_rng(1)
    lucky, unlucky = draw.random(200) < 0.9, draw.random(200) < 0.3
    with_seeds = pooled_recall(arm([lucky, unlucky, lucky]), np.random.default_rng(0))
    assert with_seeds.low < 0.4
    assert with_seeds.high > 0.85


def test_swapped_arms_give_the_mirrored_interval() -> None:
    draw = np.random.default_rng(2)
    a, b = arm(draw.random((3, 50)) < 0.6), arm(draw.random((3, 50)) < 0.5)
    forth = pair_difference("a", a, "b", b, np.random.default_rng(7))
    back = pair_difference("b", b, "a", a, np.random.default_rng(7))
    assert (forth.value, forth.p) == (pytest.approx(-back.value), back.p)
    assert (forth.low, forth.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


def test_E09_arm_against_itself_has_no_nan() -> None:
    same = arm(np.random.default_rng(0).random((3, 40)) < 0.5)
    result = pair_difference("a", same, "b", same, np.random.default_rng(0))
    assert (result.value, result.low, result.high, result.p) == (0.0, 0.0, 0.0, 1.0)


def test_E09_recall_of_one_everywhere_has_a_width_of_zero() -> None:
    result = pooled_recall(arm(np.ones((2, 20))), np.random.default_rng(0))
    assert (result.value, result.low, result.high) == (1.0, 1.0, 1.0)


def test_E06_one_patient_leaves_the_interval_undefined() -> None:
    a, b = arm([[1, 1, 0]], [4, 4, 4]), arm([[0, 1, 0]], [4, 4, 4])
    result = pair_difference("a", a, "b", b, np.random.default_rng(0))
    assert result.value == pytest.approx(1 / 3)
    assert (result.low, result.high, result.p) == (None, None, None)
    assert "one patient" in result.note


def test_E08_only_seeds_that_both_arms_finished_are_compared() -> None:
    a = arm([[1, 1], [0, 0], [1, 0]], seeds=(0, 1, 2))
    b = arm([[0, 0], [1, 1]], seeds=(2, 0))
    result = pair_difference("a", a, "b", b, np.random.default_rng(0))
    assert result.seeds == (0, 2)
    assert result.per_seed == (0.0, 0.5)  # seed 0: 1 - 1, seed 2: 0.5 - 0
    nothing = pair_difference("a", arm([[1, 1]], seeds=(5,)), "b", b, np.random.default_rng(0))
    assert (nothing.value, nothing.note) == (None, "no seed in common")


def test_no_lesions_is_undefined() -> None:
    assert pooled_recall(arm(np.zeros((2, 0))), np.random.default_rng(0)).value is None


def test_arms_judged_on_other_lesions_are_refused() -> None:
    with pytest.raises(ValueError, match="same lesions"):
        pair_difference("a", arm([1, 0]), "b", arm([1, 0, 1]), np.random.default_rng(0))


@given(st.lists(st.none() | st.floats(0, 1), max_size=6))
def test_holm_equals_the_definition(p_values) -> None:
    adjusted = holm(p_values)
    defined = [p for p in p_values if p is not None]
    for p, result in zip(p_values, adjusted, strict=True):
        if p is None:
            assert result is None
            continue
        smaller = [q for q in sorted(defined) if q <= p]
        by_definition = max(
            min(1.0, q * (len(defined) - sorted(defined).index(q))) for q in smaller
        )
        assert result == pytest.approx(by_definition)
        assert p <= result <= 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def pair(a: str, b: str, value: float | None, p: float | None, seeds=(0, 1, 2)) -> PairDifference:
    return PairDifference(
        a=a, b=b, seeds=seeds, per_seed=(), value=value, low=None, high=None, p=p, p_holm=p
    )


@pytest.mark.parametrize(
    ("judged", "verdict"),
    [
        (pair("ubr", "random", 0.2, 0.001), "supported"),
        (pair("random", "ubr", -0.2, 0.001), "supported"),
        (pair("ubr", "random", -0.2, 0.001), "contradicted"),
        (pair("ubr", "random", 0.2, 0.2), "not resolved"),
        (pair("ubr", "random", 0.2, 0.001, seeds=(0, 1)), "not resolved"),
        (pair("ubr", "random", 0.2, None), "not resolved"),
        (pair("ubr", "random", None, None, seeds=()), "not resolved"),
    ],
)
def test_verdict_follows_from_sign_p_and_number_of_seeds(judged, verdict) -> None:
    (claim,) = judge_claims([judged])
    assert (claim.better, claim.worse, claim.verdict) == ("ubr", "random", verdict)


def test_claims_without_both_arms_are_not_judged() -> None:
    assert judge_claims([pair("ubr+imagenet", "random", 0.2, 0.001)]) == []


def test_all_pairs_of_four_arms_are_six_with_corrected_p() -> None:
    draw = np.random.default_rng(0)
    arms = {
        name: arm(draw.random((3, 60)) < rate)
        for name, rate in [("random", 0.2), ("ubr", 0.5), ("imagenet", 0.7), ("ubr+imagenet", 0.7)]
    }
    pairs = all_pairs(arms, np.random.default_rng(0))
    assert len(pairs) == math.comb(4, 2)
    assert all(p.p_holm >= p.p for p in pairs)
    verdicts = {claim.better: claim.verdict for claim in judge_claims(pairs)}
    assert verdicts["ubr"] == "supported"
    assert verdicts["ubr+imagenet"] == "not resolved"
