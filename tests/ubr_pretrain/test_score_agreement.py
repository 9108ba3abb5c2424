"""Agreement with published scores: correlations judged by scipy, intervals by patients."""

import numpy as np
import pytest
from scipy import stats

from ubr_pretrain.score_agreement import score_agreement


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    a = rng.normal(size=40).round(1)  # with ties
    b = (a + rng.normal(size=40)).round(1)
    found = score_agreement(a, b, [str(k // 3) for k in range(40)], rng)
    assert found.spearman == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(a, b).statistic)
    assert (found.num_slices, found.num_patients) == (40, 14)
    low, high = found.spearman_interval_95
    assert low < found.spearman < high


def test_slices_of_a_patient_are_drawn_together():
    """Thirty copies of four patients are four patients: the interval must not shrink."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=8), rng.normal(size=8)
    few = score_agreement(a, b, list("abcdefgh"), np.random.default_rng(2))
    many = score_agreement(
        np.tile(a, 30), np.tile(b, 30), list("abcdefgh") * 30, np.random.default_rng(2)
    )
    assert many.pearson_interval_95 == pytest.approx(few.pearson_interval_95)


def test_one_patient_has_no_interval_and_equal_values_no_correlation():
    rng = np.random.default_rng(0)
    one = score_agreement(np.arange(5.0), np.arange(5.0) ** 2, ["p"] * 5, rng)
    assert one.spearman == pytest.approx(1)
    assert one.spearman_interval_95 is None
    for a, b in ((np.ones(5), np.arange(5.0)), (np.arange(2.0), np.arange(2.0))):
        with pytest.raises(ValueError, match="needs three"):
            score_agreement(a, b, ["p", "q", "r", "s", "t"][: len(a)], rng)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_N52_a_score_that_is_no_number_gives_no_correlation(bad):
    """A NaN or infinite score is refused by its slice; no correlation of NaN is reported."""
    rng = np.random.default_rng(0)
    odd = np.array([1.0, 2.0, bad, 4.0])
    for a, b in ((odd, np.arange(4.0)), (np.arange(4.0), odd)):
        with pytest.raises(ValueError, match=r"slice 2: .*(nan|inf)"):
            score_agreement(a, b, list("pqrs"), rng)
