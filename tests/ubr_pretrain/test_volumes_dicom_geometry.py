"""DICOM geometry: order and distances come from the headers of every slice."""

import random
from pathlib import Path

import numpy as np
import pytest
from highdicom.spatial import get_series_volume_positions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from tests.ubr_pretrain.dicom_writer import (
    put,
    save,
    slice_dataset,
    write_series,
)
from tests.ubr_pretrain.stored_volumes import refused, scan
from ubr_pretrain.ct import STEP_TOLERANCE, VolumeRefused
from ubr_pretrain.volumes import find_volumes, read_volume

SHAPE = (7, 6, 5)
SPACING = (5.0, 0.75, 0.5)
NAN = float("nan")


@pytest.fixture
def hu() -> np.ndarray:
    return scan(SHAPE)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), reverse=st.booleans())
def test_V26_file_names_and_instance_numbers_do_not_matter(tmp_path_factory, seed, reverse) -> None:
    """The same volume: slices are ordered by their positions alone."""
    hu, folder = scan(SHAPE), tmp_path_factory.mktemp("series")
    names = [f"{n:02d}.dcm" for n in range(len(hu))]
    random.Random(seed).shuffle(names)
    change = {k: put(InstanceNumber=len(hu) - k) for k in range(len(hu))} if reverse else None
    volume = read_volume(write_series(folder, hu, SPACING, names=names, change=change))
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx == SPACING
    np.testing.assert_allclose(volume.z_mm, np.arange(7) * 5.0)


def test_V26_feet_first_and_negative_positions_are_the_same_scan(tmp_path: Path, hu) -> None:
    """The same volume, with a note on the patient's position."""
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
    """Read with its thickness as the step; without one, E-SPACING says what to give."""
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
    """Turned to axial slices where these are less than 3 mm apart, else E-NONAXIAL."""
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
    """Training: E-TILT above 5 degrees; scoring: read at slice-normal distances, with a note."""
    folder = tilted(tmp_path, hu, -18.5)
    refused(folder, "E-TILT", "18.5 degrees, limit 5")
    volume = read_volume(folder, max_tilt_deg=30)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx[0] == pytest.approx(2.371, abs=5e-4)
    np.testing.assert_allclose(np.diff(volume.z_mm), 2.5 * np.cos(np.radians(18.5)), rtol=1e-6)
    assert any("tilted by 18.5" in note for note in volume.notes)


def test_V24_a_slight_tilt_is_noted(tmp_path: Path, hu) -> None:
    """Read, with the degrees in a note."""
    assert any("tilted by 3.0" in note for note in read_volume(tilted(tmp_path, hu, 3)).notes)


def test_V23_an_oblique_series_is_refused(tmp_path: Path, hu) -> None:
    """E-OBLIQUE with the degrees; read where Python gives a larger limit, as the hint tells."""
    lean = np.radians(30)
    orientation = (1, 0, 0, 0, np.cos(lean), np.sin(lean))
    for k, one in enumerate(hu):
        place = -5.0 * k * np.array([0, -np.sin(lean), np.cos(lean)])
        save(slice_dataset(one, place, orientation=orientation), tmp_path / f"{k}.dcm")
    refused(tmp_path, "E-OBLIQUE", "30.0 degrees", "in Python, read_volume(..., max_oblique_deg=")
    np.testing.assert_array_equal(read_volume(tmp_path, max_oblique_deg=45).hu, hu)


def test_V11_missing_slices_are_listed_or_kept_as_gaps(tmp_path: Path) -> None:
    """E-GAP with the length of every gap and the z below it; where Python says that gaps are
    allowed, as the hint tells, every slice keeps its true place."""
    hu = scan((10, 6, 5))
    write_series(tmp_path, hu, SPACING, top_mm=100)
    for missing in (2, 6, 7):
        (tmp_path / f"{missing:03d}.dcm").unlink()
    refused(
        tmp_path,
        "E-GAP",
        "5.00 mm apart, but 15.00 mm at z = 60.00, 10.00 mm at z = 85.00  in Python, "
        "read_volume(..., allow_gaps=True) keeps the true positions",
    )
    volume = read_volume(tmp_path, allow_gaps=True)
    np.testing.assert_allclose(volume.z_mm, [0, 5, 15, 20, 25, 40, 45])
    assert volume.runs == (range(2), range(2, 5), range(5, 7))
    np.testing.assert_array_equal(volume.hu, np.delete(hu, [2, 6, 7], axis=0))


