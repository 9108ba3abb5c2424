"""Abnormal bodies and scans: what is wrong with them is in the voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ubr_pretrain.phantom import render, sample_phantom, sample_scan, sample_subject, with_metal
from ubr_pretrain.phantom_tissues import Tissue


def _pair(region: str, **change: float):
    rng = np.random.default_rng(2)
    subject = sample_subject(rng)
    scan = replace(sample_scan(subject, rng, region, 10.0), noise_hu=0.0, streaks=0.0, turn_rad=0.0)
    return render(subject, scan, 96), render(replace(subject, **change), scan, 96)


def test_ascites_replaces_fat_around_the_bowel_by_fluid():
    plain, wet = _pair("abdomen", ascites=1.0)
    fluid = wet.tissues == Tissue.FLUID
    assert fluid.sum() > 2000
    assert (plain.tissues[fluid] == Tissue.VISCERAL_FAT).all()
    assert (wet.tissues[~fluid] == plain.tissues[~fluid]).all()
    rise_hu = np.median(wet.volume.hu[fluid]) - np.median(plain.volume.hu[fluid])
    assert rise_hu > 60


def test_more_ascites_is_more_fluid():
    amounts = []
    for ascites in (0.0, 0.4, 0.9):
        _, wet = _pair("abdomen", ascites=ascites)
        amounts.append(int((wet.tissues == Tissue.FLUID).sum()))
    assert amounts[0] == 0 < amounts[1] < amounts[2]


def test_effusion_lies_at_the_back_of_the_lungs():
    plain, wet = _pair("chest", effusion=0.5)
    rows_fluid = np.nonzero(wet.tissues == Tissue.FLUID)[1]
    rows_lung = np.nonzero(wet.tissues == Tissue.LUNG)[1]
    assert rows_fluid.min() >= rows_lung.max() - 1
    assert (plain.tissues[wet.tissues == Tissue.FLUID] == Tissue.LUNG).all()


def test_metal_is_brighter_than_bone_and_streaks_through_its_slices_only():
    rng = np.random.default_rng(4)
    subject = sample_subject(rng)
    scan = replace(sample_scan(subject, rng, "pelvis", 8.0), noise_hu=0.0, streaks=0.0)
    plain = render(subject, scan, 96)
    implant = render(with_metal(subject, rng), scan, 96)
    metal = implant.tissues == Tissue.METAL
    assert metal.any()
    assert implant.volume.hu.max() == 3071
    shown = metal.any((1, 2))
    change_hu = np.abs(implant.volume.hu.astype(int) - plain.volume.hu)
    assert (change_hu[shown] > 100).sum((1, 2)).min() > 50
    hidden = ~shown & ~np.roll(shown, 1) & ~np.roll(shown, -1)
    assert not change_hu[hidden].any()


def test_sampled_abnormalities_are_what_they_are_called():
    def scan(kind: str | None, region: str):
        rng = np.random.default_rng(6)
        return sample_phantom(rng, 48, region, kind, step_mm=12)  # type: ignore[arg-type]

    assert (scan("ascites", "abdomen").tissues == Tissue.FLUID).any()
    assert (scan("effusion", "chest").tissues == Tissue.FLUID).any()
    assert (scan("metal", "pelvis").tissues == Tissue.METAL).any()
    assert len(scan("missing_slices", "trunk").volume.runs) == 2
    assert (np.diff(scan("reversed", "trunk").coordinate_mm) < 0).all()
    plain = scan(None, "trunk")
    assert not np.isin(plain.tissues, (Tissue.FLUID, Tissue.METAL)).any()
    assert len(plain.volume.runs) == 1
