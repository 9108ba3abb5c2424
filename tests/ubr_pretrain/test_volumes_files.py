"""NIfTI, NRRD and MetaImage files: what is whole is read, what is not is refused by its code."""

import gzip
import os
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.stored_volumes import (
    BODY_AXES_LPS,
    SPACING,
    patched,
    scan,
    with_lines,
    write_itk,
    write_nibabel,
)
from ubr_pretrain.ct import AIR_HU, VolumeRefused
from ubr_pretrain.volumes import looks_like_hu, read_volume

NAN, INF = float("nan"), float("inf")


def refusal(path: Path, **rules: object) -> VolumeRefused:
    with pytest.raises(VolumeRefused) as caught:
        read_volume(path, **rules)
    return caught.value


def refused(path: Path, code: str, *words: str, **rules: object) -> None:
    fault = refusal(path, **rules)
    assert fault.code == code, str(fault)
    assert path.name in str(fault)
    assert "\n" not in str(fault).replace(str(fault.path), "")
    for word in words:
        assert word in str(fault), str(fault)


def nii(folder: Path, name: str = "scan.nii", **fields: float) -> Path:
    """Write a plain .nii with both forms set, then overwrite header fields."""
    image = nib.load(write_nibabel(folder / name, scan()), mmap=False)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    path = folder / name
    nib.save(image, path)
    return patched(path, **fields)


def compressed(folder: Path, kind: str) -> Path:
    if kind == "nii.gz":
        path = folder / "scan.nii.gz"
        path.write_bytes(gzip.compress(nii(folder, "plain.nii").read_bytes(), mtime=0))
        return path
    return write_itk(folder / f"scan.{kind}", scan((8, 16, 16)), compress=True)


# --- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
def test_V01_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan.{suffix}"
    path.touch()
    refused(path, "E-EMPTY")


@pytest.mark.parametrize("suffix", ["nii", "nrrd", "mha"])
@given(keep=st.integers(0, 999))
def test_V02_any_cut_of_a_plain_file_is_refused(tmp_path_factory, suffix: str, keep) -> None:
    path = write_itk(tmp_path_factory.mktemp("cut") / f"scan.{suffix}", scan())
    whole = path.read_bytes()
    path.write_bytes(whole[: keep * len(whole) // 1000])
    assert refusal(path).code.startswith("E-")


def test_V02_truncated_nii_states_both_byte_counts(tmp_path: Path) -> None:
    path = nii(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, "E-TRUNC", "declares 240 bytes", "holds 200")


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
@given(keep=st.integers(0, 999))
def test_V03_any_cut_of_a_compressed_file_is_refused(tmp_path_factory, kind: str, keep) -> None:
    path = compressed(tmp_path_factory.mktemp("cut"), kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep * len(whole) // 1000])
    assert refusal(path).code.startswith("E-")


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
@given(where=st.integers(0, 9999), bit=st.integers(0, 7))
def test_V04_a_flipped_bit_is_refused_or_harmless(tmp_path_factory, kind: str, where, bit) -> None:
    path = compressed(tmp_path_factory.mktemp("flip"), kind)
    before = read_volume(path)
    content = bytearray(path.read_bytes())
    start = 0 if kind == "nii.gz" else content.index(b"\x1f\x8b" if kind == "nrrd" else b"LOCAL\n")
    content[start + where * (len(content) - start) // 10_000] ^= 1 << bit
    path.write_bytes(content)
    try:
        after = read_volume(path)
    except VolumeRefused:
        return
    np.testing.assert_array_equal(after.hu, before.hu)  # a flip in the gzip header's time or flags
    assert after.spacing_mm_zyx == before.spacing_mm_zyx


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
def test_V04_damage_in_the_compressed_voxels_is_a_checksum_error(tmp_path: Path, kind) -> None:
    path = compressed(tmp_path, kind)
    content = bytearray(path.read_bytes())
    content[-60] ^= 0x10
    path.write_bytes(content)
    refused(path, "E-CRC", "damaged")


@pytest.mark.parametrize("lost", [1, 4, 8])
def test_V05_a_lost_gzip_trailer_is_a_truncation(tmp_path: Path, lost: int) -> None:
    path = compressed(tmp_path, "nii.gz")
    path.write_bytes(path.read_bytes()[:-lost])
    refused(path, "E-TRUNC", "end mark")


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"<!DOCTYPE html><html>403 Forbidden</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"not found\n", "looks like text"),
        (b"\xff\xd8\xff\xe0JFIF", "JPEG"),
        (b"PK\x03\x04....", "zip"),
        (bytes(range(200, 256)), "begins with c8 c9"),
    ],
)
def test_V06_a_file_that_is_no_volume_says_what_it_looks_like(tmp_path, content, looks) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    refused(path, "E-FORMAT", looks)


@pytest.mark.parametrize("name", ["plain.nii.gz", "noext", "other.mha"])
@pytest.mark.parametrize("zipped", [False, True])
def test_V07_content_decides_and_not_the_name(tmp_path: Path, name: str, zipped: bool) -> None:
    content = nii(tmp_path).read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if zipped else content)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


def test_a_gzip_file_of_several_members_is_one_stream(tmp_path: Path) -> None:
    content = nii(tmp_path).read_bytes()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_volume(path).hu, scan())


