"""Scans of what the scorer of the package was not made for: scored, flagged, never an exception."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.ubr_pretrain.tiny_cohort import write_nifti
from ubr_pretrain import score_volume
from ubr_pretrain.ct import Volume
from ubr_pretrain.phantom import sample_phantom
from ubr_pretrain.score_volumes import main
from ubr_pretrain.scored_volume import ScoredVolume

pytestmark = pytest.mark.usefixtures("one_thread")


def cylinder(radius_px: float, bone_px: float = 0.0, num_slices: int = 30) -> Volume:
    """Water in air, with a bone along its axis."""
    y, x = np.mgrid[:96, :96] - 48.0
    far = np.hypot(y, x)
    hu = np.where(far < radius_px, 0, -1000) + np.where(far < bone_px, 900, 0)
    noise = np.random.default_rng(0).normal(0, 8, (num_slices, 96, 96))
    return Volume((hu + noise).astype(np.int16), (5.0, 4.0, 4.0))


def patient(kind: str | None = None, region: str = "trunk", step_mm: float = 10.0) -> Volume:
    rng = np.random.default_rng(6)
    return sample_phantom(rng, 96, region, kind, step_mm=step_mm).volume  # type: ignore[arg-type]


def flags(scored: ScoredVolume) -> set[str]:
    assert np.isfinite(scored.scores).all()
    return {anomaly.code for anomaly in scored.anomalies}


@pytest.fixture(scope="module")
def records(tmp_path_factory, one_thread) -> dict[str, dict[str, Any]]:
    """What `score_volumes.py` records of four scans; it ends with exit code 0."""
    folder, whole = tmp_path_factory.mktemp("unusual"), patient()
    half = tuple(0.5 * side for side in whole.spacing_mm_zyx)
    scans = {
        "water": cylinder(30),
        "limb": cylinder(15, bone_px=5),
        "child": replace(whole, spacing_mm_zyx=half, z_mm=0.5 * whole.z_mm, affine_lps=None),
        "head": patient(region="head_neck", step_mm=5.0),
    }
    for name, scan in scans.items():
        write_nifti(scan, folder / f"{name}.nii")
    flags = ["--views", "1", "--pictures", "false", "--device", "cpu"]
    assert main([str(folder), *flags, "--out", str(folder / "scores")]) == 0
    whole_run = json.loads((folder / "scores" / "scores.json").read_text())
    found = {record["volume"]: record for record in whole_run["volumes"]}
    for name, scan in scans.items():
        assert len(found[name]["slices"]["score"]) == scan.num_slices
        assert np.isfinite(found[name]["slices"]["score"]).all()
    return found


def codes(record: dict[str, Any]) -> set[str]:
    return {anomaly["code"] for anomaly in record["anomalies"]}


@pytest.mark.parametrize("name", ["water", "limb"])
def test_V69_what_is_no_trunk_and_no_head_is_scored_and_flagged(records, name: str) -> None:
    """Every slice has a score, the scan the flag OUT_OF_RANGE; the exit code of
    `score_volumes.py` stays 0."""
    assert "OUT_OF_RANGE" in codes(records[name])


def test_V69_a_child_is_scored_and_its_length_flagged(records) -> None:
    """A body of half the size is scored in order (r > 0.99), with the flag SPACING_MISMATCH; the
    exit code stays 0."""
    assert records["child"]["r"] > 0.99
    assert "SPACING_MISMATCH" in codes(records["child"])


def test_V69_a_head_by_itself_is_scored_without_a_false_flag(records) -> None:
    """A head is scored from top to bottom and is neither reversed nor out of range; the exit code
    stays 0."""
    assert not codes(records["head"]) & {"REVERSED", "OUT_OF_RANGE"}
    assert records["head"]["direction"] == "superior_to_inferior"


@pytest.mark.parametrize("kind", ["ascites", "metal"])
def test_V70_ascites_and_metal_do_not_break_the_order(kind: str) -> None:
    """Scored with r > 0.99; where r is lower the scan is flagged, as in the paper."""
    scored = score_volume(patient(kind), num_views=1)
    assert scored.curve.r is not None
    assert scored.curve.r > 0.99
    assert not flags(scored) & {"REVERSED", "OUT_OF_RANGE", "NON_MONOTONE"}


def test_V70_a_body_that_the_field_of_view_cuts_is_flagged() -> None:
    """Scored with r < 0.99, and the flag NONLINEAR or NON_MONOTONE names the slices."""
    whole = patient()
    quarter = whole.hu.shape[2] // 4
    inner = np.ascontiguousarray(whole.hu[:, quarter:-quarter, quarter:-quarter])
    scored = score_volume(replace(whole, hu=inner, affine_lps=None), num_views=1)
    assert scored.curve.r is not None
    assert scored.curve.r < 0.99
    assert flags(scored) & {"NONLINEAR", "NON_MONOTONE"}
