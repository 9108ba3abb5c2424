"""Lesions of the synthetic body: exact boxes, in their organ, visible in the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubr_pretrain.phantom import Phantom, render, sample_scan, sample_subject
from ubr_pretrain.phantom_lesions import (
    BOX_MARGIN_PX,
    HOSTS,
    MIN_CONTRAST_HU,
    Lesion,
    LesionKind,
    lesion_hu,
    place_lesion,
)

KINDS = list(LesionKind)


@pytest.fixture(scope="module", params=[0, 1])
def pair(request: pytest.FixtureRequest) -> tuple[Phantom, Phantom]:
    """The same noiseless scan with and without lesions of all kinds."""
    rng = np.random.default_rng(request.param)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, "trunk", 5.0)
    quiet = replace(scan, noise_hu=0.0, streaks=0.0, sharpen=0.0, fov_mm=400.0, round_field=False)
    return render(subject, quiet, 192, KINDS), render(subject, quiet, 192)


@st.composite
def lesions(draw: st.DrawFn) -> Lesion:
    long_px = draw(st.floats(2, 14))
    return Lesion(
        kind=LesionKind.LIVER,
        key_index=3,
        z_mm=100.0,
        centre_xy=(draw(st.floats(28, 36)), draw(st.floats(28, 36))),
        radii_px=(long_px, long_px * draw(st.floats(0.6, 1.0))),
        radius_z_mm=draw(st.floats(3, 20)),
        angle_rad=draw(st.floats(-1.57, 1.57)),
        hu=30.0,
    )


@settings(deadline=None)
@given(lesions())
def test_tight_box_is_that_of_the_painted_pixels(lesion: Lesion):
    rows, columns = np.nonzero(lesion.weight((64, 64), lesion.z_mm) > 0.5)
    x1, y1, x2, y2 = lesion.tight_box_xyxy
    spare = np.array([columns.min() - x1, rows.min() - y1, x2 - columns.max(), y2 - rows.max()])
    assert (spare >= 0).all()  # a pixel is painted where its centre is inside
    assert (spare < 1.5).all()


@settings(deadline=None)
@given(lesions())
def test_box_is_that_of_the_measurement_points_plus_five_and_holds_the_lesion(lesion: Lesion):
    points = lesion.measurement_xy
    assert points.shape == (4, 2)
    expected = [*(points.min(0) - BOX_MARGIN_PX), *(points.max(0) + BOX_MARGIN_PX)]
    np.testing.assert_allclose(lesion.box_xyxy, expected)
    rows, columns = np.nonzero(lesion.weight((64, 64), lesion.z_mm) > 0.5)
    x1, y1, x2, y2 = lesion.box_xyxy
    assert x1 <= columns.min() <= columns.max() <= x2
    assert y1 <= rows.min() <= rows.max() <= y2


@settings(deadline=None)
@given(lesions())
def test_measured_diameters_are_the_axes_and_cross_at_right_angles(lesion: Lesion):
    a, b, c, d = lesion.measurement_xy
    assert np.linalg.norm(a - b) == pytest.approx(2 * lesion.radii_px[0])
    assert np.linalg.norm(c - d) == pytest.approx(2 * lesion.radii_px[1])
    assert (a - b) @ (c - d) == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(lesions(), st.floats(0, 1.2))
def test_lesion_is_largest_in_its_key_slice_and_ends_at_its_height(lesion: Lesion, share: float):
    key = lesion.weight((64, 64), lesion.z_mm).sum()
    z_mm = lesion.z_mm + share * lesion.radius_z_mm
    other = lesion.weight((64, 64), z_mm).sum()
    assert other <= key + 1e-6
    # Not share >= 1: the sum above rounds, and a height just within the end is within it.
    assert other == 0 if z_mm - lesion.z_mm >= lesion.radius_z_mm else other > 0 or share > 0.9


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.floats(-60, 250), st.integers(0, 99))
def test_density_stands_out_from_the_host(kind: LesionKind, host_hu: float, seed: int):
    hu = lesion_hu(kind, host_hu, np.random.default_rng(seed))
    if kind in (LesionKind.LIVER, LesionKind.KIDNEY):
        assert abs(hu - host_hu) >= MIN_CONTRAST_HU - 1e-6
    else:
        assert 30 <= hu <= 75


def test_all_kinds_find_room_in_a_trunk(pair: tuple[Phantom, Phantom]):
    assert [lesion.kind for lesion in pair[0].lesions] == KINDS


def test_lesions_lie_in_their_organ_and_change_nothing_else(pair: tuple[Phantom, Phantom]):
    with_lesions, without = pair
    np.testing.assert_array_equal(with_lesions.tissues, without.tissues)
    changed = with_lesions.volume.hu != without.volume.hu
    near = np.zeros_like(changed)
    for lesion in with_lesions.lesions:
        x, y = (round(c) for c in lesion.centre_xy)
        assert with_lesions.tissues[lesion.key_index, y, x] in HOSTS[lesion.kind]
        reach = int(lesion.radius_z_mm / 5.0)
        x1, y1, x2, y2 = np.rint(lesion.box_xyxy).astype(int)
        z = slice(max(0, lesion.key_index - reach), lesion.key_index + reach + 1)
        near[z, y1 : y2 + 1, x1 : x2 + 1] = True
    assert changed.any()
    assert not (changed & ~near).any()


def test_lesions_are_visible_in_the_picture(pair: tuple[Phantom, Phantom]):
    with_lesions, without = pair
    for lesion in with_lesions.lesions:
        inside = lesion.weight((192, 192), lesion.z_mm) > 0.95
        after = with_lesions.volume.hu[lesion.key_index][inside].astype(float)
        before = without.volume.hu[lesion.key_index][inside].astype(float)
        assert np.abs(after - before).mean() > 30


def test_boxes_stay_within_the_picture_and_lesions_apart(pair: tuple[Phantom, Phantom]):
    lesions = pair[0].lesions
    for lesion in lesions:
        assert lesion.box_xyxy.min() >= -1
        assert lesion.box_xyxy.max() <= 192
    taken = np.zeros(pair[0].volume.hu.shape, int)
    for lesion in lesions:
        for index in range(len(taken)):
            z_mm = lesion.z_mm + 5.0 * (index - lesion.key_index)
            taken[index] += lesion.weight((192, 192), z_mm) > 0.5
    assert taken.max() == 1


def test_no_room_means_no_lesion():
    tissues = np.zeros((2, 32, 32), np.uint8)
    found = place_lesion(
        LesionKind.LIVER, [0, 1], tissues, np.array([0.0, 5.0]), 2.0,
        np.zeros(256, np.float32), (), np.random.default_rng(0),
    )  # fmt: skip
    assert found is None
    assert render(sample_subject(np.random.default_rng(0)), _head_scan(), 48,
                  [LesionKind.PELVIS]).lesions == ()  # fmt: skip


def _head_scan():
    rng = np.random.default_rng(0)
    return sample_scan(sample_subject(rng), rng, "head_neck", 20.0)
