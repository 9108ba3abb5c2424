"""What one DICOM folder may hold: series, patients, phases, copies, scout views."""

from pathlib import Path

import numpy as np
import pytest

from tests.ubr_pretrain.dicom_writer import (
    SERIES_UID,
    put,
    save,
    slice_dataset,
    write_series,
)
from tests.ubr_pretrain.stored_volumes import refused, scan
from ubr_pretrain.volumes import find_volumes, read_volume

SHAPE = (7, 6, 5)
SPACING = (5.0, 0.75, 0.5)


@pytest.fixture
def hu() -> np.ndarray:
    return scan(SHAPE)


def test_V16_several_series_must_be_chosen_from(tmp_path: Path, hu) -> None:
    """Each series is a result of its own; read_volume, which gives one, offers them (E-SERIES)."""
    write_series(tmp_path, hu, SPACING)
    other = f"{SERIES_UID}.99"
    names = [f"b{n}.dcm" for n in range(4)]
    write_series(tmp_path, hu[:4] + 1, SPACING, names=names, SeriesInstanceUID=other)
    refused(tmp_path, "E-SERIES", f"{SERIES_UID} (7 DICOM files)", f"{other} (4 DICOM files)")
    np.testing.assert_array_equal(read_volume(tmp_path, series_uid=SERIES_UID).hu, hu)
    np.testing.assert_array_equal(read_volume(tmp_path, series_uid=other).hu, hu[:4] + 1)
    refused(tmp_path, "E-SERIES", "0 chosen", SERIES_UID, series_uid="1.2.3")
    assert [entry.read().num_slices for entry in find_volumes([tmp_path])] == [7, 4]


def test_V17_two_patients_in_a_folder_are_two_subjects_and_noted(tmp_path: Path, hu) -> None:
    """Each patient's scan is a result of its own, with a note on the folder."""
    write_series(tmp_path, hu, SPACING)
    names = [f"b{n}.dcm" for n in range(7)]
    write_series(
        tmp_path, hu, SPACING, names=names, SeriesInstanceUID="1.2.3", PatientID="MRN-0815"
    )
    one, other = find_volumes([tmp_path])
    assert one.subject != other.subject
    for entry in (one, other):
        assert [note for note in entry.read().notes if "folder" in note] == [
            "its folder holds 2 patients"
        ]


def test_V17_two_studies_of_a_patient_in_a_folder_are_one_subject_and_noted(
    tmp_path: Path, hu
) -> None:
    """Each study's scan is a result of its own, of one subject, with a note on the folder; no note
    where the series of a folder are of one study, or one of them names none."""
    study = {"StudyInstanceUID": "1.2.4"}
    two, one, apart = (tmp_path / name for name in ("two", "one", "apart"))
    other_names = [f"b{n}.dcm" for n in range(7)]
    write_series(two, hu, SPACING)
    write_series(two, hu, SPACING, names=other_names, SeriesInstanceUID="1.2.3", **study)
    write_series(one, hu, SPACING, SeriesInstanceUID="1.2.5")
    write_series(
        one, hu, SPACING, names=other_names, SeriesInstanceUID="1.2.6", StudyInstanceUID=""
    )
    write_series(apart, hu, SPACING, SeriesInstanceUID="1.2.7", **study)
    entries = find_volumes([two, one, apart])
    assert len({entry.subject for entry in entries}) == 1
    told = [[note for note in entry.read().notes if "folder" in note] for entry in entries]
    assert told == [["its folder holds 2 studies"]] * 2 + [[]] * 3


def test_N59_a_series_of_two_patients_is_refused(tmp_path: Path, hu) -> None:
    """E-PATIENT with the file, and no number of a patient; slices that name none are no other's."""
    others = {n: put(PatientID="MRN-0815") for n in (1, 3)}
    line = refused(
        write_series(tmp_path / "two", hu, SPACING, PatientID="MRN-0816", change=others),
        "E-PATIENT",
        "names another patient than its series",
    )
    assert "MRN" not in str(line)
    nobody = {n: put(PatientID="") for n in (1, 3)}
    folder = write_series(tmp_path / "one", hu, SPACING, PatientID="MRN-0816", change=nobody)
    np.testing.assert_array_equal(read_volume(folder).hu, hu)


