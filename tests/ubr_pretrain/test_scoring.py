"""Scores led by their neighbours: lines stay lines, doubtful slices give way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ubr_pretrain.scoring import SMOOTH_MM, TRUSTED_SD, read_curve, smooth_scores


def smoothed_by_loops(scores, z_mm, scores_sd):
    result = []
    for here in z_mm:
        weight = np.exp(-0.5 * ((z_mm - here) / SMOOTH_MM) ** 2) / (scores_sd**2 + TRUSTED_SD**2)
        # np.polyfit weighs residuals, not their squares
        line = np.polyfit(z_mm - here, scores, 1, w=np.sqrt(weight))
        result.append(line[1])
    return np.array(result)


def test_every_smoothed_score_is_that_of_a_weighted_line_through_its_neighbours():
    rng = np.random.default_rng(0)
    z_mm = np.cumsum(rng.uniform(1, 8, 60))
    scores, scores_sd = 0.025 * z_mm + rng.normal(0, 0.3, 60), rng.uniform(0, 1, 60)
    np.testing.assert_allclose(
        smooth_scores(scores, z_mm, scores_sd),
        smoothed_by_loops(scores, z_mm, scores_sd),
        atol=1e-9,
    )


@given(st.floats(-1, 1), st.floats(-20, 20), st.floats(0.5, 10), st.integers(1, 40))
def test_a_straight_curve_is_left_alone_up_to_its_ends(slope, offset, step_mm, count):
    z_mm = step_mm * np.arange(count)
    scores = offset + slope * z_mm
    np.testing.assert_allclose(smooth_scores(scores, z_mm), scores, atol=1e-6)


def test_a_slice_whose_views_disagree_gives_way_and_a_far_one_is_left_alone():
    z_mm = np.r_[np.arange(0, 60, 5.0), 400.0]
    scores, scores_sd = 0.025 * z_mm, np.full(13, 0.05)
    scores[6] += 2.0
    trusted = abs(smooth_scores(scores, z_mm, scores_sd) - 0.025 * z_mm)
    scores_sd[6] = 2.0
    doubted = abs(smooth_scores(scores, z_mm, scores_sd) - 0.025 * z_mm)
    assert trusted[6] > 0.25
    assert doubted.max() < 0.02
    assert trusted[12] < 1e-9  # alone within its reach


@given(
    arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e30, 1e30, allow_subnormal=False)),
    st.sampled_from([0.0, 1.0, 1e-20]),
)
def test_N53_a_curve_of_any_finite_scores_has_correlations_or_none(scores, shrunk):
    """Scores that are all equal, or nearly, have no correlation: none is reported, never a NaN."""
    curve = read_curve(scores * shrunk, 5.0 * np.arange(len(scores)))
    said = (curve.r, curve.rank_r, curve.slope_per_mm)
    assert said == (None, None, None) or np.isfinite(said).all()
    if len(scores) < 3 or shrunk == 0 or np.ptp(scores) == 0:
        assert said == (None, None, None)
    if curve.r is not None:
        assert -1.000001 < curve.r < 1.000001
        assert curve.direction in ("superior_to_inferior", "inferior_to_superior", "undetermined")
