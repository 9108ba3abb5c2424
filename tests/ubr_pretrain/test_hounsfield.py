"""Stored numbers to whole HU against float64, and the judgement whether they are HU."""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.hounsfield import looks_like_hu, raw_to_hu
from ubr_pretrain.phantom import render, sample_scan, sample_subject

PATH = Path("some/scan.nii")
EDGES = (-40000, -32769, -32768, -1025, -1024, -1, 0, 1, 127, 255, 32767, 32768, 70000)


def spans(dtype: str) -> Iterator[np.ndarray]:
    """Every run of the edges that the type has room for, in one slice or in a slice each."""
    limits = np.iinfo(dtype) if dtype[0] in "iu" else np.iinfo("i4")
    edges = [edge for edge in EDGES if limits.min <= edge <= limits.max]
    for first, stop in itertools.combinations(range(len(edges) + 1), 2):
        values = np.array(edges[first:stop], dtype)
        yield values.reshape((-1, 1, 1) if len(values) % 2 else (1, 1, -1))


@pytest.mark.parametrize("slope", [1.0, 2.0, 3.0, -1.0, 0.5, 1.5, 20000.0, 100000.0])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "f4"])
def test_V41_V44_V49_hu_are_those_of_float64_or_refused(dtype: str, slope: float) -> None:
    """Slope and intercept are applied as in float64, padding is clipped with a note, and what no
    int16 holds is refused with the number."""
    for intercept, raw in itertools.product((0.0, -1024.0, 24.0, -20000.0, 10.25), spans(dtype)):
        exact = raw.astype(np.float64) * slope + intercept
        if exact.max() > 32767:
            first = next(part.max() for part in exact if part.max() > 32767)
            with pytest.raises(VolumeRefused) as refused:
                raw_to_hu(raw, slope, intercept, PATH)
            said = f"E-NOHU  some/scan.nii  holds {first:g}, above 32767: no HU"
            assert str(refused.value) == said
            continue
        hu, notes = raw_to_hu(raw, slope, intercept, PATH)
        np.testing.assert_array_equal(hu, np.maximum(np.rint(exact), -1024))
        assert hu.dtype == np.int16
        low = exact.min()
        said = (f"padding down to {low:g} HU clipped to -1024",) if low < -1024 else ()
        assert notes == said


@pytest.mark.parametrize(("dtype", "most"), [("i4", 2**31 - 1), ("i8", 2**40), ("f2", 60000.0)])
def test_numbers_far_from_any_hu_do_not_wrap_around_into_it(dtype: str, most: float) -> None:
    """Padding of four or eight bytes is clipped as padding; a number as high is refused."""
    raw = np.array([[[-most, 40, most]]]).astype(dtype)
    for slope, intercept in ((1.0, -1024.0), (2.0, 0.0), (3.0, 24.0)):
        hu, (note,) = raw_to_hu(raw[..., :2], slope, intercept, PATH)
        assert hu.tolist() == [[[-1024, max(-1024, 40 * slope + intercept)]]]
        assert note.startswith("padding down to -")
        with pytest.raises(VolumeRefused, match=r"^E-NOHU"):
            raw_to_hu(raw, slope, intercept, PATH)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_fractions_are_rounded_after_the_scale(dtype: str) -> None:
    raw = np.array([[[-2.75, -0.25, 0.75, 1.5, 2.5, 200.25]]], dtype)
    for slope, intercept in ((1.0, 0.0), (2.0, -10.0), (-4.0, 0.5)):
        hu, _ = raw_to_hu(raw, slope, intercept, PATH)
        np.testing.assert_array_equal(hu, np.rint(raw.astype(np.float64) * slope + intercept))


