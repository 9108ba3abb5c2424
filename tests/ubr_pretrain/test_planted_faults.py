"""Planted faults are what they say they are."""

import numpy as np
import pytest

from ubr_pretrain.ct import Volume
from ubr_pretrain.planted_faults import FAULTS, NEW, plant


@pytest.fixture
def volume():
    rng = np.random.default_rng(5)
    hu = rng.integers(-1000, 1000, (60, 12, 10)).astype(np.int16)
    return Volume(hu, (5.0, 3.0, 2.5), source="faultless")


@pytest.mark.parametrize("name", FAULTS)
def test_slices_are_those_of_the_faultless_scan_or_new(volume, name):
    planted = plant(volume, name, np.random.default_rng(1))
    assert planted.name == name
    assert len(planted.source) == planted.volume.num_slices
    assert 0 <= planted.first_slice <= planted.last_slice < planted.volume.num_slices
    old = planted.source != NEW
    for here, there in zip(np.flatnonzero(old), planted.source[old], strict=True):
        np.testing.assert_array_equal(planted.volume.hu[here], volume.hu[there])
    changed = (planted.volume.hu.shape, planted.volume.spacing_mm_zyx) != (
        volume.hu.shape,
        volume.spacing_mm_zyx,
    ) or not (
        np.array_equal(planted.volume.hu, volume.hu)
        and np.array_equal(planted.volume.z_mm, volume.z_mm)
    )
    assert changed
    again = plant(volume, name, np.random.default_rng(1))
    np.testing.assert_array_equal(again.volume.hu, planted.volume.hu)


def test_reordered_blocks_lie_where_they_are_said_to(volume):
    for seed in range(20):
        for name in ("block_reversed", "blocks_swapped", "block_repeated", "block_missing"):
            planted = plant(volume, name, np.random.default_rng(seed))
            steps = np.diff(planted.source)
            odd = np.flatnonzero(steps != 1)
            first, last = planted.first_slice, planted.last_slice
            if name == "block_missing":
                assert odd.tolist() == [first]
                assert last == first + 1
                assert steps[first] * 5.0 > 40
            elif name == "block_repeated":
                assert odd.tolist() == [(first + last) // 2]
                half = planted.source[first : (first + last) // 2 + 1]
                np.testing.assert_array_equal(
                    planted.source[(first + last) // 2 + 1 : last + 1], half
                )
            else:
                assert odd.min() == first - 1
                assert odd.max() == last
                assert sorted(planted.source.tolist()) == list(range(60))


def test_gap_of_the_header_keeps_the_positions(volume):
    planted = plant(volume, "header_gap", np.random.default_rng(2))
    steps = np.diff(planted.volume.z_mm)
    assert np.flatnonzero(steps > 5.01).tolist() == [planted.first_slice]
    np.testing.assert_allclose(steps.sum(), volume.z_mm[-1])


def test_wrong_spacing_changes_positions_alone(volume):
    planted = plant(volume, "spacing_x1.5", np.random.default_rng(2))
    assert planted.volume.spacing_mm_zyx == (7.5, 3.0, 2.5)
    np.testing.assert_allclose(planted.volume.z_mm, 1.5 * volume.z_mm)


def test_wrong_axis_keeps_the_size_of_the_patient(volume):
    planted = plant(volume, "wrong_axis", np.random.default_rng(2))
    extents = sorted(
        n * s for n, s in zip(planted.volume.hu.shape, planted.volume.spacing_mm_zyx, strict=True)
    )
    assert extents == sorted(n * s for n, s in zip(volume.hu.shape, (5.0, 3.0, 2.5), strict=True))


def test_what_cannot_be_planted_is_refused(volume):
    with pytest.raises(ValueError, match="fault 'upside'"):
        plant(volume, "upside", np.random.default_rng(0))
    short = Volume(volume.hu[:6], (5.0, 3.0, 2.5), source="short")
    for name in ("block_reversed", "too_short", "misplaced_slice"):
        with pytest.raises(ValueError, match="short"):
            plant(short, name, np.random.default_rng(0))
