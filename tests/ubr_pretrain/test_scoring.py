"""Scores led by their neighbours: lines stay lines, doubtful slices give way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.scoring import SMOOTH_MM, TRUSTED_SD, smooth_scores


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
