"""Reading one slice per so many millimetres: what is read, what is interpolated, what is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import BODY_AXES_LPS, scan, write_itk
from tests.ubr_pretrain.tiny_cohort import write_nifti
from ubr_pretrain import dicom_series
from ubr_pretrain.anomalies import Anomaly
from ubr_pretrain.ct import Volume, VolumeRefused, contiguous_runs
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.scorer import Scorer, read_scorer
from ubr_pretrain.slice_scores import SliceScores, anomalies_of_read, interpolation_sd
from ubr_pretrain.sparse_volume import SparseVolume, plan_reading, slices_to_read, thinned
from ubr_pretrain.volumes import find_volumes, read_volume

SHAPE, SPACING = (41, 6, 5), (2.0, 0.75, 0.5)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return read_scorer(device="cpu", threads=1)


@pytest.fixture(scope="module")
def body() -> Volume:
    rng = np.random.default_rng(5)
    subject = sample_subject(rng)
    return render(
        subject, sample_scan(subject, rng, region="trunk", max_slices=90), size_px=64
    ).volume


def sparse(z_mm: np.ndarray, step_mm: float, stride_mm: float) -> SparseVolume:
    hu = np.zeros((len(z_mm), 2, 2), np.int16)
    volume = thinned(Volume(hu, (step_mm, 1.0, 1.0), z_mm), stride_mm)
    assert isinstance(volume, SparseVolume)
    return volume


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    step_mm=st.floats(0.3, 6.0),
    stride_mm=st.floats(0.2, 50.0),
)
def test_ends_of_runs_are_read_and_neighbours_are_no_further_apart_than_the_stride(
    counts, step_mm, stride_mm
):
    z_mm, at = [], 0.0
    for count in counts:
        z_mm += [at + step_mm * k for k in range(count)]
        at = z_mm[-1] + 3.7 * step_mm
    z_mm = np.array(z_mm)
    chosen = slices_to_read(z_mm, step_mm, stride_mm)
    assert np.all(np.diff(chosen) > 0)
    for run in contiguous_runs(z_mm, step_mm):
        inside = chosen[(chosen >= run.start) & (chosen < run.stop)]
        assert {run.start, run.stop - 1} <= set(inside.tolist())
        if len(inside) > 1:
            assert np.diff(z_mm[inside]).max() <= max(stride_mm, step_mm) * (1 + 1e-5)
    if stride_mm <= step_mm:
        assert plan_reading(z_mm, step_mm, stride_mm) is None


def forms(folder: Path, hu: np.ndarray) -> list[Path]:
    upward = BODY_AXES_LPS * np.array([[-1.0], [1.0], [1.0]])
    return [
        write_itk(folder / "down.nii", hu, spacing=SPACING),
        write_itk(folder / "up.nii", hu[::-1], upward, SPACING),
        write_itk(folder / "zipped.nii.gz", hu[::-1], upward, SPACING),
        write_itk(folder / "a.nrrd", hu, spacing=SPACING),
        write_itk(folder / "zipped.mha", hu, spacing=SPACING, compress=True),
        write_itk(
            folder / "sagittal.mha",
            hu.transpose(2, 1, 0),
            BODY_AXES_LPS[::-1],
            SPACING[::-1],
        ),
        write_series(folder / "series", hu, SPACING),
    ]


def test_every_format_reads_the_slices_of_its_whole_volume(tmp_path: Path) -> None:
    for path in forms(tmp_path, scan(SHAPE)):
        whole, some = read_volume(path), read_volume(path, stride_mm=10.0)
        assert isinstance(some, SparseVolume), path
        np.testing.assert_array_equal(some.read_index, np.arange(0, 41, 5), err_msg=str(path))
        np.testing.assert_array_equal(some.hu, whole.hu[some.read_index], err_msg=str(path))
        np.testing.assert_array_equal(some.every_z_mm, whole.z_mm)
        np.testing.assert_array_equal(some.z_mm, whole.z_mm[some.read_index])
        assert some.spacing_mm_zyx == pytest.approx((10.0, *whole.spacing_mm_zyx[1:]))
        assert some.step_mm == whole.spacing_mm_zyx[0]
        assert "9 of 41 slices were read" in some.notes[-1]
        same = read_volume(path, stride_mm=2.0)
        assert type(same) is Volume
        np.testing.assert_array_equal(same.hu, whole.hu)


def test_only_the_files_that_are_needed_are_decoded(tmp_path: Path, monkeypatch) -> None:
    decoded = []
    stored = dicom_series._stored
    monkeypatch.setattr(
        dicom_series, "_stored", lambda header: decoded.append(header.path) or stored(header)
    )
    write_series(tmp_path, scan(SHAPE), SPACING)
    read_volume(tmp_path, stride_mm=20.0)
    assert len(decoded) == 5


def test_a_cut_or_long_file_is_refused_though_its_end_is_not_read(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.nii", scan(SHAPE), spacing=SPACING)
    content = path.read_bytes()
    for changed, code in ((content[:-1], "E-TRUNC"), (content + b"x", "E-FORMAT")):
        path.write_bytes(changed)
        with pytest.raises(VolumeRefused, match=code):
            read_volume(path, stride_mm=20.0)


@pytest.mark.parametrize("stride_mm", [0.0, -1.0, 51.0, float("nan")])
def test_an_impossible_stride_is_refused(tmp_path: Path, stride_mm: float) -> None:
    with pytest.raises(ValueError, match="stride_mm"):
        read_volume(write_itk(tmp_path / "a.nii", scan()), stride_mm=stride_mm)


@given(slope=st.floats(-0.1, 0.1), level=st.floats(-5, 5))
def test_a_straight_curve_is_reproduced_and_leaves_no_doubt(slope, level):
    z_mm = np.r_[np.arange(40) * 2.0, 120 + np.arange(21) * 2.0]
    volume = sparse(z_mm, 2.0, 9.0)
    line = level + slope * volume.z_mm
    every = SliceScores(line, line, np.full(len(line), 0.1)).of_every_slice(volume, 2.0)
    np.testing.assert_allclose(every.smooth, level + slope * z_mm, atol=1e-9)
    np.testing.assert_allclose(every.alone, level + slope * z_mm, atol=1e-9)
    assert every.sd is not None
    np.testing.assert_allclose(every.sd, 0.1, atol=1e-6)


def test_doubt_grows_between_slices_that_were_read_and_covers_a_random_walk():
    rng = np.random.default_rng(0)
    z_mm = np.arange(2001.0)
    volume = sparse(z_mm, 1.0, 10.0)
    walk = np.cumsum(rng.normal(0, 0.1, len(z_mm)))
    sd = interpolation_sd(volume, walk[volume.read_index])
    np.testing.assert_allclose(sd[volume.read_index], 0.0, atol=1e-9)
    between = np.setdiff1d(np.arange(len(z_mm)), volume.read_index)
    off = walk - np.interp(z_mm, volume.z_mm, walk[volume.read_index])
    assert np.std(off[between] / sd[between]) == pytest.approx(1.0, abs=0.15)
    middle, beside = sd[5::10], sd[1::10]
    assert (middle[: len(beside)] > beside[: len(middle)]).all()


def test_gaps_of_slices_that_were_not_read_beside_them_are_found():
    z_mm = np.r_[np.arange(30) * 1.0, 33.0 + np.arange(30)]  # 4 mm where the interval is 1 mm
    volume = sparse(z_mm, 1.0, 10.0)
    stray = Anomaly("NONLINEAR", 1, 2, 40.0, "slices 1 to 2 leave the line")
    gap, moved = sorted(anomalies_of_read([stray], volume), key=lambda a: a.code)
    assert (gap.code, gap.first_slice, gap.last_slice) == ("GAP", 29, 30)
    read = volume.read_index
    assert (moved.first_slice, moved.last_slice) == (read[1], read[2])
    assert "counted among the 8 slices" in moved.message


def test_a_strided_scan_scores_every_slice_near_the_whole_one(
    tmp_path: Path, scorer: Scorer, body: Volume
) -> None:
    write_nifti(body, tmp_path / "scan.nii")
    (entry,) = find_volumes([tmp_path])
    whole = scorer.score_volume(entry.read(), "scan")
    stride_mm = 4.2 * body.spacing_mm_zyx[0]
    some = scorer.score_volume(entry.read(stride_mm=stride_mm), "scan")
    assert some.read_index is not None
    assert some.read_index[0] == 0
    assert some.read_index[-1] == len(whole.scores) - 1
    np.testing.assert_array_equal(some.z_mm, whole.z_mm)
    assert some.spacing_mm_zyx == whole.spacing_mm_zyx
    assert np.sqrt(np.mean((some.scores - whole.scores) ** 2)) < 0.05 * np.ptp(whole.scores)
    np.testing.assert_allclose(
        some.scores_alone[list(some.read_index)],
        whole.scores_alone[list(some.read_index)],
        atol=1e-6,
    )
    table = some.to_table()
    assert len(table) == len(whole.scores)
    assert table["interpolated"].sum() == len(whole.scores) - len(some.read_index)
    assert not table["interpolated"].iloc[list(some.read_index)].any()
    assert "interpolated" not in whole.to_table()
    assert "read_slices" not in whole.to_record()
    whole_again = scorer.score_volume(entry.read(stride_mm=0.1), "scan")
    assert whole_again.to_record() == whole.to_record()


def test_a_series_with_a_tilt_has_the_distances_of_the_whole_one(tmp_path: Path) -> None:
    axes = BODY_AXES_LPS.copy()
    axes[0] = [0.0, np.sin(0.2), -np.cos(0.2)]
    image = sitk.GetImageFromArray(scan(SHAPE))
    path = tmp_path / "tilted.nii"
    sitk.WriteImage(image, str(path))
    import nibabel as nib

    affine = np.eye(4)
    affine[:3, :3] = (axes[::-1] * np.array(SPACING)[::-1, None]).T * [[-1], [-1], [1]]
    nib.save(nib.Nifti1Image(scan(SHAPE).transpose(2, 1, 0), affine), path)
    whole = read_volume(path, max_tilt_deg=30, max_oblique_deg=30)
    some = read_volume(path, max_tilt_deg=30, max_oblique_deg=30, stride_mm=10.0)
    assert isinstance(some, SparseVolume)
    np.testing.assert_array_equal(some.every_z_mm, whole.z_mm)
    assert some.step_mm == whole.spacing_mm_zyx[0] < 2.0
    np.testing.assert_array_equal(some.hu, whole.hu[some.read_index])


def test_positions_that_do_not_belong_to_the_slices_are_refused():
    volume = sparse(np.arange(20.0), 1.0, 5.0)
    with pytest.raises(ValueError, match="lie elsewhere"):
        replace(volume, read_index=volume.read_index - 1)
