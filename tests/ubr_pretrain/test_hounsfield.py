"""Stored numbers to whole HU against float64, and the judgement whether they are HU."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.hounsfield import looks_like_hu, raw_to_hu

PATH = Path("some/scan.nii")
DTYPES = st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32])


@st.composite
def stored(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(DTYPES))
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.iinfo(np.int16)
    low, high = max(limits.min, -40000), min(limits.max, 70000)
    edges = [low, high, *(v for v in (-1025, -1024, 0, 1, 32767, 32768) if low <= v <= high)]
    values = st.sampled_from(edges) | st.integers(low, high)
    shape = (draw(st.integers(1, 3)), 2, 2)
    return draw(arrays(np.int64, shape, elements=values)).astype(dtype)


@given(
    stored(),
    st.sampled_from([1.0, 2.0, 3.0, -1.0, 0.5, 1.5, 20000.0]),
    st.sampled_from([0.0, -1024.0, 24.0, -8192.0, -20000.0, 10.25]),
)
def test_V41_V44_V49_hu_are_those_of_float64_or_refused(raw, slope, intercept) -> None:
    """Slope and intercept are applied as in float64, padding is clipped with a note, and what no
    int16 holds is refused with the number."""
    exact = raw.astype(np.float64) * slope + intercept
    if exact.max() > 32767:
        first = next(part.max() for part in exact if part.max() > 32767)
        with pytest.raises(VolumeRefused) as refused:
            raw_to_hu(raw, slope, intercept, PATH)
        assert str(refused.value) == f"E-NOHU  some/scan.nii  holds {first:g}, above 32767: no HU"
        return
    hu, notes = raw_to_hu(raw, slope, intercept, PATH)
    np.testing.assert_array_equal(hu, np.maximum(np.rint(exact), -1024))
    low = exact.min()
    assert notes == ((f"padding down to {low:g} HU clipped to -1024",) if low < -1024 else ())


def test_V47_numbers_that_are_none_are_counted_over_all_slices() -> None:
    """NaN and infinite voxels are refused with their number in the whole scan."""
    raw = np.zeros((3, 4, 4), np.float32)
    raw[0, 0, 0], raw[2, 1, 1:3] = np.nan, (np.inf, -np.inf)
    with pytest.raises(VolumeRefused, match=r"^E-NAN  some/scan\.nii  3 voxels are NaN or infin"):
        raw_to_hu(raw, 1.0, 0.0, PATH)
    with pytest.raises(VolumeRefused, match=r"^E-NAN .*16 voxels"):
        raw_to_hu(np.full((1, 4, 4), 3e38), 1e300, 0.0, PATH)


def of(*values: int) -> Volume:
    """A slice of 20 x 20 of the last value, with the others at even rows and columns."""
    hu = np.full((1, 20, 20), values[-1], np.int16)
    hu[0, 0, : 2 * len(values[:-1]) : 2] = values[:-1]
    return Volume(hu, (5.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((-1000, -1000), "every voxel is -1000"),
        ((-1, 1), "values lie in -1..1: already windowed?"),
        ((0, 1), "already windowed?"),
        ((0, 2), "values lie in 0..2: an 8-bit picture?"),
        ((0, 255), "an 8-bit picture?"),
        ((0, 256), "the lowest value is 0, so there is no air: offset by 1024?"),
        ((-1, 2), "the lowest value is -1"),
        ((-199, 40), "the lowest value is -199"),
        ((-200, 40), None),
        ((40, -1000), None),  # a pixel of a hundred that are looked at is enough
        ((300, -1000), "0 % of the voxels lie in -200..300"),
        ((299, -1000), None),
        ((-200, -1000), "no soft tissue"),
        ((-199, -1000), None),
    ],
)
def test_V42_V48_V71_every_limit_of_the_judgement(values: tuple[int, ...], word) -> None:
    """Constant, windowed, 8-bit and shifted numbers are each told apart from HU, at their limit."""
    doubt = looks_like_hu(of(*values))
    assert doubt is None if word is None else word in doubt


def test_soft_tissue_anywhere_in_a_scan_is_found_and_its_share_is_of_all_slices() -> None:
    for at in range(5):
        hu = np.full((5, 20, 20), -1000, np.int16)
        hu[at, ::2, :10] = 40  # 50 of 500 that are looked at
        assert looks_like_hu(Volume(hu, (5.0, 1.0, 1.0))) is None
        hu[at] = -1000
        hu[at, 0, 0:8:2] = 40  # 4 of 500
        assert "0.8 % of the voxels" in looks_like_hu(Volume(hu, (5.0, 1.0, 1.0)))