def test_N59_equal_slices_at_one_height_and_two_places_are_no_copies(tmp_path: Path, hu) -> None:
    """E-GEOM with both files and how far they lie apart: the second was dropped as a repeat."""
    write_series(tmp_path, hu, SPACING)
    write_series(
        tmp_path, hu, SPACING, names=[f"b{n}.dcm" for n in range(7)],
        change=lambda ds: setattr(
            ds, "ImagePositionPatient", [140, *ds.ImagePositionPatient[1:]]
        ),
    )  # fmt: skip
    refused(tmp_path, "E-GEOM", "lie at one height, but 150.0 mm apart")


def test_V18_a_localizer_in_the_series_is_dropped_and_noted(tmp_path: Path, hu) -> None:
    """Left out by its ImageType, with a note that counts them."""
    scout = put(
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        Rows=3,
        PixelData=bytes(30),
    )
    volume = read_volume(write_series(tmp_path, hu, SPACING, change={0: scout}))
    np.testing.assert_array_equal(volume.hu, hu[1:])
    assert "1 localizer views dropped" in volume.notes


def test_V19_a_series_of_localizers_only(tmp_path: Path, hu) -> None:
    """E-LOCALIZER where it was named; in a tree it is passed over and counted."""
    write_series(tmp_path, hu[:2], SPACING, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refused(tmp_path, "E-LOCALIZER", "2 localizer views and no slice")
    cohort = find_volumes([tmp_path])
    assert not cohort
    assert cohort.skipped == {"E-LOCALIZER": 2}


def test_V68_other_modalities_are_passed_over_in_a_tree_but_not_where_named(tmp_path, hu) -> None:
    """Passed over and counted in a tree; E-MODALITY where the file was named."""
    write_series(tmp_path / "ct", hu, SPACING)
    write_series(tmp_path / "mr", hu, SPACING, Modality="MR", SeriesInstanceUID="1.2.3")
    cohort = find_volumes([tmp_path])
    assert [entry.series_uid for entry in cohort] == [SERIES_UID]
    assert cohort.skipped == {"E-MODALITY": 7}
    assert [fault.code for fault in cohort.passed_over] == ["E-MODALITY"]
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)
    refused(tmp_path / "mr" / "000.dcm", "E-MODALITY", "MR")


def test_V13_repeated_slices_are_dropped_and_noted(tmp_path: Path, hu) -> None:
    """One is kept, with a note that counts the others."""
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "002.dcm").read_bytes())
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, hu)
    assert "1 repeated slices dropped" in volume.notes


def test_V14_two_pictures_at_one_position(tmp_path: Path, hu) -> None:
    """E-DUP with both files and their place."""
    write_series(tmp_path, hu, SPACING)
    save(slice_dataset(hu[2] + 1, (-10, -20, 90.0), (0.75, 0.5)), tmp_path / "rival.dcm")
    refused(tmp_path, "E-DUP", "002.dcm", "rival.dcm", "90.0")


@pytest.mark.parametrize(
    "keyword", ["TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime"]
)
def test_V15_phases_of_one_series_are_volumes_of_their_own(tmp_path: Path, hu, keyword) -> None:
    """Each phase is a result of its own, told apart by time or number of the acquisition."""
    values = ("101500", "094500") if keyword == "AcquisitionTime" else (10, 9)
    for phase, value in zip("ab", values, strict=True):
        write_series(
            tmp_path,
            hu + (phase == "b"),
            SPACING,
            names=[f"{phase}{n}.dcm" for n in range(7)],
            **{keyword: value},
        )
    refused(tmp_path, "E-4D", "phase 1", "phase 2", "choose a phase")
    entries = find_volumes([tmp_path])
    assert [entry.phase for entry in entries] == [1, 2]
    assert len({entry.name for entry in entries}) == 2
    np.testing.assert_array_equal(entries[0].read().hu, hu + 1)  # 9 before 10, 9:45 before 10:15
    np.testing.assert_array_equal(read_volume(tmp_path, phase=2).hu, hu)


def test_V15_phases_that_nothing_tells_apart_are_refused(tmp_path: Path, hu) -> None:
    """E-4D with how many pictures there are of each slice."""
    for phase in (0, 1):
        names = [f"{phase}{n}.dcm" for n in range(7)]
        write_series(tmp_path, hu + phase, SPACING, names=names)
    refused(tmp_path, "E-4D", "2 different pictures of each of 7 slices")


def test_two_acquisitions_along_the_body_are_one_scan(tmp_path: Path, hu) -> None:
    change = {k: put(AcquisitionNumber=1 + k // 4) for k in range(7)}
    np.testing.assert_array_equal(
        read_volume(write_series(tmp_path, hu, SPACING, change=change)).hu, hu
    )
