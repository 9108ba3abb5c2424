"""Scoring with all threads, and while a scan is still being read: the plain scores, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import BODY_AXES_LPS, write_itk
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.network_backend import FEWEST, ScoreNetwork
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.read_ahead import read_ahead
from ubr_pretrain.scorer import Scorer, read_scorer
from ubr_pretrain.view_scores import score_views
from ubr_pretrain.volumes import find_volumes

SPACING = (3.0, 2.5, 2.0)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scorers() -> list[Scorer]:
    return [read_scorer(device="cpu", threads=threads) for threads in (1, 2, 3)]


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """Slices that differ, of 75: not a whole number of blocks."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:96, :80]
    body = np.hypot(rows - 48, columns - 40) < np.linspace(20, 38, 75)[:, None, None]
    noise = rng.integers(-80, 80, (75, 96, 80))
    return np.where(body, 40 + noise, -1000).astype(np.int16)


def plain(scorer: Scorer, volume: Volume) -> tuple[np.ndarray, np.ndarray | None]:
    spec = scorer.trained.input_spec
    slices = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)
    return score_views(
        scorer.trained.regressor, slices, spec, scorer.device, num_views=scorer.num_views
    )


def same(found: tuple, expected: tuple) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("num_slices", [1, 7, 16, 64, 75])
def test_any_number_of_threads_gives_the_plain_scores(scorers, hu, num_slices) -> None:
    volume = Volume(hu[:num_slices], SPACING)
    for scorer in scorers:
        same(scorer._scores(volume.hu, SPACING[1:]), plain(scorer, volume))


def stored_forms(folder: Path, hu: np.ndarray) -> list[Path]:
    upward = BODY_AXES_LPS * np.array([[-1.0], [1.0], [1.0]])
    return [
        write_itk(folder / "down.nii.gz", hu, spacing=SPACING),
        write_itk(folder / "up.nii", hu[::-1], upward, SPACING),
        write_itk(
            folder / "sagittal.mha", hu.transpose(2, 1, 0), BODY_AXES_LPS[::-1], SPACING[::-1]
        ),
        write_series(folder / "series", hu, SPACING),
    ]


@pytest.mark.parametrize("stride_mm", [None, 10.0])
def test_slices_that_are_scored_while_a_scan_is_read_get_the_plain_scores(
    tmp_path: Path, scorers, hu, stride_mm
) -> None:
    scorer = scorers[1]
    for path in stored_forms(tmp_path, hu):
        (entry,) = find_volumes([path])
        volume = entry.read(watch=scorer.watch, stride_mm=stride_mm)
        scan = scorer.watch._scan
        was_early = scan is not None and scan.is_of(volume.hu, volume.spacing_mm_zyx[1:])
        assert was_early == ("sagittal" not in path.name)
        same(scorer._scores(volume.hu, volume.spacing_mm_zyx[1:]), plain(scorer, volume))
        assert scorer.watch._scan is None


def test_a_scan_that_is_refused_at_its_end_leaves_no_scores_behind(
    tmp_path: Path, scorers, hu
) -> None:
    scorer = scorers[1]
    whole = write_itk(tmp_path / "0.nii.gz", hu, spacing=SPACING)
    damaged = bytearray(whole.read_bytes())
    damaged[-6] ^= 1  # the checksum
    (tmp_path / "1.nii.gz").write_bytes(damaged)
    other = write_itk(tmp_path / "2.nii.gz", hu[::-1], spacing=SPACING)
    entries = find_volumes([whole, tmp_path / "1.nii.gz", other])
    outcomes = [
        outcome
        if isinstance(outcome, VolumeRefused)
        else (scorer._scores(outcome.hu, SPACING[1:]), plain(scorer, outcome))
        for _, outcome in read_ahead(entries, watch=scorer.watch)
    ]
    assert isinstance(outcomes[1], VolumeRefused)
    assert outcomes[1].code == "E-CRC"
    same(*outcomes[0])
    same(*outcomes[2])
    np.testing.assert_allclose(outcomes[0][0][0], outcomes[2][0][0][::-1], atol=1e-5)


def test_another_volume_neither_gets_nor_takes_the_early_scores(
    tmp_path: Path, scorers, hu
) -> None:
    scorer = scorers[1]
    (entry,) = find_volumes([write_itk(tmp_path / "a.nii", hu, spacing=SPACING)])
    volume = entry.read(watch=scorer.watch)
    other = Volume(hu[::-1].copy(), SPACING)
    same(scorer._scores(other.hu, SPACING[1:]), plain(scorer, other))
    assert scorer.watch._scan is not None  # another thread's scan may be in the making
    same(scorer._scores(volume.hu, SPACING[1:]), plain(scorer, volume))


def test_a_watch_is_told_of_every_slice_once(tmp_path: Path, hu) -> None:
    class Seen:
        def begin(self, hu, pixel_mm_yx):
            self.hu, self.pixel_mm_yx, self.times = hu, pixel_mm_yx, np.zeros(len(hu), int)
            self.copy = np.full(hu.shape, -9999, np.int16)

        def arrived(self, first, end):
            self.times[first:end] += 1
            self.copy[first:end] = self.hu[first:end]

    for path in stored_forms(tmp_path, hu):
        if "sagittal" in path.name:
            continue
        seen = Seen()
        (entry,) = find_volumes([path])
        volume = entry.read(watch=seen)
        assert (seen.times == 1).all()
        np.testing.assert_array_equal(seen.copy, volume.hu)
        assert seen.pixel_mm_yx == pytest.approx(volume.spacing_mm_zyx[1:])


def test_a_score_that_is_not_finite_names_its_slice(scorers, hu) -> None:
    scorer = scorers[1]
    broken = Scorer(
        scorer.trained,
        None,
        ScoreNetwork(
            "torch",
            scorer.device,
            lambda slices: torch.where(torch.arange(len(slices)) == 2, torch.nan, 1.0),
            2,
            scorer.network._workers,
        ),
        1,
    )
    with pytest.raises(FloatingPointError, match="slice 2: score not finite"):
        broken._scores(hu, SPACING[1:])


def test_parts_cover_all_slices_in_whole_blocks(scorers) -> None:
    for scorer in scorers:
        for num_slices in (1, 8, 9, 33, 64, 75, 700):
            parts = list(scorer.network.parts(num_slices))
            covered = [z for part in parts for z in range(part.start, part.stop)]
            assert covered == list(range(num_slices))
            assert all(part.start % FEWEST == 0 for part in parts)
            assert num_slices == 1 or all(part.stop - part.start > 1 for part in parts)
            blocks = max(1, -(-(num_slices - 1) // FEWEST))  # the last of many is never alone
            assert len(parts) >= min(scorer.network.threads, blocks)
