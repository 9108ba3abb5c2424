"""Laws of orientation: how a scan is stored must not show in the `Volume`."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from highdicom.spatial import get_closest_patient_orientation
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ubr_pretrain.dicom_writer import save, slice_dataset, write_series
from tests.ubr_pretrain.stored_volumes import (
    BODY_AXES_LPS,
    SPACING,
    scan,
    stored_form,
    write_itk,
    write_nibabel,
)
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.orientation import axes_of_letters, body_order
from ubr_pretrain.volumes import read_volume

VARIANTS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def assert_same(volume: Volume, hu: np.ndarray, spacing: tuple[float, float, float]) -> None:
    np.testing.assert_array_equal(volume.hu, np.maximum(hu, -1024))
    np.testing.assert_allclose(volume.spacing_mm_zyx, spacing, rtol=1e-6)
    np.testing.assert_allclose(volume.z_mm, np.arange(len(hu)) * spacing[0], rtol=1e-6, atol=1e-6)


def turned(axes: np.ndarray, about: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rotate direction rows about an LPS axis."""
    x, y, z = np.array(about) / np.linalg.norm(about)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return axes @ rotation.T


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha", ".mhd"])
def test_V26_V28_all_48_ways_to_store_a_scan_give_the_same_volume(
    tmp_path: Path, suffix: str
) -> None:
    """The same volume from all 48 axis orders and directions, in every format."""
    hu = scan()
    for number, (order, flips) in enumerate(VARIANTS):
        stored, axes, spacing = stored_form(hu, order, flips, SPACING)
        path = write_itk(tmp_path / f"{number}{suffix}", stored, axes, spacing)
        assert_same(read_volume(path), hu, SPACING)


def test_V26_V28_all_48_ways_to_store_a_scan_agree_when_nibabel_writes_them(
    tmp_path: Path,
) -> None:
    """The same volume from all 48, by sform and by qform."""
    hu = scan()
    for number, (order, flips) in enumerate(VARIANTS):
        stored, axes, spacing = stored_form(hu, order, flips, SPACING)
        path = write_nibabel(tmp_path / f"{number}.nii", stored, axes, spacing)
        assert_same(read_volume(path), hu, SPACING)
        image = nib.load(path)  # the same file by its qform alone
        image.set_qform(image.affine, code=1)
        image.set_sform(None, code=0)
        nib.save(image, tmp_path / f"q{number}.nii")
        assert_same(read_volume(tmp_path / f"q{number}.nii"), hu, SPACING)


@settings(max_examples=40, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    spacing=st.tuples(st.floats(0.5, 8.0), st.floats(0.4, 2.9), st.floats(0.4, 2.9)),
    about=st.sampled_from([(1, 0, 0), (0, 1, 0), (1, 1, 0)]),
    degrees=st.floats(-9.0, 9.0),
    suffix=st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
)
def test_V26_slightly_oblique_scans_of_any_shape_come_out_in_body_order(
    tmp_path_factory, variant, shape, spacing, about, degrees, suffix
) -> None:
    """The same volume from every axis order of a scan up to 9 degrees oblique."""
    hu = scan(shape)
    stored, axes, stored_spacing = stored_form(hu, *variant, spacing)
    path = tmp_path_factory.mktemp("oblique") / f"scan{suffix}"
    write_itk(path, stored, turned(axes, about, degrees), stored_spacing)
    assert_same(read_volume(path), hu, spacing)


def test_voxels_lie_where_simpleitk_puts_them(tmp_path: Path) -> None:
    hu = scan()
    stored, axes, spacing = stored_form(hu, (1, 2, 0), (True, False, True), SPACING)
    path = write_itk(tmp_path / "scan.nrrd", stored, axes, spacing)
    image, volume = sitk.ReadImage(str(path)), read_volume(path)
    corners = itertools.product(*[(0, n - 1) for n in image.GetSize()])
    points = [image.TransformIndexToPhysicalPoint(corner) for corner in corners]
    first = min(points, key=lambda lps: lps[0] + lps[1] - lps[2])  # right, anterior, superior
    for z, y, x in itertools.product(*map(range, hu.shape)):
        point = first + np.array([z, y, x]) * SPACING @ BODY_AXES_LPS
        assert image[image.TransformPhysicalPointToIndex(point.tolist())] == volume.hu[z, y, x]


