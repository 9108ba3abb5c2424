"""Odd DICOM files of real scanners and of other writers, as they come with pydicom."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import save, slice_dataset
from tests.ubr_pretrain.measured_folders import PYDICOM_FILES
from tests.ubr_pretrain.stored_volumes import refused, scan
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.dicom_pixels import decode
from ubr_pretrain.score_volumes import main
from ubr_pretrain.volumes import read_volume

LOSS = "pixels were compressed with loss"


def of_pydicom_data(name: str) -> Path:
    pytest.importorskip("data_store", reason="needs pydicom-data")
    return Path(get_testdata_file(name, download=False))


def all_files() -> Iterator[Path]:
    """Every file that pydicom brings, but of one folder of 50 equal headers the first."""
    for file in sorted(PYDICOM_FILES.rglob("*")):
        if file.is_file() and (file.parent.name != "SE000000" or file.name == "IM000000"):
            yield file


def test_V09_V37_V53_V54_V68_every_odd_file_is_read_or_refused_in_one_line() -> None:
    """Each of 130 files is a CT volume or one line with a code; the codes are the expected ones."""
    codes: dict[str, str] = {}
    lines: dict[str, str] = {}
    for file in all_files():
        try:
            volume = read_volume(file)
        except VolumeRefused as refusal:
            codes[file.name] = refusal.code
            lines[file.name] = str(refusal)
        else:
            assert dcmread(file).Modality == "CT"
            assert volume.hu.min() >= -1024
    expected = {
        "no_meta.dcm": "E-NOTDICOM",
        "ExplVR_BigEndNoMeta.dcm": "E-NOTDICOM",
        "meta_missing_tsyntax.dcm": "E-NOTDICOM",
        "rtstruct.dcm": "E-NOTDICOM",
        "MR_truncated.dcm": "E-MODALITY",
        "rtplan_truncated.dcm": "E-MODALITY",
        "rtdose.dcm": "E-MODALITY",
        "examples_palette.dcm": "E-MODALITY",
        "badVR.dcm": "E-HEADER",
        "6293": "E-LOCALIZER",
        "README.txt": "E-FORMAT",
        "crayons.icc": "E-FORMAT",
        "IM000000": "E-NOPIXELS",
        "J2K_pixelrep_mismatch.dcm": "E-OBLIQUE",
    }
    assert {name: codes[name] for name in expected} == expected
    assert len(codes) > 110
    assert not [name for name, line in lines.items() if "\n" in line]


@pytest.mark.parametrize(
    ("packed", "plain", "lossy"),
    [("693_J2KR.dcm", "693_UNCR.dcm", False), ("693_J2KI.dcm", "693_UNCI.dcm", True)],
)
def test_V44_V51_V52_jpeg_2000_of_a_scanner_equals_its_plain_form(packed, plain, lossy) -> None:
    """Equal voxel by voxel; padding down to -3024 HU becomes air, a loss is in a note."""
    one, other = (read_volume(of_pydicom_data(name)) for name in (packed, plain))
    np.testing.assert_array_equal(one.hu, other.hu)
    assert one.hu.min() == -1024
    assert any("padding down to -3" in note for note in one.notes)
    assert (LOSS in one.notes) is lossy


def ct_slice(file: Path, syntax: str, **elements: Any) -> FileDataset:
    """A CT slice with the pixels of another file, compressed as they are there."""
    ds = dcmread(file)
    pixels = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    stored = {name: ds[name].value for name in (*pixels, "PixelData")}
    made = slice_dataset(np.zeros((1, 1), np.int16), (0, 0, 0), **stored, **elements)
    made.file_meta.TransferSyntaxUID = syntax
    return made


def by_simpleitk(path: Path) -> np.ndarray:
    """The HU that an independent decoder (GDCM) reads, as we clip them."""
    return np.clip(np.rint(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))), -1024, None)


def test_V51_jpeg_ls_of_another_writer_equals_its_plain_form(tmp_path: Path) -> None:
    """A lossless JPEG-LS is read, equal voxel by voxel, without a note on a loss."""
    packed = PYDICOM_FILES / "MR_small_jpeg_ls_lossless.dcm"
    volume = read_volume(save(ct_slice(packed, JPEGLSLossless), tmp_path / "a.dcm"))
    plain = dcmread(PYDICOM_FILES / "MR_small.dcm").pixel_array
    np.testing.assert_array_equal(volume.hu[0], plain - 1024)
    assert LOSS not in volume.notes


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_V51_lossless_jpeg_of_a_scanner_equals_what_gdcm_reads(tmp_path: Path, syntax: str) -> None:
    """A lossless JPEG is read, equal voxel by voxel to what GDCM decodes, without a note on a
    loss."""
    path = save(ct_slice(of_pydicom_data("JPEG-LL.dcm"), syntax), tmp_path / "a.dcm")
    volume = read_volume(path)
    assert np.ptp(volume.hu) > 200
    np.testing.assert_array_equal(volume.hu, by_simpleitk(path))
    assert LOSS not in volume.notes


def lossy_slice(syntax: str, **elements: Any) -> FileDataset:
    """A slice whose compression may lose."""
    if syntax == JPEGLSNearLossless:  # 16 bits: a slope brings them into the range of HU
        file = PYDICOM_FILES / "JPEGLSNearLossless_16.dcm"
        return ct_slice(file, syntax, **{"RescaleSlope": 0.05} | elements)
    if syntax == JPEGExtended12Bit:
        return ct_slice(PYDICOM_FILES / "JPGExtended.dcm", syntax, **elements)
    ds = slice_dataset(scan((1, 32, 32))[0], (0, 0, 0), **elements)
    if syntax == JPEG2000:
        ds.compress(syntax, j2k_cr=[4], generate_instance_uid=False)
        return ds
    stream = io.BytesIO()
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(stream, "JPEG")
    ds.Rows, ds.Columns, ds.PixelData = 64, 64, encapsulate([stream.getvalue()])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless])
@pytest.mark.parametrize("mark", [{}, {"LossyImageCompression": "00"}], ids=["unmarked", "denied"])
def test_V52_what_always_loses_is_noted_however_it_is_marked(tmp_path: Path, syntax, mark) -> None:
    """8-bit and 12-bit JPEG and near-lossless JPEG-LS are read, within 1 HU of what GDCM decodes,
    with a note on the loss even where the file marks none."""
    path = save(lossy_slice(syntax, **mark), tmp_path / "a.dcm")
    volume = read_volume(path)
    assert np.ptp(volume.hu) > 50
    np.testing.assert_allclose(volume.hu, by_simpleitk(path), atol=1)
    assert LOSS in volume.notes


def test_V52_the_scores_tell_of_a_loss(tmp_path: Path) -> None:
    """In `scores.json` the note stands with every scan of 8-bit or 12-bit JPEG or near-lossless
    JPEG-LS; of JPEG 2000, which may lose nothing, with one whose file marks the loss."""
    marked = {"LossyImageCompression": "01"}
    cases = {
        "baseline": lossy_slice(JPEGBaseline8Bit),
        "extended": lossy_slice(JPEGExtended12Bit),
        "near": lossy_slice(JPEGLSNearLossless),
        "j2k_marked": lossy_slice(JPEG2000, **marked),
        "j2k": lossy_slice(JPEG2000),
    }
    for number, (name, ds) in enumerate(cases.items()):
        ds.SeriesInstanceUID = f"1.2.3.{number}"
        for k in range(2):  # one slice would be a picture, not a scan
            ds.ImagePositionPatient = [0, 0, -5.0 * k]
            save(ds, tmp_path / "tree" / name / f"{k}.dcm")
    checkpoint = write_toy_checkpoint(tmp_path / "toy.safetensors")
    flags = ["--checkpoint", str(checkpoint), "--views", "1", "--pictures", "false", "--with-paths"]
    out = tmp_path / "scores"
    assert main([str(tmp_path / "tree"), *flags, "--device", "cpu", "--out", str(out)]) == 0
    records = json.loads((out / "scores.json").read_text())["volumes"]
    lossy = {Path(record["path"]).parts[-1]: LOSS in record["notes"] for record in records}
    assert lossy == {name: name != "j2k" for name in cases}


def test_V45_a_real_modality_lut_is_refused(tmp_path: Path) -> None:
    """E-RESCALE for a file whose look-up table gives its values."""
    ds = dcmread(of_pydicom_data("mlut_18.dcm"))
    ds.Modality = "CT"
    refused(save(ds, tmp_path / "lut.dcm"), "E-RESCALE", "Modality LUT")


def test_V60_fragments_with_a_delimiter_inside_are_a_codec_fault() -> None:
    """E-CODEC with the name of the compression, from a real file with such a fragment."""
    path = Path(get_testdata_file("JPEG2000-embedded-sequence-delimiter.dcm"))
    ds = dcmread(path, stop_before_pixels=True)
    with pytest.raises(VolumeRefused, match=r"^E-CODEC .*JPEG 2000"):
        decode(path, str(ds.file_meta.TransferSyntaxUID), (1, ds.Rows, ds.Columns))


def test_V55_a_deflated_file_of_another_writer_is_inflated() -> None:
    """Its header is read through the deflated stream: E-MODALITY, not a CT."""
    refused(Path(get_testdata_file("image_dfl.dcm")), "E-MODALITY", "OT")