def test_V12_slices_missing_at_an_end_leave_a_shorter_scan(tmp_path: Path, hu) -> None:
    """Read: nothing tells such a scan from a shorter one."""
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "000.dcm").unlink()
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu[1:])


def test_V25_uneven_spacing_is_a_gap_or_true_positions(tmp_path: Path, hu) -> None:
    """Training: E-GAP with the steps; scoring: every slice at its true place."""
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
        ({"SamplesPerPixel": 65535}, "E-HEADER", "65535 samples a pixel of MONOCHROME2"),
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
    """The series is refused by the code of its fault, with the file and the value."""
    change = put(**elements) if which == "all" else {4: put(**elements)}
    write_series(tmp_path, hu, SPACING, change=change)
    fault = refused(tmp_path, code, word)
    if which == "one":
        assert fault.path.endswith("004.dcm")


@pytest.mark.parametrize(
    ("small", "odd", "words"),
    [
        ([1], "001.dcm", "rows, columns (3, 5), its series has (6, 5)"),
        ([4, 5, 6], "004.dcm", "rows, columns (3, 5), its series has (6, 5)"),
        ([0, 1, 2, 3], "004.dcm", "rows, columns (6, 5), its series has (3, 5)"),
    ],
    ids=["one", "three", "most"],
)
def test_V20_slices_of_another_size(tmp_path: Path, hu, small, odd: str, words: str) -> None:
    """E-SIZE with the first file that departs from the most, its size and theirs, be it one slice
    or half a series: it is one result and never split by size, since nothing tells which part is
    the scan."""
    change = {k: put(Rows=3, PixelData=bytes(30)) for k in small}
    fault = refused(write_series(tmp_path, hu, SPACING, change=change), "E-SIZE", words)
    assert fault.path.endswith(odd)
    (entry,) = find_volumes([tmp_path])
    with pytest.raises(VolumeRefused, match=r"^E-SIZE "):
        entry.read()


def test_V21_one_slice_of_another_orientation(tmp_path: Path, hu) -> None:
    """E-ORIENT with the file, its direction and the others'."""
    lean = put(ImageOrientationPatient=[1, 0, 0, 0, 0.996, 0.0893])
    fault = refused(write_series(tmp_path, hu, SPACING, change={0: lean}), "E-ORIENT", "0.996")
    assert fault.path.endswith("000.dcm")


def test_V32_one_slice_of_another_pixel_spacing(tmp_path: Path, hu) -> None:
    """E-SPACING with the file, its pixels and the others'."""
    wide = put(PixelSpacing=[0.75, 0.6])
    fault = refused(write_series(tmp_path, hu, SPACING, change={6: wide}), "E-SPACING", "0.6")
    assert fault.path.endswith("006.dcm")


@pytest.mark.parametrize("element", [{"RescaleIntercept": 0}, {"RescaleSlope": 0.5}])
def test_V41_one_slice_of_another_rescale(tmp_path: Path, hu, element) -> None:
    """E-RESCALE with the file, its slope and intercept and the others'."""
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


@given(gap=st.booleans(), tilt_deg=st.sampled_from([0.0, 3.0]), step_mm=st.floats(0.6, 8.0))
@settings(max_examples=20, deadline=None)
def test_spacing_and_regularity_agree_with_highdicom(
    tmp_path_factory, gap, tilt_deg, step_mm
) -> None:
    hu, folder = scan(SHAPE), tmp_path_factory.mktemp("series")
    lean = np.radians(tilt_deg)
    orientation = (1, 0, 0, 0, np.cos(lean), np.sin(lean))
    normal = np.cross(orientation[:3], orientation[3:])
    for k, one in enumerate(hu):
        place = -(k + (gap and k > 3)) * step_mm * normal
        save(slice_dataset(one, place, orientation=orientation), folder / f"{k}.dcm")
    slices = [dcmread(file) for file in folder.iterdir()]
    judged_mm, order = get_series_volume_positions(slices, rtol=STEP_TOLERANCE)
    if gap:
        assert judged_mm is None
        refused(folder, "E-GAP")
        return
    volume = read_volume(folder)
    assert volume.spacing_mm_zyx[0] == pytest.approx(judged_mm, rel=1e-6)
    assert sorted(order) == list(range(len(volume.z_mm)))
