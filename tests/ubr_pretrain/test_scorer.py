"""The library's two lines: one scan in every form, one slice in every form, own weights."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from scipy.stats import spearmanr

from tests.ubr_pretrain.test_pretrained import a_regressor, written
from tests.ubr_pretrain.tiny_cohort import write_nifti
from ubr_pretrain import score_image, score_volume
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.images import SOFT_TISSUE, grey_to_hu, read_image
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.pretrained import CALIBRATION, WEIGHTS_FOLDER, read_pretrained
from ubr_pretrain.scorer import read_scorer


@pytest.fixture(scope="module")
def body() -> Volume:
    rng = np.random.default_rng(5)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, region="trunk", max_slices=24)
    return render(subject, scan, size_px=96).volume


def test_a_scan_has_the_same_scores_in_every_form(tmp_path: Path, body: Volume) -> None:
    write_nifti(body, tmp_path / "scan.nii")
    image = sitk.ReadImage(str(tmp_path / "scan.nii"))
    spacing_mm = tuple(float(s) for s in image.GetSpacing())[::-1]
    forms = {
        "path": score_volume(tmp_path / "scan.nii", num_views=1),
        "text": score_volume(str(tmp_path / "scan.nii"), num_views=1),
        "image": score_volume(image, num_views=1),
        "turned image": score_volume(sitk.DICOMOrient(image, "SAR"), num_views=1),
        "array": score_volume(body.hu, spacing_mm_zyx=spacing_mm, num_views=1),
        "real array": score_volume(body.hu + 0.25, spacing_mm_zyx=spacing_mm, num_views=1),
    }
    for name, scored in forms.items():
        np.testing.assert_allclose(scored.scores, forms["path"].scores, atol=1e-4, err_msg=name)
    assert forms["path"].name == "scan"


def test_scores_have_a_place_in_the_body_and_a_spread(body: Volume) -> None:
    scored = score_volume(body)
    assert scored.curve.direction == "superior_to_inferior"
    table = scored.to_table()
    assert len(table) == body.num_slices
    assert table["coordinate"].is_monotonic_decreasing or scored.curve.rank_r > 0.9
    assert (table["coordinate_sd"] > 0).all()
    assert (table["score_sd"] >= 0).all()
    calibration = read_pretrained().calibration
    assert table["zone"].tolist() == calibration.zones(scored.scores)
    np.testing.assert_allclose(
        table["coordinate"].astype(float), calibration.coordinate(scored.scores), atol=1e-3
    )
    assert scored.body_part is not None
    assert {mark.name for mark in scored.landmarks} <= {m.name for m in calibration.landmarks}


def test_a_reversed_scan_is_named(body: Volume) -> None:
    turned = score_volume(body.reversed(), num_views=1)
    assert "REVERSED" in [anomaly.code for anomaly in turned.anomalies]
    assert turned.curve.direction == "inferior_to_superior"
    straight = score_volume(body, num_views=1)
    assert "REVERSED" not in [anomaly.code for anomaly in straight.anomalies]


def test_weights_of_ones_own_have_no_coordinate_without_a_calibration(
    tmp_path: Path, body: Volume
) -> None:
    own = written(tmp_path / "ubr.safetensors", a_regressor())
    plain = score_volume(body, checkpoint=own, num_views=1)
    assert plain.coordinate is plain.zones is plain.body_part is plain.scores_sd is None
    assert plain.to_table()["coordinate"].isna().all()
    meant = score_volume(
        body, checkpoint=own, calibration=WEIGHTS_FOLDER / CALIBRATION, num_views=2
    )
    assert meant.coordinate is not None
    assert meant.scores_sd is not None


def test_the_spread_is_that_of_the_views_times_the_scale_of_the_calibration(body: Volume) -> None:
    shipped = read_scorer(device="cpu", num_views=2)
    assert shipped.calibration is not None
    doubled = replace(
        shipped,
        calibration=replace(
            shipped.calibration, uncertainty_scale=2 * shipped.calibration.uncertainty_scale
        ),
    )
    one, two = (scorer.score_volume(body, "body").scores_sd for scorer in (shipped, doubled))
    np.testing.assert_allclose(2 * one, two)


def test_a_slice_has_the_score_that_it_has_in_its_volume(tmp_path: Path, body: Volume) -> None:
    whole = read_scorer(device="cpu").score_volume(body, "body")
    hu, pixel_mm = body.hu[12], body.spacing_mm_zyx[1]
    alone = whole.scores_alone[12]
    assert score_image(hu, pixel_mm=pixel_mm).score == pytest.approx(alone, abs=1e-4)
    grey = np.clip((hu + 175.0) / 450 * 255, 0, 255).round().astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "slice.png")
    picture = score_image(tmp_path / "slice.png", pixel_mm=pixel_mm)
    assert picture.score == score_image(grey, pixel_mm=pixel_mm).score
    same = score_image(grey_to_hu(grey, SOFT_TISSUE), pixel_mm=pixel_mm)
    assert picture.score == same.score
    assert picture.score == pytest.approx(alone, abs=0.1 * np.ptp(whole.scores))
    assert picture.zone is not None
    narrow = score_image(grey, pixel_mm=pixel_mm, window_hu=(-1000, 1000))
    assert narrow.score != picture.score


@pytest.mark.real
def test_a_windowed_picture_scores_as_its_hu_do(tmp_path: Path, real_deeplesion: Path) -> None:
    """The window is lost for good, and black must not be taken for its lower end."""
    scores = []
    for path in sorted((real_deeplesion / "Images_png").glob("*/*.png"))[::8]:
        image = read_image(path)
        grey = np.clip((image.hu + 175.0) / 450 * 255, 0, 255).round().astype(np.uint8)
        pixel_mm = image.pixel_mm_yx[0]
        pair = (image.hu, grey)
        scores.append([score_image(one, pixel_mm=pixel_mm, num_views=1).score for one in pair])
    by_hu, by_grey = np.transpose(scores)
    assert spearmanr(by_hu, by_grey).statistic > 0.97
    assert np.median(np.abs(by_hu - by_grey)) < 0.1 * by_hu.std()


@pytest.mark.real
def test_a_dicom_series_scores_as_its_nifti_does(real_dicom: Path, real_ct: Path) -> None:
    series = score_volume(real_dicom / "lungdx_a0002", num_views=1)
    nifti = score_volume(real_ct / "lungdx_a0002.nii.gz", num_views=1)
    assert "lungdx" not in series.name
    np.testing.assert_allclose(series.scores, nifti.scores, atol=0.1 * nifti.scores.std())


def test_what_cannot_be_scored_is_named(tmp_path: Path, body: Volume) -> None:
    with pytest.raises(ValueError, match="spacing_mm_zyx"):
        score_volume(body.hu)
    with pytest.raises(VolumeRefused, match="E-DIM"):
        score_volume(body.hu[0], spacing_mm_zyx=(5.0, 1.0, 1.0))
    with pytest.raises(VolumeRefused, match="E-MISSING"):
        score_volume(tmp_path / "no.nii")
    with pytest.raises(ValueError, match="num_views 99"):
        score_volume(body, num_views=99)
    with (
        pytest.raises(ValueError, match="no CUDA device")
        if not torch.cuda.is_available()
        else (pytest.raises(RuntimeError))
    ):
        score_volume(body, device="cuda:99")


def test_importing_the_package_is_light() -> None:
    code = "import ubr_pretrain, sys; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(ImportError):
        from ubr_pretrain import score_nothing  # type: ignore[attr-defined]  # noqa: F401