@pytest.mark.parametrize("suffix", ["nii", "nrrd", "mha"])
def test_bytes_after_the_voxels_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write_itk(tmp_path / f"scan.{suffix}", scan())
    path.write_bytes(path.read_bytes() + b"\0\0")
    refused(path, "E-FORMAT", "goes on after")


def test_V57_gzip_bomb_behind_a_small_volume_is_stopped_early(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = packer.compress(nii(tmp_path).read_bytes())
    zeros = bytes(1 << 20)
    content += b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    path.write_bytes(content)
    refused(path, "E-FORMAT", "goes on after the 240 bytes")


def test_V57_the_ceiling_is_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    path = nii(tmp_path)
    refused(path, "E-SIZE-LIMIT", "240 bytes", "limit 239", max_bytes=239)
    assert read_volume(path, max_bytes=240).num_slices == 6


@pytest.mark.parametrize("zipped", [False, True])
def test_V56_huge_dimensions_are_refused_before_allocation(tmp_path: Path, zipped: bool) -> None:
    path = nii(tmp_path, dim1=32767, dim2=32767, dim3=32767)
    if zipped:
        path = Path(f"{path}.gz")
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    refused(path, "E-TRUNC", f"declares {32767**3 * 2} bytes", max_bytes=10**15)


@pytest.mark.parametrize("name", ["folder", "fifo"])
def test_V61_a_folder_or_pipe_with_a_file_name_is_refused_at_once(tmp_path: Path, name) -> None:
    path = tmp_path / "scan.nii.gz"
    path.mkdir() if name == "folder" else os.mkfifo(path)
    if name == "folder":
        refused(path, "E-NODATA", "empty")
    else:
        refused(path, "E-NOTFILE", "a pipe")


def test_V61_a_device_is_no_volume() -> None:
    refused(Path("/dev/zero"), "E-NOTFILE", "a device")


@pytest.mark.parametrize(
    "name",
    [
        "a b'c\"$(touch x).nii",
        "\u202etxt.nii",
        "line\nbreak.nii",
        "e\u0301.nii",
        "x" * 251 + ".nii",
    ],
)
def test_V63_any_file_name_is_read(tmp_path: Path, name: str) -> None:
    path = nii(tmp_path).rename(tmp_path / name)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


def test_V63_a_name_that_is_no_unicode_is_read(tmp_path: Path) -> None:
    path = nii(tmp_path).rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.nii"))
    np.testing.assert_array_equal(read_volume(path).hu, scan())


@pytest.mark.parametrize("name", ["gone.nii", "no/such/folder.mha", "null\0.nii", "y" * 300])
def test_V65_V66_a_path_that_cannot_be_opened_is_missing(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path / name).code == "E-MISSING"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_V65_a_file_without_permission_is_missing(tmp_path: Path) -> None:
    path = nii(tmp_path)
    path.chmod(0)
    refused(path, "E-MISSING", "Permission denied")


def test_V66_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch) -> None:
    from ubr_pretrain import volume_file

    path = nii(tmp_path)
    read_header = volume_file.HEADER_READERS["nifti"]

    def and_touch(stream, where):
        os.utime(where, ns=(1, 1))
        return read_header(stream, where)

    monkeypatch.setitem(volume_file.HEADER_READERS, "nifti", and_touch)
    refused(path, "E-MISSING", "changed while")


# --- NIfTI headers -----------------------------------------------------------------------------


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
    refused(nii(tmp_path, **fields), code, word)


