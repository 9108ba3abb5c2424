"""The synthetic body: the same for the same seed, and its truth agrees with its voxels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ubr_pretrain.phantom import (
    BODY_PARTS,
    REGIONS,
    Phantom,
    Scan,
    Subject,
    render,
    sample_phantom,
    sample_scan,
    sample_subject,
)
from ubr_pretrain.phantom_subject import LANDMARKS
from ubr_pretrain.phantom_tissues import Tissue

SEEDS = st.integers(0, 2**32 - 1)
FIRST_SEEN = {
    "vertex": "trunk_skin",
    "lung_apex": "lung_",
    "liver_dome": "liver",
    "kidney_upper_pole": "kidney_",
    "iliac_crest": "ilium_",
    "femoral_head_top": "femoral_head_",
}
LAST_SEEN = {
    "lung_base": "lung_",
    "kidney_lower_pole": "kidney_",
    "pubic_symphysis_lower": "pubis_body_",
}


def _whole(seed: int, step_mm: float = 3.0) -> tuple[Subject, Scan]:
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, "whole", step_mm)
    z_mm = np.arange(-6.0, subject.skeleton_mm[-1], step_mm)
    return subject, replace(scan, z_mm=z_mm, fov_mm=520.0, offset_mm=(0.0, 0.0), couch="none")


@pytest.fixture(scope="module", params=[0, 2])
def whole(request: pytest.FixtureRequest) -> Phantom:
    return render(*_whole(request.param), size_px=128)


def test_same_seed_gives_the_same_voxels_and_truth():
    first, again = (
        sample_phantom(np.random.default_rng(5), 64, "chest", step_mm=8) for _ in range(2)
    )
    np.testing.assert_array_equal(first.volume.hu, again.volume.hu)
    np.testing.assert_array_equal(first.volume.z_mm, again.volume.z_mm)
    assert first.landmarks == again.landmarks
    assert first.classes == again.classes


def test_another_seed_gives_another_body_and_another_scan():
    a, b = (sample_subject(np.random.default_rng(seed)) for seed in (1, 2))
    assert a.landmarks_mm != b.landmarks_mm
    first = sample_scan(a, np.random.default_rng(1), "chest", 5.0)
    second = sample_scan(a, np.random.default_rng(2), "chest", 5.0)
    assert first.fov_mm != second.fov_mm
    assert first.noise_seed != second.noise_seed


def test_two_scans_of_one_subject_show_the_same_anatomy():
    subject, scan = _whole(3, step_mm=20.0)
    quiet = replace(scan, noise_hu=0.0, streaks=0.0)
    a, b = render(subject, quiet, 64), render(subject, replace(quiet, noise_seed=9), 64)
    np.testing.assert_array_equal(a.tissues, b.tissues)
    np.testing.assert_array_equal(a.volume.hu, b.volume.hu)


@pytest.mark.parametrize(("landmark", "part"), FIRST_SEEN.items())
def test_landmark_is_the_first_slice_that_shows_its_part(landmark: str, part: str):
    for seed in range(3):
        subject, scan = _whole(seed, step_mm=3.0)
        only = tuple(p for p in subject.parts if p.name.startswith(part))
        assert only
        phantom = render(replace(subject, parts=only), scan, size_px=64)
        shown = np.flatnonzero(phantom.tissues.any((1, 2)))
        marks = {mark.name: mark.index for mark in phantom.landmarks}
        assert marks[landmark] == shown[0]


@pytest.mark.parametrize(("landmark", "part"), LAST_SEEN.items())
def test_landmark_is_the_last_slice_that_shows_its_part(landmark: str, part: str):
    for seed in range(3):
        subject, scan = _whole(seed, step_mm=3.0)
        only = tuple(p for p in subject.parts if p.name.startswith(part))
        assert only
        phantom = render(replace(subject, parts=only), scan, size_px=64)
        shown = np.flatnonzero(phantom.tissues.any((1, 2)))
        marks = {mark.name: mark.index for mark in phantom.landmarks}
        assert marks[landmark] == shown[-1]


def test_liver_dome_is_the_first_slice_with_liver_in_the_whole_body(whole: Phantom):
    marks = {mark.name: mark.index for mark in whole.landmarks}
    liver = np.flatnonzero((whole.tissues == Tissue.LIVER).any((1, 2)))
    assert liver[0] == marks["liver_dome"]


def test_trachea_divides_at_the_carina():
    for seed in range(3):
        subject, scan = _whole(seed)
        z_mm = subject.landmarks_mm["carina"] + np.arange(-15.0, 16.0, 2.0)
        phantom = render(subject, replace(scan, z_mm=z_mm, step_mm=2.0, fov_mm=350.0), 256)
        carina = next(mark.index for mark in phantom.landmarks if mark.name == "carina")
        airway = phantom.tissues == Tissue.AIRWAY
        assert ndimage.label(airway[carina - 4])[1] == 1
        assert ndimage.label(airway[carina + 1])[1] >= 2


def test_every_chest_slice_shows_air_in_lungs_and_no_slice_above_or_far_below_does(whole: Phantom):
    classes = np.array(whole.classes)
    lung_px = ((whole.tissues == Tissue.LUNG) & (whole.volume.hu < -600)).sum((1, 2))
    chest = np.flatnonzero(classes == "chest")
    assert (lung_px[chest[4:]] > 100).all()
    assert (whole.tissues[chest] == Tissue.LUNG).any((1, 2)).all()
    assert not lung_px[np.isin(classes, ["head_neck", "pelvis", "legs"])].any()


def test_pelvis_holds_bone_and_thighs_hold_two_femurs(whole: Phantom):
    classes = np.array(whole.classes)
    bone_px = (whole.volume.hu > 250).sum((1, 2))
    assert (bone_px[classes == "pelvis"] > 40).all()
    assert ndimage.label(whole.tissues[-1] == Tissue.CORTICAL_BONE)[1] == 2


def test_tissues_have_their_hounsfield_units(whole: Phantom):
    def median_hu(tissue: Tissue) -> float:
        inside = ndimage.binary_erosion(whole.tissues == tissue, np.ones((1, 3, 3)))
        return float(np.median(whole.volume.hu[inside]))

    assert -1024 <= median_hu(Tissue.AIR) < -950
    assert -960 < median_hu(Tissue.LUNG) < -650
    assert -140 < median_hu(Tissue.FAT) < -70
    assert 25 < median_hu(Tissue.MUSCLE) < 90
    assert 25 < median_hu(Tissue.BRAIN) < 60
    assert 0 < median_hu(Tissue.LIVER) < 190
    assert median_hu(Tissue.SPONGY_BONE) > 60


def test_patients_right_is_on_the_left_of_the_picture_and_anterior_on_top(whole: Phantom):
    rows, columns = ndimage.center_of_mass(np.ones(whole.volume.hu.shape[1:]))
    _, _, liver_x = ndimage.center_of_mass(whole.tissues == Tissue.LIVER)
    _, _, spleen_x = ndimage.center_of_mass(whole.tissues == Tissue.SPLEEN)
    _, cord_y, cord_x = ndimage.center_of_mass(whole.tissues == Tissue.CORD)
    _, heart_y, _ = ndimage.center_of_mass(whole.tissues == Tissue.MYOCARDIUM)
    assert liver_x < columns < spleen_x
    assert heart_y < cord_y
    assert abs(cord_x - columns) < 12
    assert rows == columns


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_landmarks_follow_one_another_from_head_to_feet(seed: int):
    landmarks_mm = sample_subject(np.random.default_rng(seed)).landmarks_mm
    heights_mm = list(landmarks_mm.values())
    assert list(landmarks_mm) == list(LANDMARKS)
    assert all(a < b for a, b in pairwise(heights_mm))


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.sampled_from(REGIONS))
def test_truth_of_any_scan_is_ordered_and_complete(seed: int, region: str):
    phantom = sample_phantom(np.random.default_rng(seed), 32, region, step_mm=12)
    num = phantom.volume.num_slices
    assert phantom.volume.hu.shape == (num, 32, 32)
    assert len(phantom.classes) == len(phantom.coordinate_mm) == num
    order = [BODY_PARTS.index(name) for name in phantom.classes]
    assert order == sorted(order)
    assert (np.diff(phantom.coordinate_mm) > 0).all()
    indices = [mark.index for mark in phantom.landmarks]
    assert indices == sorted(indices)
    assert all(0 <= index < num for index in indices)
    for mark in phantom.landmarks:
        assert abs(phantom.volume.z_mm[mark.index] - mark.z_mm) < 12
    assert len(phantom.volume.runs) == 1


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(0, 1110))
def test_maps_between_body_and_reference_are_inverse(seed: int, reference_mm: float):
    subject = sample_subject(np.random.default_rng(seed))
    inside = np.array([reference_mm])
    for frame, _ in LANDMARKS.values():
        there = subject.to_body(frame, inside)
        np.testing.assert_allclose(subject.to_reference(frame, there), inside, atol=1e-6)


def test_landmark_coordinates_are_the_same_in_every_body():
    for seed in range(4):
        subject, scan = _whole(seed, step_mm=1.0)
        marks_mm = np.array(list(subject.landmarks_mm.values()))
        frame, _ = LANDMARKS["liver_dome"]
        expected = [height for _, height in LANDMARKS.values()]
        np.testing.assert_allclose(subject.to_reference(frame, marks_mm), expected, atol=1e-6)
        assert scan.step_mm == 1.0


def test_a_slice_below_the_symphysis_is_legs_and_at_its_lower_end_is_pelvis():
    subject, scan = _whole(0)
    marks_mm = subject.landmarks_mm
    z_mm = np.array([marks_mm["pubic_symphysis_lower"] + d for d in (0.0, 0.01)])
    assert render(subject, replace(scan, z_mm=z_mm), 32).classes == ("pelvis", "legs")
    z_mm = np.array([marks_mm["liver_dome"] + d for d in (-0.01, 0.0)])
    assert render(subject, replace(scan, z_mm=z_mm), 32).classes == ("chest", "abdomen")


def test_reversing_twice_gives_the_scan_back_and_once_turns_the_truth_too():
    phantom = sample_phantom(np.random.default_rng(3), 48, "trunk", step_mm=10)
    turned = phantom.reversed()
    np.testing.assert_array_equal(turned.volume.hu, phantom.volume.hu[::-1])
    assert turned.classes == phantom.classes[::-1]
    assert (np.diff(turned.coordinate_mm) < 0).all()
    back = turned.reversed()
    assert [m.name for m in back.landmarks] == [m.name for m in phantom.landmarks]
    assert [m.index for m in back.landmarks] == [m.index for m in phantom.landmarks]
    np.testing.assert_array_equal(back.volume.hu, phantom.volume.hu)
