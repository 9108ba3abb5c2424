"""From a stored grid to axial slices, in memory: every axis, limit and note of its own."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.ubr_pretrain.stored_volumes import BODY_AXES_LPS, SPACING, scan, stored_form
from tests.ubr_pretrain.test_volumes_orientation import VARIANTS, turned
from ubr_pretrain import orientation
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.orientation import (
    StoredGrid,
    angle_deg,
    axes_of_letters,
    body_order,
    room_for,
    to_axial,
)
from ubr_pretrain.reading_rules import ReadingRules

PATH = Path("some/scan.nii")
OPPOSITE = {"I": "S", "P": "A", "L": "R"}
Z, Y, X = BODY_AXES_LPS


def axial(
    hu: np.ndarray,
    axes: np.ndarray = BODY_AXES_LPS,
    spacing: tuple[float, ...] = (5.0, 0.75, 0.75),
    **more: object,
) -> Volume:
    rules = ReadingRules(
        **{k: more.pop(k) for k in ("max_tilt_deg", "max_oblique_deg") & more.keys()}
    )
    return to_axial(
        hu, StoredGrid(np.asarray(axes), tuple(spacing), **more), rules, PATH, ("read",)
    )


def refusal(*args: object, **more: object) -> str:
    with pytest.raises(VolumeRefused) as refused:
        axial(*args, **more)
    return str(refused.value)


def axes_tilted(degrees: float) -> np.ndarray:
    """Slices stay as they are, their direction leans towards posterior."""
    lean = np.radians(degrees)
    return np.array([np.cos(lean) * Z + np.sin(lean) * Y, Y, X])


@pytest.mark.parametrize(("order", "flips"), VARIANTS)
def test_V26_V28_every_way_to_store_a_scan_keeps_voxels_places_and_notes(order, flips) -> None:
    """However its axes are stored, a scan has the same voxels, spacing and places, with a note."""
    hu = (np.arange(120) - 60).reshape(6, 5, 4).astype(np.int16)
    stored, axes, spacing = stored_form(hu, order, flips, SPACING)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (axes * np.array(spacing)[:, None]).T, (11.0, -7.0, 33.0)
    volume = axial(stored, axes, spacing, affine_lps=affine)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.hu.flags.c_contiguous
    assert volume.spacing_mm_zyx == SPACING
    np.testing.assert_array_equal(volume.z_mm, 5.0 * np.arange(6))
    assert volume.source == "some/scan.nii"
    for value in (-60, 59, 7):
        (ours,), (theirs,) = np.argwhere(volume.hu == value), np.argwhere(stored == value)
        np.testing.assert_allclose(volume.affine_lps @ [*ours, 1], affine @ [*theirs, 1])
    letters = ["IPL"[axis] for axis in order]
    grows = [OPPOSITE[c] if flip else c for c, flip in zip(letters, flips, strict=True)]
    plain = grows in (list("IPL"), list("SPL"))
    note = f"reoriented: stored slices, rows, columns grow to {', '.join(grows)}"
    unusual = "unusual pixels: 0.75 x 0.5 mm"
    assert volume.notes == (("read",) if plain else ("read", note)) + (unusual,)


@pytest.mark.parametrize(("order", "flips"), VARIANTS)
def test_a_patient_who_lies_a_little_turned_is_stored_in_as_many_ways(order, flips) -> None:
    hu = scan()
    stored, axes, spacing = stored_form(hu, order, flips, (5.0, 0.75, 0.75))
    for about in ((1, 0, 0), (0, 0, 1), (1, 2, 3)):
        volume = axial(stored, turned(axes, about, 4.0), spacing)
        np.testing.assert_array_equal(volume.hu, hu)


def test_each_stored_axis_is_one_of_the_body_and_together_they_lie_nearest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        nearness = np.abs(axes @ BODY_AXES_LPS.T)
        _, nearest = linear_sum_assignment(nearness.T, maximize=True)
        assert body_order(axes) == tuple(nearest)


@pytest.mark.parametrize(("order", "flips"), VARIANTS)
def test_room_for_a_scan_is_turned_without_a_copy(order, flips) -> None:
    stored, axes, spacing = stored_form(scan(), order, flips, SPACING)
    grid = StoredGrid(axes, tuple(spacing))
    room = room_for(stored.shape, grid)
    assert (room.shape, room.dtype) == (stored.shape, np.int16)
    room[...] = stored
    volume = to_axial(room, grid, ReadingRules(), PATH)
    assert np.shares_memory(volume.hu, room)
    np.testing.assert_array_equal(volume.hu, scan())


def test_uneven_slices_keep_their_distances_from_the_first() -> None:
    hu, positions = scan((4, 5, 4)), np.array([2.0, 7.0, 12.0, 22.0])
    down = axial(hu, positions_mm=positions)
    assert down.z_mm.tolist() == [0, 5, 10, 20]
    up = axial(hu, [-Z, Y, X], positions_mm=positions)
    assert up.z_mm.tolist() == [0, 10, 15, 20]
    np.testing.assert_array_equal(up.hu, hu[::-1])


def test_V22_slices_across_the_body_must_be_even() -> None:
    """Coronal slices at uneven distances cannot become axial ones: E-GAP."""
    hu, coronal, spacing = scan((4, 5, 6)), [Y, Z, X], (2.0, 0.75, 0.75)
    even = axial(hu, coronal, spacing, positions_mm=2.0 * np.arange(4))
    np.testing.assert_array_equal(even.hu, hu.transpose(1, 0, 2))
    assert even.z_mm.tolist() == [0, 0.75, 1.5, 2.25, 3.0]
    uneven = np.array([0.0, 2.0, 4.0, 8.0])
    assert refusal(hu, coronal, spacing, positions_mm=uneven).startswith("E-GAP  some/scan.nii")


@pytest.mark.parametrize(("degrees", "noted"), [(0.5, False), (1.5, True), (4.9, True)])
def test_V24_tilted_slices_lie_closer_by_the_cosine(degrees: float, noted: bool) -> None:
    """Tilted slices have their distance along the normal, with a note from one degree on."""
    volume = axial(scan(), axes_tilted(degrees))
    step_mm = 5.0 * np.cos(np.radians(degrees))
    assert volume.spacing_mm_zyx[0] == pytest.approx(step_mm, rel=1e-12)
    np.testing.assert_allclose(volume.z_mm, step_mm * np.arange(6))
    leans = (
        f"tilted by {degrees:.1f} degrees; distances are along the slice normal",
        f"slices run {degrees:.1f} degrees off the body axis",
    )
    assert volume.notes == (("read", *leans) if noted else ("read",))


def test_V23_V24_tilt_and_obliqueness_are_refused_beyond_their_limits() -> None:
    """Slices tilted or oblique beyond the limit are refused with both angles and the keyword that
    takes more in Python."""
    tilted = refusal(scan(), axes_tilted(5.1))
    assert "E-TILT  some/scan.nii  slices are tilted by 5.1 degrees, limit 5" in tilted
    assert tilted.endswith("in Python, read_volume(..., max_tilt_deg=...) takes up to 45 degrees")
    axial(scan(), axes_tilted(8.0), max_tilt_deg=8.1)
    axial(scan(), max_tilt_deg=0.0, max_oblique_deg=0.0)  # what is straight is within any limit
    oblique = refusal(scan(), turned(BODY_AXES_LPS, (1, 0, 0), 10.1))
    assert (
        "E-OBLIQUE  some/scan.nii  slices run 10.1 degrees off the body axis, limit 10" in oblique
    )
    assert "read_volume(..., max_oblique_deg=...) takes up to 45 degrees" in oblique
    whole = axial(scan(), turned(BODY_AXES_LPS, (1, 0, 0), 9.9))
    assert whole.spacing_mm_zyx[0] == pytest.approx(5.0)  # oblique, but not tilted


@pytest.mark.parametrize(
    ("about", "note"),
    [
        ((1, 0, 0), "slices run {:.1f} degrees off the body axis"),
        ((0, 0, 1), "rows run {:.1f} degrees off the left-right axis"),
    ],
)
@pytest.mark.parametrize(("degrees", "noted"), [(0.5, False), (1.5, True)])
def test_V23_V27_a_turned_patient_is_noted_from_one_degree_on(about, note, degrees, noted) -> None:
    """A patient who lies turned by more than a degree is read, and it is noted which way."""
    volume = axial(scan(), turned(BODY_AXES_LPS, about, degrees))
    assert volume.notes == (("read", note.format(degrees)) if noted else ("read",))


def test_rows_and_columns_that_are_no_right_angle_are_no_picture() -> None:
    def skewed(degrees: float) -> np.ndarray:
        lean = np.radians(degrees)
        return np.array([Z, np.cos(lean) * Y + np.sin(lean) * X, X])

    axial(scan(), skewed(0.4))
    assert refusal(scan(), skewed(0.6)).startswith("E-GEOM  some/scan.nii")
    assert "rows and columns are 0.6 degrees off a right angle" in refusal(scan(), skewed(-0.6))


def test_V34_axes_and_spacings_that_are_no_numbers_are_refused() -> None:
    """NaN axes are E-GEOM, a spacing of zero is E-SPACING; room is made without a crash."""
    for value in (np.nan, np.inf):
        axes = np.array(BODY_AXES_LPS)
        axes[1, 1] = value
        said = refusal(scan(), axes)
        assert "E-GEOM  some/scan.nii  the direction of the axes is not finite" in said
        room = room_for((3, 4, 5), StoredGrid(axes, SPACING))
        assert (room.shape, room.dtype) == ((3, 4, 5), np.int16)
    assert "E-SPACING  some/scan.nii" in refusal(scan(), BODY_AXES_LPS, (5.0, 0.0, 0.75))


@pytest.mark.parametrize(
    ("spacing", "name"),
    [
        ((0.75, 3.0, 0.75), "coronal slices 3 mm apart"),
        ((0.75, 0.75, 3.0), "sagittal slices 3 mm apart"),
        ((1.6, 3.1, 1.0), "coronal slices 3.1 mm apart"),
        ((2.9, 3.1, 2.9), "coronal slices 3.1 mm apart"),
        ((0.75, 2.99, 0.75), None),
        ((2.96, 3.1, 1.0), None),
        ((1.0, 3.1, 2.96), None),
        ((5.0, 3.9, 3.9), None),
        ((4.0, 4.2, 4.2), None),
        ((4.0, 1.05 * 4.0, 1.0), None),
        ((4.0, 1.06 * 4.0, 1.0), "coronal slices 4.24 mm apart"),
    ],
)
def test_V22_the_coarsest_axis_says_what_was_acquired(spacing, name) -> None:
    """Coronal and sagittal scans of slices 3 mm apart or more are refused, whatever their order."""
    if name is None:
        assert axial(scan(), BODY_AXES_LPS, spacing).spacing_mm_zyx == spacing
    else:
        said = refusal(scan(), BODY_AXES_LPS, spacing)
        assert said.startswith("E-NONAXIAL  some/scan.nii")
        assert f"{name}, axial ones would need < 3 mm" in said


@pytest.mark.parametrize(
    ("shape", "spacing", "name"),
    [((4, 1, 5), (1.0, 2.0, 0.5), "coronal"), ((4, 5, 1), (1.0, 0.5, 2.0), "sagittal")],
)
def test_V22_a_single_slice_across_the_body_is_no_scan(shape, spacing, name) -> None:
    """A single coronal or sagittal slice holds no axial picture and is refused."""
    said = refusal(scan(shape), BODY_AXES_LPS, spacing)
    assert f"E-NONAXIAL  some/scan.nii  a single {name} slice holds no axial picture" in said
    assert axial(scan((1, 2, 2))).hu.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("pixel_mm", "noted"),
    [
        ((0.3, 0.3), False),
        ((0.29, 0.29), True),
        ((2.0, 2.0), False),
        ((2.01, 2.01), True),
        ((1.0, 1.05), False),
        ((1.06, 1.0), True),
        ((0.29, 0.3), True),
    ],
)
def test_V33_pixels_of_unusual_sides_are_noted(pixel_mm, noted) -> None:
    """Pixels outside 0.3 to 2 mm, or with sides that differ by more than 5 %, are noted."""
    volume = axial(scan(), BODY_AXES_LPS, (5.0, *pixel_mm))
    note = f"unusual pixels: {pixel_mm[0]:g} x {pixel_mm[1]:g} mm"
    assert volume.notes == (("read", note) if noted else ("read",))


def test_angles_lie_between_lines_and_are_exact_near_zero() -> None:
    assert angle_deg(X, -X) == 0
    assert angle_deg(X, Y) == 90
    assert angle_deg(X, X + 1e-9 * Y) == pytest.approx(np.degrees(1e-9))
    assert angle_deg(X, Y - X) == pytest.approx(45)


def test_letters_are_directions_in_lps() -> None:
    np.testing.assert_array_equal(BODY_AXES_LPS, orientation.BODY_AXES_LPS)
    for letters, rows in (("LPS", (1, 1, 1)), ("RAI", (-1, -1, -1))):
        np.testing.assert_array_equal(axes_of_letters(letters), np.diag(rows)[::-1])
