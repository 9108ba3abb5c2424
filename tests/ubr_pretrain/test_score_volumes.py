"""Scoring from the outside: tables, pictures, refusals, exit codes."""

import json
import re
import signal
import subprocess
import sys
import time
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image

from tests.ubr_pretrain.archives import recorded
from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import nii, scan
from tests.ubr_pretrain.test_guard import FaultyEntry
from tests.ubr_pretrain.tiny_cohort import write_nifti, write_tiny_cohort
from ubr_pretrain import scoring_run
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.regressor import Regressor, regressor_state
from ubr_pretrain.scans import find_scans
from ubr_pretrain.score_volumes import main
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.scoring_run import ScoringRun
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
    volumes = pd.read_csv(out / "volumes.csv").set_index("volume")
    assert volumes["code"].fillna("").to_dict() == {"p0": "E-TRUNC", "p1": ""}


def test_the_same_command_goes_on_and_scores_nothing_twice(tmp_path, checkpoint, capsys):
    data = write_tiny_cohort(tmp_path / "data", 2, max_slices=25)
    out = tmp_path / "scores"
    argv = [str(data), "--checkpoint", str(checkpoint), "--out", str(out), "--pictures", "false"]
    assert main(argv) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    printed = capsys.readouterr().out
    assert main(argv) == 0
    assert capsys.readouterr().out == printed
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    for other in (["--views", "1"], ["--with-paths"], ["--pixel-mm", "0.7"]):
        with pytest.raises(SystemExit, match="2"):
            main([*argv, *other])
        assert "other weights or settings" in capsys.readouterr().err
    assert main([*argv, "--views", "1", "--overwrite"]) == 0
    assert pd.read_csv(out / "scores.csv")["score_sd"].isna().all()


def test_the_last_of_many_may_crash_its_reader_and_not_the_run(tmp_path, checkpoint, monkeypatch):
    """What was refused is tried again, alone: then as on the first day, in a process of its own."""
    nii(tmp_path)

    def find_with_a_fault(paths, say):
        found = find_scans(paths, say)
        found.volumes.append(FaultyEntry(tmp_path / "fault.dcm", "SIGKILL", "nobody"))
        return found

    flags = ["--checkpoint", str(checkpoint), "--pictures", "false", "--device", "cpu"]
    argv = [str(tmp_path / "scan.nii"), *flags, "--out", str(tmp_path / "scores")]
    assert main(argv) == 0
    monkeypatch.setattr(scoring_run, "find_scans", find_with_a_fault)
    assert main(argv) == 1
    assert recorded(tmp_path / "scores")["SIGKILL"]["code"] == "E-MEMORY"


def test_T01_a_killed_run_ends_as_if_it_had_not_been(tmp_path, checkpoint):
    """SIGKILL after the first volume; the same command writes the same bytes."""
    data = write_tiny_cohort(tmp_path / "data", 3, max_slices=25)
    script = "from ubr_pretrain.score_volumes import main; raise SystemExit(main())"
    flags = ["--checkpoint", str(checkpoint), "--pictures", "false", "--device", "cpu"]
    command = [sys.executable, "-c", script, str(data), *flags, "--out"]
    journal = tmp_path / "killed" / "scores.jsonl"
    run = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert not (tmp_path / "killed" / "scores.csv").exists()
    for out in ("killed", "whole"):
        assert main([str(data), *flags, "--out", str(tmp_path / out)]) == 0
    for name in ("scores.jsonl", "scores.json", "scores.csv", "volumes.csv"):
        killed, whole = (tmp_path / out / name for out in ("killed", "whole"))
        assert killed.read_bytes() == whole.read_bytes(), name


def test_T04_a_stopped_run_leaves_tables_and_goes_on(tmp_path, checkpoint, monkeypatch, capsys):
    """SIGTERM in scoring: code 143, tables of what was scored; the same command goes on."""
    data = write_tiny_cohort(tmp_path / "data", 2, max_slices=25)
    out = tmp_path / "scores"
    argv = [str(data), "--checkpoint", str(checkpoint), "--out", str(out), "--pictures", "false"]
    scored = ScoringRun.record_volume

    def record_and_stop(*args):
        signal.raise_signal(signal.SIGTERM)
        return scored(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ScoringRun, "record_volume", record_and_stop)
        assert main(argv) == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert pd.read_csv(out / "scores.csv")["volume"].unique().tolist() == ["p0"]
    assert main(argv) == 0
    assert pd.read_csv(out / "scores.csv")["volume"].unique().tolist() == ["p0", "p1"]


