"""Anomalies of scans that are known exactly: what must be found, where, and what must not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ubr_pretrain.known_body import (
    SCORE_PER_MM,
    known_calibration,
    known_scan,
    rescaled,
    score_of,
)
from ubr_pretrain.anomalies import SPACING_TRUNK_MM, expected_step, find_anomalies
from ubr_pretrain.ct import Volume
from ubr_pretrain.landmarks import TRUNK
from ubr_pretrain.planted_faults import FAULTS, plant
from ubr_pretrain.scorer import read_scorer
from ubr_pretrain.volumes import read_volume

CALIBRATION = known_calibration()
SCORED = sorted(set(FAULTS) - {"noise", "wrong_axis", "metal", "spacing_x0.7", "spacing_x1.5"})
"""Faults whose scores follow from the scan's own; a large or small body explains a spacing that is
off by little."""


def codes(anomalies):
    return [anomaly.code for anomaly in anomalies]


@st.composite
def faultless(draw, shortest_units=20.0, most_noise_mm=3.0):
    top = draw(st.floats(max(0, shortest_units - 54), 165))
    bottom = draw(st.floats(-55, top - shortest_units))
    return known_scan(
        top,
        bottom,
        draw(st.sampled_from([0.8, 1.5, 2.5, 5.0, 8.0])),
        draw(st.floats(0.85, 1.18)),
        draw(st.floats(0, most_noise_mm)),
        draw(st.integers(0, 99)),
    )


@settings(max_examples=60)
@given(faultless())
def test_faultless_scans_raise_nothing(scan):
    scores, z_mm = scan
    assert find_anomalies(scores, z_mm, float(z_mm[1]), CALIBRATION) == ()
    assert find_anomalies(scores, z_mm, float(z_mm[1]), None) == ()


@settings(max_examples=40)
@given(
    # With 3 mm the edges of one block in some 1,700 lie a slice beyond the margin.
    faultless(shortest_units=90, most_noise_mm=1.5),
    st.sampled_from(SCORED),
    st.integers(0, 999),
)
def test_planted_faults_of_long_scans_are_found_in_their_place(scan, name, seed):
    scores, z_mm = scan
    step_mm = float(z_mm[1])
    volume = Volume(np.zeros((len(scores), 1, 1), np.int16), (step_mm, 1.0, 1.0), z_mm)
    planted = plant(volume, name, np.random.default_rng(seed))
    step_mm = planted.volume.spacing_mm_zyx[0]
    found = find_anomalies(scores[planted.source], planted.volume.z_mm, step_mm, CALIBRATION)
    right = [anomaly for anomaly in found if anomaly.code == planted.code]
    if planted.code in ("NON_MONOTONE", "GAP") and _lies_in_head(scan, planted):
        return  # scores are less linear there, and twice as much is allowed
    if planted.code == "SPACING_MISMATCH" and _trunk_mm(scan, planted) < 1.5 * SPACING_TRUNK_MM:
        return  # little to judge a spacing by: below 155 mm some are missed
    assert right, (name, found)
    margin = max(2, round(25 / step_mm))  # what the filters take off the edges
    if planted.code != "SPACING_MISMATCH":  # is said of the trunk
        assert min(abs(a.first_slice - planted.first_slice) for a in right) <= margin
        assert min(abs(a.last_slice - planted.last_slice) for a in right) <= margin


def _trunk_mm(scan, planted):
    """Return how much of the trunk there is, by the header or in truth, whichever is less."""
    units = CALIBRATION.coordinate(scan[0][planted.source])
    trunk = (units >= TRUNK[0]) & (units <= TRUNK[1])
    stated_mm, true_mm = planted.volume.z_mm[trunk], scan[1][planted.source][trunk]
    return min(np.ptp(stated_mm), np.ptp(true_mm)) if trunk.any() else 0.0


def _lies_in_head(scan, planted):
    scores = scan[0][planted.source]
    return bool(
        (CALIBRATION.coordinate(scores[planted.first_slice : planted.last_slice + 1]) > 90).any()
    )


# here the middle of the turned block ties with the line, up to rounding errors
@example((np.round(-4.29 + 0.075 * np.arange(138), 3), 2.5 * np.arange(138)), 0, 1.0, 1.0)
@settings(max_examples=30)
@given(faultless(shortest_units=60), st.integers(0, 99), st.floats(0.1, 30), st.floats(-50, 50))
def test_unit_of_the_scores_does_not_matter(scan, seed, factor, offset):
    scores, z_mm = scan
    order = np.arange(len(scores))
    first = int(np.random.default_rng(seed).integers(len(scores) // 2))
    block = slice(first, first + len(scores) // 3)
    order[block] = order[block][::-1]
    here = find_anomalies(scores[order], z_mm, float(z_mm[1]), CALIBRATION)
    there = find_anomalies(
        factor * scores[order] + offset,
        z_mm,
        float(z_mm[1]),
        rescaled(CALIBRATION, factor, offset),
    )
    assert [(a.code, a.first_slice, a.last_slice) for a in here] == [
        (a.code, a.first_slice, a.last_slice) for a in there
    ]


def test_block_reversed_is_found_to_the_slice():
    scores, z_mm = known_scan(95, -40)
    order = np.arange(len(scores))
    order[30:51] = order[30:51][::-1]
    (anomaly,) = (
        a for a in find_anomalies(scores[order], z_mm, 5.0, CALIBRATION) if a.code == "NON_MONOTONE"
    )
    assert (anomaly.first_slice, anomaly.last_slice) == (30, 50)
    # 100 mm less the tips that the filter takes
    assert anomaly.value == pytest.approx(100, abs=12)


def test_reversed_and_non_monotone_are_told_apart():
    scores, z_mm = known_scan(95, -40)
    assert codes(find_anomalies(scores[::-1], z_mm, 5.0, CALIBRATION)) == ["REVERSED"]
    order = np.arange(len(scores))
    order[20:70] = order[20:70][::-1]
    assert "REVERSED" not in codes(find_anomalies(scores[order], z_mm, 5.0, CALIBRATION))
    assert "NON_MONOTONE" in codes(find_anomalies(scores[order], z_mm, 5.0, CALIBRATION))


def test_local_faults_of_a_reversed_scan_are_mirrored():
    scores, z_mm = known_scan(95, -40)
    order = np.arange(len(scores))
    order[20:40] = order[20:40][::-1]
    last = len(scores) - 1
    there = find_anomalies(scores[order], z_mm, 5.0, CALIBRATION)
    back = find_anomalies(scores[order][::-1], z_mm, 5.0, CALIBRATION)
    assert sorted((a.code, last - a.last_slice, last - a.first_slice) for a in there) == sorted(
        (a.code, a.first_slice, a.last_slice) for a in back if a.code != "REVERSED"
    )
    assert "REVERSED" in codes(back)


def test_gap_of_the_header_is_named_with_what_is_missing():
    scores, z_mm = known_scan(95, -40)
    keep = np.r_[0:40, 52 : len(scores)]
    (anomaly,) = find_anomalies(scores[keep], z_mm[keep], 5.0, CALIBRATION)
    assert (anomaly.code, anomaly.first_slice, anomaly.last_slice) == ("GAP", 39, 40)
    assert anomaly.value == pytest.approx(60)


def test_gap_that_the_header_hides_is_seen_in_the_scores():
    scores, z_mm = known_scan(95, -40)
    keep = np.r_[0:40, 60 : len(scores)]
    found = find_anomalies(scores[keep], z_mm[: len(keep)], 5.0, CALIBRATION)
    gap = next(a for a in found if a.code == "GAP")
    assert (gap.first_slice, gap.last_slice) == (39, 40)
    assert gap.value == pytest.approx(100, abs=15)


def test_short_scans_are_not_judged():
    for scores, z_mm in (known_scan(50, 45, 1.0), (np.arange(7.0)[::-1], 20 * np.arange(7.0))):
        (anomaly,) = find_anomalies(scores, z_mm, float(z_mm[1]), CALIBRATION)
        assert anomaly.code == "TOO_SHORT"
    assert codes(find_anomalies(np.zeros(1), np.zeros(1), 5.0, CALIBRATION)) == ["TOO_SHORT"]


def test_V69_scores_that_follow_no_position_are_out_of_range():
    """Scores that are equal or random over a whole scan give the flag OUT_OF_RANGE alone."""
    z_mm = 5.0 * np.arange(60)
    rng = np.random.default_rng(3)
    for scores in (np.full(60, 2.0), rng.normal(0, 4, 60), score_of(20 + 0.01 * np.arange(60))):
        assert codes(find_anomalies(scores, z_mm, 5.0, CALIBRATION)) == ["OUT_OF_RANGE"]


def test_V69_scan_below_the_last_landmark_is_out_of_range_whatever_its_direction():
    """Legs are flagged OUT_OF_RANGE with the last landmark that the scorer knows, either way up."""
    scores, z_mm = known_scan(-56, -110)
    for some in (scores, scores[::-1]):
        (anomaly,) = find_anomalies(some, z_mm, 5.0, CALIBRATION)
        assert anomaly.code == "OUT_OF_RANGE"
        assert "lesser_trochanter" in anomaly.message


def test_pelvis_with_long_thighs_is_judged():
    scores, z_mm = known_scan(-8, -98)
    assert find_anomalies(scores, z_mm, 5.0, CALIBRATION) == ()
    assert codes(find_anomalies(scores[::-1], z_mm, 5.0, CALIBRATION)) == ["REVERSED"]


def test_slices_far_beyond_the_landmarks_are_named():
    scores, z_mm = known_scan(90, -120)
    (anomaly,) = find_anomalies(scores, z_mm, 5.0, CALIBRATION)
    beyond = np.flatnonzero(CALIBRATION.coordinate(scores) < -49 - 50)
    assert (anomaly.first_slice, anomaly.last_slice) == (beyond[0], beyond[-1])
    assert anomaly.code == "OUT_OF_RANGE"


def test_heads_are_judged_leniently_and_their_caps_not_at_all():
    scores, z_mm = known_scan(168, 60, 4.0)
    scores[:4] = score_of([95, 140, 168, 150])  # slices above the skull
    assert find_anomalies(scores, z_mm, 4.0, CALIBRATION) == ()


def test_V70_the_papers_rule_is_the_correlation_in_the_trunk():
    """A correlation below 0.99 in the trunk is the flag NONLINEAR, with the correlation."""
    scores, z_mm = known_scan(99, -44, 4.0)

    def ruled(bend_mm):
        bent = scores + bend_mm * SCORE_PER_MM * np.sin(z_mm / 40)
        found = find_anomalies(bent, z_mm, 4.0, CALIBRATION)
        return bent, [a for a in found if "the paper's rule" in a.message]

    bent, none = ruled(5.0)
    assert none == []
    assert np.corrcoef(z_mm, bent)[0, 1] > 0.99
    bent, (anomaly,) = ruled(45.0)
    trunk = slice(anomaly.first_slice, anomaly.last_slice + 1)
    assert len(z_mm[trunk]) > 0.85 * len(z_mm)
    assert anomaly.code == "NONLINEAR"
    assert anomaly.value == pytest.approx(float(np.corrcoef(z_mm[trunk], bent[trunk])[0, 1]))
    assert anomaly.value < 0.99


def test_single_stray_slice_is_named_alone():
    scores, z_mm = known_scan(90, -20)
    scores[33] += 80 * SCORE_PER_MM
    found = find_anomalies(scores, z_mm, 5.0, CALIBRATION)
    assert [(a.code, a.first_slice, a.last_slice) for a in found] == [("NONLINEAR", 33, 33)]
    assert found[0].value == pytest.approx(80, abs=8)


def test_a_few_slices_that_stray_together_are_no_disorder():
    scores, z_mm = known_scan(90, -20, 4.0)
    scores[40:42] += 90 * SCORE_PER_MM
    found = find_anomalies(scores, z_mm, 4.0, CALIBRATION)
    assert [(a.code, a.first_slice, a.last_slice) for a in found] == [("NONLINEAR", 40, 41)]


def test_doubt_of_the_calibration_is_allowed_for_where_it_lies():
    doubtful = known_calibration(
        landmarks=tuple(
            replace(m, coordinate_sd=40.0 if m.name == "vertex" else 4.0)
            for m in CALIBRATION.landmarks
        )
    )
    scores, z_mm = known_scan(165, 20, 4.0)
    for block, in_head in ((slice(10, 28), True), (slice(90, 108), False)):
        order = np.arange(len(scores))
        order[block] = order[block][::-1]
        sure = codes(find_anomalies(scores[order], z_mm, 4.0, CALIBRATION))
        unsure = codes(find_anomalies(scores[order], z_mm, 4.0, doubtful))
        assert "NON_MONOTONE" in sure
        assert ("NON_MONOTONE" in unsure) == (not in_head)


@given(st.floats(0.9, 1.1), st.sampled_from([0.4, 0.5, 1.0, 2.0, 2.5]))
def test_expected_spacing_is_the_true_one_whatever_the_header_says(build, factor):
    scores, z_mm = known_scan(98, -44, 4.0, build)
    step = expected_step(scores, factor * z_mm, factor * 4.0, CALIBRATION)
    assert step.step_mm == pytest.approx(4.0 / build, rel=0.02)  # in an average body
    assert 0.05 < step.sd_mm / step.step_mm < 0.3
    found = codes(find_anomalies(scores, factor * z_mm, factor * 4.0, CALIBRATION))
    assert found == ([] if factor == 1.0 else ["SPACING_MISMATCH"])


def test_expected_spacing_is_unknown_without_a_trunk():
    scores, z_mm = known_scan(160, 110)
    assert expected_step(scores, z_mm, 5.0, CALIBRATION) is None
    assert expected_step(scores[:3], z_mm[:3], 5.0, CALIBRATION) is None


def test_noise_that_the_views_show_is_allowed_for():
    scores, z_mm = known_scan(90, -20)
    scores[33] += 45 * SCORE_PER_MM
    sd = np.full(len(scores), 10 * SCORE_PER_MM)
    assert codes(find_anomalies(scores, z_mm, 5.0, CALIBRATION)) == ["NONLINEAR"]
    assert find_anomalies(scores, z_mm, 5.0, CALIBRATION, sd) == ()


def test_scores_that_are_not_finite_are_refused():
    scores, z_mm = known_scan(90, -20)
    with pytest.raises(ValueError, match="one finite score a slice"):
        find_anomalies(scores[:-1], z_mm, 5.0, CALIBRATION)
    scores[4] = np.nan
    with pytest.raises(ValueError, match="one finite score a slice"):
        find_anomalies(scores, z_mm, 5.0, CALIBRATION)


def test_without_a_calibration_the_shape_is_judged_alone():
    scores, z_mm = known_scan(90, -20)
    assert codes(find_anomalies(scores[::-1], z_mm, 5.0, None)) == ["REVERSED"]
    assert find_anomalies(scores, 2 * z_mm, 10.0, None) == ()


@pytest.mark.real
@pytest.mark.parametrize("name", ["cmb_crc_01068", "lungdx_a0002"])
def test_real_scan_is_reversed_only_when_it_is(real_ct, name):
    scorer = read_scorer(device="cpu", num_views=1)
    volume = read_volume(real_ct / f"{name}.nii.gz")
    assert "REVERSED" not in codes(scorer.score_volume(volume, name).anomalies)
    found = scorer.score_volume(volume.reversed(), name).anomalies
    assert [(a.first_slice, a.last_slice) for a in found if a.code == "REVERSED"] == [
        (0, volume.num_slices - 1)
    ]