def test_V27_prone_and_decubitus_patients_face_up_again(tmp_path: Path) -> None:
    """The same volume as supine, with a note on the turn."""
    hu = scan((4, 6, 6))
    upright = read_volume(write_series(tmp_path / "supine", hu, (5.0, 0.75, 0.75)))
    for name, quarter_turns in (("prone", 2), ("decubitus", 1)):
        folder = tmp_path / name
        row, column = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
        corner = np.array([-10.0, -20.0, 0.0])
        for _ in range(quarter_turns):  # np.rot90 moves the first pixel to the end of the row
            corner, row, column = corner + row * 5 * 0.75, column, -row
        for k, one in enumerate(hu):
            position = corner + np.array([0, 0, 100.0 - 5.0 * k])
            turned_slice = np.ascontiguousarray(np.rot90(one, quarter_turns))
            ds = slice_dataset(
                turned_slice, position, orientation=[*row, *column], number=k + 1,
                PatientPosition="HFP",
            )  # fmt: skip
            save(ds, folder / f"{k}.dcm")
        volume = read_volume(folder)
        np.testing.assert_array_equal(volume.hu, upright.hu)
        assert any("reoriented" in note for note in volume.notes)
        assert "patient position HFP" in volume.notes


def test_V27_a_patient_turned_in_the_slice_plane_keeps_the_order_and_is_noted(tmp_path) -> None:
    """The slices stay in order; the degrees are in a note."""
    axes = turned(BODY_AXES_LPS, (0, 0, 1), 30)
    volume = read_volume(write_itk(tmp_path / "turned.nii", scan(), axes))
    np.testing.assert_array_equal(volume.hu, scan())
    assert any("30.0 degrees off the left-right axis" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("degrees", "limit", "read"), [(9, 10, True), (30, 10, False), (30, 40, True)]
)
def test_V23_oblique_slices_are_refused_beyond_the_limit(tmp_path, degrees, limit, read) -> None:
    """E-OBLIQUE beyond 10 degrees or the limit given; below it the degrees are in a note."""
    path = write_itk(tmp_path / "o.mha", scan(), turned(BODY_AXES_LPS, (1, 0, 0), degrees))
    if read:
        volume = read_volume(path, max_oblique_deg=limit)
        assert any(f"{degrees:.1f} degrees off the body axis" in note for note in volume.notes)
        return
    with pytest.raises(VolumeRefused, match=rf"^E-OBLIQUE .*{degrees}\.0 degrees.*limit {limit}"):
        read_volume(path, max_oblique_deg=limit)


@pytest.mark.parametrize("name", ["coronal", "sagittal"])
@pytest.mark.parametrize(("thick_mm", "read"), [(2.0, True), (5.0, False)])
def test_V22_coronal_and_sagittal_scans_become_axial_only_when_thin(
    tmp_path: Path, name: str, thick_mm: float, read: bool
) -> None:
    """Turned to axial slices where these are less than 3 mm apart, else E-NONAXIAL."""
    spacing = {"coronal": (0.75, thick_mm, 0.75), "sagittal": (0.75, 0.75, thick_mm)}[name]
    order = {"coronal": (1, 0, 2), "sagittal": (2, 0, 1)}[name]
    hu = scan()
    stored, axes, stored_spacing = stored_form(hu, order, (False,) * 3, spacing)
    path = write_itk(tmp_path / "scan.nii", stored, axes, stored_spacing)
    # an axial storage order must not hide what was acquired
    resliced = write_itk(tmp_path / "resliced.nii", hu, BODY_AXES_LPS, spacing)
    for file in (path, resliced):
        if read:
            assert_same(read_volume(file), hu, spacing)
            continue
        with pytest.raises(VolumeRefused, match=rf"^E-NONAXIAL .*{name} slices 5 mm apart"):
            read_volume(file)


def test_V28_thick_axial_slices_may_be_stored_along_any_axis(tmp_path: Path) -> None:
    """The same volume: storage is told from acquisition."""
    hu, spacing = scan(), (5.0, 3.9, 3.9)
    for number, (order, flips) in enumerate(VARIANTS):
        stored, axes, stored_spacing = stored_form(hu, order, flips, spacing)
        path = write_itk(tmp_path / f"{number}.nii", stored, axes, stored_spacing)
        assert_same(read_volume(path), hu, spacing)


@pytest.mark.parametrize("letters", ["LPS", "RAS", "LAI", "SPL", "IRA"])
def test_letters_of_an_orientation_mean_what_nibabel_means(letters: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (axes_of_letters(letters)[::-1] * [-1, -1, 1]).T
    assert "".join(nib.aff2axcodes(affine)) == letters


@settings(max_examples=40, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    about=st.tuples(*[st.floats(0.1, 1.0)] * 3),
    degrees=st.floats(-30.0, 30.0),
)
def test_axes_are_matched_to_the_body_as_highdicom_matches_them(variant, about, degrees) -> None:
    _, axes, _ = stored_form(scan(), *variant, SPACING)
    axes = turned(axes, about, degrees)
    letters = [direction.value for direction in get_closest_patient_orientation(axes.T)]
    z, y, x = body_order(axes)
    assert letters[z] in "HF"
    assert letters[y] in "AP"
    assert letters[x] in "LR"