def test_the_scorer_of_the_package_needs_but_a_path(tmp_path, monkeypatch, capsys):
    """Volumes, a DICOM tree, an 8-bit and a coloured picture, with no flag but the views."""
    write_tiny_cohort(tmp_path / "data", 1, max_slices=25)
    write_series(
        tmp_path / "data" / "Doe Jane", scan((9, 40, 40)), (5.0, 8.0, 8.0), PatientName="Doe^Jane"
    )
    shades = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    Image.fromarray(shades).save(tmp_path / "data" / "key.png")
    colours = np.stack([shades, 2 * shades, 255 - shades], axis=2)
    Image.fromarray(colours).save(tmp_path / "data" / "logo.png")
    monkeypatch.chdir(tmp_path)
    formats = ["--format", "csv", "json", "parquet"]
    assert main(["data", "--views", "2", "--pages", *formats]) == 0
    printed = capsys.readouterr().out
    assert "2 volumes and 1 slices scored, 0 refused" in printed
    assert "1 coloured pictures" in printed
    out = tmp_path / "scores"
    assert (out / "p0.html").read_text().startswith("<!DOCTYPE html>")
    schema = json.loads(files("ubr_pretrain").joinpath("schemas/scores.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    whole = json.loads((out / "scores.json").read_text())
    Draft202012Validator(schema).validate(whole)
    (key,) = whole["images"]
    assert key["image"] == "key"
    assert key["zone"] is not None
    assert any("pixel size unknown" in note for note in key["notes"])
    assert all(record["body_part"] is not None for record in whole["volumes"])
    assert pd.read_parquet(out / "scores.parquet")["coordinate"].notna().all()
    for file in out.iterdir():  # S01
        for secret in (b"Doe", b"4711", b"Jane"):
            assert secret not in file.read_bytes(), file.name
    del whole["volumes"][0]["r"]
    assert not Draft202012Validator(schema).is_valid(whole)


def test_a_coloured_picture_that_was_named_is_refused(tmp_path, checkpoint, capsys):
    colours = np.zeros((40, 40, 3), np.uint8)
    colours[..., 0] = 200
    Image.fromarray(colours).save(tmp_path / "logo.png")
    argv = [str(tmp_path / "logo.png"), "--checkpoint", str(checkpoint)]
    assert main([*argv, "--out", str(tmp_path / "scores")]) == 1
    assert "E-RGB" in capsys.readouterr().err
    whole = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert whole["images"][0]["code"] == "E-RGB"


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["no/such/scan.nii"], "no such file or folder"),
        (["."], "no CT volume or slice found"),
        (["empty.txt", "--views", "0"], "num_views 0"),
        (["empty.txt", "--checkpoint", "no.safetensors"], "no.safetensors: no such file"),
        (["empty.txt", "--calibration", "no.json"], "no.json"),
        (["empty.txt", "--window-hu", "5", "5"], "lower_hu must be < upper_hu"),
        (["empty.txt", "--format", "xlsx"], "xlsx"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(tmp_path, monkeypatch, capsys, argv, word):
    monkeypatch.chdir(tmp_path)
    if argv != ["."]:
        (tmp_path / "empty.txt").touch()
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    complaint = capsys.readouterr().err
    assert word in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "scores").exists()


def test_S01_paths_are_written_only_when_asked_for(tmp_path, checkpoint):
    """Paths are in scores.json with --with-paths alone."""
    data = write_tiny_cohort(tmp_path / "Jane Doe 1950", 1, max_slices=25)
    for flags, told in (([], False), (["--with-paths"], True)):
        out = tmp_path / f"scores{told}"
        argv = [str(data), "--checkpoint", str(checkpoint), "--out", str(out), *flags]
        assert main(argv) == 0
        assert ("Jane Doe" in (out / "scores.json").read_text()) is told
        assert "Jane Doe" not in (out / "scores.csv").read_text()


def test_S03_text_in_the_pixels_is_drawn_in_no_picture(tmp_path, checkpoint):
    """A series with BurnedInAnnotation YES is scored and noted; its slices are black in its picture
    and on its page, so what is written in them is not passed on."""
    hu = np.full((9, 40, 40), -1024, np.int16)
    pictures = {}
    for name, inside, burned in (("air", -1024, "NO"), ("open", 60, "NO"), ("text", 60, "YES")):
        hu[:, 5:35, 5:35] = inside
        write_series(tmp_path / name, hu, (5.0, 8.0, 8.0), BurnedInAnnotation=burned)
        out = tmp_path / f"scores_{name}"
        argv = [str(tmp_path / name), "--checkpoint", str(checkpoint), "--out", str(out)]
        assert main([*argv, "--pages"]) == 0
        (page,) = out.glob("*.html")
        assert page.with_suffix(".png").is_file()
        pictures[name] = re.findall(r"base64,([\w+/=]+)", page.read_text())
        (record,) = json.loads((out / "scores.json").read_text())["volumes"]
        assert ("text may be burned into the pixels" in record["notes"]) is (burned == "YES")
    assert len(pictures["text"]) >= 4
    assert pictures["text"] == pictures["air"]
    assert not set(pictures["open"]) & set(pictures["air"])


def test_V36_V71_one_slice_and_a_constant_volume_have_no_correlation(tmp_path, checkpoint):
    """Scored with exit code 0; the correlation is null in the JSON, the direction undetermined."""
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
    """The same scores, digit by digit, from score_volumes.py."""

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
