"""The synthetic DeepLesion: the official layout and its quirks, read back by other libraries."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from converters.conversion import ConversionConfig, convert_deeplesion
from ubr_pretrain.phantom_deeplesion import write_deeplesion
from ubr_pretrain.volumes import read_volume

HEADER = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,"
    "Bounding_boxes,Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,"
    "Possibly_noisy,Slice_range,Spacing_mm_px_,Image_size,DICOM_windows,Patient_gender,"
    "Patient_age,Train_Val_Test"
)
PATIENTS = 10
SIZE = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deeplesion")
    for series in write_deeplesion(out, PATIENTS, seed=5, size_px=SIZE):
        assert series.is_dir()
    return out


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "DL_info.csv")


def _numbers(column: pd.Series) -> np.ndarray:
    return np.array([[float(v) for v in cell.split(",")] for cell in column])


def _png(folder: Path, name: str) -> Path:
    series, number = name.rsplit("_", 1)
    return folder / "Images_png" / series / number


def test_header_is_the_official_one(folder: Path):
    assert (folder / "DL_info.csv").read_text().splitlines()[0] == HEADER


def test_slices_are_true_16_bit_and_hold_hounsfield_units(folder: Path, table: pd.DataFrame):
    for name in table.File_name:
        picture = cv2.imread(str(_png(folder, name)), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint16
        assert picture.shape == (SIZE, SIZE)
        hu = picture.astype(int) - 32768
        assert hu.min() >= -1024
        assert -1024 <= np.median(hu[:3]) < -900
        assert (np.abs(hu - 40) < 60).sum() > 100


def test_names_and_index_columns_agree(table: pd.DataFrame):
    for row in table.itertuples():
        name = (
            f"{row.Patient_index:06d}_{row.Study_index:02d}_{row.Series_ID:02d}"
            f"_{row.Key_slice_index:03d}.png"
        )
        assert row.File_name == name


def test_box_is_that_of_the_measurements_plus_five_pixels(table: pd.DataFrame):
    points = _numbers(table.Measurement_coordinates).reshape(-1, 4, 2)
    boxes = _numbers(table.Bounding_boxes)
    expected = np.concatenate([points.min(1) - 5, points.max(1) + 5], 1)
    np.testing.assert_allclose(boxes, expected, atol=2e-3)
    assert (boxes > -1).all()
    assert (boxes <= SIZE + 1).all()


def test_diameters_are_those_of_the_measurements(table: pd.DataFrame):
    points = _numbers(table.Measurement_coordinates).reshape(-1, 4, 2)
    diameters = _numbers(table.Lesion_diameters_Pixel_)
    measured = np.linalg.norm(points[:, [0, 2]] - points[:, [1, 3]], axis=2)
    np.testing.assert_allclose(diameters, measured, atol=5e-3)
    assert (diameters[:, 0] >= diameters[:, 1]).all()


def test_boxes_count_pixels_from_one(folder: Path, table: pd.DataFrame):
    # In the lung a lesion is a bright blob: its centre of mass tells where counting starts.
    offsets = []
    for row in table[table.DICOM_windows == "-1500, 500"].itertuples():
        hu = cv2.imread(str(_png(folder, row.File_name)), cv2.IMREAD_UNCHANGED).astype(int) - 32768
        x1, y1, x2, y2 = (float(v) for v in row.Bounding_boxes.split(","))
        x, y = (x1 + x2) / 2 - 1, (y1 + y2) / 2 - 1
        r = int(max(x2 - x1, y2 - y1) / 2 - 5) + 1
        ys, xs = np.mgrid[round(y) - r : round(y) + r + 1, round(x) - r : round(x) + r + 1]
        mass = np.clip(hu[ys, xs] + 800, 0, 900) ** 2
        offsets.append(((mass * xs).sum() / mass.sum() - x, (mass * ys).sum() / mass.sum() - y))
    assert len(offsets) >= 2
    assert np.abs(np.median(offsets, axis=0)).max() < 0.5


def test_several_rows_share_an_image_and_agree_on_it(table: pd.DataFrame):
    per_image = table.groupby("File_name")
    assert per_image.size().max() >= 2
    shared = ["Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender", "Train_Val_Test"]
    assert (per_image[shared].nunique() == 1).all().all()


def test_rows_are_in_no_order(table: pd.DataFrame):
    assert not table.Patient_index.is_monotonic_increasing
    assert not table.Patient_index.is_monotonic_decreasing


def test_split_is_by_patient_and_types_are_hidden_in_training(table: pd.DataFrame):
    assert set(table.Train_Val_Test) == {1, 2, 3}
    assert (table.groupby("Patient_index").Train_Val_Test.nunique() == 1).all()
    train = table.Train_Val_Test == 1
    assert (table.Coarse_lesion_type[train] == -1).all()
    assert table.Coarse_lesion_type[~train].between(1, 8).all()


def test_patient_numbers_have_holes(table: pd.DataFrame):
    patients = sorted(table.Patient_index.unique())
    assert len(patients) == PATIENTS
    assert patients[-1] > PATIENTS


def test_a_few_rows_are_noisy_and_a_few_ages_unknown(table: pd.DataFrame):
    assert 1 <= table.Possibly_noisy.sum() <= 0.2 * len(table)
    assert 1 <= table.Patient_age.isna().sum() <= 0.3 * len(table)
    assert table.Patient_age.dropna().between(18, 95).all()


def test_folders_hold_exactly_the_slices_of_their_ranges(folder: Path, table: pd.DataFrame):
    disjoint = 0
    series = table.File_name.str.rsplit("_", n=1).str[0]
    for name, rows in table.groupby(series):
        wanted: set[int] = set()
        for first, last in _numbers(rows.Slice_range).astype(int):
            wanted |= set(range(first, last + 1))
        files = (folder / "Images_png" / str(name)).iterdir()
        assert {int(file.stem) for file in files} == wanted
        assert all(key in wanted for key in rows.Key_slice_index)
        ordered = sorted(wanted)
        disjoint += any(b - a > 1 for a, b in itertools.pairwise(ordered))
        volume = read_volume(folder / "Images_png" / str(name))
        assert volume.num_slices == len(wanted)
    assert disjoint >= 1


def test_spacing_ends_with_the_slice_interval_and_ranges_reach_30_mm(table: pd.DataFrame):
    spacing = _numbers(table.Spacing_mm_px_)
    assert set(spacing[:, 2]) <= {1.0, 2.0, 2.5, 5.0}
    np.testing.assert_allclose(spacing[:, 0], spacing[:, 1])
    reach = _numbers(table.Slice_range) - table.Key_slice_index.to_numpy()[:, None]
    reach_mm = np.abs(reach) * spacing[:, 2:]
    assert reach_mm.max() <= 35
    assert np.median(reach_mm) >= 28


def test_normalized_location_lies_in_the_body_and_grows_towards_the_feet(table: pd.DataFrame):
    location = _numbers(table.Normalized_lesion_location)
    assert ((location >= 0) & (location <= 1)).all()
    series = table.File_name.str.rsplit("_", n=1).str[0]
    table = table.assign(series=series, z=location[:, 2])
    steps = table.sort_values(["series", "Key_slice_index"]).groupby("series").z.diff().dropna()
    assert len(steps) > 5
    assert (steps >= 0).all()


def test_converter_takes_every_row(folder: Path, tmp_path: Path):
    conversion = convert_deeplesion(
        folder / "DL_info.csv", tmp_path / "coco", ConversionConfig(), folder / "Images_png"
    )
    assert not conversion.refused


def test_same_seed_gives_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        list(write_deeplesion(tmp_path / name, 3, seed=1, size_px=64))
    files = sorted(f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*.*"))
    assert files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("patients", "size", "words"),
    [(2, 128, "2 patients: each of the three splits"), (3, 32, "size_px 32: lesions need")],
)
def test_an_impossible_request_is_refused_at_once(
    tmp_path: Path, patients: int, size: int, words: str
):
    with pytest.raises(ValueError, match=words):
        write_deeplesion(tmp_path / "out", patients, 0, size)
    assert not (tmp_path / "out").exists()
