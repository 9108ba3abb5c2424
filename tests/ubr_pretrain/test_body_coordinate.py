"""The body coordinate: what a map of the body promises, and a fit that must find the known one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.known_body import (
    MM_PER_UNIT,
    SCORE_PER_MM,
    known_calibration,
    known_scan,
    rescaled,
    score_of,
)
from ubr_pretrain.body_coordinate import (
    LANDMARK_COORDINATES,
    LandmarkMark,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from ubr_pretrain.landmarks import ZONE_NAMES
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.zones import ZoneThresholds

numbers = st.floats(-60, 60)


@st.composite
def bent_calibrations(draw):
    """Draw calibrations of regressors whose scores are not linear in mm."""
    steps = draw(st.lists(st.floats(0.1, 5), min_size=12, max_size=12))
    scores = np.cumsum(steps) + draw(numbers)
    known = known_calibration()
    return replace(
        known,
        landmarks=tuple(
            replace(mark, score=float(score))
            for mark, score in zip(known.landmarks, scores, strict=True)
        ),
        thresholds=ZoneThresholds(float(scores[4]), float(scores[8])),
    )


def test_anchors_are_0_and_100():
    calibration = known_calibration()
    scores = [m.score for m in calibration.landmarks if m.name in ("iliac_crest", "lung_apex")]
    assert calibration.coordinate(np.array(scores)).tolist() == [100.0, 0.0]


@given(bent_calibrations(), st.lists(numbers, min_size=2, max_size=8))
def test_coordinate_falls_with_the_score_and_score_at_undoes_it(calibration, scores):
    scores = np.unique(np.round(scores, 6))
    coordinates = calibration.coordinate(scores)
    assert (np.diff(coordinates) < 0).all()
    np.testing.assert_allclose(calibration.score_at(coordinates), scores, atol=1e-6)


@given(bent_calibrations(), st.floats(0.1, 20), numbers, st.lists(numbers, min_size=1, max_size=5))
def test_unit_of_the_scores_does_not_matter(calibration, factor, offset, scores):
    scores = np.array(scores)
    other = rescaled(calibration, factor, offset)
    np.testing.assert_allclose(
        other.coordinate(factor * scores + offset), calibration.coordinate(scores), atol=1e-5
    )
    assert other.mm_per_unit == pytest.approx(calibration.mm_per_unit)


def test_uncertainty_is_the_landmarks_own_and_grows_beyond_them():
    calibration = known_calibration(uncertainty_scale=3.0)
    at_marks = np.array([m.score for m in calibration.landmarks])
    np.testing.assert_allclose(calibration.coordinate_sd(at_marks), 4.0)
    beyond = calibration.coordinate_sd(score_of([-59, -69]))
    np.testing.assert_allclose(beyond, [4 + 0.1 * 10, 4 + 0.1 * 20])  # 10 % of the distance
    with_views = calibration.coordinate_sd(score_of([50]), np.array([0.12]))
    np.testing.assert_allclose(with_views, np.hypot(4, 3 * 0.12 / (SCORE_PER_MM * MM_PER_UNIT)))


def test_zones_are_those_of_the_coordinates():
    calibration = known_calibration()
    coordinates = np.array([150, 101, 99, 57, 55, 1, -1, -44, -46, -120])
    names = calibration.zones(score_of(coordinates))
    bounds = [np.inf, 100, 56, 0, -45, -np.inf]
    expected = [
        next(ZONE_NAMES[k] for k in range(5) if bounds[k] > c >= bounds[k + 1]) for c in coordinates
    ]
    assert names == expected


def test_landmarks_are_found_where_they_lie():
    scores, z_mm = known_scan(104, -20, step_mm=2.0, build=1.1)
    found = {mark.name: mark for mark in known_calibration().locate(scores, z_mm)}
    assert set(found) == {n for n, c in LANDMARK_COORDINATES.items() if 104 >= c >= -20}
    for name, mark in found.items():
        true_mm = (104 - LANDMARK_COORDINATES[name]) * MM_PER_UNIT * 1.1
        assert abs(mark.z_mm - true_mm) < 1.0, name
        assert mark.slice_index == round(mark.z_mm / 2)
        assert mark.uncertainty_mm == pytest.approx(4 * 4.4, rel=0.02)


def test_landmarks_of_a_reversed_scan_are_mirrored():
    scores, z_mm = known_scan(104, -20, step_mm=2.0)
    calibration = known_calibration()
    there = {m.name: m.z_mm for m in calibration.locate(scores, z_mm)}
    back = {m.name: m.z_mm for m in calibration.locate(scores[::-1], z_mm[-1] - z_mm[::-1])}
    assert there.keys() == back.keys()
    for name, place in there.items():
        assert back[name] == pytest.approx(z_mm[-1] - place, abs=1e-6)


def test_scan_without_change_shows_no_landmark():
    assert known_calibration().locate(np.zeros(9), np.arange(9.0)) == ()


def labelled_scans(ends, builds, step_mm=2.0):
    """Return curves and exact marks of scans between body coordinates."""
    curves, marks = {}, []
    for number, ((top, bottom), build) in enumerate(zip(ends, builds, strict=True)):
        name = f"v{number}"
        scores, z_mm = known_scan(top, bottom, step_mm, build)
        curves[name] = read_curve(scores, z_mm)
        for landmark, place in LANDMARK_COORDINATES.items():
            if top > place > bottom:
                index = round((top - place) * MM_PER_UNIT * build / step_mm)
                marks.append(LandmarkMark(name, landmark, index, 0.0))
    return curves, marks


def test_fit_finds_the_known_calibration():
    curves, marks = labelled_scans([(110, -60), (90, -50), (120, 10)], [0.9, 1.0, 1.1])
    found, known = fit_calibration(curves, marks), known_calibration()
    assert [m.name for m in found.landmarks] == [m.name for m in known.landmarks][1:]
    for mark in found.landmarks:
        # half a slice of 2 mm is a quarter of a unit
        assert abs(mark.score - score_of(mark.coordinate)) < 1.0 * SCORE_PER_MM, mark.name
        assert mark.coordinate_sd < 0.5
    assert found.slope_per_mm == pytest.approx(SCORE_PER_MM, rel=0.02)
    assert found.mm_per_unit == pytest.approx(MM_PER_UNIT, rel=0.02)
    assert 0.05 < found.slope_sd / found.slope_per_mm < 0.15
    assert found.wander_sd < 0.3
    for border, place in (("chest_abdomen", 56), ("abdomen_pelvis", 0)):
        assert getattr(found.thresholds, border) == pytest.approx(float(score_of(place)), abs=0.1)


def test_landmarks_that_bodies_show_in_either_order_do_not_stop_the_coordinate():
    curves, marks = labelled_scans([(110, -60), (90, -50)], [1.0, 1.0])
    swap = {"lung_base": "kidney_upper_pole", "kidney_upper_pole": "lung_base"}
    marks = [replace(m, landmark=swap.get(m.landmark, m.landmark)) for m in marks]
    found = fit_calibration(curves, marks)
    slopes = np.diff([m.score for m in found.landmarks]) / -np.diff(
        [m.coordinate for m in found.landmarks]
    )
    assert slopes.min() > 0.2 * found.score_per_unit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, m: (c, [replace(x, index=9999) for x in m]), "v0: C7_T1 at slice 9999"),
        (lambda c, m: (c, m[:1]), "1 landmarks"),
        (lambda c, m: (c, [x for x in m if LANDMARK_COORDINATES[x.landmark] > 30]), "no pelvis"),
        (lambda c, m: (c, [replace(x, index=340 - x.index) for x in m]), "marked below"),
    ],
    ids=["outside", "one", "chest only", "counted from below"],
)
def test_scans_that_cannot_calibrate_are_refused(change, message):
    curves, marks = labelled_scans([(110, -60)], [1.0])
    with pytest.raises(ValueError, match=message):
        fit_calibration(*change(curves, marks))


def test_T24_scores_that_fall_from_head_to_feet_calibrate_nothing():
    """A regressor of reversed volumes: calibration refuses and says that its scores fall."""
    curves, marks = labelled_scans([(110, -60)], [1.0])
    fallen = read_curve(-curves["v0"].scores, curves["v0"].z_mm)
    assert fallen.direction == "inferior_to_superior"
    words = r"v0: scores fall from .* at C7_T1 to .*; a regressor's scores grow towards the feet"
    with pytest.raises(ValueError, match=words):
        fit_calibration({"v0": fallen}, marks)


def test_file_brings_back_the_same_calibration(tmp_path):
    write_calibration(known_calibration(), tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == known_calibration()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version": 1', '"schema_version": 99', "schema_version 99"),
        ('"slope_per_mm": 0.03', '"slope_per_mm": -1', "slope -1"),
        ('"slope_per_mm": 0.03', '"slope_per_mm": "steep"', "slope_per_mm"),
        ('"source"', '"sauce"', "unknown field sauce"),
        ('"score": 6.0', '"score": -99', "scores must increase"),
        ("{", "", "not a calibration"),
    ],
)
def test_damaged_file_is_named(tmp_path, old, new, message):
    path = tmp_path / "c.json"
    write_calibration(known_calibration(), path)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(ValueError, match=message) as refusal:
        read_calibration(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
