"""Scans of what the scorer of the package was not made for: scored, flagged, never an exception."""

from dataclasses import replace

import numpy as np
import pytest

from ubr_pretrain import score_volume
from ubr_pretrain.ct import Volume
from ubr_pretrain.phantom import sample_phantom
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


@pytest.mark.parametrize(
    "volume", [cylinder(30), cylinder(15, bone_px=5)], ids=["water phantom", "limb"]
)
def test_V69_what_is_no_trunk_and_no_head_is_scored_and_flagged(volume: Volume) -> None:
    """Every slice has a score, the scan the flag OUT_OF_RANGE, the exit code stays 0."""
    assert "OUT_OF_RANGE" in flags(score_volume(volume, num_views=1))


def test_V69_a_child_is_scored_and_its_length_flagged() -> None:
    """A body of half the size is scored in order (r > 0.99), with the flag SPACING_MISMATCH."""
    whole = patient()
    half = tuple(0.5 * side for side in whole.spacing_mm_zyx)
    child = replace(whole, spacing_mm_zyx=half, z_mm=0.5 * whole.z_mm, affine_lps=None)
    scored = score_volume(child, num_views=1)
    assert scored.curve.r is not None
    assert scored.curve.r > 0.99
    assert "SPACING_MISMATCH" in flags(scored)


def test_V69_a_head_by_itself_is_scored_without_a_false_flag() -> None:
    """A head is scored from top to bottom and is neither reversed nor out of range."""
    scored = score_volume(patient(region="head_neck", step_mm=5.0), num_views=1)
    assert not flags(scored) & {"REVERSED", "OUT_OF_RANGE"}
    assert scored.curve.direction == "superior_to_inferior"


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