@pytest.mark.parametrize("axis", ["pixdim1", "pixdim2", "pixdim3"])
@pytest.mark.parametrize("value", [0.0, -5.0, NAN, INF, 375.0])
def test_V32_impossible_nifti_spacing(tmp_path: Path, axis: str, value: float) -> None:
    refused(nii(tmp_path, **{axis: value}), "E-SPACING", "> 0 and <= 50")


def test_V32_spacing_and_sform_must_agree(tmp_path: Path) -> None:
    refused(nii(tmp_path, pixdim3=4.0, qform_code=0), "E-GEOM", "sform", "pixdim")


@pytest.mark.parametrize("sides", [(4, 5, 3, 2), (4, 5, 3, 1, 2)])
def test_V35_more_than_three_dimensions(tmp_path: Path, sides: tuple[int, ...]) -> None:
    path = tmp_path / "t.nii"
    nib.save(nib.Nifti1Image(np.zeros(sides, np.int16), np.diag([-1, -1, -5.0, 1])), path)
    refused(path, "E-4D", " x ".join(map(str, sides)), "split")


def test_V35_a_fourth_dimension_of_one_is_a_volume(tmp_path: Path) -> None:
    path = nii(tmp_path, dim0=4)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


def test_V36_a_2d_nifti_is_one_slice(tmp_path: Path) -> None:
    path = write_nibabel(tmp_path / "slice.nii", scan((1, 5, 4)))
    volume = read_volume(patched(path, dim0=2))
    assert volume.hu.shape == (1, 5, 4)
    assert volume.z_mm.tolist() == [0.0]


def test_V36_a_2d_header_over_a_volume_is_refused(tmp_path: Path) -> None:
    refused(nii(tmp_path, dim0=2), "E-FORMAT", "goes on after the 40 bytes")


def test_V36_flat_nrrd_and_metaimage_are_no_volumes(tmp_path: Path) -> None:
    for suffix in ("nrrd", "mha"):
        path = tmp_path / f"flat.{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(scan()[0]), str(path))
        refused(path, "E-DIM", "4 x 5")


@pytest.mark.parametrize(("code", "bits"), [(128, 24), (2304, 32)])
def test_V37_colour_nifti(tmp_path: Path, code: int, bits: int) -> None:
    refused(nii(tmp_path, datatype=code, bitpix=bits), "E-RGB")


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_V37_colour_nrrd_and_metaimage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"colour.{suffix}"
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True), str(path)
    )
    refused(path, "E-RGB")


def test_V29_forms_that_disagree_are_both_shown(tmp_path: Path) -> None:
    refused(nii(tmp_path, srow_z2=5.0), "E-GEOM", "qform", "sform", "5.0", "-5.0", "disagree")


def test_V29_both_codes_are_needed_for_a_disagreement(tmp_path: Path) -> None:
    flipped = read_volume(nii(tmp_path, srow_z2=5.0, qform_code=0))
    np.testing.assert_array_equal(flipped.hu, scan()[::-1])
    np.testing.assert_array_equal(read_volume(nii(tmp_path, srow_z2=5.0, sform_code=0)).hu, scan())


def test_V30_without_any_orientation_head_and_feet_are_not_guessed(tmp_path: Path) -> None:
    path = nii(tmp_path, qform_code=0, sform_code=0)
    refused(path, "E-GEOM", "head and feet", "orientation")
    np.testing.assert_array_equal(read_volume(path, orientation="LPI").hu, scan())
    np.testing.assert_array_equal(read_volume(path, orientation="lps").hu, scan()[::-1])


@pytest.mark.parametrize("word", ["", "LP", "LPX", "LRP", "LPSI"])
def test_V30_an_orientation_has_one_letter_for_each_body_axis(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match="one letter each of"):
        read_volume(nii(tmp_path), orientation=word)


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_tilt\n"):
        read_volume(nii(tmp_path), max_tilt=3)


@pytest.mark.parametrize("value", [NAN, INF])
def test_V34_sform_that_is_not_finite(tmp_path: Path, value: float) -> None:
    refused(nii(tmp_path, srow_x=value, qform_code=0), "E-GEOM")


def test_V34_sform_of_zeros(tmp_path: Path) -> None:
    path = nii(tmp_path, qform_code=0)
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)
    path.write_bytes(content)
    refused(path, "E-GEOM", "no directions")


