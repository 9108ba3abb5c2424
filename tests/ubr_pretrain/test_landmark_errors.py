"""Landmarks found by what other subjects say: perfect scores, known offsets, who teaches whom."""

import numpy as np
import pytest

from tests.ubr_pretrain.test_labelled_curves import curve_of
from ubr_pretrain.landmark_errors import aligned_places, landmark_errors, typical_slope

PLACES_MM = {"lung_apex": 50.0, "liver_dome": 250.0, "iliac_crest": 400.0}


def body(name, subject=None, shift_mm=0.0, offset=0.0, slope=0.05):
    """A scan of 600 mm in which all landmarks lie ``shift_mm`` lower, scores ``offset`` higher."""
    z = np.arange(121) * 5.0
    marks = {landmark: round((z_mm + shift_mm) / 5) for landmark, z_mm in PLACES_MM.items()}
    return curve_of(slope * (z - shift_mm) + offset, z, marks, name, subject or name)


def test_scores_that_agree_find_every_landmark():
    curves = [body("a"), body("b", shift_mm=30), body("c", shift_mm=-20)]
    errors = landmark_errors(curves, ["a", "b", "c"])
    assert len(errors) == 9
    assert max(abs(error.error_mm) for error in errors) < 0.1
    assert {error.num_subjects for error in errors} == {2}


def test_an_offset_of_scores_becomes_an_error_in_mm():
    curves = [body("a"), body("b"), body("odd", offset=1.0)]
    errors = {e.landmark: e.error_mm for e in landmark_errors(curves, ["odd"])}
    assert errors == pytest.approx(dict.fromkeys(PLACES_MM, -20.0), abs=0.1)
    told = {"liver_dome": 13.5}  # the calibrated score, 250 mm * 0.05 + 1
    (error,) = landmark_errors(curves, ["odd"], told, slope_per_mm=0.05)
    assert error.landmark == "liver_dome"
    assert error.error_mm == pytest.approx(0.0, abs=0.1)


def test_volumes_of_the_same_subject_do_not_teach_and_count_once():
    curves = [body("a1", "a", offset=1), body("a2", "a", offset=3), body("b"), body("c", offset=1)]
    for error in landmark_errors(curves, ["a1"]):
        assert error.num_subjects == 2
        assert error.expected_score - error.score == pytest.approx(0.5 - 1, abs=1e-6)
    for error in landmark_errors(curves, ["b"]):  # a counts by its mean, 2
        assert error.expected_score - error.score == pytest.approx(1.5, abs=1e-6)


def test_a_landmark_that_falls_outside_is_told():
    low = curve_of(0.05 * (np.arange(20) * 5.0 + 100), marks={"liver_dome": 2}, name="low")
    low = type(low)(**{**vars(low), "subject": "low"})
    told = {"liver_dome": 2.0}
    (error,) = landmark_errors([low], ["low"], told, slope_per_mm=0.05)
    assert error.outside
    # 2.0 lies at -60 mm; the smooth curve is flatter at its ends by less than a slice
    assert error.error_mm == pytest.approx(-70, abs=3)


def test_scores_that_fall_towards_the_feet_are_refused():
    with pytest.raises(ValueError, match=r"grow by -0\.05 per mm"):
        landmark_errors([body("a", slope=-0.05), body("b", slope=-0.05)], ["a"])
    assert typical_slope([body("a", slope=0.02), body("b"), body("c")]) == pytest.approx(0.05)


def test_volumes_are_shifted_onto_common_landmarks():
    curves = [body("a"), body("b", shift_mm=30), body("c", shift_mm=-20)]
    places, offsets = aligned_places(curves)
    assert places["iliac_crest"] - places["lung_apex"] == pytest.approx(350)
    assert sum(places.values()) == pytest.approx(0, abs=1e-9)
    for curve in curves:
        for landmark, z_mm in curve.marks_mm.items():
            assert z_mm - offsets[curve.name] == pytest.approx(places[landmark])
