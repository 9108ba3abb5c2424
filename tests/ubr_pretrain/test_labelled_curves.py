"""Curves beside their labels: what is smooth, and where a score lies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.labelled_curves import LabelledCurve, monotone_fit


def curve_of(scores, z_mm=None, marks=None, name="v", subject="s"):
    scores = np.asarray(scores, float)
    z = np.arange(len(scores)) * 5.0 if z_mm is None else np.asarray(z_mm, float)
    return LabelledCurve(name, subject, z, scores, marks or {}, np.zeros(len(scores), int))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.floats(0.5, 10))
def test_the_fit_never_falls_and_stays_within_the_scores(scores, step_mm):
    values = np.array(scores)
    fit = monotone_fit(values, np.arange(len(values)) * step_mm)
    assert (np.diff(fit) >= -1e-9).all()
    assert values.min() - 1e-9 <= fit.min() <= fit.max() <= values.max() + 1e-9


def test_a_straight_curve_is_kept_inside():
    z = np.arange(60) * 2.0
    fit = monotone_fit(0.1 * z, z)
    np.testing.assert_allclose(fit[10:-10], 0.1 * z[10:-10], atol=1e-9)


def test_the_place_of_a_score_is_where_the_curve_has_it():
    curve = curve_of(np.linspace(-5, 5, 80))
    for z in (50.0, 123.0, 300.0):
        score = float(np.interp(z, curve.z_mm, curve.smooth))
        assert curve.place_of(score, slope_per_mm=1.0) == pytest.approx(z, abs=1e-6)


def test_beyond_its_ends_a_curve_goes_on_by_the_slope():
    curve = curve_of(np.linspace(0, 10, 50))
    first, last = curve.smooth[0], curve.smooth[-1]
    assert curve.place_of(first - 2, slope_per_mm=0.05) == pytest.approx(-40)
    assert curve.place_of(last + 2, slope_per_mm=0.05) == pytest.approx(curve.z_mm[-1] + 40)


def test_a_plateau_is_found_in_its_middle():
    # far apart, so that the Gaussian joins nothing
    curve = curve_of([0, 1, 1, 1, 2], z_mm=[0, 100, 200, 300, 400])
    assert curve.place_of(1.0, slope_per_mm=1.0) == pytest.approx(200)
    assert curve.place_of(1.5, slope_per_mm=1.0) == pytest.approx(350)
