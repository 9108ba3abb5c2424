"""Rows of one value in the midst of a body: what a damaged disk leaves, and no scanner does."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import write_itk
from ubr_pretrain.blank_rows import looks_damaged
from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.volumes import find_volumes, read_volume

ROW_BYTES = 2 * 40


def body(num_slices: int = 7) -> np.ndarray:
    """Soft tissue in air: rows 10 to 30 of 40 are body."""
    rng = np.random.default_rng(1)
    hu = -1000 + rng.integers(-20, 20, (num_slices, 40, 40))
    hu[:, 10:30, 8:32] += 1040
    return hu.astype(np.int16)


def holed(first: int, length: int) -> Volume:
    """A body in whose stored voxels a run of pixels is zero."""
    hu = body()
    hu.reshape(-1)[first : first + length] = 0
    return Volume(hu, (5.0, 2.0, 2.0))


@given(slice_index=st.integers(0, 6), row=st.integers(11, 25), column=st.integers(0, 39))
def test_V10_two_lost_rows_inside_a_body_are_noticed(slice_index, row, column) -> None:
    """A note says which slice and row have one value in the midst of the body."""
    said = looks_damaged(holed(40 * (40 * slice_index + row) + column, 3 * 40))
    assert said is not None
    assert f"slice {slice_index}, row {row + (column > 0)} (0 HU)" in said


@pytest.mark.parametrize(
    ("first_row", "rows"), [(3 * 40 + 20, 20), (3 * 40 + 20, 30), (3 * 40, 40), (2 * 40, 4 * 40)]
)
def test_V10_a_lost_end_of_a_slice_or_a_whole_slice_is_noticed(first_row: int, rows: int) -> None:
    """A note says the same of rows up to the end of a slice, on into the next, and whole slices."""
    assert looks_damaged(holed(40 * first_row, 40 * rows)) is not None


def test_V10_the_note_reaches_the_results_and_the_log_of_a_training(tmp_path: Path) -> None:
    """A slice with a hole is used, and the note is in the results and on stderr of a training."""
    folder = write_series(tmp_path / "series", body(), (5.0, 2.0, 2.0))
    assert not read_volume(folder).notes
    path = folder / "003.dcm"
    content = bytearray(path.read_bytes())
    content[-20 * ROW_BYTES : -15 * ROW_BYTES] = bytes(5 * ROW_BYTES)
    path.write_bytes(content)
    (note,) = read_volume(folder).notes
    assert note == (
        "damaged? 5 rows of one value inside the body, the first in slice 3, row 20 (-1024 HU): "
        "a lost block, or cut out?"
    )
    said: list[str] = []
    entries = find_volumes([folder])
    for _ in range(2):  # decoded, and taken from the store
        said.clear()
        stored, _ = build_slice_store(
            tmp_path / "store", entries, InputSpec(size_px=32), min_slices=3, say=said.append
        )
        assert stored[0].notes == (note,)
        assert f"{entries[0].name}: {note}" in said


def test_air_masks_and_padding_are_no_damage(tmp_path: Path) -> None:
    hu = body()
    assert looks_damaged(Volume(hu, (5.0, 2.0, 2.0))) is None
    hu[:, :10], hu[:, 30:] = -1024, -1024
    hu[..., :8], hu[..., 32:] = -1024, -1024
    hu[-2:] = -1024  # a scan that ends in padding
    assert read_volume(write_itk(tmp_path / "masked.nii", hu, spacing=(5.0, 2.0, 2.0))).notes == ()


def test_a_masked_chin_above_a_masked_chest_is_no_damage() -> None:
    hu = np.full((20, 40, 40), -1024, np.int16)
    hu[:, 15:30, 8:32] = body(20)[:, 12:27, 8:32]
    hu[:6, 5:15, 14:26] = hu[14:, 5:15, 14:26] = 40 + np.arange(12, dtype=np.int16)
    assert looks_damaged(Volume(hu, (3.0, 2.0, 2.0))) is None


def test_a_column_of_tissue_in_a_row_of_air_is_seen_before_it_is_called_blank() -> None:
    hu = body()
    hu[3, 20] = -1000
    hu[3, 20, 11] = 700  # between the columns that are looked at first
    assert looks_damaged(Volume(hu, (5.0, 2.0, 2.0))) is None
