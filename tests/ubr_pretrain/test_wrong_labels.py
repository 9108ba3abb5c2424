"""Labels of slices that do not fit the volumes: every command that reads them refuses."""

import json

import pandas as pd
import pytest

from tests.command_line import refused_line
from tests.ubr_pretrain.ramp_bodies import write_ramp_bodies, write_ramp_regressor
from ubr_pretrain.calibrate_scorer import main as calibrate_scorer
from ubr_pretrain.evaluate_scores import main as evaluate_scores
from ubr_pretrain.measure_scorer import main as measure_scorer
from ubr_pretrain.number_table import MAX_WHOLE
from ubr_pretrain.place_slices import main as place_slices

INDEX = "index_sup_to_inf"


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Three bodies, a regressor, and a folder of scores of the bodies."""
    folder = tmp_path_factory.mktemp("labels")
    bodies = write_ramp_bodies(folder / "ramps", (106.0, 104.0, 105.0))
    write_ramp_regressor(folder / "ubr.safetensors")
    classes = pd.read_csv(bodies / "slice_classes.csv", dtype={"volume": str})
    (folder / "scores").mkdir()
    scored = classes.assign(slice_index=classes[INDEX], z_mm=5.0 * classes[INDEX])
    scored.assign(score=scored["z_mm"]).to_csv(folder / "scores/scores.csv", index=False)
    about = {"r": 1.0, "direction": "superior_to_inferior"}
    records = [{"volume": v, "subject": v, **about} for v in classes["volume"].unique()]
    (folder / "scores/scores.json").write_text(json.dumps({"volumes": records}))
    return folder


def changed(ramps, tmp_path, name, change):
    """Write a table of the bodies with the rows of the first one changed; return its path."""
    table = pd.read_csv(ramps / "ramps" / name, dtype={"volume": str})
    first = table["volume"] == "ramp0"
    table.loc[first, INDEX] = change(table.loc[first, INDEX])
    table.to_csv(tmp_path / name, index=False)
    return tmp_path / name


def evaluating(ramps, tmp_path, classes):
    return [str(ramps / "scores"), "--labels", str(classes), "--out", str(tmp_path / "out")]


def measuring(ramps, classes, *landmarks):
    tables = ["--landmarks", *map(str, landmarks), "--classes", str(classes)]
    return [str(ramps / "ubr.safetensors"), "--volumes", str(ramps / "ramps"), *tables]


def from_the_feet(index):
    return index.max() - index


def test_N89_labels_counted_from_the_wrong_end_are_refused(ramps, tmp_path, capsys):
    """Classes or landmarks of one volume counted from its inferior end are refused by
    evaluate_scores, measure_scorer and calibrate_scorer, with the volume and what lies wrongly."""
    right = [ramps / "ramps" / name for name in ("slice_classes.csv", "landmarks.csv")]
    classes = changed(ramps, tmp_path, "slice_classes.csv", from_the_feet)
    for main, argv in (
        (evaluate_scores, evaluating(ramps, tmp_path, classes)),
        (measure_scorer, measuring(ramps, classes, right[1])),
    ):
        line = refused_line(main, capsys, argv)
        assert "slice_classes.csv: ramp0: " in line
        assert "lies above" in line
        assert line.endswith("slices are counted from the most superior one")
    marks = changed(ramps, tmp_path, "landmarks.csv", from_the_feet)
    calibrating = [*measuring(ramps, right[0], marks)[:-2], "--out", str(tmp_path / "c.json")]
    for main, argv in (
        (measure_scorer, measuring(ramps, right[0], marks)),
        (calibrate_scorer, calibrating),
    ):
        line = refused_line(main, capsys, argv)
        assert "landmarks.csv: ramp0: C7_T1 is marked below iliac_crest; slices are counted" in line


def test_N89_labels_beyond_the_last_slice_are_refused(ramps, tmp_path, capsys):
    """A labelled slice that a scored volume does not have ends evaluate_scores and measure_scorer
    with its number; labelled volumes that were not scored are counted in the first line."""
    num = (pd.read_csv(ramps / "scores/scores.csv")["volume"] == "ramp0").sum()
    classes = changed(ramps, tmp_path, "slice_classes.csv", lambda index: index + 1)
    argv = evaluating(ramps, tmp_path, classes)
    said = f"slice {num} of ramp0 is labelled, it has {num}"
    assert said in refused_line(evaluate_scores, capsys, argv)
    argv = measuring(ramps, classes, ramps / "ramps/landmarks.csv")
    said = f"ramp0: slice {num} is labelled, it has {num}"
    assert said in refused_line(measure_scorer, capsys, argv)
    more = tmp_path / "more.csv"
    rows = (ramps / "ramps/slice_classes.csv").read_text("utf-8")
    more.write_text(f"{rows}elsewhere,0,chest\n", "utf-8")
    assert evaluate_scores(evaluating(ramps, tmp_path, more)) == 0
    assert "3 of 3 scored volumes are labelled, 1 labelled ones" in capsys.readouterr().out


def test_N89_a_volume_in_two_tables_of_landmarks_is_refused(ramps, tmp_path, capsys):
    """Two tables that mark the same volume are refused with both names, by measure_scorer as by
    calibrate_scorer: the order of the two had decided which one was believed."""
    first = ramps / "ramps/landmarks.csv"
    second = changed(ramps, tmp_path, "landmarks.csv", lambda index: index + 1)
    argv = measuring(ramps, ramps / "ramps/slice_classes.csv", first, second)
    calibrating = [*argv[:-2], "--out", str(tmp_path / "c.json")]
    for main, arguments in ((measure_scorer, argv), (calibrate_scorer, calibrating)):
        line = refused_line(main, capsys, arguments)
        assert line.endswith(f"{second} and {first} both name ramp0")


def test_N90_absurd_slice_numbers_are_refused(ramps, tmp_path, capsys):
    """A slice number of thirty digits, or beyond 10^9, is refused with the table and the number by
    evaluate_scores and place_slices; none is wrapped around into a negative one."""
    classes = tmp_path / "slice_classes.csv"
    rows = (ramps / "ramps/slice_classes.csv").read_text("utf-8")
    classes.write_text(f"{rows}elsewhere,{'9' * 30},chest\n", "utf-8")
    argv = evaluating(ramps, tmp_path, classes)
    said = f"{classes}: index_sup_to_inf '{'9' * 30}' is no slice number"
    assert said in refused_line(evaluate_scores, capsys, argv)
    for number in ("1e19", "1000000001"):
        table = f"volume,slice_index,z_mm,score\nramp0,{number},0,0\n"
        (tmp_path / "scores.csv").write_text(table, "utf-8")
        line = refused_line(place_slices, capsys, [str(tmp_path), "--out", str(tmp_path / "x.csv")])
        assert f"scores.csv, line 2: slice_index {float(number):g} is no whole number in" in line
    assert MAX_WHOLE == 10**9


def test_a_folder_without_a_scored_volume_is_no_input(tmp_path, capsys):
    (tmp_path / "scores.csv").write_text("volume,slice_index,z_mm,score\n")
    (tmp_path / "scores.json").write_text('{"volumes": [{"volume": "a", "code": "E-FEW"}]}')
    (tmp_path / "labels.csv").write_text("volume,index_sup_to_inf,class\na,0,chest\n")
    placing = [str(tmp_path), "--out", str(tmp_path / "placed.csv")]
    assert refused_line(place_slices, capsys, placing).endswith("holds no scored volume")
    argv = [str(tmp_path), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "o")]
    line = refused_line(evaluate_scores, capsys, argv)
    assert line.endswith("scores.json: holds no scored volume")
