"""Positions between the borders of body parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.slice_classes import BODY_PARTS
from ubr_pretrain.slice_positions import find_borders, slice_positions, typical_lengths

LENGTHS = {"chest": 200.0, "abdomen": 150.0, "pelvis": 180.0}


def test_a_border_lies_between_its_slices():
    z = np.arange(6) * 10.0
    classes = ["chest", "chest", "abdomen", "abdomen", "abdomen", "pelvis"]
    assert find_borders(classes, z) == [(2.0, 15.0), (3.0, 45.0)]


def test_between_two_borders_the_position_is_linear_in_mm():
    z = np.array([0.0, 10, 20, 30, 40, 50])
    classes = ["chest", "chest", "abdomen", "abdomen", "abdomen", "pelvis"]
    positions = slice_positions(classes, z, LENGTHS)
    assert positions[3] == pytest.approx(2 + (30 - 15) / (45 - 15))
    assert positions[0] == pytest.approx(2 - 15 / 200)  # beyond: the typical length of a chest
    assert positions[5] == pytest.approx(3 + 5 / 180)


def test_nothing_goes_on_beyond_the_body_part_that_is_seen():
    z = np.array([0.0, 900.0, 910.0])
    positions = slice_positions(["chest", "chest", "abdomen"], z, LENGTHS)
    assert positions[0] == 1.0  # 905 mm of chest are more than any: its upper end


def test_a_volume_without_a_border_has_no_position():
    assert slice_positions(["abdomen"] * 3, np.arange(3.0), LENGTHS) is None


def test_several_borders_between_two_slices_share_the_way():
    assert find_borders(["chest", "pelvis"], np.array([0.0, 30.0])) == [(2.0, 10.0), (3.0, 20.0)]


def test_classes_out_of_order_are_refused_by_name():
    with pytest.raises(ValueError, match="v7: chest lies above abdomen"):
        find_borders(["abdomen", "chest"], np.array([0.0, 1.0]), "v7")
    for find in (find_borders, lambda *scan: slice_positions(*scan, LENGTHS)):
        with pytest.raises(ValueError, match=r"^volume: chest lies above abdomen"):
            find(["abdomen", "chest"], np.array([0.0, 1.0]))


def test_a_length_is_the_median_of_what_is_seen_whole():
    def volume(*lengths):
        parts = dict(zip(("chest", "abdomen", "pelvis"), lengths, strict=True))
        classes = [name for name, n in parts.items() for _ in range(n)]
        return classes, np.arange(len(classes)) * 1.0

    lengths = typical_lengths([volume(10, 30, 5), volume(20, 40, 9), volume(4, 80, 3)])
    assert lengths["abdomen"] == 40.0  # of 30, 40 and 80
    assert lengths["chest"] == 19.0  # never whole: the longest piece, first to last slice
    assert lengths["pelvis"] == 8.0


def test_a_part_that_one_volume_shows_in_a_single_slice_has_the_length_of_another():
    single = (["chest", "abdomen"], np.array([0.0, 5.0]))
    longer = (["chest", "chest", "abdomen"], np.array([0.0, 30.0, 35.0]))
    assert typical_lengths([single, longer]) == {"chest": 30.0}
    close = (["chest", "chest", "abdomen"], np.array([0.0, 0.5, 1.0]))
    assert typical_lengths([single, close]) == {"chest": 0.5}


@given(st.lists(st.sampled_from(BODY_PARTS), min_size=2, max_size=40), st.integers(1, 9))
def test_positions_grow_downwards_and_agree_with_the_classes(classes, step_mm):
    classes = sorted(classes, key=BODY_PARTS.index)
    z = np.arange(len(classes)) * float(step_mm)
    positions = slice_positions(classes, z, typical_lengths([(classes, z)]))
    if len(set(classes)) == 1:
        assert positions is None
        return
    assert (np.diff(positions) >= -1e-12).all()
    for name, position in zip(classes, positions, strict=True):
        assert BODY_PARTS.index(name) - 1e-9 <= position <= BODY_PARTS.index(name) + 1 + 1e-9
