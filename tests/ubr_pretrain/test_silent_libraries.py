"""Where the libraries underneath are silent: they still are, our readers and writers are not."""

import gzip
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from tests.small_disk import small_disk
from tests.ubr_pretrain.dicom_writer import save, slice_dataset, write_series
from tests.ubr_pretrain.stored_volumes import (
    nii,
    patched,
    refused,
    scan,
    with_lines,
    write_itk,
)
from tests.ubr_pretrain.test_volumes_png import folder_of
from ubr_pretrain.nifti_file import write_volume
from ubr_pretrain.volumes import read_volume

HU = scan((40, 64, 64))
NAN = float("nan")


def by_simpleitk(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("value", [NAN, 0.0])
def test_M06_a_spacing_that_is_none_is_not_taken_for_1_mm(tmp_path: Path, value: float) -> None:
    """E-SPACING, where SimpleITK reads a step of 1 mm for nan and 0."""
    path = nii(tmp_path, pixdim3=value)
    assert sitk.ReadImage(str(path)).GetSpacing()[2] == 1.0
    refused(path, "E-SPACING", "> 0 and <= 50")


def test_M06_a_metaimage_or_nrrd_without_a_spacing_has_none(tmp_path: Path) -> None:
    """E-SPACING for MetaImage, E-GEOM for NRRD, where SimpleITK reads 1 mm for every axis."""
    mhd = with_lines(write_itk(tmp_path / "m.mhd", scan()), ElementSpacing=None)
    none = {"space": None, "space_directions": None, "space_origin": None}
    bare = with_lines(write_itk(tmp_path / "n.nrrd", scan()), **none)
    for path, code in ((mhd, "E-SPACING"), (bare, "E-GEOM")):
        assert sitk.ReadImage(str(path)).GetSpacing() == (1.0, 1.0, 1.0)
        refused(path, code)


def test_M07_an_enhanced_ct_has_the_rescale_of_its_functional_groups() -> None:
    """Read as HU, where pydicom's modality LUT leaves the stored numbers, 1024 too high."""
    pytest.importorskip("data_store", reason="needs pydicom-data")
    path = Path(get_testdata_file("eCT_Supplemental.dcm", download=False))
    ds = dcmread(path)
    np.testing.assert_array_equal(apply_modality_lut(ds.pixel_array, ds), ds.pixel_array)
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPI")
    hu = np.maximum(sitk.GetArrayFromImage(image), -1024)
    np.testing.assert_array_equal(read_volume(path).hu, hu)
    assert hu.mean() < ds.pixel_array.mean() - 1000


@pytest.mark.parametrize("zipped", [False, True])
def test_M08_what_is_missing_of_a_nifti_is_not_zero(tmp_path: Path, zipped: bool) -> None:
    """E-TRUNC, where SimpleITK fills the rest of the scan with 0 HU: water, a plausible picture."""
    content = write_itk(tmp_path / "whole.nii", HU).read_bytes()
    content = gzip.compress(content) if zipped else content
    path = tmp_path / ("cut.nii.gz" if zipped else "cut.nii")
    path.write_bytes(content[: len(content) * 7 // 10])
    assert (by_simpleitk(path) == 0).mean() > 0.29
    refused(path, "E-TRUNC")


def test_M08_voxels_that_begin_behind_the_file_are_none(tmp_path: Path) -> None:
    """E-TRUNC, where SimpleITK returns a volume of zeros alone."""
    path = patched(write_itk(tmp_path / "scan.nii", HU), vox_offset=1e6)
    assert (by_simpleitk(path) == 0).all()
    refused(path, "E-TRUNC", "before the voxels")


@pytest.mark.parametrize("kind", ["nii.gz", "mha"])
def test_M09_a_flipped_bit_in_a_compressed_scan_is_a_checksum_error(tmp_path: Path, kind) -> None:
    """E-CRC, where SimpleITK and nibabel return the scan with wrong voxels."""
    path = write_itk(tmp_path / f"scan.{kind}", HU, compress=True)
    if kind == "nii.gz":
        path.write_bytes(gzip.compress(write_itk(tmp_path / "plain.nii", HU).read_bytes()))
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj).T, HU)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert not np.array_equal(by_simpleitk(path), HU)
    if kind == "nii.gz":
        assert not np.array_equal(np.asarray(nib.load(path).dataobj).T, HU)
    refused(path, "E-CRC")


def test_M10_a_file_with_its_head_at_both_ends_is_refused(tmp_path: Path) -> None:
    """E-GEOM with both matrices, where SimpleITK and nibabel take one of them without a word."""
    path = nii(tmp_path, srow_z2=5.0)
    assert nib.load(path).get_qform()[2, 2] == -nib.load(path).get_sform()[2, 2]
    assert nib.load(path).affine[2, 2] == 5.0
    assert abs(sitk.ReadImage(str(path)).GetDirection()[8]) == 1.0
    refused(path, "E-GEOM", "qform", "sform", "disagree")


def test_M11_32_bit_big_endian_slices_are_read_exactly(tmp_path: Path) -> None:
    """Equal HU, where SimpleITK's decoder (GDCM) swaps the bytes by 16 bits."""
    hu = scan((1, 32, 32))
    ds = slice_dataset(hu[0], (0, 0, 0))
    ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i4").tobytes()
    ds.BitsAllocated = ds.BitsStored = 32
    ds.HighBit, ds.file_meta.TransferSyntaxUID = 31, ExplicitVRBigEndian
    path = tmp_path / "a.dcm"
    dcmwrite(path, ds, implicit_vr=False, little_endian=False, force_encoding=True)
    assert not np.array_equal(by_simpleitk(path), hu)
    np.testing.assert_array_equal(read_volume(path).hu, hu)


def test_M11_rle_is_decoded_by_pydicom_and_colour_is_no_ct(tmp_path: Path) -> None:
    """RLE of a CT is bit-equal; 16-bit RLE of colours, which GDCM decodes wrongly, is refused."""
    colours = Path(get_testdata_file("SC_rgb_rle_16bit.dcm"))
    assert not np.array_equal(by_simpleitk(colours).squeeze(), dcmread(colours).pixel_array)
    refused(colours, "E-MODALITY")
    hu = scan((1, 32, 32))
    ds = slice_dataset(hu[0], (0, 0, 0))
    ds.compress(RLELossless, generate_instance_uid=False)
    np.testing.assert_array_equal(read_volume(save(ds, tmp_path / "rle.dcm")).hu, hu)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_M17_an_image_that_did_not_fit_on_the_disk_is_an_error(tmp_path: Path, suffix) -> None:
    """An OSError with the file's name, and no file; SimpleITK and OpenCV lose it in silence."""
    volume = read_volume(write_itk(tmp_path / "scan.nrrd", scan((80, 128, 128))))
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        lost = disk.path / f"lost.{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(volume.hu), str(lost))
        with pytest.raises(Exception, match=r"Expected|ended|size|short|array"):
            np.testing.assert_array_equal(np.asarray(nib.load(lost).dataobj).T, volume.hu)
        disk.fill()
        assert cv2.imwrite(str(disk.path / "lost.png"), np.zeros((64, 64), np.uint8))
        assert (disk.path / "lost.png").stat().st_size == 0
        disk.tidy()
        lost.unlink()
        with pytest.raises(OSError, match=rf"ours\.{suffix}"):
            write_volume(volume, disk.path / f"ours.{suffix}")
        assert [file.name for file in disk.path.iterdir()] == ["lost.png"]


def test_M19_16_bit_slices_keep_their_bits(tmp_path: Path) -> None:
    """Equal HU, where OpenCV's default makes 8 bits and three channels of them."""
    hu = scan((3, 16, 16))
    folder = folder_of(tmp_path, hu)
    picture = cv2.imread(str(folder / "040.png"))
    assert (picture.dtype, picture.shape) == (np.uint8, (16, 16, 3))
    np.testing.assert_array_equal(read_volume(folder, spacing_mm_zyx=(5, 0.8, 0.8)).hu, hu)


@pytest.mark.parametrize(("suffix", "key"), [("mhd", "ElementDataFile"), ("nhdr", "data_file")])
def test_M20_a_header_does_not_make_voxels_of_another_file(tmp_path: Path, suffix, key) -> None:
    """E-UNSAFE with the name, where SimpleITK reads any file of the system as a picture."""
    secret = tmp_path / "passwords"
    secret.write_bytes(b"root:letmein:0:0\n" * 20)
    (tmp_path / "scans").mkdir()
    lines = {key: str(secret)}
    path = with_lines(write_itk(tmp_path / "scans" / f"scan.{suffix}", scan()), **lines)
    assert b"letmein" in by_simpleitk(path).tobytes()
    fault = refused(path, "E-UNSAFE", "same folder")
    assert "letmein" not in str(fault)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii", "nii.gz"])
def test_M21_an_image_made_from_dicom_does_not_name_the_patient(tmp_path: Path, suffix) -> None:
    """What we write holds no name or number, which SimpleITK copies into .nrrd and .mha."""
    folder = write_series(tmp_path / "series", scan((7, 6, 5)), (5.0, 0.75, 0.75))
    theirs, ours = tmp_path / f"theirs.{suffix}", tmp_path / f"ours.{suffix}"
    sitk.WriteImage(sitk.ReadImage(str(folder / "000.dcm")), str(theirs))
    assert (b"Doe" in theirs.read_bytes()) == (suffix in ("nrrd", "mha"))
    write_volume(read_volume(folder), ours)
    content = ours.read_bytes()
    if suffix == "nii.gz":
        content = gzip.decompress(content)
    for secret in (b"Doe", b"Jane", b"4711"):
        assert secret not in content


def nested(content: bytes, levels: int) -> bytes:
    at = content.index(b"\x08\x00\x60\x00CS")
    item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return content[:at] + item * levels + end * levels + content[at:]


def test_M22_nested_sequences_end_simpleitk_and_not_us(tmp_path: Path) -> None:
    """E-HEADER in a moment, where 100,000 sequences in each other end a process with SimpleITK."""
    path = save(slice_dataset(scan((1, 6, 5))[0], (0, 0, 0)), tmp_path / "a.dcm")
    path.write_bytes(nested(path.read_bytes(), 100_000))
    began_s = time.process_time()
    refused(path, "E-HEADER", "damaged")
    assert time.process_time() - began_s < 5
    read = f"import SimpleITK as sitk; sitk.ReadImage({str(path)!r})"
    assert subprocess.run([sys.executable, "-c", read], check=False).returncode < 0


@pytest.mark.parametrize("place", ["meta", "private", "pixels"])
def test_M22_a_false_length_makes_no_memory_be_taken(tmp_path: Path, place: str) -> None:
    """Refused within 100 MB, where a length of 2 GB in 39 KB makes SimpleITK take all of it."""
    path = save(slice_dataset(scan((1, 6, 5))[0], (0, 0, 0)), tmp_path / "a.dcm")
    content, false = path.read_bytes(), (0x7FFFFFF0).to_bytes(4, "little")
    pixels = content.index(b"\xe0\x7f\x10\x00")
    content = {
        "meta": content[:132] + b"\x02\x00\x02\x01OB\0\0" + false + content[132:],
        "private": content[:pixels] + b"\x09\x00\x02\x10OB\0\0" + false + content[pixels:],
        "pixels": content[: pixels + 8] + false + content[pixels + 12 :],
    }[place]
    path.write_bytes(content + bytes(39_000))
    tracemalloc.start()
    try:
        refused(path, {"meta": "E-NOTDICOM", "private": "E-NOPIXELS", "pixels": "E-HEADER"}[place])
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100e6
