"""Bodies by themselves: found, centred, of one size, whatever lies around them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubr_pretrain.body_frame import find_body, frame_bodies
from ubr_pretrain.ct import AIR_HU
from ubr_pretrain.phantom import render, sample_scan, sample_subject


def ellipse(shape=(200, 200), centre=(100, 100), radii_px=(45, 70), hu=40, image=None):
    image = np.full(shape, AIR_HU, np.int16) if image is None else image.copy()
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = ((y - centre[0]) / radii_px[0]) ** 2 + ((x - centre[1]) / radii_px[1]) ** 2 < 1
    image[inside] = hu
    return image


def outline(square):
    """(rows, columns, centre row, centre column, area) of what is not air."""
    rows, columns = np.nonzero(square > -300)
    return (
        np.ptp(rows) + 1, np.ptp(columns) + 1,
        (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2, len(rows),
    )  # fmt: skip


@settings(max_examples=25)
@given(
    st.floats(0.6, 1.5),
    st.integers(-25, 25),
    st.integers(-20, 20),
    st.sampled_from([0.7, 1.0, 2.0]),
)
def test_size_and_place_of_a_body_do_not_matter(size, dy, dx, pixel_mm):
    side = int(480 / pixel_mm)
    centre = (side / 2 + dy / pixel_mm, side / 2 + dx / pixel_mm)
    radii = (80 * size / pixel_mm, 130 * size / pixel_mm)
    hu = ellipse((side, side), centre, radii)
    square = frame_bodies(hu[None], (pixel_mm, pixel_mm), 64, 448.0, 300.0)[0]
    rows, columns, row, column, area = outline(square)
    assert area * 7.0**2 == pytest.approx(np.pi * 150**2, rel=0.06)  # 448 mm / 64 px
    assert columns / rows == pytest.approx(130 / 80, rel=0.1)
    assert (row, column) == pytest.approx((31.5, 31.5), abs=1.1)


def test_the_stated_pixel_size_does_not_matter():
    hu = ellipse((512, 512), (250, 260), (130, 190))[None]
    small, large = (frame_bodies(hu, (mm, mm), 64, 448.0, 300.0)[0] for mm in (0.7, 0.9))
    assert np.abs(outline(small)[4] - outline(large)[4]) < 0.02 * outline(small)[4]


def test_couch_arm_and_tubes_are_no_body():
    hu = ellipse()
    alone = frame_bodies(hu[None], (2.5, 2.5), 64, 448.0, 300.0)
    hu[160:163] = 100  # a couch of 7 mm
    hu[20:25, 20:23] = 500  # a tube
    hu = ellipse(centre=(100, 186), radii_px=(13, 9), image=hu)  # an arm beside the body
    framed = frame_bodies(hu[None], (2.5, 2.5), 64, 448.0, 300.0)
    assert np.abs(framed.astype(int) - alone).max() <= 1


def test_both_legs_are_the_body():
    hu = ellipse(centre=(100, 60), radii_px=(30, 28))
    hu = ellipse(centre=(100, 140), radii_px=(30, 28), image=hu)
    body = find_body(hu, (2.0, 2.0))
    assert body.centre_yx_px == pytest.approx((100, 100), abs=1.5)
    assert body.diameter_mm == pytest.approx(2 * np.sqrt(2 * 60 * 56), rel=0.03)


def test_a_thin_chest_wall_keeps_the_lungs_inside():
    """8 mm of wall around lungs of -850 HU."""
    hu = ellipse((300, 300), (150, 150), (90, 120))
    hu = ellipse((300, 300), (150, 150), (82, 112), hu=-850, image=hu)
    body = find_body(hu, (1.0, 1.0))
    assert body.diameter_mm == pytest.approx(2 * np.sqrt(90 * 120), rel=0.02)


def test_lungs_belong_to_the_body():
    hu = ellipse()
    for column in (70, 130):
        hu = ellipse(centre=(100, column), radii_px=(30, 20), hu=-850, image=hu)
    whole, hollow = find_body(ellipse(), (2.0, 2.0)), find_body(hu, (2.0, 2.0))
    assert hollow.diameter_mm == pytest.approx(whole.diameter_mm, rel=0.01)
    assert hollow.mask[100, 70] == 1


def test_air_stays_air_and_specks_are_not_blown_up():
    air = np.full((1, 50, 50), AIR_HU, np.int16)
    assert find_body(air[0], (3.0, 3.0)) is None
    assert (frame_bodies(air, (3.0, 3.0), 32, 448.0, 300.0) == AIR_HU).all()
    speck = ellipse((100, 100), (50, 50), (8, 8))[None]  # 32 mm across
    rows = outline(frame_bodies(speck, (2.0, 2.0), 64, 448.0, 300.0)[0])[0]
    assert rows * 7.0 == pytest.approx(32 * 300 / 100, rel=0.15)


def test_a_body_that_leaves_the_image_is_filled_up_with_air():
    hu = ellipse((120, 120), (60, 5), (40, 60))[None]
    square = frame_bodies(hu, (2.5, 2.5), 64, 448.0, 300.0)[0]
    assert square.shape == (64, 64)
    assert (square[:, :3] == AIR_HU).all()


def test_a_volume_is_framed_slice_by_slice():
    rng = np.random.default_rng(0)
    subject = sample_subject(rng)
    volume = render(subject, sample_scan(subject, rng, region="trunk", max_slices=12), 96).volume
    spacing = volume.spacing_mm_zyx[1:]
    together = frame_bodies(volume.hu, spacing, 48, 448.0, 300.0)
    for index, one in enumerate(volume.hu):
        np.testing.assert_array_equal(
            frame_bodies(one[None], spacing, 48, 448.0, 300.0)[0], together[index]
        )
        body = find_body(one, spacing)
        assert 100 < body.diameter_mm < 450


@pytest.mark.real
def test_real_bodies_come_out_in_one_size(real_ct):
    from ubr_pretrain.volumes import read_volume

    for name in ("lungdx_a0002", "totalseg_example_ct", "kits_00072"):
        volume = read_volume(real_ct / f"{name}.nii.gz")
        some = volume.hu[:: max(1, volume.num_slices // 6)]
        for square in frame_bodies(some, volume.spacing_mm_zyx[1:], 128, 448.0, 300.0):
            row, column = outline(square)[2:4]
            assert (row, column) == pytest.approx((63.5, 63.5), abs=6)
            assert 0.3 < (square > AIR_HU).mean() < 0.5  # the disc and its margin: 0.35
