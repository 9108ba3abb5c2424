"""Measuring a scorer: bodies that it reads perfectly, and what is learned from whom."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.ubr_pretrain.ramp_bodies import write_ramp_bodies, write_ramp_regressor
from ubr_pretrain.labelled_curves import LabelledCurve
from ubr_pretrain.measure_scorer import main
from ubr_pretrain.scorer_judgement import judge, volume_record, zone_accuracy
from ubr_pretrain.zones import ZoneThresholds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_ramp_regressor(tmp_path_factory.mktemp("weights") / "ubr.safetensors")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    tops = (106.0, 104.0, 105.0, 103.0, 107.0, 105.5)
    return write_ramp_bodies(tmp_path_factory.mktemp("data") / "ramps", tops)


def arguments(checkpoint, bodies, *more):
    tables = ["--landmarks", str(bodies / "landmarks.csv")]
    tables += ["--classes", str(bodies / "slice_classes.csv")]
    return [str(checkpoint), "--volumes", str(bodies), *tables, *more]


def test_a_scorer_that_is_right_everywhere_measures_so(tmp_path, checkpoint, bodies, capsys):
    out = tmp_path / "out"
    argv = arguments(checkpoint, bodies, "--views", "4", "--out", str(out))
    assert main([*argv, "--only", "ramp0", "ramp2"]) == 0
    result = json.loads((out / "measured.json").read_text())
    assert [record["volume"] for record in result["volumes"]] == ["ramp0", "ramp2"]
    summary = result["summary"]
    assert (summary["right_direction"], summary["num_volumes"]) == (2, 2)
    assert summary["zone_accuracy_mean"] > 0.97
    assert summary["landmark_error_mm_median"] <= 5.0  # a slice
    assert summary["zone_calibrations"] == 14  # of 15 pairs, one leaves nobody to test
    assert max(record["max_fall_back"] for record in result["volumes"]) < 0.01
    assert result["uncertainty"]["num_subjects"] == 2
    assert result["uncertainty"]["num_landmarks"] == len(result["landmarks"])
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "direction right on 2 of 2" in printed
    assert "95 % intervals hold" in printed


def test_a_calibration_takes_the_place_of_the_others(tmp_path, checkpoint, bodies):
    from ubr_pretrain.body_coordinate import fit_calibration
    from ubr_pretrain.calibration import write_calibration
    from ubr_pretrain.landmarks import read_landmarks
    from ubr_pretrain.measure_scorer import measure, score_labelled
    from ubr_pretrain.scoring import read_curve

    tables = [bodies / "landmarks.csv"], [bodies / "slice_classes.csv"]
    curves = score_labelled(checkpoint, [bodies], *tables, 1, "cpu")
    scored = {curve.name: read_curve(curve.scores, curve.z_mm) for curve in curves}
    file = tmp_path / "calibration.json"
    write_calibration(fit_calibration(scored, read_landmarks(tables[0][0]), "six ramps"), file)
    found = measure(checkpoint, [bodies], *tables, calibration=file, num_views=1)
    assert found["calibrated_on"] == "six ramps"
    assert found["summary"]["zone_calibrations"] == 1
    assert found["uncertainty"] is None
    assert found["summary"]["headline_error_mm_median"] <= 5.0
    assert {error["num_subjects"] for error in found["landmarks"]} == {0}


def test_a_curve_is_recorded_by_plain_formulas():
    z = np.arange(6) * 10.0
    scores = np.array([0.0, 1.0, 0.4, 2.0, 1.9, 3.0])
    zones = np.array([-1, 0, 0, 1, 2, -1])
    record = volume_record(LabelledCurve("v", "s", z, scores, {}, zones))
    assert record["max_fall_back"] == pytest.approx(0.6)
    slope = np.polyfit(z, scores, 1)[0]
    assert record["max_fall_back_mm"] == pytest.approx(0.6 / slope)
    assert record["abs_r"] == pytest.approx(np.corrcoef(z, scores)[0, 1])
    assert record["trunk_slices"] == 4
    assert record["trunk_abs_r"] == pytest.approx(np.corrcoef(z[1:5], scores[1:5])[0, 1])
    falling = volume_record(LabelledCurve("v", "s", z, -scores, {}, zones))
    assert falling["direction"] == "inferior_to_superior"
    assert falling["max_fall_back_mm"] is None


def zone_curve(name, subject, offset=0.0):
    zones = np.repeat([-1, 0, 1, 2, -1], 10)
    z = np.arange(50) * 5.0
    return LabelledCurve(name, subject, z, np.arange(50.0) + offset, {}, zones)


def test_thresholds_come_from_two_other_subjects():
    curves = [
        zone_curve("a1", "a"), zone_curve("a2", "a"), zone_curve("b", "b"),
        zone_curve("odd", "odd", offset=4.0),
    ]  # fmt: skip
    found = zone_accuracy(curves, ["odd"], None, np.random.default_rng(0))
    # pairs without the odd one: (a1, b) and (a2, b); 4 slices are lost at either border
    assert found["num_calibrations"] == 2
    assert found["mean"] == pytest.approx(22 / 30)
    both = zone_accuracy(curves, ["a1", "a2"], None, np.random.default_rng(0))
    assert both["num_calibrations"] == 1  # only (b, odd) holds nothing of a
    given = zone_accuracy(curves, ["odd"], ZoneThresholds(23.5, 33.5), np.random.default_rng(0))
    assert (given["mean"], given["num_calibrations"]) == (1.0, 1)


def test_volumes_that_cannot_set_thresholds_leave_the_accuracy_open():
    curves = [zone_curve("a", "a"), zone_curve("b", "a")]
    found = zone_accuracy(curves, ["a"], None, np.random.default_rng(0))
    assert found == {"mean": None, "sd": None, "num_calibrations": 0, "per_volume": {}}


def test_uncertainty_of_too_few_subjects_is_left_open():
    curves = [zone_curve("a", "a"), zone_curve("b", "b"), zone_curve("c", "c")]
    curves = [
        LabelledCurve(c.name, c.subject, c.z_mm, c.scores,
                      {"lung_apex": 10, "liver_dome": 20, "iliac_crest": 30}, c.zones,
                      np.full(50, 0.1))
        for c in curves
    ]  # fmt: skip
    found = judge(curves, ["a"], None, np.random.default_rng(0))
    assert "3 subjects" in found["uncertainty"]["reason"]
    assert found["summary"]["landmark_error_mm_median"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only", "nobody"], "--only nobody: not among ramp0"),
        (["--views", "99"], "num_views 99 must be 1 to"),
        (["--calibration", "nothing.json"], "nothing.json"),
    ],
)
def test_what_cannot_be_measured_ends_with_one_line(checkpoint, bodies, capsys, more, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments(checkpoint, bodies, *more))
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_label_of_a_slice_that_is_not_there_is_refused(tmp_path, checkpoint, bodies, capsys):
    table = pd.read_csv(bodies / "landmarks.csv")
    lowest = table[table["volume"] == table["volume"].iloc[0]]["index_sup_to_inf"].idxmax()
    table.loc[lowest, "index_sup_to_inf"] = 500
    table.to_csv(tmp_path / "landmarks.csv", index=False)
    argv = arguments(checkpoint, bodies)
    argv[argv.index("--landmarks") + 1] = str(tmp_path / "landmarks.csv")
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "slice 500 is labelled, it has 100" in capsys.readouterr().err
