"""Intervals that hold what they promise, for subjects that taught nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.landmarks import LANDMARK_COORDINATES, LandmarkMark
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.uncertainty import (
    LEAST_SUBJECTS,
    Miss,
    coverage,
    cross_coverage,
    fit_uncertainty_scale,
    held_out_misses,
)

misses = st.lists(
    st.builds(
        Miss,
        subject=st.sampled_from("abcdefg"),
        landmark=st.just("carina"),
        off=st.floats(-40, 40),
        spread=st.floats(0.1, 20),
        own=st.floats(0.1, 5),
    ),
    min_size=20,
    max_size=60,
).filter(lambda drawn: len({miss.subject for miss in drawn}) >= LEAST_SUBJECTS)


@given(misses)
def test_the_scale_is_the_smallest_that_covers_95_percent_with_subjects_equal(drawn):
    scale = fit_uncertainty_scale(drawn)

    def covered(at):  # by loops, each subject its own mean
        shares = []
        for subject in {miss.subject for miss in drawn}:
            own = [miss for miss in drawn if miss.subject == subject]
            inside = [
                abs(m.off) <= 1.959964 * (m.spread**2 + (at * m.own) ** 2) ** 0.5 for m in own
            ]
            shares.append(sum(inside) / len(inside))
        return sum(shares) / len(shares)

    assert covered(scale * (1 + 1e-9) + 1e-9) >= 0.95 - 1e-9
    assert coverage(drawn, scale * (1 + 1e-9)) == pytest.approx(covered(scale * (1 + 1e-9)))
    if scale > 0:
        assert covered(scale * (1 - 1e-6)) < 0.95


def test_misses_drawn_from_the_stated_deviation_are_covered_at_95_percent():
    rng = np.random.default_rng(1)
    drawn = []
    for subject in range(150):
        for _ in range(6):
            spread, own = rng.uniform(2, 6), rng.uniform(0.5, 3)
            off = rng.normal(0, np.hypot(spread, 2.0 * own))
            drawn.append(Miss(str(subject), "carina", off, spread, own))
    assert fit_uncertainty_scale(drawn) == pytest.approx(2.0, rel=0.25)
    everyone = {miss.subject for miss in drawn}
    assert cross_coverage(drawn, everyone) == pytest.approx(0.95, abs=0.02)
    assert coverage(drawn, 0.0) < 0.85


def test_too_few_subjects_or_scores_without_views_are_refused():
    few = [Miss(s, "carina", 1.0, 1.0, 1.0) for s in "abcd"]
    with pytest.raises(ValueError, match="4 subjects: the uncertainty of scores needs 5"):
        fit_uncertainty_scale(few)
    certain = [Miss(s, "carina", 10.0, 1.0, 0.0) for s in "abcdefgh"]
    with pytest.raises(ValueError, match="several views"):
        fit_uncertainty_scale(certain)


def test_a_tested_subject_does_not_set_its_own_scale():
    """Ten subjects that need no scale, one that needs a large one: it is not covered by theirs."""
    drawn = [Miss(s, "carina", 1.0, 1.0, 1.0) for s in "abcdefghij"]
    odd = Miss("odd", "carina", 30.0, 1.0, 1.0)
    assert cross_coverage([*drawn, odd], {"odd"}) == 0.0
    assert cross_coverage([*drawn, odd], {"a", "b"}) == 1.0
    with pytest.raises(ValueError, match="show no landmark"):
        cross_coverage(drawn, {"nobody"})


def cohort(num, seed=0, offsets=None):
    """Subjects scanned from neck to thigh whose scores are off by a constant of their own."""
    rng = np.random.default_rng(seed)
    z = np.arange(0, 660, 5.0)
    curves, sds, marks, subjects = {}, {}, [], {}
    for k in range(num):
        name = f"v{k}"
        off = rng.normal(0, 0.5) if offsets is None else offsets[k]
        curves[name] = read_curve(0.05 * z + off + rng.normal(0, 0.05, len(z)), z)
        sds[name] = rng.uniform(0.05, 0.2, len(z))
        subjects[name] = f"s{k}"
        for landmark, place in LANDMARK_COORDINATES.items():
            index = round((110 - place) * 4 / 5)
            if 0 <= index < len(z):
                marks.append(LandmarkMark(name, landmark, index))
    return curves, sds, marks, subjects


def test_every_subject_is_read_by_the_calibration_of_the_others():
    found = held_out_misses(*cohort(3, offsets=[0.0, 0.0, 2.0]))
    # 2 score units at 0.2 a body unit: the odd one is 10 units low, the others about 5 high
    off = {s: np.mean([m.off for m in found if m.subject == s]) for s in ("s0", "s1", "s2")}
    assert off["s2"] == pytest.approx(-10, abs=0.7)
    assert off["s0"] == pytest.approx(5, abs=0.7)
    assert all(miss.own > 0 for miss in found)


def test_intervals_of_a_cohort_hold_for_another_cohort():
    found = held_out_misses(*cohort(24))
    scale = fit_uncertainty_scale(found)
    assert coverage(found, scale) >= 0.95
    fresh = held_out_misses(*cohort(24, seed=5))
    assert coverage(fresh, scale) > 0.85


def test_a_cohort_that_cannot_spare_a_subject_says_which():
    curves, sds, marks, subjects = cohort(1)
    with pytest.raises(ValueError, match="without subject s0"):
        held_out_misses(curves, sds, marks, subjects)
