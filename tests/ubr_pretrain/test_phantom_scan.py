"""Variety: synthetic people and scanners differ like real ones; impossible ones are refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ubr_pretrain.phantom import Scan, Subject, render, sample_phantom, sample_scan, sample_subject
from ubr_pretrain.phantom_scan import without_slices
from ubr_pretrain.phantom_subject import LANDMARKS
from ubr_pretrain.phantom_tissues import Tissue


def _whole(seed: int, step_mm: float = 3.0) -> tuple[Subject, Scan]:
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, "whole", step_mm)
    z_mm = np.arange(-6.0, subject.skeleton_mm[-1], step_mm)
    return subject, replace(scan, z_mm=z_mm, fov_mm=520.0, offset_mm=(0.0, 0.0), couch="none")


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [sample_subject(np.random.default_rng((1, number))) for number in range(60)]


def test_subjects_differ_as_widely_as_people(subjects: list[Subject]):
    assert 0.25 < np.mean([s.female for s in subjects]) < 0.75
    assert 0.4 < np.mean([s.arms_raised for s in subjects]) < 0.9
    fat = [s.fat_scale for s in subjects]
    assert min(fat) < 0.6
    assert max(fat) > 1.9
    liver = [s.hu[Tissue.LIVER] for s in subjects]
    assert np.ptp(liver) > 60
    artery = np.array([s.hu[Tissue.ARTERY] for s in subjects])
    assert (artery < 70).any()
    assert (artery > 200).any()


def test_scans_differ_as_widely_as_scanners():
    subject = sample_subject(np.random.default_rng(0))
    scans = [sample_scan(subject, np.random.default_rng((2, n))) for n in range(80)]
    assert {scan.couch for scan in scans} == {"none", "arc", "flat", "trapezoid"}
    assert min(scan.step_mm for scan in scans) < 1
    assert max(scan.step_mm for scan in scans) > 6
    fov = [scan.fov_mm for scan in scans]
    assert max(fov) / min(fov) > 1.8
    assert {scan.round_field for scan in scans} == {False, True}
    noise = [scan.noise_hu for scan in scans]
    assert max(noise) / min(noise) > 4


def test_noise_is_as_strong_as_asked():
    subject, scan = _whole(1, step_mm=30.0)
    base = replace(scan, streaks=0.0, kernel_mm=0.1)
    clean = render(subject, replace(base, noise_hu=0.0), 128).volume.hu.astype(float)
    few = render(subject, replace(base, noise_hu=5.0), 128).volume.hu - clean
    many = render(subject, replace(base, noise_hu=20.0), 128).volume.hu - clean
    assert np.std(many) / np.std(few) == pytest.approx(4, rel=0.05)


def test_round_field_leaves_the_corners_empty():
    subject, scan = _whole(0, step_mm=60.0)
    hu = render(subject, replace(scan, round_field=True, couch="flat"), 64).volume.hu
    assert (hu[:, [0, 0, -1, -1], [0, -1, 0, -1]] == -1024).all()


def test_couch_lies_below_the_body_and_in_every_slice():
    subject, scan = _whole(0, step_mm=40.0)
    phantom = render(subject, replace(scan, couch="arc", couch_mm=5.0), 128)
    couch = (phantom.tissues == Tissue.COUCH_FOAM) | (phantom.tissues == Tissue.COUCH_SHELL)
    assert couch.any((1, 2)).all()
    body = phantom.tissues >= Tissue.SKIN
    middle = couch[:, :, 60:68].any((0, 2))
    assert np.flatnonzero(middle).min() > np.flatnonzero(body.any((0, 2))).max() - 1


def test_missing_slices_leave_a_gap_of_true_width():
    subject, scan = _whole(0, step_mm=10.0)
    gappy = without_slices(scan, np.random.default_rng(0), share=0.3)
    phantom = render(subject, gappy, 32)
    assert len(phantom.volume.runs) == 2
    missing = len(scan.z_mm) - len(gappy.z_mm)
    assert np.diff(phantom.volume.z_mm).max() == pytest.approx(10.0 * (missing + 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"region": "thigh"}, "region 'thigh' is not one of head_neck, chest"),
        ({"step_mm": 0.0}, "step 0.0 mm must be > 0"),
        ({"max_slices": 1}, "max_slices 1 at least 2"),
        ({"abnormality": "gout"}, "abnormality 'gout' is not one of ascites"),
        ({"size_px": 8}, "size_px 8: a body needs at least 16 pixels"),
    ],
)
def test_an_impossible_request_is_refused_with_its_value(change: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        sample_phantom(np.random.default_rng(0), **({"step_mm": 10.0} | change))


def test_an_impossible_scan_is_refused():
    for bad in ({"z_mm": np.array([])}, {"z_mm": np.array([2.0, 1.0])}, {"fov_mm": 0.0}):
        with pytest.raises(ValueError, match="scan:"):
            Scan(**({"z_mm": np.array([1.0, 2.0]), "step_mm": 1.0, "fov_mm": 300.0} | bad))


@pytest.mark.real
def test_real_distances_between_landmarks_lie_within_those_of_the_phantoms(
    real_ct: Path, subjects: list[Subject]
):
    bodies = [subject.landmarks_mm for subject in subjects]
    rows: dict[str, dict[str, tuple[int, float, float]]] = {}
    with (real_ct / "landmarks.csv").open() as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["volume"], {})[row["landmark"]] = (
                int(row["index_sup_to_inf"]),
                float(row["slice_spacing_mm"]),
                float(row["uncertainty_slices"]),
            )
    compared = 0
    for marks in rows.values():
        for a, b in pairwise(LANDMARKS):
            if (a, b) == ("lung_base", "kidney_upper_pole"):
                continue  # in some real bodies the kidney begins above the end of the lung
            if a in marks and b in marks:
                (first, step_mm, doubt_a), (last, _, doubt_b) = marks[a], marks[b]
                slack_mm = (doubt_a + doubt_b + 1) * step_mm
                gaps = [body[b] - body[a] for body in bodies]
                assert min(gaps) - slack_mm <= (last - first) * step_mm <= max(gaps) + slack_mm
                compared += 1
    assert compared > 10