def test_V47_numbers_that_are_none_are_counted_over_all_slices() -> None:
    """NaN and infinite voxels are refused with their number in the whole scan."""
    raw = np.zeros((3, 4, 4), np.float32)
    raw[0, 0, 0], raw[2, 1, 1:3] = np.nan, (np.inf, -np.inf)
    with pytest.raises(VolumeRefused, match=r"^E-NAN  some/scan\.nii  3 voxels are NaN or infin"):
        raw_to_hu(raw, 1.0, 0.0, PATH)
    with pytest.raises(VolumeRefused, match=r"^E-NAN .*16 voxels"):
        raw_to_hu(np.full((1, 4, 4), 3e38), 1e300, 0.0, PATH)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(VolumeRefused, match=r"^E-NAN .*1 voxels"):
            raw_to_hu(np.array([[[0.0, value]]]), 1.0, 0.0, PATH)


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
        ((-2, 1), "the lowest value is -2"),
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


def test_a_little_soft_tissue_in_every_slice_adds_up_and_every_other_row_is_looked_at() -> None:
    hu = np.full((5, 20, 20), -1000, np.int16)
    hu[:, 0, 0:4:2] = 40  # 2 of 100 in each
    assert looks_like_hu(Volume(hu, (5.0, 1.0, 1.0))) is None
    for unseen in (np.s_[:, 1::2], np.s_[:, :, 1::2]):
        hu[...] = -1000
        hu[unseen] = 40
        hu[:, ::2, ::2] = -1000
        assert "0 % of the voxels" in looks_like_hu(Volume(hu, (5.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("rim_hu", "doubted"), [(-600, False), (-599, True), (-351, True), (-350, False)]
)
def test_every_limit_of_what_slices_end_in(rim_hu: int, doubted: bool) -> None:
    for hu, doubt in ((rim_hu, doubted), (400, False), (401, True)):
        scan = np.full((4, 20, 20), hu, np.int16)
        scan[:, 1:-1, 1:-1] = 40
        scan[:, 8, 8] = -1000  # lung
        assert (looks_like_hu(Volume(scan, (5.0, 1.0, 1.0))) is not None) == doubt


@pytest.mark.parametrize("num_slices", [1, 3, 4, 12, 17])
def test_what_slices_end_in_is_the_median_of_four_sides_in_the_middle_half(num_slices) -> None:
    """Against plain loops; every number counts, so that another side or slice would show."""
    rng = np.random.default_rng(num_slices)
    hu = rng.integers(500, 30000, (num_slices, 6, 9)).astype(np.int16)
    hu[:, 1:-1, 1:-1] = rng.choice([40, -1000], (num_slices, 4, 7))
    quarter = num_slices // 4
    rim = []
    for one in hu[quarter : num_slices - quarter].tolist():
        rim += one[0] + one[-1] + [row[0] for row in one] + [row[-1] for row in one]
    doubt = looks_like_hu(Volume(hu, (5.0, 1.0, 1.0)))
    assert doubt is not None
    assert f"slices end at {statistics.median(rim):.0f} HU, " in doubt


@pytest.mark.parametrize(
    ("change", "doubted"),
    [
        (lambda hu: hu, False),
        (lambda hu: hu + 500, True),
        (lambda hu: -hu, True),
        (lambda hu: np.where(hu < -900, -3000, hu), False),  # padding
        (lambda hu: hu[:, 40:56, 40:56], False),  # cropped within the body
    ],
)
def test_N93_slices_that_end_in_neither_air_nor_tissue_are_doubted(change, doubted) -> None:
    """HU shifted by 500, or inverted: a note when scored, E-NOHU when trained on. A margin cut to
    air, or a crop within the body, is not."""
    rng = np.random.default_rng(0)
    subject = sample_subject(rng)
    drawn = sample_scan(subject, rng, region="abdomen", max_slices=12)
    hu = render(subject, drawn, 96).volume.hu
    changed, _ = raw_to_hu(change(hu.astype(np.int32)), 1, 0, Path("x.nii"))
    doubt = looks_like_hu(Volume(changed, (5.0, 1.0, 1.0)))
    assert ("no air and no tissue" in (doubt or "")) is doubted, doubt
