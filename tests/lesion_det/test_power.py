"""What a design can see: against simulation through the same test, its laws, its words."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nct, t

from lesion_det.power import (
    CHANCE,
    Assumptions,
    design_power,
    measured_power,
    smallest_difference,
)
from lesion_det.significance import ALPHA, draw_patients, pair_difference
from lesion_det.simulated_arms import simulate_arms

COHORT = (1, 1, 2, 3, 5, 9) * 20


@pytest.mark.parametrize("num_seeds", [3, 6])
def test_difference_called_visible_is_seen_in_four_of_five_simulated_comparisons(
    num_seeds: int,
) -> None:
    design = design_power(num_seeds, COHORT, 1)
    rng, rounds, seen = np.random.default_rng(num_seeds), 250, 0
    draws = draw_patients(np.repeat(np.arange(len(COHORT)), COHORT), rng, num_samples=400)
    for _ in range(rounds):
        a, b = simulate_arms(num_seeds, COHORT, design.assumptions, rng, design.smallest_difference)
        seen += pair_difference("a", a, "b", b, draws).p < design.alpha
    assert seen / rounds == pytest.approx(CHANCE, abs=3 * math.sqrt(CHANCE * 0.2 / rounds))


def test_assumed_errors_are_those_of_simulated_arms() -> None:
    rng, design = np.random.default_rng(0), design_power(4, COHORT, 1, Assumptions(seed_sd=0.02))
    draws = draw_patients(np.repeat(np.arange(len(COHORT)), COHORT), rng, num_samples=400)
    drawn = []
    for _ in range(250):
        a, b = simulate_arms(4, COHORT, design.assumptions, rng)
        drawn.append(pair_difference("a", a, "b", b, draws))
    of_seeds = np.mean([pair.seed_error**2 for pair in drawn])
    total = np.var([pair.value for pair in drawn])
    assert of_seeds == pytest.approx(design.seed_error**2, rel=0.2)
    assert total == pytest.approx(design.seed_error**2 + design.patient_error**2, rel=0.25)


@pytest.mark.parametrize(("df", "alpha"), [(2, 0.05), (4, 0.05 / 6), (9, 0.05)])
def test_seeds_alone_have_the_power_of_the_noncentral_t(df: int, alpha: float) -> None:
    seen = smallest_difference(alpha, 1.0, df + 1, 0.0, 50)
    critical = t.isf(alpha / 2, df)
    assert nct.sf(critical, df, seen) + nct.cdf(-critical, df, seen) == pytest.approx(
        CHANCE, abs=0.002
    )


@settings(max_examples=25)
@given(
    st.integers(3, 12),
    st.lists(st.integers(1, 20), min_size=20, max_size=40),
    st.floats(0.001, 0.03),
)
def test_more_seeds_patients_or_fewer_pairs_never_see_less(
    num_seeds: int, lesions: list[int], seed_sd: float
) -> None:
    assumptions = Assumptions(seed_sd=seed_sd)
    seen = design_power(num_seeds, lesions, 3, assumptions).smallest_difference
    assert design_power(num_seeds + 1, lesions, 3, assumptions).smallest_difference < seen
    assert design_power(num_seeds, lesions * 2, 3, assumptions).smallest_difference < seen
    assert design_power(num_seeds, lesions, 1, assumptions).smallest_difference < seen


def test_measured_power_is_that_of_the_measured_errors() -> None:
    rng = np.random.default_rng(4)
    a, b = simulate_arms(4, COHORT, Assumptions(), rng)
    pair = pair_difference("a", a, "b", b, draw_patients(a.patient_index, rng))
    (measured,) = measured_power([pair], len(COHORT), 0.01)
    assert measured.half_width == pytest.approx((pair.high - pair.low) / 2)
    assert measured.smallest_difference == smallest_difference(
        0.01, pair.seed_error, 4, pair.patient_error, len(COHORT)
    )
    alone = pair.model_copy(update={"seed_error": None, "seeds": (0,)})
    assert measured_power([alone], len(COHORT), ALPHA) == []


def test_words_of_designs() -> None:
    three = design_power(3, [7] * 700, 6).words
    assert three.startswith("with 3 seeds and 700 patients (4,900 lesions) a difference in recall")
    assert (
        "points will not be seen reliably (80 % power, 5 % for 6 pairs). Assumed: recall 74 %"
        in three
    )
    assert "a verdict needs 3 seeds" in design_power(2, [7] * 700, 1).words
    assert "the luck of one training cannot be told" in design_power(1, [7] * 700, 1).words
    blind = design_power(2, [1, 1], 6).words
    assert "any difference that recalls can have will not be seen" in blind
    assert "no difference in recall can be judged" in design_power(3, [5], 1).words


@pytest.mark.parametrize("impossible", [(0, [1, 2], 1), (1, [1, 2], 0), (1, [], 1), (1, [1, 0], 1)])
def test_impossible_designs_are_refused(impossible: tuple[int, list[int], int]) -> None:
    with pytest.raises(ValueError, match="each must be >= 1"):
        design_power(*impossible)


def test_impossible_assumptions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"seed_discordance 0\.2 <= discordance 0\.1"):
        Assumptions(discordance=0.1, seed_discordance=0.2)
    with pytest.raises(ValueError, match=r"<= 0\.1 \(twice the rarer"):
        Assumptions(recall=0.95)


def test_one_seed_of_deeplesion_size_cannot_see_the_papers_difference() -> None:
    seen = {s: design_power(s, [7] * 700, 1).smallest_difference for s in (1, 3, 5, 10)}
    assert all(difference > 0.0098 for difference in seen.values())
