"""Where a voxel lies in the patient: `Volume.affine_lps` against SimpleITK, nibabel and DICOM."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from tests.ubr_pretrain.dicom_writer import put, write_series
from tests.ubr_pretrain.stored_volumes import (
    BODY_AXES_LPS,
    SHAPE,
    SPACING,
    refused,
    stored_form,
    with_lines,
    write_itk,
    write_nibabel,
)
from tests.ubr_pretrain.test_volumes_orientation import VARIANTS, turned
from ubr_pretrain.ct import Volume
from ubr_pretrain.volumes import read_volume

HU = (np.random.default_rng(3).permutation(np.prod(SHAPE)).reshape(SHAPE) - 60).astype(np.int16)
"""Every voxel has a value of its own, so that it is found again wherever it is stored."""

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def positions(volume: Volume) -> dict[int, np.ndarray]:
    """LPS position of every value."""
    assert volume.affine_lps is not None
    indices = np.array(list(np.ndindex(volume.hu.shape)))
    places = indices @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3]
    return dict(zip(volume.hu.ravel().tolist(), places, strict=True))


def positions_by_itk(path: Path) -> dict[int, np.ndarray]:
    image = sitk.ReadImage(str(path))
    return {
        int(image[index]): np.array(image.TransformIndexToPhysicalPoint(index))
        for index in itertools.product(*map(range, image.GetSize()))
    }


def positions_by_nibabel(path: Path) -> dict[int, np.ndarray]:
    image = nib.load(path)
    stored = np.asarray(image.dataobj)
    return {
        int(stored[index]): (image.affine @ [*index, 1])[:3] * RAS_TO_LPS
        for index in np.ndindex(stored.shape)
    }


def assert_same_places(found: dict[int, np.ndarray], true: dict[int, np.ndarray]) -> None:
    assert found.keys() <= true.keys()
    assert found
    values = sorted(found)
    np.testing.assert_allclose(
        np.array([found[v] for v in values]), np.array([true[v] for v in values]), atol=1e-4
    )


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_every_voxel_lies_where_itk_places_it_in_all_48_storage_orders(tmp_path, suffix) -> None:
    for number, (order, flips) in enumerate(VARIANTS):
        stored, axes, spacing = stored_form(HU, order, flips, SPACING)
        path = write_itk(tmp_path / f"{number}{suffix}", stored, axes, spacing)
        assert_same_places(positions(read_volume(path)), positions_by_itk(path))


@pytest.mark.parametrize("degrees", [0.0, 4.0])
def test_every_voxel_lies_where_nibabel_places_it_upright_or_oblique(tmp_path, degrees) -> None:
    for number, (order, flips) in enumerate(VARIANTS[::5]):
        stored, axes, spacing = stored_form(HU, order, flips, SPACING)
        axes = turned(axes, (1.0, 1.0, 0.0), degrees)
        path = write_nibabel(tmp_path / f"{number}.nii", stored, axes, spacing)
        assert_same_places(positions(read_volume(path)), positions_by_nibabel(path))
        image = nib.load(path, mmap=False)  # the same file by its qform alone
        image.set_qform(image.affine, code=1)
        image.set_sform(None, code=0)
        nib.save(image, tmp_path / f"q{number}.nii")
        assert_same_places(
            positions(read_volume(tmp_path / f"q{number}.nii")),
            positions_by_nibabel(tmp_path / f"q{number}.nii"),
        )


@pytest.mark.parametrize("tilt_mm", [0.0, 0.4])
def test_every_voxel_lies_where_its_dicom_slice_says(tmp_path, tilt_mm) -> None:
    change = {
        k: put(ImagePositionPatient=[-10.0, -20.0 + tilt_mm * k, 100.0 - 5.0 * k])
        for k in range(len(HU))
    }
    write_series(tmp_path, HU, SPACING, change=change)
    true = {}
    for file in tmp_path.iterdir():
        ds = dcmread(file)
        pixels = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        row_mm, column_mm = ds.PixelSpacing
        for j, i in np.ndindex(pixels.shape):
            within_mm = np.array([i * column_mm, j * row_mm, 0.0])
            true[int(pixels[j, i])] = np.array(ds.ImagePositionPatient) + within_mm
    assert_same_places(positions(read_volume(tmp_path)), true)


def test_slices_off_an_even_grid_have_no_common_matrix(tmp_path: Path) -> None:
    gap = {k: put(ImagePositionPatient=[0, 0, -5.0 * (k + (k > 3))]) for k in range(len(HU))}
    with_gap = read_volume(write_series(tmp_path / "gap", HU, change=gap), allow_gaps=True)
    assert with_gap.affine_lps is None
    shifted = {2: put(ImagePositionPatient=[-10.0, -19.0, 90.0])}
    assert read_volume(write_series(tmp_path / "shift", HU, change=shifted)).affine_lps is None
    rounded = {k: put(ImagePositionPatient=[0, 0, round(-1.234 * k, 1)]) for k in range(len(HU))}
    coarse = read_volume(write_series(tmp_path / "round", HU, change=rounded), allow_gaps=True)
    assert coarse.affine_lps is not None


def test_a_single_slice_is_placed_by_its_normal(tmp_path: Path) -> None:
    write_series(tmp_path, HU, SPACING)
    volume = read_volume(tmp_path / "003.dcm")
    assert volume.affine_lps is not None
    np.testing.assert_allclose(volume.affine_lps[:3, 3], [-10.0, -20.0, 85.0])
    np.testing.assert_allclose(volume.affine_lps[:3, 0], [0.0, 0.0, -5.0])


def test_a_scan_turned_over_or_without_orientation_has_no_place(tmp_path: Path) -> None:
    stored, axes, spacing = stored_form(HU, (0, 1, 2), (False,) * 3, SPACING)
    path = write_nibabel(tmp_path / "a.nii", stored, axes, spacing)
    assert read_volume(path).reversed().affine_lps is None
    image = nib.load(path, mmap=False)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, path)
    assert read_volume(path, orientation="LPS").affine_lps is None


def test_an_origin_that_is_no_position_is_refused(tmp_path: Path) -> None:
    nrrd = write_itk(tmp_path / "a.nrrd", HU, BODY_AXES_LPS)
    refused(with_lines(nrrd, space_origin="(1,2)"), "E-GEOM", "origin")
    mha = write_itk(tmp_path / "a.mha", HU, BODY_AXES_LPS)
    refused(with_lines(mha, Offset="1 nan 3"), "E-GEOM", "origin")


def test_a_format_without_an_origin_has_it_at_zero(tmp_path: Path) -> None:
    for name, line in (("a.nrrd", "space_origin"), ("a.mha", "Offset")):
        path = with_lines(write_itk(tmp_path / name, HU, BODY_AXES_LPS), **{line: None})
        assert_same_places(positions(read_volume(path)), positions_by_itk(path))
