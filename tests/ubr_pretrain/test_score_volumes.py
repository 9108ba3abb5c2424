"""Scoring from the outside: tables, pictures, refusals, exit codes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tests.ubr_pretrain.tiny_cohort import write_nifti, write_tiny_cohort
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.evaluate_ubr import evaluate
from ubr_pretrain.regressor import Regressor, regressor_state
from ubr_pretrain.score_volumes import main
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.trunk import Trunk

SPEC = InputSpec(size_px=32, std=(64.0, 64.0, 64.0), fov_mm=512.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "ubr.safetensors"
    made = Provenance(init="random", pretraining="ubr")
    write_checkpoint(file, regressor_state(Regressor(Trunk(width=0.1), None), SPEC, made), "ubr")
    return file


def test_every_slice_has_a_row_and_every_volume_a_record_and_a_picture(tmp_path, checkpoint):
    data = write_tiny_cohort(tmp_path / "data", 2, max_slices=25)
    out = tmp_path / "scores"
    assert main([str(data), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    table = pd.read_csv(out / "scores.csv")
    records = json.loads((out / "scores.json").read_text())["volumes"]
    assert [r["volume"] for r in records] == ["p0", "p1"]
    for record in records:
        rows = table[table["volume"] == record["volume"]]
        assert rows["slice_index"].tolist() == list(range(record["num_slices"]))
        assert np.diff(rows["z_mm"]).min() > 0
        assert np.corrcoef(rows["z_mm"], rows["score"])[0, 1] == pytest.approx(
            record["r"], abs=1e-4
        )
        assert (out / f"{record['volume']}.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit, match="2"):
        main([str(data), "--checkpoint", str(checkpoint), "--out", str(out)])


def test_a_bad_file_is_named_and_the_rest_is_scored(tmp_path, checkpoint, capsys):
    data = write_tiny_cohort(tmp_path / "data", 2, max_slices=25)
    (data / "p0.nii").write_bytes((data / "p0.nii").read_bytes()[:5000])
    out = tmp_path / "scores"
    argv = [str(data), "--checkpoint", str(checkpoint), "--out", str(out), "--pictures", "false"]
    assert main(argv) == 1
    bad, good = json.loads((out / "scores.json").read_text())["volumes"]
    assert bad["volume"] == "p0"
    assert bad["code"] == "E-TRUNC"
    assert good["r"] is not None
    printed = capsys.readouterr()
    assert "E-TRUNC" in printed.err
    assert "p0.nii" in printed.err
    assert "1 volumes scored, 1 refused" in printed.out


def test_S01_paths_are_written_only_when_asked_for(tmp_path, checkpoint):
    data = write_tiny_cohort(tmp_path / "Jane Doe 1950", 1, max_slices=25)
    for flags, told in (([], False), (["--with-paths"], True)):
        out = tmp_path / f"scores{told}"
        argv = [str(data), "--checkpoint", str(checkpoint), "--out", str(out), *flags]
        assert main(argv) == 0
        assert ("Jane Doe" in (out / "scores.json").read_text()) is told
        assert "Jane Doe" not in (out / "scores.csv").read_text()


def test_V36_V71_one_slice_and_a_constant_volume_have_no_correlation(tmp_path, checkpoint):
    for name, hu in (
        ("one", np.full((1, 40, 40), 30, np.int16)),
        ("air", np.full((9, 40, 40), -1000, np.int16)),
    ):
        write_nifti(Volume(hu, (5.0, 3.0, 3.0)), tmp_path / f"{name}.nii")
    out = tmp_path / "scores"
    assert main([str(tmp_path), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    for record in json.loads((out / "scores.json").read_text())["volumes"]:
        assert record["r"] is None
        assert record["direction"] == "undetermined"


def test_V26_a_volume_stored_the_other_way_round_has_the_same_scores(tmp_path, checkpoint):
    import SimpleITK as sitk

    data = write_tiny_cohort(tmp_path / "data", 1, max_slices=25)
    image = sitk.ReadImage(str(data / "p0.nii"))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAI"), str(data / "turned.nii"))
    out = tmp_path / "scores"
    assert main([str(data), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    table = pd.read_csv(out / "scores.csv")
    scores = [table.loc[table["volume"] == name, "score"].tolist() for name in ("p0", "turned")]
    assert scores[0] == scores[1]


def test_a_curve_is_read_by_plain_formulas():
    z = np.array([0.0, 5.0, 10.0, 15.0])
    curve = read_curve(np.array([4.0, 3.0, 2.5, 0.0]), z)
    assert curve.direction == "inferior_to_superior"
    assert curve.rank_r == -1.0
    centred = z - z.mean()
    assert curve.slope_per_mm == pytest.approx((centred * curve.scores).sum() / (centred**2).sum())
    assert read_curve(np.array([1.0, 1.0, 1.0]), z[:3]).r is None


def test_evaluation_of_perfect_scores_is_perfect(tmp_path, capsys):
    """Volumes whose score is their true body coordinate: every zone is found."""
    rows, labels, records = [], [], []
    for v in range(4):
        for i in range(30):
            score = i + 0.1 * v
            zone = "chest" if i < 10 else "abdomen" if i < 22 else "pelvis"
            rows.append((f"v{v}", i, 5.0 * i, score))
            labels.append((f"v{v}", i, zone))
        records.append(
            {"volume": f"v{v}", "subject": f"s{v}", "r": 1.0, "direction": "superior_to_inferior"}
        )
    scores = tmp_path / "scores"
    scores.mkdir()
    columns = ["volume", "slice_index", "z_mm", "score"]
    pd.DataFrame(rows, columns=columns).to_csv(scores / "scores.csv", index=False)
    (scores / "scores.json").write_text(json.dumps({"volumes": records}))
    table = pd.DataFrame(labels, columns=["volume", "index_sup_to_inf", "class"])
    table.to_csv(tmp_path / "labels.csv", index=False)
    result = evaluate(scores, tmp_path / "labels.csv", tmp_path / "out")
    assert "4 of 4 scored volumes are labelled; 120 of their 120" in capsys.readouterr().out
    assert result["calibration_pairs"] == 6
    assert result["accuracy_mean"] == 1.0
    assert result["median_pair"]["recall"] == {"chest": 1.0, "abdomen": 1.0, "pelvis": 1.0}
    assert (tmp_path / "out/zones.png").is_file()
    # scores that run the other way put every slice into the wrong end
    flipped = pd.DataFrame(rows, columns=columns).assign(score=lambda t: -t["score"])
    flipped.to_csv(scores / "scores.csv", index=False)
    worse = evaluate(scores, tmp_path / "labels.csv", tmp_path / "out")
    assert worse["accuracy_mean"] < 0.5
    table[table["volume"] == "v0"].to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(ValueError, match="1 of 4 scored volumes are labelled"):
        evaluate(scores, tmp_path / "labels.csv", tmp_path / "out")
