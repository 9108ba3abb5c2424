"""Which slices a crop keeps: the best run, in any order of the scores."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.crop import (
    crop_slices,
    find_slices,
    stretch_of_coordinates,
    stretch_of_landmarks,
    stretch_of_zones,
)
from ubr_pretrain.ct import Volume
from ubr_pretrain.landmarks import LANDMARK_COORDINATES
from ubr_pretrain.scored_volume import ScoredVolume
from ubr_pretrain.scoring import read_curve

ABDOMEN = stretch_of_zones(["abdomen"])


def scored_at(coordinate: np.ndarray, z_mm: np.ndarray, name: str = "scan") -> ScoredVolume:
    bounds = ("legs", "pelvis", "abdomen", "chest", "head_neck")
    zones = tuple(bounds[i] for i in np.digitize(coordinate, [-45, 0, 56, 100]))
    return ScoredVolume(
        name, z_mm, (5.0, 1.0, 1.0), -coordinate, -coordinate, None, read_curve(-coordinate, z_mm),
        coordinate=coordinate, coordinate_sd=np.ones_like(coordinate), zones=zones,
    )  # fmt: skip


def test_a_margin_adds_the_slices_within_reach() -> None:
    z_mm = np.arange(10) * 4.0
    scored = scored_at(60 - 2 * z_mm, z_mm)  # 60, 52, 44, 36, 28, 20, ...
    stretch = stretch_of_coordinates(25, 45)
    assert find_slices(stretch, scored) == range(2, 5)
    assert find_slices(stretch, scored, 3.9) == range(2, 5)
    assert find_slices(stretch, scored, 4.0) == range(1, 6)
    assert find_slices(stretch, scored, 1000.0) == range(10)
    thin = scored_at(60 - 2 * z_mm, z_mm / 8)  # half a millimetre apart
    assert find_slices(stretch, thin) == range(2, 5)
    with pytest.raises(ValueError, match="margin -1 mm"):
        find_slices(stretch, scored, -1.0)


@given(st.lists(st.booleans(), min_size=1, max_size=24))
def test_no_other_run_of_slices_agrees_better_with_the_zones(inside: list[bool]) -> None:
    z_mm = np.arange(len(inside)) * 5.0
    scored = scored_at(np.where(inside, 30.0, 80.0), z_mm)
    found = find_slices(ABDOMEN, scored)
    if not any(inside):
        assert found is None
        return
    assert found is not None

    def errors(first: int, stop: int) -> int:
        return sum((first <= k < stop) != member for k, member in enumerate(inside))

    runs = [(a, b) for a in range(len(inside)) for b in range(a + 1, len(inside) + 1)]
    best = min(runs, key=lambda run: (errors(*run), run[1], run[1] - run[0]))
    assert (found.start, found.stop) == best
    assert inside[found.start]
    assert inside[found.stop - 1]


def test_a_scan_stored_upside_down_gives_the_same_slices() -> None:
    z_mm = np.arange(12) * 10.0
    coordinate = 60 - z_mm
    found = find_slices(ABDOMEN, scored_at(coordinate, z_mm))
    turned_over = find_slices(ABDOMEN, scored_at(coordinate[::-1].copy(), z_mm))
    assert found == range(1, 7)
    assert turned_over == range(12 - 7, 12 - 1)


def test_stretches_are_neighbouring_zones_or_two_landmarks_in_either_order() -> None:
    both = stretch_of_zones(["abdomen", "chest"])
    assert (both.name, both.zones) == ("chest-abdomen", ("chest", "abdomen"))
    assert stretch_of_landmarks("iliac_crest", "lung_apex") == stretch_of_landmarks(
        "lung_apex", "iliac_crest"
    )
    assert stretch_of_landmarks("lung_apex", "iliac_crest").coordinates == (0.0, 100.0)
    z_mm = np.arange(20) * 10.0
    scored = scored_at(110 - z_mm, z_mm)
    assert find_slices(stretch_of_landmarks("iliac_crest", "lung_apex"), scored) == range(1, 12)
    assert stretch_of_landmarks("C7_T1", "carina").coordinates == (77.0, 104.0)
    for lacks in ({"coordinate": None, "zones": None}, {"coordinate": None}, {"zones": None}):
        for stretch in (both, stretch_of_coordinates(25, 45)):
            with pytest.raises(ValueError, match="need a calibration"):
                find_slices(stretch, replace(scored, **lacks))


def test_a_crop_holds_its_slices_at_their_old_places() -> None:
    hu = np.arange(6 * 2 * 2).reshape(6, 2, 2).astype(np.int16)
    affine = np.array([[0, 0, 0.7, 11], [0.1, 0.7, 0, -7], [-5.0, 0, 0, 300], [0, 0, 0, 1.0]])
    z_mm = np.array([0.0, 5, 10, 15, 20, 30])
    volume = Volume(hu, (5.0, 0.7, 0.7), z_mm, "scan", affine_lps=affine)
    part = crop_slices(volume, range(2, 6))
    np.testing.assert_array_equal(part.hu, hu[2:6])
    assert part.z_mm.tolist() == [0, 5, 10, 20]
    for z, y, x in np.ndindex(part.hu.shape):
        np.testing.assert_allclose(part.affine_lps @ [z, y, x, 1], affine @ [z + 2, y, x, 1])
    assert affine[2, 3] == 300  # the whole keeps its own
    assert crop_slices(volume, range(6)).num_slices == 6
    assert crop_slices(replace(volume, affine_lps=None), range(1, 2)).affine_lps is None
    for slices in (range(-1, 3), range(3, 3), range(4, 7), range(0, 6, 2)):
        with pytest.raises(ValueError, match=r"scan: slices range.* of 6"):
            crop_slices(volume, slices)


def test_no_stretch_is_made_of_what_is_none() -> None:
    assert stretch_of_coordinates(25, 45).name == "25-to-45"
    assert stretch_of_landmarks("iliac_crest", "lung_apex").name == "lung_apex-to-iliac_crest"
    for zones, said in (
        (["tail"], "zone 'tail' is not one of"),
        ([], "zones none: a crop needs neighbouring zones"),
        (["chest", "pelvis"], "zones chest, pelvis: a crop needs neighbouring zones"),
    ):
        with pytest.raises(ValueError, match=said):
            stretch_of_zones(zones)
    assert stretch_of_zones(["pelvis", "chest", "abdomen", "chest"]).name == "chest-abdomen-pelvis"
    for pair, said in (
        (("lung_apex", "tail"), f"landmark 'tail' is not one of {', '.join(LANDMARK_COORDINATES)}"),
        (("tail", "lung_apex"), "landmark 'tail'"),
        (("lung_apex", "lung_apex"), "two landmarks are needed"),
    ):
        with pytest.raises(ValueError, match=said):
            stretch_of_landmarks(*pair)
    for low, high in ((5.0, 5.0), (6.0, 5.0), (np.nan, 5.0), (5.0, np.inf)):
        with pytest.raises(ValueError, match="the lower one comes first"):
            stretch_of_coordinates(low, high)
    with pytest.raises(ValueError, match="margin inf mm"):
        find_slices(ABDOMEN, scored_at(np.full(3, 30.0), np.arange(3.0)), np.inf)


def test_both_ends_of_an_interval_belong_to_it() -> None:
    z_mm = np.arange(5) * 10.0
    scored = scored_at(60 - z_mm, z_mm)
    assert find_slices(stretch_of_coordinates(30.0, 50.0), scored) == range(1, 4)
    assert find_slices(stretch_of_coordinates(200.0, 300.0), scored) is None
