"""The fit is that of scipy, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from ubr_pretrain.monotone_fit import monotone_fit


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 1.0, 10.0]), st.booleans())
def test_fit_is_that_of_scipy(seed, slope, increasing) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    noise = rng.integers(0, 4, n) if rng.random() < 0.3 else rng.normal(0, 3, n)
    values = slope * np.arange(n) * rng.choice([-1, 1]) + noise
    for weights in (None, rng.choice([1.0, 5.0, 0.7], n), rng.uniform(0.01, 9, n)):
        expected = isotonic_regression(values, weights=weights, increasing=increasing).x
        fit = monotone_fit(values, weights, increasing=increasing)
        np.testing.assert_array_equal(fit, expected)


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ([2, 1, 3, 0], [0.2, 0.2, 0.1, 0.1]),
        ([3, 0, 3, 0], [0.2, 0.2, 0.1, 0.1]),
        ([2, 2, 1, 3, 0], [0.2, 0.1, 0.3, 0.3, 0.3]),
        ([2, 3, 1, 3, 3, 0], [0.3, 0.1, 0.1, 0.1, 0.2, 0.2]),
    ],
)
def test_blocks_that_come_to_the_same_mean_are_merged_where_scipy_merges_them(
    values, weights
) -> None:
    values, weights = np.array(values, float), np.array(weights)
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_array_equal(monotone_fit(values, weights), expected)