def test_V34_quaternion_that_is_no_rotation(tmp_path: Path) -> None:
    refused(nii(tmp_path, quatern_b=3.0, sform_code=0), "E-GEOM", "no rotation")
    refused(nii(tmp_path, quatern_b=NAN, sform_code=0), "E-GEOM", "no rotation")


def sheared(folder: Path, degrees: float) -> Path:
    axes = BODY_AXES_LPS.copy()
    axes[0] = [0.0, np.sin(np.radians(degrees)), -np.cos(np.radians(degrees))]
    return write_nibabel(folder / "tilted.nii", scan(), axes)


def test_V24_V34_a_sheared_nifti_is_a_tilted_gantry(tmp_path: Path) -> None:
    path = sheared(tmp_path, 18.5)
    refused(path, "E-TILT", "18.5 degrees, limit 5", "max_tilt_deg", max_oblique_deg=45)
    volume = read_volume(path, max_tilt_deg=30, max_oblique_deg=20)
    assert volume.spacing_mm_zyx[0] == pytest.approx(5.0 * np.cos(np.radians(18.5)), rel=1e-5)
    np.testing.assert_allclose(volume.z_mm, np.arange(6) * volume.spacing_mm_zyx[0])
    assert any("tilted by 18.5 degrees" in note for note in volume.notes)


def test_V34_rows_and_columns_that_are_not_perpendicular(tmp_path: Path) -> None:
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


# --- numbers -----------------------------------------------------------------------------------

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_V49_V50_every_voxel_type_and_byte_order_is_read_exactly(tmp_path, dtype, order) -> None:
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
    limits = np.iinfo(dtype) if dtype in INTEGERS else np.iinfo("i2")
    hu = scan().clip(max(limits.min, -1000), min(limits.max, 1500))
    path = write_itk(tmp_path / f"t.{suffix}", hu.astype(dtype))
    np.testing.assert_array_equal(read_volume(path).hu, hu)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1.0, -24.0), (2.0, 0.0), (0.5, -10.25), (-1.0, 0.0)]
)
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_V41_slope_and_intercept_of_a_nifti_are_applied(tmp_path, slope, intercept, dtype) -> None:
    path = write_nibabel(tmp_path / "s.nii", scan().astype(dtype))
    volume = read_volume(patched(path, scl_slope=slope, scl_inter=intercept))
    expected = np.rint(scan().astype(np.float64) * slope + intercept)
    np.testing.assert_array_equal(volume.hu, np.maximum(expected, AIR_HU))


@pytest.mark.parametrize(("slope", "noted"), [(0.0, False), (NAN, True), (INF, True)])
def test_V41_a_slope_that_is_none_leaves_the_numbers(tmp_path: Path, slope, noted) -> None:
    volume = read_volume(nii(tmp_path, scl_slope=slope, scl_inter=7.0))
    np.testing.assert_array_equal(volume.hu, scan())
    assert any("scl_slope" in note for note in volume.notes) == noted


def test_V44_padding_below_air_is_clipped_and_noted(tmp_path: Path) -> None:
    hu = scan()
    hu[0, 0] = -3024
    volume = read_volume(write_itk(tmp_path / "p.nii", hu))
    assert volume.hu.min() == AIR_HU
    assert "padding down to -3024 HU clipped to -1024" in volume.notes


def test_V47_voxels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    hu = scan().astype(np.float32)
    hu[0, 0, 0], hu[3, 1, 1:3] = NAN, INF
    refused(write_itk(tmp_path / "n.nii.gz", hu), "E-NAN", "3 voxels")


@pytest.mark.parametrize("dtype", ["i4", "f8"])
def test_V49_numbers_beyond_any_hu_are_refused(tmp_path: Path, dtype: str) -> None:
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
    volume = read_volume(write_itk(tmp_path / "b.nii", change(body()).astype(np.float32)))
    doubt = looks_like_hu(volume)
    assert doubt is None if word is None else word in doubt
    assert any("not HU?" in note for note in volume.notes) == (word is not None)


def test_V33_unusual_pixels_are_noted(tmp_path: Path) -> None:
    for spacing, noted in (((5, 0.7, 0.7), False), ((5, 0.7, 0.9), True), ((5, 2.5, 2.5), True)):
        volume = read_volume(write_itk(tmp_path / "p.nii", scan(), spacing=spacing))
        assert any("unusual pixels" in note for note in volume.notes) == noted


