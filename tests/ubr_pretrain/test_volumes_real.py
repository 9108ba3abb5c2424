"""Real scans: upright, in one direction, and the same whichever format they came in."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ubr_pretrain.volumes import find_volumes, looks_like_hu, read_volume

pytestmark = pytest.mark.real

CT_NAMES = [
    "acrin_flt_breast_001_a", "acrin_flt_breast_001_c", "cmb_crc_01068", "kits_00072",
    "lidc_0117", "lungdx_a0002", "lungfcp_01_0001", "matrad_liver_pat001", "tcga_de_a4ma",
    "totalseg_example_ct",
]  # fmt: skip
OPENKBP_NAMES = [f"openkbp_pt_{n}" for n in (1, 10, 51, 77, 100)]
BONE_HU = 300


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return HU [z, y, x] in body order and the spacing, by way of nibabel's canonical RAS."""
    image = nib.as_closest_canonical(nib.load(path))
    right_anterior_superior = np.asarray(image.dataobj)
    return right_anterior_superior.transpose(2, 1, 0)[::-1, ::-1, ::-1], image.header.get_zooms()


def assert_reads_as_nibabel(path: Path) -> None:
    volume = read_volume(path)
    hu, (dx, dy, dz) = by_nibabel(path)
    np.testing.assert_array_equal(volume.hu, np.maximum(hu, -1024))
    np.testing.assert_allclose(volume.spacing_mm_zyx, (dz, dy, dx), rtol=1e-6)
    assert looks_like_hu(volume) is None
    assert len(volume.runs) == 1


@pytest.mark.parametrize("name", CT_NAMES)
def test_every_ct_volume_reads_as_nibabel_places_it(real_ct: Path, name: str) -> None:
    assert_reads_as_nibabel(real_ct / f"{name}.nii.gz")


@pytest.mark.parametrize("name", OPENKBP_NAMES)
def test_openkbp_volumes_read_as_nibabel_places_them(real_openkbp: Path, name: str) -> None:
    assert_reads_as_nibabel(real_openkbp / f"{name}.nii.gz")


def test_dicom_and_nifti_of_one_scan_are_one_volume(real_dicom: Path, real_ct: Path) -> None:
    dicom = read_volume(real_dicom / "lungdx_a0002")
    nifti = read_volume(real_ct / "lungdx_a0002.nii.gz")
    # the NIfTI was made by averaging 2 x 2 pixels, so it is the DICOM's average but for rounding
    z, y, x = dicom.hu.shape
    averaged = dicom.hu.reshape(z, y // 2, 2, x // 2, 2).mean(axis=(2, 4))
    assert np.abs(averaged - nifti.hu).max() <= 0.5
    np.testing.assert_allclose(dicom.z_mm, nifti.z_mm, atol=1e-3)
    np.testing.assert_allclose(
        np.array(dicom.spacing_mm_zyx) * (1, 2, 2), nifti.spacing_mm_zyx, rtol=1e-6
    )
    assert np.abs(averaged[::-1] - nifti.hu).mean() > 100  # the order is not a matter of rounding


def test_dicom_reads_as_simpleitk_reads_a_series_without_faults(real_dicom: Path) -> None:
    folder = real_dicom / "lungdx_a0002"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.DICOMOrient(reader.Execute(), "LPI")
    np.testing.assert_array_equal(read_volume(folder).hu, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize(
    "name", ["totalseg_example_ct", "tcga_de_a4ma", "acrin_flt_breast_001_a", "matrad_liver_pat001"]
)
def test_the_spine_is_posterior(real_ct: Path, name: str) -> None:
    hu = read_volume(real_ct / f"{name}.nii.gz").hu
    body = hu > -300
    rows = np.arange(hu.shape[1])[np.newaxis, :, np.newaxis]
    middle = (rows * body).sum() / body.sum()
    bone = hu > BONE_HU
    assert (rows * bone).sum() / bone.sum() > middle  # vertebrae and sacrum outweigh the rest


def test_the_liver_is_on_the_right_and_the_pelvis_at_the_end(real_ct: Path) -> None:
    hu = read_volume(real_ct / "totalseg_example_ct.nii.gz").hu
    liver = ((hu > 40) & (hu < 80))[:20]
    middle = hu.shape[2] // 2
    assert liver[:, :, :middle].sum() > 1.5 * liver[:, :, middle:].sum()
    bone = (hu > BONE_HU).sum(axis=(1, 2))
    assert bone[-28:].mean() > 3 * bone[:28].mean()


@pytest.mark.parametrize("name", ["tcga_de_a4ma", "acrin_flt_breast_001_a", "matrad_liver_pat001"])
def test_lungs_lie_above_the_pelvis(real_ct: Path, name: str) -> None:
    hu = read_volume(real_ct / f"{name}.nii.gz").hu
    places = np.arange(len(hu))
    lung = ((hu > -900) & (hu < -600)).sum(axis=(1, 2))
    bone = (hu > BONE_HU).sum(axis=(1, 2))
    assert (lung * places).sum() / lung.sum() < (bone * places).sum() / bone.sum()


@pytest.mark.parametrize("name", OPENKBP_NAMES)
def test_openkbp_begins_with_the_skull_though_stored_the_other_way(real_openkbp, name) -> None:
    path = real_openkbp / f"{name}.nii.gz"
    hu = read_volume(path).hu
    bone_share = (hu > BONE_HU).sum(axis=(1, 2)) / (hu > -300).sum(axis=(1, 2))
    quarter = len(hu) // 4
    assert bone_share[:quarter].mean() > 1.5 * bone_share[-quarter:].mean()
    assert nib.aff2axcodes(nib.load(path).affine)[2] == "I"  # the ct files are stored towards S


def test_every_file_beside_the_manifest_is_found_with_its_subject(real_ct: Path) -> None:
    cohort = find_volumes([real_ct])
    assert [entry.name for entry in cohort] == CT_NAMES
    subjects = {entry.name: entry.subject for entry in cohort}
    assert subjects["acrin_flt_breast_001_a"] == subjects["acrin_flt_breast_001_c"]
    assert len(set(subjects.values())) == 9


def test_every_openkbp_volume_is_its_own_subject(real_openkbp: Path) -> None:
    cohort = find_volumes([real_openkbp])
    assert len(cohort) == len({entry.subject for entry in cohort}) == 100


def test_deeplesion_folders_are_read_with_the_spacing_of_the_table(real_deeplesion: Path) -> None:
    volume = read_volume(real_deeplesion / "Images_png" / "000062_01_01")
    assert volume.hu.shape == (29, 512, 512)
    assert volume.spacing_mm_zyx == (5.0, 0.976562, 0.976562)
    assert volume.runs == (range(29),)
    rows = np.arange(512)[np.newaxis, :, np.newaxis]
    bone, body = volume.hu > BONE_HU, volume.hu > -300
    assert (rows * bone).sum() / bone.sum() > (rows * body).sum() / body.sum()


def test_every_deeplesion_folder_is_found_and_sparse_ones_stay_apart(real_deeplesion) -> None:
    cohort = find_volumes([real_deeplesion / "Images_png"])
    assert len(cohort) == 34
    sparse = next(entry for entry in cohort if entry.name == "000007_03_01").read()
    assert [len(run) for run in sparse.runs] == [1, 1, 1, 1]  # slices 40, 50, 60, 70
    assert sparse.z_mm.tolist() == [0.0, 20.0, 40.0, 60.0]
