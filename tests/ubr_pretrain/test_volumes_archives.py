"""DICOMDIR, archives with hostile names and bombs among scans: nothing is unpacked or followed."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.config import disable_value_validation

from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.measured_folders import PYDICOM_FILES
from tests.ubr_pretrain.stored_volumes import refused, scan
from ubr_pretrain.volumes import find_volumes, read_volume

HU = scan((7, 6, 5))
SPACING = (5.0, 0.75, 0.5)


def hostile_zip(path: Path) -> Path:
    """Write a zip whose members climb out of any folder, and one that inflates to 16 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("../escaped.dcm", "/anywhere/../escaped.dcm", "..\\escaped.dcm"):
            archive.writestr(name, b"\0" * 200)
        archive.writestr("bomb.nii", bytes(1 << 24))
    return path


def test_V73_an_archive_among_scans_is_passed_over_and_never_unpacked(tmp_path: Path) -> None:
    """Counted as no volume; under the name of one it is E-FORMAT or E-NOTDICOM, zip archive."""
    scans = tmp_path / "scans"
    write_series(scans / "a", HU, SPACING)
    hostile_zip(scans / "a" / "more.zip")
    cohort = find_volumes([scans])
    np.testing.assert_array_equal(cohort[0].read().hu, HU)
    assert cohort.skipped == {"not a volume": 1}
    refused(hostile_zip(scans / "more.zip"), "E-FORMAT", "zip")
    refused(hostile_zip(scans / "more.nii.gz"), "E-FORMAT", "zip")
    (scans / "b").mkdir()
    refused(hostile_zip(scans / "b" / "more.dcm"), "E-NOTDICOM", "zip")
    assert not [*tmp_path.rglob("*escaped*")]
    assert not [*tmp_path.rglob("bomb*")]


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-nopatient"])
def test_V73_a_dicomdir_is_not_followed(tmp_path: Path, name: str) -> None:
    """Passed over and counted: the files beside it are found by themselves, and only those."""
    folder = tmp_path / "disc"
    folder.mkdir()
    shutil.copy(PYDICOM_FILES / "dicomdirtests" / name, folder / "DICOMDIR")
    write_series(folder / "series", HU, SPACING)
    cohort = find_volumes([tmp_path])
    assert cohort.skipped == {"DICOMDIR": 1}
    np.testing.assert_array_equal(read_volume(folder).hu, HU)


def test_V73_a_dicomdir_that_points_out_of_its_folder_reads_nothing_there(tmp_path: Path) -> None:
    """The record of a file outside is not opened."""
    write_series(tmp_path / "secret", HU, SPACING)
    listed = dcmread(PYDICOM_FILES / "dicomdirtests" / "DICOMDIR")
    (tmp_path / "disc").mkdir()
    with disable_value_validation():
        for record in listed.DirectoryRecordSequence:
            if "ReferencedFileID" in record:
                record.ReferencedFileID = ["..", "secret", "000.dcm"]
        listed.save_as(tmp_path / "disc" / "DICOMDIR")
    cohort = find_volumes([tmp_path / "disc"])
    assert not cohort
    assert cohort.skipped == {"DICOMDIR": 1}
