"""The life of a training run: killed, stopped, resumed, shared, refused."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
import yaml

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_nifti, write_tiny_cohort
from ubr_pretrain.body_coordinate import fit_calibration
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.config import config_to_yaml
from ubr_pretrain.journal import Journal, read_metrics
from ubr_pretrain.landmarks import LandmarkMark
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.phantom_deeplesion import write_deeplesion
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.scorer import read_scorer
from ubr_pretrain.train_ubr import main, train
from ubr_pretrain.training_data import read_training_data
from ubr_pretrain.ubr_config import Optimiser

STOP_AT = """
import os, pathlib, sys
from ubr_pretrain.config import read_config
from ubr_pretrain.journal import Journal
from ubr_pretrain.scorer import read_scorer
from ubr_pretrain.train_ubr import main, train
from ubr_pretrain.ubr_config import UbrConfig
import torch
torch.set_num_threads(1)
config, out, number, at = sys.argv[1:]
plain = Journal.progress
def progress(self, iteration, text):
    plain(self, iteration, text)
    if iteration == int(at):
        os.kill(os.getpid(), int(number))
Journal.progress = progress
sys.exit(train(read_config(pathlib.Path(config), UbrConfig), pathlib.Path(out)))
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def straight(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert train(tiny_config(cohort), out) == 0
    return out


def run_and_signal(config, out, number, at):
    file = out.parent / f"{out.name}.yaml"
    file.write_text(config_to_yaml(config))
    argv = [sys.executable, "-c", STOP_AT, str(file), str(out), str(int(number)), str(at)]
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def assert_equal_runs(a, b):
    left, right = (read_checkpoint(run / "checkpoints/last.safetensors", "ubr") for run in (a, b))
    assert left["iteration"] == right["iteration"]
    for name, tensor in left["regressor"].items():
        assert torch.equal(tensor, right["regressor"][name]), name
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def test_a_run_leaves_what_its_users_look_for(straight):
    names = {p.name for p in straight.iterdir()}
    assert names >= {
        "config.yaml",
        "run.json",
        "train.log",
        "metrics.jsonl",
        "tb",
        "batch.png",
        "progress.png",
        "manifest.csv",
        "checkpoints",
    }
    run = json.loads((straight / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["iteration"] == 6
    kinds = [record["kind"] for record in read_metrics(straight / "metrics.jsonl")]
    assert kinds.count("train") == 6
    assert kinds.count("val") == 3
    assert "next: score_volumes.py" in (straight / "train.log").read_text().splitlines()[-1]


def test_T12_interrupted_run_equals_uninterrupted_run(cohort, straight, tmp_path):
    """SIGKILL in mid-training, then the same command: weights and metrics bit for bit."""
    config = tiny_config(cohort)
    killed = run_and_signal(config, tmp_path / "killed", signal.SIGKILL, 5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = read_checkpoint(tmp_path / "killed/checkpoints/last.safetensors", "ubr")
    assert saved["iteration"] == 3
    assert train(config, tmp_path / "killed") == 0  # the same command
    assert_equal_runs(straight, tmp_path / "killed")


def test_T04_sigterm_leaves_a_checkpoint_and_exit_code_143(cohort, straight, tmp_path):
    """SIGTERM: a checkpoint of that step, status interrupted, code 143; it goes on bit for bit."""
    config = tiny_config(cohort)
    stopped = run_and_signal(config, tmp_path / "stopped", signal.SIGTERM, 4)
    assert stopped.returncode == 143, stopped.stderr
    saved = read_checkpoint(tmp_path / "stopped/checkpoints/last.safetensors", "ubr")
    assert saved["iteration"] == 4
    assert json.loads((tmp_path / "stopped/run.json").read_text())["status"] == "interrupted"
    assert train(config, tmp_path / "stopped", resume=True) == 0
    assert_equal_runs(straight, tmp_path / "stopped")


def test_a_run_begun_before_there_were_settings_of_speed_goes_on(
    cohort, straight, tmp_path, monkeypatch
):
    def press_ctrl_c(journal, iteration, text):
        os.kill(os.getpid(), signal.SIGINT)

    config = tiny_config(cohort)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "progress", press_ctrl_c)
        assert train(config, tmp_path / "old") == 130
    file = tmp_path / "old/config.yaml"
    told = yaml.safe_load(file.read_text())
    for name in ("memory_format", "residence", "compile", "deterministic"):
        del told[name]
    file.write_text(yaml.safe_dump(told))
    assert train(config, tmp_path / "old") == 0
    assert_equal_runs(straight, tmp_path / "old")


def test_T13_same_seed_same_weights_and_another_seed_others(cohort, straight, tmp_path):
    """The same seed gives the same weights and metrics, byte for byte; another seed others."""
    assert train(tiny_config(cohort), tmp_path / "again") == 0
    assert_equal_runs(straight, tmp_path / "again")
    assert train(tiny_config(cohort, seed=1), tmp_path / "other") == 0
    assert (tmp_path / "other/metrics.jsonl").read_bytes() != (
        straight / "metrics.jsonl"
    ).read_bytes()


def test_T13_two_processes_equal_one(cohort, tmp_path):
    """Two processes learn what one learns: losses to 1e-5, weights to 1e-4."""
    # SGD: AdamW's first steps are the signs of gradients, which rounding can turn over.
    config = tiny_config(
        cohort, optimiser={"name": "sgd", "lr": 1e-2}, losses={"reduction": "mean"}
    )
    assert train(config, tmp_path / "one") == 0
    file = tmp_path / "c.yaml"
    file.write_text(config_to_yaml(config))
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    argv += ["-m", "ubr_pretrain.train_ubr", "--config", str(file), "--out", str(tmp_path / "two")]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    one, two = (
        [r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "train"]
        for run in (tmp_path / "one", tmp_path / "two")
    )
    assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], rel=1e-5)
    weights = [
        read_checkpoint(run / "checkpoints/last.safetensors", "ubr")["regressor"]
        for run in (tmp_path / "one", tmp_path / "two")
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_T16_a_refused_volume_is_named_and_the_rest_is_trained_on(cohort, tmp_path, capsys):
    """A volume that cannot be read: named in manifest.csv, the rest is trained on, code 1."""
    data = tmp_path / "data"
    data.mkdir()
    for file in cohort.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    whole = (data / "p3.nii").read_bytes()
    (data / "p3.nii").write_bytes(whole[: len(whole) // 2])
    assert train(tiny_config(data, iterations=1), tmp_path / "run") == 1
    assert "E-TRUNC" in capsys.readouterr().err
    manifest = (tmp_path / "run/manifest.csv").read_text()
    assert 'p3,,refused,,"E-TRUNC' in manifest


def test_V39_a_volume_of_too_few_slices_is_left_out_and_the_rest_is_trained_on(
    tmp_path, capsys
) -> None:
    """E-FEW with the longest run and m, on the terminal and in `manifest.csv`; the rest is trained
    on, and the exit code is 1."""
    data = write_tiny_cohort(tmp_path / "data", 2)
    image = sitk.ReadImage(str(data / "p1.nii"))
    sitk.WriteImage(image[:, :, :3], str(data / "short.nii"))
    run = tmp_path / "run"
    assert train(tiny_config(data, iterations=1), run) == 1
    cause = "its longest run has 3 slices, m = 4 needed"
    assert f"refused: E-FEW  {data / 'short.nii'}  {cause}\n" in capsys.readouterr().err
    manifest = pd.read_csv(run / "manifest.csv", keep_default_na=False).set_index("volume")
    assert manifest["use"].to_dict() == {"p1": "train", "p0": "validation", "short": "refused"}
    assert manifest.loc["short", "reason"] == f"E-FEW {cause}"
    assert read_metrics(run / "metrics.jsonl")[-1]["iteration"] == 1


def test_T14_a_loss_that_is_not_finite_stops_the_run_and_names_the_volumes(
    cohort, straight, tmp_path, capsys
):
    """A loss that is NaN: one line with the iteration, all terms and the volumes, code 1; nothing
    skips it, and no batch is saved, which seed and iteration draw again."""
    hot = tiny_config(cohort, optimiser={"name": "sgd", "lr": 1e30})
    (tmp_path / "hot.yaml").write_text(config_to_yaml(hot))
    run = tmp_path / "run"
    assert main(["--config", str(tmp_path / "hot.yaml"), "--out", str(run)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    terms = "'loss': nan, 'score_std': nan, 'lr': 1e\\+30, 'order': nan, 'distance': .*"
    volumes = ", ".join([r"p\d+"] * hot.g)
    line = (
        rf"train_ubr\.py: iteration 2: the loss is not finite \({{{terms}}}\); volumes {volumes}; "
    )
    assert re.match(line, said), said
    assert {p.name for p in run.iterdir()} <= {p.name for p in straight.iterdir()}
    assert not [*run.rglob("*.safetensors")]


def test_T24_a_training_on_reversed_volumes_works_and_its_scores_calibrate_nothing(tmp_path):
    """All volumes upside down: it trains, to scores that fall from head to feet in a volume that is
    not, and calibration refuses them and says so."""

    def phantom(seed):
        rng = np.random.default_rng(seed)
        subject = sample_subject(rng)
        return render(subject, sample_scan(subject, rng, "whole", max_slices=30), size_px=48)

    (tmp_path / "data").mkdir()
    for n in range(5):
        write_nifti(phantom(n).reversed().volume, tmp_path / "data" / f"p{n}.nii")
    config = tiny_config(tmp_path / "data", iterations=40, eval_every=40, save_every=40)
    assert train(config, tmp_path / "run") == 0
    scorer = read_scorer(tmp_path / "run/checkpoints/best.safetensors", device="cpu", num_views=1)
    upright = phantom(7)
    curve = scorer.score_volume(upright.volume, "upright").curve
    assert curve.direction == "inferior_to_superior"
    marks = [LandmarkMark("upright", each.name, each.index) for each in upright.landmarks]
    with pytest.raises(ValueError, match=r"scores fall from .* grow towards the feet"):
        fit_calibration({"upright": curve}, marks)


def test_T11_a_resumed_run_on_other_data_is_refused(cohort, tmp_path):
    """A run that goes on with other volumes: refused, the hashes of the data differ."""
    data = tmp_path / "data"
    data.mkdir()
    for file in cohort.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    config = tiny_config(data)
    assert run_and_signal(config, tmp_path / "run", signal.SIGTERM, 2).returncode == 143
    (data / "p4.nii").unlink()
    with pytest.raises(ValueError, match="other training data"):
        train(config, tmp_path / "run")


def test_T26_patients_of_deeplesions_evaluation_splits_are_left_out(tmp_path, capsys):
    """DeepLesion's validation and test patients are left out; --allow_leakage takes them."""
    for series in write_deeplesion(tmp_path, 6, seed=3, size_px=64):
        assert series.is_dir()
    table = pd.read_csv(tmp_path / "DL_info.csv")
    patients = {  # by split: 1 train, 2 validation, 3 test
        split: {f"{p:06d}" for p in rows["Patient_index"]}
        for split, rows in table.groupby("Train_Val_Test")
    }
    config = tiny_config(tmp_path / "Images_png", holdout=(), m=2)
    one = Ranks(0, 1, torch.device("cpu"))
    data = read_training_data(config, RunFolder(tmp_path / "a"), one)
    seen = {v.path.name.partition("_")[0] for v in (*data.training, *data.validation)}
    assert seen
    assert seen <= patients[1]
    assert "validation and test patients" in capsys.readouterr().err
    told = tiny_config(tmp_path / "Images_png", holdout=(), m=2, allow_leakage=True)
    data = read_training_data(told, RunFolder(tmp_path / "b"), one)
    assert {v.path.name.partition("_")[0] for v in data.training} & (patients[2] | patients[3])


def test_sources_are_drawn_as_often_as_asked(cohort, tmp_path):
    one, four = tmp_path / "one", tmp_path / "four"
    for folder, names in ((one, ["p0"]), (four, ["p1", "p2", "p3", "p4"])):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.nii").write_bytes((cohort / f"{name}.nii").read_bytes())
    config = tiny_config(one, four, holdout=(), source_weights=(3.0, 1.0))
    data = read_training_data(config, RunFolder(tmp_path), Ranks(0, 1, torch.device("cpu")))
    chance = dict(zip((v.name for v in data.training), data.weights, strict=True))
    assert chance == {"p0": 3.0, "p1": 0.25, "p2": 0.25, "p3": 0.25, "p4": 0.25}
    with pytest.raises(ValueError, match="one number > 0 for each of the 2"):
        tiny_config(one, four, source_weights=(1.0,))


def test_subjects_of_the_holdout_are_never_trained_on(cohort, tmp_path):
    with pytest.raises(ValueError, match="'nobody': no such volume or subject"):
        train(tiny_config(cohort, holdout=("nobody",)), tmp_path / "a")
    with pytest.raises(ValueError, match="no volume left to train on"):
        train(tiny_config(cohort, holdout=tuple(f"p{i}" for i in range(5))), tmp_path / "b")


def test_anchors_reach_the_loss_and_the_hash_of_the_data(cohort, tmp_path):
    table = tmp_path / "anchors.csv"
    pd.DataFrame(
        {"volume": "p1", "index_sup_to_inf": [0, 3], "coordinate_mm": [300.0, 330.0]}
    ).to_csv(table, index=False)
    losses = {"reduction": "mean", "spacing_weight": 1.0, "anchor_weight": 1.0}
    config = tiny_config(cohort, anchors=(table,), losses=losses, oversample=2)
    one = Ranks(0, 1, torch.device("cpu"))
    data = read_training_data(config, RunFolder(tmp_path), one)
    plain = read_training_data(tiny_config(cohort, oversample=2), RunFolder(tmp_path), one)
    assert data.sha256 != plain.sha256
    index = [v.name for v in data.training].index("p1")
    batch = data.gather([(index, np.array([0, 1, 3]))])
    assert batch.hu.shape[-1] == 2 * config.input.size_px
    np.testing.assert_array_equal(batch.known_mm, [[300.0, np.nan, 330.0]])
    np.testing.assert_allclose(batch.z_mm[0], np.asarray(data.training[index].z_mm)[[0, 1, 3]])
    assert train(config, tmp_path / "run") == 0
    records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"]
    assert all({"order", "distance", "spacing", "anchor"} <= set(r) for r in records)
    assert any(r["anchor"] > 0 for r in records)
    with pytest.raises(ValueError, match="one needs the other"):
        tiny_config(cohort, anchors=(table,))


def test_a_second_stage_starts_from_the_weights_of_the_first(cohort, straight, tmp_path):
    first = straight / "checkpoints" / "last.safetensors"
    still = Optimiser(name="adamw", lr=1e-12)
    config = tiny_config(cohort, start=first, iterations=2, optimiser=still)
    assert train(config, tmp_path / "run") == 0
    before = read_regressor(first)
    after = read_regressor(tmp_path / "run" / "checkpoints" / "last.safetensors")
    for name, tensor in before.regressor.state_dict().items():
        if "num_batches" not in name and "running" not in name:
            torch.testing.assert_close(after.regressor.state_dict()[name], tensor)
    assert after.provenance.iterations == before.provenance.iterations + 2
    assert after.provenance.config["first_stage"]["data_sha256"] == before.provenance.data_sha256
    with pytest.raises(ValueError, match=r"its width is 0\.1, not 0\.2"):
        train(tiny_config(cohort, start=first, width=0.2), tmp_path / "other")


class OnItsOwnMachine(Ranks):
    """The second of two ranks, on a machine of its own; the first says nothing."""

    def gather_objects(self, value):
        return [[], value]

    def wait(self):
        pass


def test_a_machine_with_a_store_of_its_own_checks_what_others_checked_elsewhere(
    cohort, tmp_path, capsys
):
    config = tiny_config(cohort, store=tmp_path / "store")
    alone = Ranks(0, 1, torch.device("cpu"))
    before = read_training_data(config, RunFolder(tmp_path), alone)
    share_of_the_other = next(v.file for v in before.training if v.name == "p2")
    whole = share_of_the_other.read_bytes()
    share_of_the_other.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    second = OnItsOwnMachine(1, 2, torch.device("cpu"), local_rank=0, num_local=1)
    after = read_training_data(config, RunFolder(tmp_path), second)
    assert after.sha256 == before.sha256
    assert share_of_the_other.read_bytes() == whole
    assert "decoded again" in capsys.readouterr().err
