"""The threshold search against trying every pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.zones import ZoneThresholds, fit_thresholds


@st.composite
def labelled(draw):
    zones = draw(st.lists(st.integers(0, 2), min_size=3, max_size=25))
    zones += [0, 1, 2]
    scores = draw(st.lists(st.integers(-8, 8), min_size=len(zones), max_size=len(zones)))
    return np.array(scores, float), np.array(zones)


@given(labelled())
def test_no_pair_of_thresholds_is_more_accurate(case):
    scores, zones = case
    found = fit_thresholds(scores, zones)
    accuracy = (found.classify(scores) == zones).mean()
    cuts = np.arange(-9, 9) + 0.5
    best = max(
        (ZoneThresholds(a, b).classify(scores) == zones).mean()
        for a in cuts
        for b in cuts
        if a <= b
    )
    assert accuracy == pytest.approx(best)
    assert found.chest_abdomen <= found.abdomen_pelvis


def test_a_clean_gap_is_cut_in_its_middle():
    found = fit_thresholds(np.array([-5.0, -3.0, 1.0, 2.0, 8.0]), np.array([0, 0, 1, 1, 2]))
    assert found == ZoneThresholds(-1.0, 5.0)


def test_a_zone_without_slices_is_refused():
    with pytest.raises(ValueError, match="no pelvis"):
        fit_thresholds(np.array([0.0, 1.0]), np.array([0, 1]))
