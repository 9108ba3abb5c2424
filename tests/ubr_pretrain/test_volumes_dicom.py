"""DICOM series: order and HU come from the headers of every slice, or the series is refused."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from tests.ubr_pretrain.dicom_writer import (
    SERIES_UID,
    enhanced_dataset,
    put,
    save,
    slice_dataset,
    write_series,
)
from tests.ubr_pretrain.stored_volumes import scan
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import find_volumes, read_volume

SHAPE = (7, 6, 5)
SPACING = (5.0, 0.75, 0.5)
NAN = float("nan")


@pytest.fixture
def hu() -> np.ndarray:
    return scan(SHAPE)


def refused(path: Path, code: str, *words: str, **choice: object) -> VolumeRefused:
    with pytest.raises(VolumeRefused) as caught:
        read_volume(path, **choice)
    assert caught.value.code == code, str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


# --- order and geometry ------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), reverse=st.booleans())
def test_V26_file_names_and_instance_numbers_do_not_matter(tmp_path_factory, seed, reverse) -> None:
    hu, folder = scan(SHAPE), tmp_path_factory.mktemp("series")
    names = [f"{n:02d}.dcm" for n in range(len(hu))]
    random.Random(seed).shuffle(names)
    change = {k: put(InstanceNumber=len(hu) - k) for k in range(len(hu))} if reverse else None
    volume = read_volume(write_series(folder, hu, SPACING, names=names, change=change))
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx == SPACING
    np.testing.assert_allclose(volume.z_mm, np.arange(7) * 5.0)


def test_V26_feet_first_and_negative_positions_are_the_same_scan(tmp_path: Path, hu) -> None:
    high = read_volume(write_series(tmp_path / "high", hu, SPACING, top_mm=900))
    low = read_volume(
        write_series(tmp_path / "low", hu, SPACING, top_mm=-900, PatientPosition="FFS")
    )
    np.testing.assert_array_equal(high.hu, low.hu)
    assert "patient position FFS" in low.notes


def test_a_single_file_is_a_single_slice(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    volume = read_volume(tmp_path / "003.dcm")
    np.testing.assert_array_equal(volume.hu, hu[3:4])
    assert volume.spacing_mm_zyx == (5.0, 0.75, 0.5)  # z: the slice thickness


def test_V36_a_single_slice_without_a_thickness_needs_a_spacing(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu[:1], SPACING, SliceThickness=None)
    refused(tmp_path, "E-SPACING", "without a thickness")
    assert read_volume(tmp_path, spacing_mm_zyx=(3, 1, 1)).spacing_mm_zyx == (3.0, 0.75, 0.5)


def test_a_single_coronal_slice_is_no_axial_volume(tmp_path: Path, hu) -> None:
    save(
        slice_dataset(hu[0], (0, 0, 0), orientation=(1, 0, 0, 0, 0, -1), SliceThickness=2.0),
        tmp_path / "c.dcm",
    )
    refused(tmp_path, "E-NONAXIAL", "coronal")


@pytest.mark.parametrize(("thick_mm", "read"), [(2.0, True), (5.0, False)])
def test_V22_coronal_series(tmp_path: Path, hu, thick_mm: float, read: bool) -> None:
    for y in range(hu.shape[1]):  # rows of a coronal slice run from head to feet
        ds = slice_dataset(
            hu[:, y], (0, y * thick_mm, 0), (0.75, 0.5), (1, 0, 0, 0, 0, -1), number=y + 1
        )
        save(ds, tmp_path / f"{y}.dcm")
    if read:
        volume = read_volume(tmp_path)
        np.testing.assert_array_equal(volume.hu, hu)
        np.testing.assert_allclose(volume.spacing_mm_zyx, (0.75, thick_mm, 0.5))
    else:
        refused(tmp_path, "E-NONAXIAL", "coronal slices 5 mm apart")


def test_uneven_coronal_slices_are_refused_even_where_gaps_are_allowed(tmp_path, hu) -> None:
    for y, place in enumerate((0, 2, 4, 8, 10, 12)):
        ds = slice_dataset(hu[:, y], (0, place, 0), (0.75, 0.5), (1, 0, 0, 0, 0, -1))
        save(ds, tmp_path / f"{y}.dcm")
    refused(tmp_path, "E-GAP", "uneven slices", allow_gaps=True)


def tilted(folder: Path, hu: np.ndarray, degrees: float) -> Path:
    """Write slices of a tilted gantry: the table moves along z, the slices lean."""
    lean = np.radians(degrees)
    orientation = (1, 0, 0, 0, np.cos(lean), np.sin(lean))
    for k, one in enumerate(hu):
        ds = slice_dataset(one, (0, 0, 100 - 2.5 * k), orientation=orientation, number=k + 1)
        save(ds, folder / f"{k}.dcm")
    return folder


def test_V24_a_tilted_gantry_is_read_at_slice_normal_distances_within_the_limit(
    tmp_path, hu
) -> None:
    folder = tilted(tmp_path, hu, -18.5)
    refused(folder, "E-TILT", "18.5 degrees, limit 5")
    volume = read_volume(folder, max_tilt_deg=30)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx[0] == pytest.approx(2.371, abs=5e-4)
    np.testing.assert_allclose(np.diff(volume.z_mm), 2.5 * np.cos(np.radians(18.5)), rtol=1e-6)
    assert any("tilted by 18.5" in note for note in volume.notes)


def test_V24_a_slight_tilt_is_noted(tmp_path: Path, hu) -> None:
    assert any("tilted by 3.0" in note for note in read_volume(tilted(tmp_path, hu, 3)).notes)


def test_V23_an_oblique_series_is_refused(tmp_path: Path, hu) -> None:
    lean = np.radians(30)
    orientation = (1, 0, 0, 0, np.cos(lean), np.sin(lean))
    for k, one in enumerate(hu):
        place = -5.0 * k * np.array([0, -np.sin(lean), np.cos(lean)])
        save(slice_dataset(one, place, orientation=orientation), tmp_path / f"{k}.dcm")
    refused(tmp_path, "E-OBLIQUE", "30.0 degrees")
    np.testing.assert_array_equal(read_volume(tmp_path, max_oblique_deg=45).hu, hu)


def test_V11_missing_slices_are_listed_or_kept_as_gaps(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING, top_mm=100)
    (tmp_path / "002.dcm").unlink()
    refused(tmp_path, "E-GAP", "5.00 mm apart, but 10.00 mm at z = 85.00", "allow_gaps")
    volume = read_volume(tmp_path, allow_gaps=True)
    np.testing.assert_allclose(volume.z_mm, [0, 5, 15, 20, 25, 30])
    assert volume.runs == (range(2), range(2, 6))
    np.testing.assert_array_equal(volume.hu, np.delete(hu, 2, axis=0))


def test_V12_slices_missing_at_an_end_leave_a_shorter_scan(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "000.dcm").unlink()
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu[1:])


def test_V25_uneven_spacing_is_a_gap_or_true_positions(tmp_path: Path, hu) -> None:
    places = [100.0, 98.92, 92.0, 85.0, 78.0, 71.0, 64.0]
    change = {k: put(ImagePositionPatient=[0, 0, z]) for k, z in enumerate(places)}
    write_series(tmp_path, hu, SPACING, change=change)
    refused(tmp_path, "E-GAP", "7.00 mm apart", "1.08 mm")
    np.testing.assert_allclose(
        read_volume(tmp_path, allow_gaps=True).z_mm, 100.0 - np.array(places)
    )


def test_slices_shifted_sideways_are_noted(tmp_path: Path, hu) -> None:
    change = {3: put(ImagePositionPatient=[25.0, -20.0, 85.0])}
    volume = read_volume(write_series(tmp_path, hu, SPACING, change=change))
    np.testing.assert_array_equal(volume.hu, hu)
    assert "slices are shifted sideways by up to 35.0 mm" in volume.notes


@pytest.mark.parametrize(
    ("elements", "code", "word"),
    [
        ({"ImagePositionPatient": None}, "E-GEOM", "no ImagePositionPatient"),
        ({"ImagePositionPatient": [0.0, 0.0]}, "E-GEOM", "not 3 numbers"),
        ({"ImagePositionPatient": [0.0, NAN, 0.0]}, "E-GEOM", "ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "E-GEOM", "no ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "E-GEOM", "no rotation"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "E-GEOM", "no rotation"),
        ({"PixelSpacing": None}, "E-SPACING", "no PixelSpacing"),
        ({"PixelSpacing": [0.0, 0.75]}, "E-SPACING", "> 0"),
        ({"PixelSpacing": [NAN, 0.75]}, "E-SPACING", "nan"),
        ({"PixelSpacing": [75.0, 75.0]}, "E-SPACING", "75"),
        ({"RescaleSlope": 0}, "E-RESCALE", "slope 0"),
        ({"RescaleSlope": NAN}, "E-RESCALE", "nan"),
        ({"RescaleSlope": None}, "E-NOHU", "no rescale"),
        ({"RescaleIntercept": None}, "E-NOHU", "no rescale"),
        ({"RescaleType": "OD"}, "E-NOHU", "OD"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "E-MONO1", "inverted"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "E-RGB", "PALETTE"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "E-RGB", "3 x RGB"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL"}, "E-RGB", "YBR"),
        ({"Modality": "MR"}, "E-MODALITY", "MR"),
        ({"PixelData": None}, "E-NOPIXELS", "before any pixel data"),
        ({"SeriesInstanceUID": None}, "E-HEADER", "SeriesInstanceUID"),
        ({"Rows": 65535, "Columns": 65535}, "E-TRUNC", "declares 8589672450 bytes"),
        ({"NumberOfFrames": 100000}, "E-TRUNC", "declares 6000000 bytes"),
        ({"NumberOfFrames": -1}, "E-NOPIXELS", "-1 frames"),
        ({"Rows": 0}, "E-NOPIXELS", "0 bytes"),
        ({"Rows": 2}, "E-HEADER", "its header accounts for 20"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("which", ["all", "one"])
def test_V21_V31_V32_V37_V41_V43_V56_V68_a_slice_that_cannot_be_trusted_refuses_its_series(
    tmp_path: Path, hu, elements, code: str, word: str, which: str
) -> None:
    change = put(**elements) if which == "all" else {4: put(**elements)}
    write_series(tmp_path, hu, SPACING, change=change)
    fault = refused(tmp_path, code, word)
    if which == "one":
        assert fault.path.endswith("004.dcm")


def test_V20_one_slice_of_another_size(tmp_path: Path, hu) -> None:
    small = put(Rows=3, PixelData=bytes(30))
    fault = refused(write_series(tmp_path, hu, SPACING, change={1: small}), "E-SIZE", "(3, 5)")
    assert fault.path.endswith("001.dcm")


def test_V21_one_slice_of_another_orientation(tmp_path: Path, hu) -> None:
    lean = put(ImageOrientationPatient=[1, 0, 0, 0, 0.996, 0.0893])
    fault = refused(write_series(tmp_path, hu, SPACING, change={0: lean}), "E-ORIENT", "0.996")
    assert fault.path.endswith("000.dcm")


def test_V32_one_slice_of_another_pixel_spacing(tmp_path: Path, hu) -> None:
    wide = put(PixelSpacing=[0.75, 0.6])
    fault = refused(write_series(tmp_path, hu, SPACING, change={6: wide}), "E-SPACING", "0.6")
    assert fault.path.endswith("006.dcm")


@pytest.mark.parametrize("element", [{"RescaleIntercept": 0}, {"RescaleSlope": 0.5}])
def test_V41_one_slice_of_another_rescale(tmp_path: Path, hu, element) -> None:
    fault = refused(write_series(tmp_path, hu, SPACING, change={5: put(**element)}), "E-RESCALE")
    assert fault.path.endswith("005.dcm")


def test_orientation_noise_in_the_fifth_digit_is_tolerated(tmp_path: Path, hu) -> None:
    noise = {
        k: put(
            ImageOrientationPatient=[1, 1e-5 * k, 0, 0, 1, -1e-5 * k],
            ImagePositionPatient=[-300, -400, 500 - 5 * k],
        )
        for k in range(7)
    }
    volume = read_volume(write_series(tmp_path, hu, SPACING, change=noise))
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.z_mm, np.arange(7) * 5.0, atol=0.01)


# --- several things in one folder --------------------------------------------------------------


def test_V16_several_series_must_be_chosen_from(tmp_path: Path, hu) -> None:
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
    write_series(tmp_path, hu, SPACING)
    names = [f"b{n}.dcm" for n in range(7)]
    write_series(
        tmp_path, hu, SPACING, names=names, SeriesInstanceUID="1.2.3", PatientID="MRN-0815"
    )
    one, other = find_volumes([tmp_path])
    assert one.subject != other.subject
    assert "its folder holds 2 patients" in one.read().notes


def test_V18_a_localizer_in_the_series_is_dropped_and_noted(tmp_path: Path, hu) -> None:
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
    write_series(tmp_path, hu[:2], SPACING, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refused(tmp_path, "E-LOCALIZER", "2 localizer views and no slice")
    cohort = find_volumes([tmp_path])
    assert not cohort
    assert cohort.skipped == {"E-LOCALIZER": 2}


def test_V68_other_modalities_are_passed_over_in_a_tree_but_not_where_named(tmp_path, hu) -> None:
    write_series(tmp_path / "ct", hu, SPACING)
    write_series(tmp_path / "mr", hu, SPACING, Modality="MR", SeriesInstanceUID="1.2.3")
    cohort = find_volumes([tmp_path])
    assert [entry.series_uid for entry in cohort] == [SERIES_UID]
    assert cohort.skipped == {"E-MODALITY": 7}
    assert [fault.code for fault in cohort.passed_over] == ["E-MODALITY"]
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)
    refused(tmp_path / "mr" / "000.dcm", "E-MODALITY", "MR")


def test_V13_repeated_slices_are_dropped_and_noted(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "002.dcm").read_bytes())
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu, hu)
    assert "1 repeated slices dropped" in volume.notes


def test_V14_two_pictures_at_one_position(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    save(slice_dataset(hu[2] + 1, (-10, -20, 90.0), (0.75, 0.5)), tmp_path / "rival.dcm")
    refused(tmp_path, "E-DUP", "002.dcm", "rival.dcm", "90.0")


@pytest.mark.parametrize(
    "keyword", ["TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime"]
)
def test_V15_phases_of_one_series_are_volumes_of_their_own(tmp_path: Path, hu, keyword) -> None:
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
    for phase in (0, 1):
        names = [f"{phase}{n}.dcm" for n in range(7)]
        write_series(tmp_path, hu + phase, SPACING, names=names)
    refused(tmp_path, "E-4D", "2 different pictures of each of 7 slices")


def test_two_acquisitions_along_the_body_are_one_scan(tmp_path: Path, hu) -> None:
    change = {k: put(AcquisitionNumber=1 + k // 4) for k in range(7)}
    np.testing.assert_array_equal(
        read_volume(write_series(tmp_path, hu, SPACING, change=change)).hu, hu
    )


# --- bytes -------------------------------------------------------------------------------------


def test_V08_every_cut_of_a_slice_refuses_its_series(tmp_path: Path, hu) -> None:
    path = write_series(tmp_path, hu[:2], SPACING) / "000.dcm"  # an end: its loss leaves no gap
    whole = path.read_bytes()
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        with pytest.raises(VolumeRefused) as caught:
            read_volume(tmp_path)
        assert caught.value.path == str(path), f"cut at {keep}: {caught.value}"


def test_V08_a_truncated_slice_states_both_byte_counts(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "003.dcm").write_bytes((tmp_path / "003.dcm").read_bytes()[:-20])
    refused(tmp_path, "E-TRUNC", "declares 60 bytes of pixels, holds 40", "003.dcm")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("bad.dcm", b"", "E-EMPTY"),
        ("bad.dcm", b"not found", "E-NOTDICOM"),
        ("bad.DCM", b"<html>login</html>", "E-NOTDICOM"),
        ("noext", bytes(128) + b"DICM" + b"\xff" * 50, "E-NOTDICOM"),
    ],
)
def test_V09_a_broken_slice_refuses_the_series_of_its_folder(
    tmp_path: Path, hu, name: str, content: bytes, code: str
) -> None:
    write_series(tmp_path / "a", hu, SPACING)
    write_series(tmp_path / "b", hu, SPACING, SeriesInstanceUID="1.2.3")
    (tmp_path / "a" / name).write_bytes(content)
    refused(tmp_path / "a", code, name)
    bad, good = find_volumes([tmp_path])
    assert bad.refusal is not None
    assert bad.refusal.code == code
    np.testing.assert_array_equal(good.read().hu, hu)


def test_V09_foreign_files_are_skipped_and_counted(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "notes.txt").write_text("seen by A.")
    (tmp_path / "empty").touch()
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "000.dcm").read_bytes())
    cohort = find_volumes([tmp_path])
    assert cohort.skipped == {"not a volume": 1, "E-EMPTY": 1, "hidden": 1, "DICOMDIR": 1}
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def test_V09_broken_files_without_a_series_are_entries(tmp_path: Path) -> None:
    (tmp_path / "bad.dcm").write_text("not found")
    refused(tmp_path, "E-NOTDICOM", "looks like text")


def test_V54_a_file_without_meta_information_is_no_dicom(tmp_path: Path, hu) -> None:
    path = save(slice_dataset(hu[0], (0, 0, 0)), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[132:])
    refused(path, "E-NOTDICOM", "no DICOM")


def test_V54_a_file_without_a_transfer_syntax_is_no_dicom(tmp_path: Path, hu) -> None:
    path = save(slice_dataset(hu[0], (0, 0, 0)), tmp_path / "a.dcm")
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI")
    length = 8 + struct.unpack_from("<H", content, at + 6)[0]
    group_length = struct.unpack_from("<I", content, 140)[0]
    content = (
        content[:140]
        + struct.pack("<I", group_length - length)
        + content[144:at]
        + content[at + length :]
    )
    path.write_bytes(content)
    refused(path, "E-NOTDICOM", "no transfer syntax")


@pytest.mark.parametrize("levels", [2_000, 20_000])
def test_V59_nested_sequences_do_not_end_the_process(tmp_path: Path, hu, levels: int) -> None:
    path = save(slice_dataset(hu[0], (0, 0, 0)), tmp_path / "a.dcm")
    content = path.read_bytes()
    at = content.index(b"\x08\x00\x60\x00CS")
    item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(content[:at] + item * levels + end * levels + content[at:])
    refused(path, "E-HEADER", "damaged")


# --- pixels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_V50_other_byte_orders_are_read_equal(tmp_path: Path, hu, syntax) -> None:
    little = syntax == ImplicitVRLittleEndian
    for k, one in enumerate(hu):
        ds = slice_dataset(one, (0, 0, -5.0 * k))
        ds.file_meta.TransferSyntaxUID = syntax
        if not little:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
        dcmwrite(
            tmp_path / f"{k}.dcm",
            ds,
            implicit_vr=little,
            little_endian=little,
            force_encoding=True,
        )
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def compress(ds: FileDataset, syntax: str) -> FileDataset:
    ds.compress(syntax, generate_instance_uid=False)
    return ds


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_V51_lossless_compression_is_bit_equal(tmp_path: Path, syntax) -> None:
    hu = scan((3, 32, 32))
    for k, one in enumerate(hu):
        save(compress(slice_dataset(one, (0, 0, -5.0 * k)), syntax), tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def test_V52_lossy_compression_is_noted(tmp_path: Path, hu) -> None:
    volume = read_volume(write_series(tmp_path, hu, SPACING, LossyImageCompression="01"))
    assert "pixels were compressed with loss" in volume.notes


@pytest.mark.parametrize("syntax", [MPEG2MPML, "1.2.826.0.1.3680043.8.498.77"])
def test_V53_a_syntax_that_is_not_decoded_is_named(tmp_path: Path, syntax: str) -> None:
    path = save(
        compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), RLELossless), tmp_path / "a.dcm"
    )
    content = path.read_bytes()
    old, new = str(RLELossless).encode(), str(syntax).encode()
    old, new = old + b"\0" * (len(old) % 2), new + b"\0" * (len(new) % 2)
    content = content.replace(
        struct.pack("<H", len(old)) + old, struct.pack("<H", len(new)) + new, 1
    )
    grown = struct.unpack_from("<I", content, 140)[0] + len(new) - len(old)
    path.write_bytes(content[:140] + struct.pack("<I", grown) + content[144:])
    refused(path, "E-CODEC", str(syntax))


def test_V53_damaged_htj2k_is_a_codec_fault(tmp_path: Path) -> None:
    ds = compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), RLELossless)
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless
    refused(save(ds, tmp_path / "a.dcm"), "E-CODEC", "High-Throughput")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@settings(max_examples=40)
@given(keep=st.integers(0, 999))
def test_V08_V60_any_cut_of_a_compressed_slice_is_refused(tmp_path_factory, syntax, keep) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.dcm"
    save(compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), syntax), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep * len(whole) // 1000])
    with pytest.raises(VolumeRefused):
        read_volume(path)


def test_V60_a_truncated_codestream_is_a_codec_fault(tmp_path: Path) -> None:
    ds = compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), JPEG2000Lossless)
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([stream[: len(stream) // 2]])
    refused(save(ds, tmp_path / "a.dcm"), "E-CODEC", "JPEG 2000")


def test_V55_a_deflated_slice_is_read_under_the_ceiling(tmp_path: Path, hu) -> None:
    for k, one in enumerate(hu):
        ds = slice_dataset(one, (0, 0, -5.0 * k))
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        save(ds, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)
    refused(tmp_path / "0.dcm", "E-SIZE-LIMIT", max_bytes=59)


def test_V57_a_deflate_bomb_in_dicom_is_stopped_at_the_ceiling(tmp_path: Path, hu) -> None:
    from ubr_pretrain.dicom_header import read_dicom_header

    ds = slice_dataset(hu[0], (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ds, tmp_path / "a.dcm")
    content = path.read_bytes()
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    inside = zlib.decompress(content[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(inside + bytes(8 << 20)) + packer.flush()
    path.write_bytes(content[:start] + bomb)
    with pytest.raises(VolumeRefused, match=r"^E-SIZE-LIMIT .* inflates to more than 1000000"):
        read_dicom_header(path, 1_000_000)


def test_V56_a_compressed_slice_of_absurd_size_is_refused_before_decoding(tmp_path: Path) -> None:
    ds = compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), RLELossless)
    ds.Rows = ds.Columns = 65535
    refused(save(ds, tmp_path / "a.dcm"), "E-SIZE-LIMIT", "65535 x 65535 pixels, limit 4096")


def test_V56_the_whole_series_has_a_ceiling(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING)
    refused(tmp_path, "E-SIZE-LIMIT", "420 bytes of HU, limit 419", max_bytes=419)


@pytest.mark.parametrize("padding_hu", [-2000, -3024])
def test_V44_padding_below_air_becomes_air(tmp_path: Path, hu, padding_hu: int) -> None:
    padded = hu.copy()
    padded[:, 0] = padding_hu
    volume = read_volume(
        write_series(tmp_path, padded, SPACING, PixelPaddingValue=padding_hu + 1024)
    )
    assert (volume.hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 1:], hu[:, 1:])


def test_V44_padding_at_the_top_of_the_scale_becomes_air(tmp_path: Path, hu) -> None:
    raw = (hu.astype(np.int32) + 1024).astype(np.uint16)
    raw[:, 0] = 63536
    change = {
        k: put(PixelRepresentation=0, PixelData=one.tobytes(), PixelPaddingValue=63536)
        for k, one in enumerate(raw)
    }
    volume = read_volume(write_series(tmp_path, hu, SPACING, change=change))
    assert (volume.hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 1:], hu[:, 1:])


def test_V45_a_modality_lut_is_refused(tmp_path: Path, hu) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [2, 0, 16], "US", bytes(4)
    write_series(tmp_path, hu, SPACING, change=put(ModalityLUTSequence=Sequence([lut])))
    refused(tmp_path, "E-RESCALE", "Modality LUT")


def test_V46_an_enhanced_ct_uses_its_functional_groups(tmp_path: Path, hu) -> None:
    path = save(enhanced_dataset(hu, SPACING), tmp_path / "enhanced.dcm")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx == SPACING


def test_V46_an_enhanced_ct_without_a_rescale_is_not_hu(tmp_path: Path, hu) -> None:
    ds = enhanced_dataset(hu, SPACING, with_rescale=False)
    refused(save(ds, tmp_path / "enhanced.dcm"), "E-NOHU", "no rescale")


def test_V46_a_plain_multi_frame_file_has_no_geometry(tmp_path: Path, hu) -> None:
    ds = slice_dataset(hu[0], (0, 0, 0), NumberOfFrames=7, PixelData=bytes(420))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(ds, keyword)
    refused(save(ds, tmp_path / "frames.dcm"), "E-GEOM", "no ImagePositionPatient")


def test_S03_burned_in_text_is_noted(tmp_path: Path, hu) -> None:
    volume = read_volume(write_series(tmp_path, hu, SPACING, BurnedInAnnotation="YES"))
    assert "text may be burned into the pixels" in volume.notes


def test_S01_nothing_of_the_patient_is_in_an_entry_or_a_volume(tmp_path: Path, hu) -> None:
    write_series(tmp_path, hu, SPACING, PatientBirthDate="19400101", AccessionNumber="ACC-77")
    (entry,) = find_volumes([tmp_path])
    volume = entry.read()
    told = " ".join([entry.name, entry.subject, volume.source, *volume.notes])
    for secret in ("Doe", "Jane", "MRN-4711", "19400101", "ACC-77", SERIES_UID):
        assert secret not in told
