"""Odd DICOM files of real scanners and of other writers, as they come with pydicom."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from tests.ubr_pretrain.dicom_writer import save
from tests.ubr_pretrain.measured_folders import PYDICOM_FILES
from tests.ubr_pretrain.stored_volumes import refused
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.dicom_pixels import decode
from ubr_pretrain.volumes import read_volume


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
    assert ("pixels were compressed with loss" in one.notes) is lossy


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