# --- NRRD and MetaImage headers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "code", "word"),
    [
        ({"space_directions": None}, "E-GEOM", "no orientation"),
        ({"space_directions": "(0.5,0,0) (0,nan,0) (0,0,-5)"}, "E-GEOM", "no directions"),
        ({"space_directions": "(0.5,0,0) (0,0,0) (0,0,-5)"}, "E-GEOM", "no directions"),
        ({"space_directions": "(0.5,0,0) (0,0.75,0)"}, "E-GEOM", "three vectors"),
        ({"space_directions": "(0.5,0,0) (0,x,0) (0,0,-5)"}, "E-GEOM", "three vectors"),
        ({"space_directions": "(0.5,0,0) (0,0.75,0) (0,0,-75)"}, "E-SPACING", "75"),
        ({"space": "scanner-xyz"}, "E-GEOM", "scanner-xyz"),
        ({"space": None}, "E-GEOM", "space ''"),
        ({"sizes": "4 5 0"}, "E-HEADER", "4 x 5 x 0"),
        ({"sizes": "4 5 -6"}, "E-HEADER", "-6"),
        ({"sizes": "4 5 99999999999"}, "E-HEADER", "99999999999"),
        ({"sizes": "4 5 x"}, "E-HEADER", "not whole numbers"),
        ({"sizes": "4 5"}, "E-HEADER", "but 2 sizes"),
        ({"sizes": "100000 100000 100000"}, "E-TRUNC", "declares 2000000000000000"),
        ({"type": "block"}, "E-HEADER", "block"),
        ({"endian": None}, "E-HEADER", "endian"),
        ({"encoding": "bzip2"}, "E-CODEC", "bzip2"),
        ({"encoding": "ascii"}, "E-CODEC", "ascii"),
    ],
)
def test_V32_V34_V38_V56_impossible_nrrd_headers(tmp_path: Path, lines, code, word) -> None:
    refused(with_lines(write_itk(tmp_path / "n.nrrd", scan()), **lines), code, word)


@pytest.mark.parametrize(
    ("lines", "code", "word"),
    [
        ({"ElementSpacing": None}, "E-SPACING", "states no spacing"),
        ({"ElementSpacing": "0.5 0.75 0"}, "E-SPACING", "> 0"),
        ({"ElementSpacing": "0.5 nan 5"}, "E-SPACING", "nan"),
        ({"ElementSpacing": "0.5 5"}, "E-SPACING", "0.5 5"),
        ({"TransformMatrix": None}, "E-GEOM", "no orientation"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "E-GEOM", "no directions"),
        ({"TransformMatrix": "1 0 0 1"}, "E-GEOM", "3 x 3"),
        ({"DimSize": "4 5 12"}, "E-TRUNC", "declares 480 bytes of voxels, holds 240"),
        ({"DimSize": "4 5 -6"}, "E-HEADER", "-6"),
        ({"DimSize": "4 5 4294967297"}, "E-HEADER", "4294967297"),
        ({"DimSize": "4 5 0.5"}, "E-HEADER", "0.5"),
        ({"DimSize": "4 5 nan"}, "E-HEADER", "nan"),
        ({"DimSize": "4 5"}, "E-HEADER", "NDims 3"),
        ({"ElementType": "MET_LONG"}, "E-HEADER", "MET_LONG"),
        ({"ElementType": "MET_STRING"}, "E-HEADER", "MET_STRING"),
        ({"BinaryData": "False"}, "E-CODEC", "text"),
    ],
)
def test_V32_V34_V38_V56_impossible_metaimage_headers(tmp_path: Path, lines, code, word) -> None:
    refused(with_lines(write_itk(tmp_path / "m.mha", scan()), **lines), code, word)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("HeaderSize = -1", "E-CODEC"),
        ("ElementNumberOfChannels = 3", "E-RGB"),
        ("DistanceUnits = um", "E-SPACING"),
        ("ElementToIntensityFunctionSlope = 2", "E-RESCALE"),
        ("NDims = 3", "E-HEADER"),
    ],
)
def test_metaimage_fields_that_would_change_the_voxels_are_refused(tmp_path, line, code) -> None:
    path = write_itk(tmp_path / "m.mha", scan())
    path.write_bytes(path.read_bytes().replace(b"NDims = 3\n", f"NDims = 3\n{line}\n".encode()))
    refused(path, code, line.split()[0])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('space units: "cm" "cm" "cm"', "E-SPACING"),
        ("line skip: 3", "E-CODEC"),
        ("byte skip: -1", "E-CODEC"),
        ("type: short", "E-HEADER"),
    ],
)
def test_nrrd_fields_that_would_change_the_voxels_are_refused(tmp_path, line, code) -> None:
    path = write_itk(tmp_path / "n.nrrd", scan())
    path.write_bytes(
        path.read_bytes().replace(b"dimension: 3\n", f"dimension: 3\n{line}\n".encode())
    )
    assert refusal(path).code == code


