"""Crops on disk: every voxel where it was, and what is said of those that cannot be made."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from tests.ubr_pretrain.dicom_writer import put, write_series
from tests.ubr_pretrain.stored_volumes import (
    SPACING,
    stored_form,
    write_itk,
    write_nibabel,
)
from tests.ubr_pretrain.test_crop import ABDOMEN, scored_at
from tests.ubr_pretrain.test_volumes_orientation import VARIANTS, turned
from tests.ubr_pretrain.test_volumes_position import (
    HU,
    assert_same_places,
    positions,
    positions_by_itk,
    positions_by_nibabel,
)
from ubr_pretrain.crop import (
    crop_slices,
    stretch_of_coordinates,
    stretch_of_zones,
)
from ubr_pretrain.crop_volumes import crop_volumes, main
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.nifti_file import write_volume
from ubr_pretrain.scored_volume import ScoredVolume
from ubr_pretrain.scorer import read_scorer
from ubr_pretrain.volumes import read_volume

MIDDLE = stretch_of_coordinates(15, 45)


@dataclass(frozen=True)
class ByPosition:
    """Stands in for a scorer: the body coordinate falls by 2 a mm from 60 at the first slice."""

    calibration: object = "any"

    def score_volume(self, volume: Volume, name: str) -> ScoredVolume:
        return scored_at(60 - 2 * volume.z_mm, volume.z_mm, name)


def crop(path: Path, out: Path, stretch=MIDDLE, **choice) -> Path:
    """Crop one scan and return the file."""
    assert crop_volumes([path], stretch, ByPosition(), out, **choice) == 0
    (file,) = out.glob("*.nii.gz")
    return file


def assert_kept(file: Path, true: dict[int, np.ndarray], slices: slice) -> None:
    for positions_by in (positions_by_itk, positions_by_nibabel):
        found = positions_by(file)
        assert found.keys() == set(HU[slices].ravel().tolist())
        assert_same_places(found, true)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_every_voxel_of_a_crop_lies_where_it_lay_in_any_storage_order(tmp_path, suffix) -> None:
    for number, (order, flips) in enumerate(VARIANTS[::4]):
        stored, axes, spacing = stored_form(HU, order, flips, SPACING)
        path = write_itk(tmp_path / f"{number}{suffix}", stored, axes, spacing)
        file = crop(path, tmp_path / f"out{number}")
        assert_kept(file, positions_by_itk(path), slice(2, 5))


def test_every_voxel_of_a_crop_of_an_oblique_scan_lies_where_it_lay(tmp_path: Path) -> None:
    for number, (order, flips) in enumerate(VARIANTS[1::9]):
        stored, axes, spacing = stored_form(HU, order, flips, SPACING)
        axes = turned(axes, (1.0, 2.0, 0.5), 4.0)
        path = write_nibabel(tmp_path / f"{number}.nii", stored, axes, spacing)
        file = crop(path, tmp_path / f"out{number}")
        assert_kept(file, positions_by_nibabel(path), slice(2, 5))


def test_every_voxel_of_a_crop_of_dicom_slices_lies_where_it_lay(tmp_path: Path) -> None:
    path = write_series(
        tmp_path / "series", HU, SPACING, names=[f"{n}.dcm" for n in (3, 1, 5, 0, 2, 4)]
    )
    file = crop(path, tmp_path / "out")
    assert_kept(file, positions(read_volume(path)), slice(2, 5))
    image = sitk.ReadImage(str(file))
    assert image.GetPixelID() == sitk.sitkInt16
    # first stored voxel: right, anterior, most inferior kept slice
    np.testing.assert_allclose(image.GetOrigin(), (-10.0, -20.0, 100.0 - 4 * 5.0), atol=1e-4)
    assert int(image[0, 0, 0]) == HU[4, 0, 0]


def test_a_crop_of_a_crop_and_a_crop_at_once_are_the_same_file(tmp_path: Path) -> None:
    stored, axes, spacing = stored_form(HU, (0, 1, 2), (True, False, True), SPACING)
    path = write_itk(tmp_path / "scan.nii", stored, axes, spacing)
    wide = crop(path, tmp_path / "wide", stretch_of_coordinates(5, 55))
    volume = read_volume(wide)
    np.testing.assert_array_equal(volume.hu, HU[1:6])
    write_volume(crop_slices(volume, range(1, 4)), tmp_path / "twice.nii.gz")
    assert_kept(tmp_path / "twice.nii.gz", positions_by_itk(path), slice(2, 5))
    once = nib.load(crop(path, tmp_path / "once"))
    twice = nib.load(tmp_path / "twice.nii.gz")
    np.testing.assert_array_equal(np.asarray(once.dataobj), np.asarray(twice.dataobj))
    np.testing.assert_allclose(once.affine, twice.affine, atol=1e-5)


def test_the_stored_order_is_left_posterior_superior_whatever_the_source(tmp_path: Path) -> None:
    for number, (order, flips) in enumerate(VARIANTS[::7]):
        stored, axes, spacing = stored_form(HU, order, flips, SPACING)
        path = write_itk(tmp_path / f"{number}.nii", stored, axes, spacing)
        file = crop(path, tmp_path / f"out{number}")
        assert nib.aff2axcodes(nib.load(file).affine) == ("L", "P", "S")
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[::-1], HU[2:5]
        )


def test_what_nifti_cannot_say_is_named_and_the_rest_is_cropped(tmp_path, capsys) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_series(data / "good", HU, SPACING, SeriesInstanceUID="1.2.1")
    gap = {k: put(ImagePositionPatient=[0, 0, -5.0 * (k + (k > 3))]) for k in range(len(HU))}
    write_series(data / "gap", HU, SPACING, change=gap, SeriesInstanceUID="1.2.2")
    tilt = {k: put(ImagePositionPatient=[0, 0.6 * k, -5.0 * k]) for k in range(len(HU))}
    write_series(data / "tilt", HU, SPACING, change=tilt, SeriesInstanceUID="1.2.3")
    shifted = {2: put(ImagePositionPatient=[-10.0, -18.0, 90.0])}
    write_series(data / "shift", HU, SPACING, change=shifted, SeriesInstanceUID="1.2.4")
    (data / "broken.nii").write_bytes(b"n+1")
    assert crop_volumes([data], MIDDLE, ByPosition(), out) == 1
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    for code, name in (("E-GAP", "gap"), ("E-TILT", "tilt"), ("E-GEOM", "shift")):
        assert [line for line in lines if line.startswith(code) and name in line], lines
    assert len(pd.read_csv(out / "crops.csv")) == len(list(out.glob("*.nii.gz"))) == 1
    assert "1 volumes cropped" in printed.out


def test_slices_without_a_place_in_the_patient_are_refused(tmp_path: Path) -> None:
    volume = Volume(HU, SPACING, source="phantom")
    with pytest.raises(VolumeRefused, match="E-GEOM  phantom  states no position"):
        write_volume(volume, tmp_path / "a.nii.gz")
    folder = tmp_path / "Images_png" / "000001_01_01"
    folder.mkdir(parents=True)
    for k, one in enumerate(HU):
        cv2.imwrite(str(folder / f"{k:03d}.png"), (one.astype(np.int32) + 32768).astype(np.uint16))
    with pytest.raises(VolumeRefused, match="E-GEOM"):
        write_volume(read_volume(folder, spacing_mm_zyx=SPACING), tmp_path / "a.nii.gz")
    assert list(tmp_path.glob("*a.nii*")) == []


def test_a_scan_without_the_zone_is_one_line_and_exit_code_1(tmp_path, capsys) -> None:
    path = write_itk(tmp_path / "scan.nii", HU)
    assert crop_volumes([path], stretch_of_zones(["legs"]), ByPosition(), tmp_path / "out") == 1
    assert capsys.readouterr().err == "scan: shows nothing of legs\n"
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "crops.csv"]


def test_the_table_says_what_was_kept_and_where_the_scan_ends(tmp_path: Path) -> None:
    path, out = write_itk(tmp_path / "scan.nii", HU), tmp_path / "out"
    crop(path, out, ABDOMEN)
    assert (out / "crops.csv").read_text() == (
        "volume,file,num_slices,first_slice,last_slice,first_z_mm,last_z_mm,first_coordinate,"
        "last_coordinate,ends_with_scan\n"
        "scan,scan_abdomen.nii.gz,5,1,5,5.0,25.0,50.0,10.0,bottom\n"
    )


def test_nothing_is_overwritten_unless_told_and_nothing_stale_is_left(tmp_path, capsys) -> None:
    path, out = write_itk(tmp_path / "scan.nii", HU), tmp_path / "out"
    file = crop(path, out)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"holds crops\.csv; use --overwrite"):
        crop_volumes([path], MIDDLE, ByPosition(), out)
    (out / "crops.csv").unlink()
    with pytest.raises(ValueError, match=r"holds scan_15-to-45\.nii\.gz"):
        crop_volumes([path], MIDDLE, ByPosition(), out)
    assert file.read_bytes() == before
    crop(path, out, margin_mm=5.0, overwrite=True)
    assert nib.load(file).shape[2] == 5
    path.write_bytes(path.read_bytes()[:400])
    assert crop_volumes([path], MIDDLE, ByPosition(), out, overwrite=True) == 1
    assert not file.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give one of --zone"),
        (["--zone", "chest", "--coordinate", "0", "1"], "give one of --zone"),
        (["--zone", "thorax"], "'thorax' is not one of head_neck, chest"),
        (["--zone", "chest", "--zone", "pelvis"], "neighbouring zones"),
        (["--from", "lung_apex"], "give both landmarks"),
        (["--from", "lung_apex", "--to", "knee"], "'knee' is not one of vertex"),
        (["--from", "lung_apex", "--to", "lung_apex"], "two landmarks are needed"),
        (["--coordinate", "10", "5"], "the lower one comes first"),
        (["--coordinate", "nan", "5"], "coordinate"),
        (["--zone", "chest", "--margin-mm", "wide"], "margin"),
        (["--zone", "chest", "--checkpoint", "absent.safetensors"], "absent.safetensors"),
    ],
)
def test_a_mistaken_flag_is_one_line_and_exit_code_2(tmp_path, capsys, flags, words) -> None:
    path = write_itk(tmp_path / "scan.nii", HU)
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "--out", str(tmp_path / "out"), *flags])
    error = capsys.readouterr().err
    assert error.startswith("crop_volumes.py: error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_path_that_is_not_there_and_a_folder_without_scans_are_mistakes(tmp_path, capsys) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(SystemExit, match="2"):
            main([str(path), "--out", str(tmp_path / "out"), "--zone", "chest"])
        assert path.name in capsys.readouterr().err


@pytest.mark.real
def test_real_scans_are_cropped_with_the_scorer_of_the_package(
    tmp_path, real_ct, real_dicom
) -> None:
    nifti, out = real_ct / "totalseg_example_ct.nii.gz", tmp_path / "out"
    argv = [str(nifti), str(real_dicom / "lungdx_a0002"), "--device", "cpu", "--out", str(out)]
    assert main([*argv, "--coordinate", "20", "60", "--margin-mm", "10"]) == 0
    table = pd.read_csv(out / "crops.csv")
    rng = np.random.default_rng(0)
    source = nib.load(nifti)
    cropped = nib.load(out / table["file"][0])
    stored = np.asarray(source.dataobj)
    to_source = np.linalg.inv(source.affine) @ cropped.affine
    voxels = np.asarray(cropped.dataobj)
    for _ in range(500):
        index = rng.integers(0, voxels.shape)
        there = (to_source @ [*index, 1])[:3]
        np.testing.assert_allclose(there, np.rint(there), atol=1e-3)
        assert voxels[tuple(index)] == max(-1024, stored[tuple(np.rint(there).astype(int))])

    series = sitk.ImageSeriesReader()
    series.SetFileNames(series.GetGDCMSeriesFileNames(str(real_dicom / "lungdx_a0002")))
    source = series.Execute()
    cropped = sitk.ReadImage(str(out / table["file"][1]))
    for _ in range(500):
        index = [int(rng.integers(0, n)) for n in cropped.GetSize()]
        there = source.TransformPhysicalPointToContinuousIndex(
            cropped.TransformIndexToPhysicalPoint(index)
        )
        np.testing.assert_allclose(there, np.rint(there), atol=1e-2)
        true = source[[int(n) for n in np.rint(there)]]
        assert cropped[index] == max(-1024, true)
    scorer = read_scorer(device="cpu", num_views=1)
    whole = scorer.score_volume(read_volume(nifti), "whole").scores_alone
    alone = scorer.score_volume(read_volume(out / table["file"][0]), "crop").scores_alone
    np.testing.assert_allclose(
        alone, whole[table["first_slice"][0] : table["last_slice"][0] + 1], atol=1e-3
    )
