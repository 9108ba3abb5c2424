"""Stored numbers: exact HU, or a reason why they are none."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.ubr_pretrain.stored_volumes import (
    nii,
    patched,
    refused,
    scan,
    write_itk,
    write_nibabel,
)
from ubr_pretrain.ct import AIR_HU, InputSpec
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.volumes import find_volumes, looks_like_hu, read_volume

NAN, INF = float("nan"), float("inf")


INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_V49_V50_every_voxel_type_and_byte_order_is_read_exactly(tmp_path, dtype, order) -> None:
    """Every voxel type in both byte orders is read exactly."""
    limits = np.iinfo(dtype) if dtype in INTEGERS else np.iinfo("i2")
    hu = scan().clip(max(limits.min, -1000), min(limits.max, 1500))
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-0.5, -0.75, -5.0, 1]))
    header = image.header.as_byteswapped(order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    path = tmp_path / "t.nii"
    raw = hu.transpose(2, 1, 0).astype(np.dtype(dtype).newbyteorder(order))
    nib.save(nib.Nifti1Image(raw, image.affine, header), path)
    np.testing.assert_array_equal(read_volume(path).hu, hu)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
def test_V49_every_voxel_type_of_nrrd_and_metaimage_is_read_exactly(
    tmp_path, suffix, dtype
) -> None:
    """Every voxel type is read exactly."""
    limits = np.iinfo(dtype) if dtype in INTEGERS else np.iinfo("i2")
    hu = scan().clip(max(limits.min, -1000), min(limits.max, 1500))
    path = write_itk(tmp_path / f"t.{suffix}", hu.astype(dtype))
    np.testing.assert_array_equal(read_volume(path).hu, hu)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1.0, -24.0), (2.0, 0.0), (0.5, -10.25), (-1.0, 0.0)]
)
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_V41_slope_and_intercept_of_a_nifti_are_applied(tmp_path, slope, intercept, dtype) -> None:
    """Slope and intercept are applied, the result rounded to whole HU."""
    path = write_nibabel(tmp_path / "s.nii", scan().astype(dtype))
    volume = read_volume(patched(path, scl_slope=slope, scl_inter=intercept))
    expected = np.rint(scan().astype(np.float64) * slope + intercept)
    np.testing.assert_array_equal(volume.hu, np.maximum(expected, AIR_HU))


@pytest.mark.parametrize(
    ("slope", "intercept", "noted"), [(0.0, 0.0, False), (NAN, NAN, True), (NAN, 0.0, True)]
)
def test_V41_a_slope_that_is_none_leaves_the_numbers(
    tmp_path: Path, slope, intercept, noted
) -> None:
    """A NIfTI slope of 0 means none, and so do two nan, which are noted."""
    volume = read_volume(nii(tmp_path, scl_slope=slope, scl_inter=intercept))
    np.testing.assert_array_equal(volume.hu, scan())
    assert any("scl_slope" in note for note in volume.notes) == noted


def test_V44_padding_below_air_is_clipped_and_noted(tmp_path: Path) -> None:
    """Clipped to -1024 HU, with a note."""
    hu = scan()
    hu[0, 0] = -3024
    volume = read_volume(write_itk(tmp_path / "p.nii", hu))
    assert volume.hu.min() == AIR_HU
    assert "padding down to -3024 HU clipped to -1024" in volume.notes


def test_V47_voxels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    """E-NAN with how many there are."""
    hu = scan().astype(np.float32)
    hu[0, 0, 0], hu[3, 1, 1:3] = NAN, INF
    refused(write_itk(tmp_path / "n.nii.gz", hu), "E-NAN", "3 voxels")


@pytest.mark.parametrize("dtype", ["i4", "f8"])
def test_V49_numbers_beyond_any_hu_are_refused(tmp_path: Path, dtype: str) -> None:
    """E-NOHU with the number."""
    hu = scan().astype(dtype)
    hu[2, 2, 2] = 40000
    refused(write_itk(tmp_path / "n.nrrd", hu), "E-NOHU", "40000")


def body() -> np.ndarray:
    """Air around soft tissue with some bone."""
    rng = np.random.default_rng(1)
    hu = np.full((6, 20, 20), -1000) + rng.integers(-20, 20, (6, 20, 20))
    hu[:, 4:16, 4:16] = 40 + rng.integers(-20, 20, (6, 12, 12))
    hu[:, 12:14, 9:11] = 700
    return hu.astype(np.int16)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda hu: hu, None),
        (lambda hu: hu + 1024, "offset by 1024"),
        (lambda hu: hu - 1024, "no soft tissue"),
        (lambda hu: np.interp(hu, (-175, 275), (0, 255)).round(), "8-bit"),
        (lambda hu: np.interp(hu, (-175, 275), (-1, 1)), "already windowed"),
        (lambda hu: np.interp(hu, (-175, 275), (0, 1)), "already windowed"),
        (lambda hu: np.full_like(hu, -1000), "every voxel is -1000"),
    ],
    ids=["hu", "plus1024", "minus1024", "uint8", "minus1to1", "0to1", "constant"],
)
def test_V42_V48_V71_numbers_that_are_no_hu_are_noticed(tmp_path: Path, change, word) -> None:
    """A note says why they are no HU; the slice store of a training refuses them by E-NOHU with the
    same words."""
    path = write_itk(tmp_path / "b.nii", change(body()).astype(np.float32))
    volume = read_volume(path)
    doubt = looks_like_hu(volume)
    assert doubt is None if word is None else word in doubt
    assert any("not HU?" in note for note in volume.notes) == (word is not None)
    stored, left_out = build_slice_store(
        tmp_path / "store", find_volumes([path]), InputSpec(size_px=32), min_slices=3
    )
    assert [volume.name for volume in stored] == (["b"] if word is None else [])
    told = [(refusal.code, refusal.cause) for refusal in left_out]
    assert told == ([] if word is None else [("E-NOHU", doubt)])


def test_V33_unusual_pixels_are_noted(tmp_path: Path) -> None:
    """Read, with a note where pixels are not square or outside 0.3 to 2 mm."""
    for spacing, noted in (((5, 0.7, 0.7), False), ((5, 0.7, 0.9), True), ((5, 2.5, 2.5), True)):
        volume = read_volume(write_itk(tmp_path / "p.nii", scan(), spacing=spacing))
        assert any("unusual pixels" in note for note in volume.notes) == noted