def test_V30_V32_what_the_caller_knows_completes_a_bare_nrrd(tmp_path: Path) -> None:
    path = with_lines(write_itk(tmp_path / "n.nrrd", scan()), space_directions=None, space=None)
    refused(path, "E-GEOM", "orientation")
    refused(path, "E-SPACING", "spacing_mm_zyx", orientation="LPI")
    volume = read_volume(path, orientation="LPI", spacing_mm_zyx=SPACING)
    np.testing.assert_array_equal(volume.hu, scan())
    assert volume.spacing_mm_zyx == SPACING
    # the spacing is the body's, whatever the order in the file
    turned = read_volume(path, orientation="SPL", spacing_mm_zyx=(1.0, 2.0, 2.9))
    assert turned.hu.shape == (4, 5, 6)
    assert turned.spacing_mm_zyx == (1.0, 2.0, 2.9)


def test_what_a_file_states_is_not_overruled_by_the_caller(tmp_path: Path) -> None:
    volume = read_volume(nii(tmp_path), spacing_mm_zyx=(9.0, 1.0, 1.0), orientation="RAS")
    assert volume.spacing_mm_zyx == SPACING
    np.testing.assert_array_equal(volume.hu, scan())


@pytest.mark.parametrize(
    "space", ["right-anterior-superior", "RAS", "left-anterior-superior", "LPS"]
)
def test_nrrd_spaces_mean_what_simpleitk_means(tmp_path: Path, space: str) -> None:
    path = with_lines(write_itk(tmp_path / "n.nrrd", scan()), space=space)
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPI")
    np.testing.assert_array_equal(read_volume(path).hu, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_detached_data_file_is_read(tmp_path: Path, suffix: str, compress: bool) -> None:
    path = write_itk(tmp_path / f"scan.{suffix}", scan(), compress=compress)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../other.raw", "sub/x.raw", "LIST", "%03d.raw", ".."]
)
def test_V64_a_data_file_elsewhere_is_not_read(tmp_path: Path, suffix: str, name: str) -> None:
    key = {"nhdr": "data_file", "mhd": "ElementDataFile"}[suffix]
    path = with_lines(write_itk(tmp_path / f"scan.{suffix}", scan()), **{key: name})
    refused(path, "E-UNSAFE", repr(name), "same folder")


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_V64_a_link_does_not_lead_out_of_the_folder(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "inside").mkdir()
    path = write_itk(tmp_path / "inside" / f"scan.{suffix}", scan())
    data = next(file for file in path.parent.iterdir() if file != path)
    data.rename(tmp_path / "secret.raw")
    data.symlink_to(tmp_path / "secret.raw")
    refused(path, "E-UNSAFE")


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_V66_a_missing_data_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = write_itk(tmp_path / f"scan.{suffix}", scan())
    data = next(file for file in path.parent.iterdir() if file != path)
    data.unlink()
    fault = refusal(path)
    assert (fault.code, Path(fault.path).name) == ("E-MISSING", data.name)


@given(st.binary(min_size=1, max_size=600), st.sampled_from([b"NRRD0005\n", b"NDims = 3\n", b""]))
def test_random_bytes_are_refused_and_never_crash(tmp_path_factory, content, start) -> None:
    path = tmp_path_factory.mktemp("noise") / "noise.bin"
    path.write_bytes(start + content)
    assert refusal(path).code.startswith("E-")


@given(st.integers(0, 347), st.integers(0, 255))
def test_a_changed_header_byte_gives_a_whole_volume_or_a_refusal(
    tmp_path_factory, where, value
) -> None:
    path = nii(tmp_path_factory.mktemp("fuzz"))
    content = bytearray(path.read_bytes())
    content[where] = value
    path.write_bytes(content)
    try:
        volume = read_volume(path)
    except VolumeRefused:
        return
    assert volume.hu.size == 120
    assert struct.calcsize("<h") * volume.hu.size == volume.hu.nbytes
