"""What is computed without ``scipy.stats`` is what it computes, to the last bit."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from ubr_pretrain.body_coordinate import MAX_POINTS, robust_slope
from ubr_pretrain.rank_correlation import spearman


@st.composite
def curves(draw: st.DrawFn):
    """Positions that grow, and scores: a noisy line, few values, or anything."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 300))
    z_mm = np.cumsum(rng.choice([1.0, 1.25, 5.0, 0.7000000000000001], n))
    noise = rng.normal(0, draw(st.sampled_from([1e-6, 1.0, 100.0])), n)
    few = rng.integers(0, draw(st.sampled_from([2, 10])), n).astype(np.float64)
    scores = draw(st.sampled_from([0.01 * z_mm + noise, -z_mm, few, few + 1e-9 * noise]))
    assume(np.ptp(scores) > 0)
    return z_mm, scores


@given(curves())
def test_spearman_is_that_of_scipy(curve) -> None:
    z_mm, scores = curve
    assert spearman(z_mm, scores) == stats.spearmanr(z_mm, scores).statistic
    assert spearman(scores, z_mm) == stats.spearmanr(scores, z_mm).statistic


@given(curves())
def test_robust_slope_is_the_line_of_theil_and_sen(curve) -> None:
    z_mm, scores = curve
    if len(z_mm) <= MAX_POINTS:  # of more, some are drawn
        fit = stats.theilslopes(scores, z_mm)
        assert robust_slope(z_mm, scores) == (fit.slope, fit.intercept)


@pytest.mark.parametrize("count", [7, 10, 25])
def test_quantiles_are_those_of_the_normal_distribution(count: int) -> None:
    shares = (np.arange(count) + 0.5) / count
    np.testing.assert_array_equal(ndtri(shares), stats.norm.ppf(shares))
