"""A folder of scores against slice classes."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from ubr_pretrain.evaluate_scores import evaluate, main

COLUMNS = ["volume", "slice_index", "z_mm", "score"]


@pytest.fixture
def perfect(tmp_path):
    """Four volumes whose score is their true body coordinate."""
    rows, labels, records = [], [], []
    for v in range(4):
        for i in range(30):
            zone = "chest" if i < 10 else "abdomen" if i < 22 else "pelvis"
            rows.append((f"v{v}", i, 5.0 * i, i + 0.1 * v))
            labels.append((f"v{v}", i, zone))
        records.append(
            {"volume": f"v{v}", "subject": f"s{v}", "r": 1.0, "direction": "superior_to_inferior"}
        )
    scores = tmp_path / "scores"
    scores.mkdir()
    table = pd.DataFrame(rows, columns=COLUMNS).assign(zone="proposed by the scorer")
    table.to_csv(scores / "scores.csv", index=False)
    (scores / "scores.json").write_text(json.dumps({"volumes": records}))
    table = pd.DataFrame(labels, columns=["volume", "index_sup_to_inf", "class"])
    table.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def test_perfect_scores_are_perfectly_classified(perfect, capsys):
    result = evaluate(perfect / "scores", perfect / "labels.csv", perfect / "out")
    assert (
        "4 of 4 scored volumes are labelled, 0 labelled ones are not scored; 120 of their 120"
        in capsys.readouterr().out
    )
    assert result["calibration_pairs"] == len(list(combinations(range(4), 2)))
    assert result["accuracy_mean"] == 1.0
    assert result["median_pair"]["recall"] == {"chest": 1.0, "abdomen": 1.0, "pelvis": 1.0}
    assert result["median_pair"]["accuracy_interval_95"] == [1.0, 1.0]
    assert (perfect / "out/zones.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((perfect / "out/evaluation.json").read_text()) == json.loads(
        json.dumps(result)
    )


def test_scores_that_run_the_other_way_are_wrong(perfect):
    table = pd.read_csv(perfect / "scores/scores.csv")
    table["score"] *= -1
    table.to_csv(perfect / "scores/scores.csv", index=False)
    result = evaluate(perfect / "scores", perfect / "labels.csv", perfect / "out")
    assert result["accuracy_mean"] < 0.5


def test_named_volumes_calibrate_and_are_left_out(perfect):
    result = evaluate(
        perfect / "scores", perfect / "labels.csv", perfect / "out", calibrate=("v0", "v3")
    )
    assert result["calibration_pairs"] == 1
    assert np.sum(result["median_pair"]["confusion_rows_true"]) == 60


def test_one_labelled_volume_is_not_enough(perfect):
    table = pd.read_csv(perfect / "labels.csv")
    table[table["volume"] == "v0"].to_csv(perfect / "labels.csv", index=False)
    with pytest.raises(ValueError, match="1 of 4 scored volumes are labelled"):
        evaluate(perfect / "scores", perfect / "labels.csv", perfect / "out")


def test_an_unknown_volume_ends_the_command_in_one_line(perfect, capsys):
    argv = [str(perfect / "scores"), "--labels", str(perfect / "labels.csv")]
    argv += ["--out", str(perfect / "out"), "--calibrate", "nobody"]
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nobody: no such labelled volume" in error
