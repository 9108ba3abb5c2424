"""NIfTI headers: every value that a decoder would guess is refused by its code."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.ubr_pretrain.stored_volumes import (
    BODY_AXES_LPS,
    SPACING,
    nii,
    patched,
    refused,
    scan,
    write_nibabel,
)
from ubr_pretrain.volumes import read_volume

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"dim3": 0}, "E-HEADER", "4 x 5 x 0"),
        ({"dim3": -6}, "E-HEADER", "-6"),
        ({"dim0": 0}, "E-HEADER", "dim[0] is 0"),
        ({"dim0": 9}, "E-HEADER", "dim[0] is 9"),
        ({"datatype": 9999}, "E-HEADER", "9999"),
        ({"datatype": 32, "bitpix": 64}, "E-HEADER", "no real voxel type"),
        ({"bitpix": 8}, "E-HEADER", "bitpix 8"),
        ({"vox_offset": NAN}, "E-HEADER", "vox_offset nan"),
        ({"vox_offset": INF}, "E-HEADER", "vox_offset inf"),
        ({"vox_offset": 100.0}, "E-HEADER", ">= 348"),
        ({"vox_offset": 352.5}, "E-HEADER", "352.5"),
        ({"vox_offset": 1e6}, "E-TRUNC", "before the voxels"),
        ({"vox_offset": 1e30}, "E-TRUNC", "before the voxels"),
    ],
)
def test_V38_impossible_nifti_headers(tmp_path: Path, fields, code: str, word: str) -> None:
    """E-HEADER, or E-TRUNC for voxels behind the end, with the value."""
    refused(nii(tmp_path, **fields), code, word)


@pytest.mark.parametrize("axis", ["pixdim1", "pixdim2", "pixdim3"])
@pytest.mark.parametrize("value", [0.0, -5.0, NAN, INF, 375.0])
def test_V32_impossible_nifti_spacing(tmp_path: Path, axis: str, value: float) -> None:
    """E-SPACING with the values and the rule."""
    refused(nii(tmp_path, **{axis: value}), "E-SPACING", "> 0 and <= 50")


def test_V32_spacing_and_sform_must_agree(tmp_path: Path) -> None:
    """E-GEOM: the matrix and the spacing of one file contradict each other."""
    refused(nii(tmp_path, pixdim3=4.0, qform_code=0), "E-GEOM", "sform", "pixdim")


@pytest.mark.parametrize("sides", [(4, 5, 3, 2), (4, 5, 3, 1, 2)])
def test_V35_more_than_three_dimensions(tmp_path: Path, sides: tuple[int, ...]) -> None:
    """E-4D with the sides and the advice to split the file; there is no --frame."""
    path = tmp_path / "t.nii"
    nib.save(nib.Nifti1Image(np.zeros(sides, np.int16), np.diag([-1, -1, -5.0, 1])), path)
    refused(path, "E-4D", " x ".join(map(str, sides)), "split")


def test_V35_a_fourth_dimension_of_one_is_a_volume(tmp_path: Path) -> None:
    """Read: a fourth side of 1 is none."""
    path = nii(tmp_path, dim0=4)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


def test_V36_a_2d_nifti_is_one_slice(tmp_path: Path) -> None:
    """Read as a volume of one slice."""
    path = write_nibabel(tmp_path / "slice.nii", scan((1, 5, 4)))
    volume = read_volume(patched(path, dim0=2))
    assert volume.hu.shape == (1, 5, 4)
    assert volume.z_mm.tolist() == [0.0]


def test_V36_a_2d_header_over_a_volume_is_refused(tmp_path: Path) -> None:
    """E-FORMAT: the file goes on after its one slice."""
    refused(nii(tmp_path, dim0=2), "E-FORMAT", "goes on after the 40 bytes")


def test_V36_flat_nrrd_and_metaimage_are_no_volumes(tmp_path: Path) -> None:
    """E-DIM: these formats do not say how thick a flat picture is."""
    for suffix in ("nrrd", "mha"):
        path = tmp_path / f"flat.{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(scan()[0]), str(path))
        refused(path, "E-DIM", "4 x 5")


@pytest.mark.parametrize(("code", "bits"), [(128, 24), (2304, 32)])
def test_V37_colour_nifti(tmp_path: Path, code: int, bits: int) -> None:
    """E-RGB."""
    refused(nii(tmp_path, datatype=code, bitpix=bits), "E-RGB")


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_V37_colour_nrrd_and_metaimage(tmp_path: Path, suffix: str) -> None:
    """E-RGB."""
    path = tmp_path / f"colour.{suffix}"
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True), str(path)
    )
    refused(path, "E-RGB")


def test_V29_forms_that_disagree_are_both_shown(tmp_path: Path) -> None:
    """E-GEOM with both matrices."""
    refused(nii(tmp_path, srow_z2=5.0), "E-GEOM", "qform", "sform", "5.0", "-5.0", "disagree")


def test_V29_both_codes_are_needed_for_a_disagreement(tmp_path: Path) -> None:
    """A matrix whose code is 0 is unset: the other one is used."""
    flipped = read_volume(nii(tmp_path, srow_z2=5.0, qform_code=0))
    np.testing.assert_array_equal(flipped.hu, scan()[::-1])
    np.testing.assert_array_equal(read_volume(nii(tmp_path, srow_z2=5.0, sform_code=0)).hu, scan())


def test_V30_without_any_orientation_head_and_feet_are_not_guessed(tmp_path: Path) -> None:
    """E-GEOM; read once Python states the orientation, as the hint tells."""
    path = nii(tmp_path, qform_code=0, sform_code=0)
    refused(path, "E-GEOM", "head and feet", 'in Python: read_volume(..., orientation="LPS")')
    np.testing.assert_array_equal(read_volume(path, orientation="LPI").hu, scan())
    np.testing.assert_array_equal(read_volume(path, orientation="lps").hu, scan()[::-1])


@pytest.mark.parametrize("word", ["", "LP", "LPX", "LRP", "LPSI"])
def test_V30_an_orientation_has_one_letter_for_each_body_axis(tmp_path: Path, word: str) -> None:
    """A word that is no orientation is refused with the rule."""
    with pytest.raises(ValueError, match="one letter each of"):
        read_volume(nii(tmp_path), orientation=word)


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_tilt\n"):
        read_volume(nii(tmp_path), max_tilt=3)


@pytest.mark.parametrize("value", [NAN, INF])
def test_V34_sform_that_is_not_finite(tmp_path: Path, value: float) -> None:
    """E-GEOM."""
    refused(nii(tmp_path, srow_x=value, qform_code=0), "E-GEOM")


def test_V34_sform_of_zeros(tmp_path: Path) -> None:
    """E-GEOM, no directions."""
    path = nii(tmp_path, qform_code=0)
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)
    path.write_bytes(content)
    refused(path, "E-GEOM", "no directions")


def test_V34_quaternion_that_is_no_rotation(tmp_path: Path) -> None:
    """E-GEOM, no rotation."""
    refused(nii(tmp_path, quatern_b=3.0, sform_code=0), "E-GEOM", "no rotation")
    refused(nii(tmp_path, quatern_b=NAN, sform_code=0), "E-GEOM", "no rotation")


def sheared(folder: Path, degrees: float) -> Path:
    axes = BODY_AXES_LPS.copy()
    axes[0] = [0.0, np.sin(np.radians(degrees)), -np.cos(np.radians(degrees))]
    return write_nibabel(folder / "tilted.nii", scan(), axes)


def test_V24_V34_a_sheared_nifti_is_a_tilted_gantry(tmp_path: Path) -> None:
    """E-TILT with the degrees; within the limit it is read at slice-normal distances."""
    path = sheared(tmp_path, 18.5)
    refused(path, "E-TILT", "18.5 degrees, limit 5", "max_tilt_deg", max_oblique_deg=45)
    volume = read_volume(path, max_tilt_deg=30, max_oblique_deg=20)
    assert volume.spacing_mm_zyx[0] == pytest.approx(5.0 * np.cos(np.radians(18.5)), rel=1e-5)
    np.testing.assert_allclose(volume.z_mm, np.arange(6) * volume.spacing_mm_zyx[0])
    assert any("tilted by 18.5 degrees" in note for note in volume.notes)


def test_V34_rows_and_columns_that_are_not_perpendicular(tmp_path: Path) -> None:
    """E-GEOM, not at a right angle."""
    axes = BODY_AXES_LPS.copy()
    axes[1] = [0.1, np.sqrt(1 - 0.01), 0.0]
    refused(write_nibabel(tmp_path / "skew.nii", scan(), axes), "E-GEOM", "right angle")


def test_half_of_a_nifti_pair_is_refused(tmp_path: Path) -> None:
    nib.save(
        nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.diag([1, 1, 5.0, 1])), tmp_path / "p.hdr"
    )
    refused(tmp_path / "p.hdr", "E-FORMAT", "pair")


@pytest.mark.parametrize("units", ["meter", "micron"])
def test_V32_units_of_a_nifti_are_turned_into_mm(tmp_path: Path, units: str) -> None:
    """Metres and micrometres become millimetres."""
    scale = {"meter": 1e-3, "micron": 1e3}[units]
    path = tmp_path / "u.nii"
    image = nib.Nifti1Image(scan().transpose(2, 1, 0), np.diag([-0.5, -0.75, -5.0, 1]) * scale)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path).spacing_mm_zyx, SPACING, rtol=1e-5)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    path = write_nibabel(tmp_path / "two.nii.gz", scan(), image_class=nib.Nifti2Image)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, scan())
    assert volume.spacing_mm_zyx == SPACING
