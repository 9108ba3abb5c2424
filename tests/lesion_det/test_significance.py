"""The test against brute force and closed forms, its laws, and its errors on equal arms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t, ttest_1samp, ttest_rel

from lesion_det.claims import judge_claims
from lesion_det.power import Assumptions, measured_power
from lesion_det.significance import (
    ALPHA,
    NO_SPREAD,
    SMALLEST_P,
    ArmHits,
    PairDifference,
    all_pairs,
    correct,
    draw_patients,
    half_width,
    holm,
    pair_difference,
    pooled_recall,
)
from lesion_det.simulated_arms import simulate_arms


def arm(hits, patients=None, seeds=None) -> ArmHits:
    table = np.atleast_2d(np.asarray(hits, dtype=bool))
    numbers = np.arange(table.shape[1]) if patients is None else np.asarray(patients)
    return ArmHits(tuple(seeds or range(len(table))), table, numbers.astype(np.int64))


def compare(a: ArmHits, b: ArmHits, seed: int = 0) -> PairDifference:
    draws = draw_patients(a.patient_index, np.random.default_rng(seed))
    return pair_difference("a", a, "b", b, draws)


def test_one_seed_one_lesion_a_patient_is_the_paired_t_test() -> None:
    draw = np.random.default_rng(3)
    a, b = draw.random(120) < 0.7, draw.random(120) < 0.55
    ours, theirs = compare(arm(a), arm(b)), ttest_rel(a.astype(float), b.astype(float))
    low, high = theirs.confidence_interval(1 - ALPHA)
    assert ours.value == pytest.approx(a.mean() - b.mean())
    # A standard deviation from 9999 draws is known to 1 %.
    assert ours.patient_error == pytest.approx(ours.value / theirs.statistic, rel=0.03)
    assert (ours.low, ours.high) == (pytest.approx(low, abs=0.004), pytest.approx(high, abs=0.004))
    assert ours.p == pytest.approx(theirs.pvalue, rel=0.25)
    assert ours.seed_error is None


def test_seeds_alone_are_the_t_test_of_their_differences() -> None:
    # Every lesion of a seed fares alike, so patients add nothing.
    found = [1, 1, 0, 1, 0, 1, 1, 0, 0, 1]
    rows = np.array(found)[:, None] * np.ones(40, int)
    ours = compare(arm(rows), arm(np.zeros((10, 40))))
    theirs = ttest_1samp(found, 0)
    assert ours.patient_error == 0
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(1 - ALPHA)))


def test_errors_equal_a_bootstrap_written_out_in_loops() -> None:
    draw = np.random.default_rng(11)
    patients = draw.integers(0, 6, 25)
    a, b = arm(draw.random((3, 25)) < 0.6, patients), arm(draw.random((3, 25)) < 0.4, patients)
    draws = draw_patients(a.patient_index, np.random.default_rng(0), num_samples=60)
    ours = pair_difference("a", a, "b", b, draws)
    names = sorted(set(patients.tolist()))
    replicates = []
    for times in draws.times:
        row = []
        for s in range(3):
            lesions, total = 0, 0
            for patient, count in zip(names, times, strict=True):
                for i in range(25):
                    if patients[i] == patient:
                        lesions += int(count)
                        total += int(count) * (int(a.hits[s, i]) - int(b.hits[s, i]))
            row.append(total / lesions)
        replicates.append(row)
    sigma = np.cov(np.array(replicates), rowvar=False) * len(names) / (len(names) - 1)
    common = np.mean([sigma[s, u] for s in range(3) for u in range(3) if s != u])
    of_seed = np.array([np.mean(a.hits[s]) - np.mean(b.hits[s]) for s in range(3)])
    assert ours.patient_error == pytest.approx(math.sqrt(max(common, 0)))
    assert ours.seed_error == pytest.approx(np.std(of_seed, ddof=1) / math.sqrt(3))
    reach = math.sqrt(
        (t.ppf(0.975, 2) * ours.seed_error) ** 2 + (t.ppf(0.975, 5) * ours.patient_error) ** 2
    )
    assert (ours.high - ours.low) / 2 == pytest.approx(reach)


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_interval_touches_0_at_the_level_p_and_excludes_it_where_p_is_below_alpha(
    seed: int, num_seeds: int
) -> None:
    draw = np.random.default_rng(seed)
    patients = draw.integers(0, 12, 40)
    rate = draw.uniform(0.2, 0.9, 2)
    a, b = (arm(draw.random((num_seeds, 40)) < r, patients) for r in rate)
    draws = draw_patients(a.patient_index, draw, num_samples=200)
    ours = pair_difference("a", a, "b", b, draws)
    if ours.low is None:
        assert (ours.note, ours.p) == (NO_SPREAD, 1.0 if ours.value == 0 else None)
        return
    assert (ours.p < ALPHA) == (ours.low > 0 or ours.high < 0)
    if SMALLEST_P < ours.p < 1:
        args = (ours.seed_error, num_seeds, ours.patient_error, len(set(patients.tolist())))
        assert half_width(ours.p, *args) == pytest.approx(abs(ours.value), rel=1e-4)


def test_relabelled_and_reordered_patients_change_nothing_but_the_draw() -> None:
    draw = np.random.default_rng(8)
    patients = draw.integers(0, 30, 200)
    hits = [draw.random((3, 200)) < rate for rate in (0.7, 0.6)]
    plain = compare(*(arm(h, patients) for h in hits))
    renamed = compare(*(arm(h, 1000 + 7 * patients) for h in hits))
    order = draw.permutation(200)
    shuffled = compare(*(arm(h[:, order], patients[order]) for h in hits))
    assert renamed == plain
    for name in ("value", "low", "high", "p", "seed_error", "patient_error", "per_seed"):
        assert getattr(shuffled, name) == pytest.approx(getattr(plain, name)), name


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


def test_difference_of_two_recalls_is_bounded_by_100_points() -> None:
    rng = np.random.default_rng(3)
    a = arm(np.stack([np.ones(40, bool), rng.random(40) < 0.1]))
    b = arm(np.zeros((2, 40), bool))
    found = compare(a, b)
    assert (found.low, found.high) == (-1.0, 1.0)  # two seeds, t of one degree of freedom
    assert 0.4 < found.value < 0.7


def test_swapped_arms_give_the_mirrored_interval() -> None:
    draw = np.random.default_rng(2)
    a, b = arm(draw.random((3, 50)) < 0.6), arm(draw.random((3, 50)) < 0.5)
    forth, back = compare(a, b), compare(b, a)
    assert (forth.value, forth.p) == (pytest.approx(-back.value), pytest.approx(back.p))
    assert (forth.low, forth.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


def test_E09_arm_against_itself_has_no_nan() -> None:
    """An arm against itself: difference 0, p 1, no NaN, and no interval of no width."""
    same = arm(np.random.default_rng(0).random((3, 40)) < 0.5)
    result = compare(same, same)
    assert (result.value, result.low, result.high, result.p) == (0.0, None, None, 1.0)
    assert result.note == NO_SPREAD


@pytest.mark.parametrize("num_patients", [2, 3, 13, 700])
@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("found", [0, 1])
def test_E09_N68_recall_of_none_or_of_all_has_the_exact_interval_over_patients(
    found: int, num_seeds: int, num_patients: int
) -> None:
    """A recall of 0, or of 1, in every resample says nothing of its own error: reported is the
    exact binomial interval of that many patients, whatever the seeds and lesions of each."""
    patients = np.repeat(np.arange(num_patients), 2)
    hits = np.full((num_seeds, len(patients)), found)
    ours = pooled_recall(arm(hits, patients), np.random.default_rng(0))
    oracle = binomtest(found * num_patients, num_patients).proportion_ci(1 - ALPHA, method="exact")
    assert ours.value == found
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert ours.note.startswith("exact binomial interval")


def test_N68_equal_recall_between_none_and_all_has_no_interval() -> None:
    """Patients of whom each has half of its lesions found resample to the very same recall: no
    interval, and a note."""
    result = pooled_recall(arm([1, 0] * 9, np.repeat(np.arange(9), 2)), np.random.default_rng(0))
    assert (result.value, result.low, result.high, result.note) == (0.5, None, None, NO_SPREAD)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_N68_a_difference_without_spread_is_no_verdict(num_seeds: int) -> None:
    """An arm that finds all against one that finds none, in every patient and seed: nothing says
    how sure the difference is, so it has neither interval nor p, and the claim is not resolved."""
    every, none = arm(np.ones((num_seeds, 8))), arm(np.zeros((num_seeds, 8)))
    pair = pair_difference(
        "ubr", every, "random", none, draw_patients(every.patient_index, np.random.default_rng(0))
    )
    assert (pair.value, pair.low, pair.high, pair.p) == (1.0, None, None, None)
    [verdict] = judge_claims(correct([pair]))
    assert (verdict.verdict, verdict.reason) == ("not resolved", NO_SPREAD)
    assert measured_power([pair], 8, ALPHA) == []


def test_N68_equal_arms_without_spread_say_why_there_is_no_interval() -> None:
    """Arms that answer alike in every patient and seed: not resolved, with p 1 and the reason."""
    same = arm(np.ones((3, 8)))
    draws = draw_patients(same.patient_index, np.random.default_rng(0))
    [verdict] = judge_claims(correct([pair_difference("ubr", same, "random", same, draws)]))
    assert verdict.verdict == "not resolved"
    assert verdict.reason.startswith(f"{NO_SPREAD}, p = 1")


def test_E06_one_patient_leaves_the_interval_undefined() -> None:
    """One patient cannot be resampled: no interval, and a note."""
    a, b = arm([[1, 1, 0]], [4, 4, 4]), arm([[0, 1, 0]], [4, 4, 4])
    result = compare(a, b)
    assert result.value == pytest.approx(1 / 3)
    assert (result.low, result.high, result.p) == (None, None, None)
    assert "one patient" in result.note


def test_E08_only_seeds_that_both_arms_finished_are_compared() -> None:
    """Pairs are compared over the seeds that both arms finished, and those are listed."""
    a = arm([[1, 1], [0, 0], [1, 0]], seeds=(0, 1, 2))
    b = arm([[0, 0], [1, 1]], seeds=(2, 0))
    result = compare(a, b)
    assert result.seeds == (0, 2)
    assert result.per_seed == (0.0, 0.5)  # seed 0: 1 - 1, seed 2: 0.5 - 0
    nothing = compare(arm([[1, 1]], seeds=(5,)), b)
    assert (nothing.value, nothing.note) == (None, "no seed in common")


def test_no_lesions_is_undefined() -> None:
    assert pooled_recall(arm(np.zeros((2, 0))), np.random.default_rng(0)).value is None


def test_arms_judged_on_other_lesions_are_refused() -> None:
    with pytest.raises(ValueError, match="same lesions"):
        compare(arm([1, 0]), arm([1, 0, 1]))


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.03])
def test_equal_arms_differ_in_at_most_one_of_twenty_comparisons(
    num_seeds: int, seed_sd: float
) -> None:
    rng, cohort = np.random.default_rng(num_seeds), [1, 2, 3, 8] * 15
    assumptions = Assumptions(seed_sd=seed_sd)
    place = np.repeat(np.arange(len(cohort)), cohort)
    draws = draw_patients(place, rng, num_samples=400)
    found, rounds = 0, 300
    for _ in range(rounds):
        a, b = simulate_arms(num_seeds, cohort, assumptions, rng)
        p = pair_difference("a", a, "b", b, draws).p
        found += p is not None and p < ALPHA
    assert found <= ALPHA * rounds + 3 * math.sqrt(ALPHA * rounds)  # three standard errors
    if seed_sd > 0:
        assert found >= 3  # no more cautious than needed where trainings differ by luck


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


def test_reason_gives_interval_and_both_p_from_the_side_of_the_claim() -> None:
    numbers = {"low": -0.051, "high": -0.009, "p": 0.02, "p_holm": 0.06, "family": 6}
    told = pair("random", "ubr", -0.03, 0.02).model_copy(update=numbers)
    (claim,) = judge_claims([told], when=" at iteration 2,500")
    assert claim.claim == "a UBR trunk is better than a random one at iteration 2,500"
    assert claim.difference == 0.03
    assert claim.reason == (
        "95 % interval +0.9 to +5.1, p = 0.02, Holm-corrected 0.06, 3 seeds; "
        "below 0.05 only without the correction"
    )


def test_claims_without_both_arms_are_not_judged() -> None:
    assert judge_claims([pair("ubr+imagenet", "random", 0.2, 0.001)]) == []


def test_all_pairs_of_four_arms_are_six_with_corrected_p() -> None:
    draw = np.random.default_rng(0)
    arms = {
        name: arm(draw.random((5, 400)) < rate)
        for name, rate in [("random", 0.2), ("ubr", 0.5), ("imagenet", 0.7), ("ubr+imagenet", 0.7)]
    }
    draws = draw_patients(arms["ubr"].patient_index, np.random.default_rng(0))
    pairs = correct(all_pairs(arms, draws))
    assert len(pairs) == math.comb(4, 2)
    assert all(p.p_holm >= p.p and p.family == 6 for p in pairs)
    verdicts = {claim.better: claim.verdict for claim in judge_claims(pairs)}
    assert verdicts["ubr"] == "supported"
    assert verdicts["ubr+imagenet"] == "not resolved"
