"""calibrate_scorer.py: from volumes and tables on disk to a calibration file."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from tests.ubr_pretrain.known_body import MM_PER_UNIT, SCORE_PER_MM, known_scan
from ubr_pretrain import scorer as scorer_module
from ubr_pretrain.body_coordinate import LANDMARK_COORDINATES, read_calibration
from ubr_pretrain.calibrate_scorer import main
from ubr_pretrain.scoring import read_curve

STEP_MM = 5.0
SCANS = {"a": (110, -60), "b": (100, -20), "c": (60, -50)}


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Three empty volumes, each slice of which scores what its place in the body does."""
    known = {}
    for name, (top, bottom) in SCANS.items():
        scores, _ = known_scan(top, bottom, STEP_MM)
        known[name] = scores
        image = sitk.GetImageFromArray(np.zeros((len(scores), 4, 4), np.int16))
        image.SetSpacing([2.0, 2.0, STEP_MM])
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii"))
        rows = [
            f"{name},{landmark},{round((top - place) * MM_PER_UNIT / STEP_MM)}"
            for landmark, place in LANDMARK_COORDINATES.items()
            if top > place > bottom
        ]
        table = ["volume,landmark,index_sup_to_inf", *rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(table) + "\n", "utf-8")

    class KnownScorer:
        def score_volume(self, volume, name):
            return SimpleNamespace(curve=read_curve(known[name], volume.z_mm))

    monkeypatch.setattr(scorer_module, "read_scorer", lambda *_args, **_kw: KnownScorer())
    return tmp_path


def arguments(cohort, *tables, out="calibration.json"):
    flags = [str(cohort / "best.safetensors"), "--volumes", str(cohort)]
    for table in tables:
        flags += ["--landmarks", str(cohort / f"{table}.csv")]
    return [*flags, "--out", str(cohort / out)]


def test_several_tables_make_one_calibration(cohort, capsys):
    assert main([*arguments(cohort, "a", "b", "c"), "--uncertainty_scale", "2.5"]) == 0
    found = read_calibration(cohort / "calibration.json")
    assert found.slope_per_mm == pytest.approx(SCORE_PER_MM, rel=0.03)
    assert found.uncertainty_scale == 2.5
    assert found.source == "3 labelled volumes of 3 tables of landmarks"
    assert {m.name: m.num_volumes for m in found.landmarks}["carina"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("next: score_volumes.py")
    assert any(line.split()[:2] == ["carina", "2"] for line in lines)


def test_volumes_without_landmarks_are_not_needed(cohort):
    assert main(arguments(cohort, "a")) == 0
    assert read_calibration(cohort / "calibration.json").landmarks[0].num_volumes == 1


def test_unreadable_volume_is_named_and_the_rest_goes_on(cohort, capsys):
    (cohort / "b.nii").write_bytes((cohort / "b.nii").read_bytes()[:-100])
    assert main(arguments(cohort, "a", "b")) == 1
    assert "b.nii" in capsys.readouterr().err
    assert read_calibration(cohort / "calibration.json").source.startswith("1 labelled")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--uncertainty_scale", "0"], "--uncertainty_scale 0.0 must be > 0"),
        (["--landmarks", "again.csv"], "both name a"),
        (["--landmarks", "none.csv"], "none.csv: no table to read"),
        (["--scale", "2"], "--scale"),
    ],
)
def test_mistakes_end_in_one_line(cohort, monkeypatch, capsys, more, message):
    monkeypatch.chdir(cohort)
    (cohort / "again.csv").write_bytes((cohort / "a.csv").read_bytes())
    with pytest.raises(SystemExit) as end:
        main([*arguments(cohort, "a"), *more])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_calibration_in_the_way_is_kept(cohort, capsys):
    (cohort / "calibration.json").write_text("mine", "utf-8")
    with pytest.raises(SystemExit):
        main(arguments(cohort, "a"))
    assert "--overwrite" in capsys.readouterr().err
    assert (cohort / "calibration.json").read_text("utf-8") == "mine"


def test_volumes_that_the_table_names_must_be_there(cohort, capsys):
    (cohort / "c.nii").unlink()
    with pytest.raises(SystemExit):
        main(arguments(cohort, "a", "c"))
    assert "name 1 volumes that --volumes lack, first c" in capsys.readouterr().err
