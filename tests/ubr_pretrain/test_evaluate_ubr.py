"""The paper's evidence from one command: the whole chain, small; killed and resumed; on data."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from ubr_pretrain.config import config_to_yaml, configs_folder, read_config
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.evaluate_ubr import gather_evidence, main
from ubr_pretrain.evidence_config import Baselines, EvidenceConfig, Phantoms, SetSizes, Sweep
from ubr_pretrain.evidence_page import render_page
from ubr_pretrain.ubr_config import Losses, Optimiser, UbrConfig

TINY = EvidenceConfig(
    sets=SetSizes(unlabelled=5, test=3, labelled=4),
    phantoms=Phantoms(size_px=40, max_slices=24, abnormal=5),
    ubr=UbrConfig(
        width=0.1,
        head_std=None,
        input=InputSpec(size_px=32, std=(64.0, 64.0, 64.0), fov_mm=512.0),
        losses=Losses(reduction="mean"),
        optimiser=Optimiser(name="adamw", lr=2e-3),
        iterations=2,
        device="cpu",
    ),
    alexnet_width=0.1,
    baselines=Baselines(supervised=2, order=2, position=2, position_pairs=2),
    sweep=Sweep(m=(4,), iterations=1, seeds=(0,)),
    seeds=(0,),
    pairs=10,
)

KILL_AT = """
import os, pathlib, signal, sys, torch
from ubr_pretrain import evidence_cells
from ubr_pretrain.config import read_config
from ubr_pretrain.evaluate_ubr import gather_evidence
from ubr_pretrain.evidence_config import EvidenceConfig
torch.set_num_threads(1)
config, out, name = sys.argv[1:]
plain = evidence_cells.write_cell
def write_cell(folder, cell):
    if folder.name == name:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(folder, cell)
evidence_cells.write_cell = write_cell
gather_evidence(read_config(pathlib.Path(config), EvidenceConfig), pathlib.Path(out))
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    out = tmp_path_factory.mktemp("evidence") / "straight"
    assert gather_evidence(TINY, out) == 0
    return out


def results(out):
    """Everything in the JSON that does not depend on the clock."""
    evidence = json.loads((out / "evidence.json").read_text())
    for cell in evidence["facts"].values():
        del cell["seconds"], cell["cpu_seconds"]
    del evidence["seconds"], evidence["cpu_seconds"]
    return evidence


def test_one_command_writes_table_figures_page_and_json(straight):
    evidence = results(straight)
    assert [row["number"] for row in evidence["rows"]] == [1, 2, 3, 4, 5, 6]
    assert [row["num_labelled_volumes"] for row in evidence["rows"]] == [4, 4, 2, 2, 2, 4]
    assert all(0 <= row["accuracy"] <= 1 for row in evidence["rows"])
    assert len(evidence["order"]) == 15
    assert {(p["m"], p["g"], p["distance"]) for p in evidence["sweep"]} == {
        (4, 24, True),
        (4, 24, False),
    }
    assert {volume["what"] for volume in evidence["abnormal"]} == {
        "ascites", "effusion", "metal", "reversed", "missing slices",
    }  # fmt: skip
    for figure in ("fig2", "fig3a", "fig3b", "fig4"):
        assert (straight / f"figures/{figure}.png").read_bytes()[:4] == b"\x89PNG"
        assert (straight / f"figures/{figure}.pdf").read_bytes()[:4] == b"%PDF"
    assert json.loads((straight / "run.json").read_text())["status"] == "complete"


def test_the_page_stands_alone(straight):
    page = (straight / "evidence.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    for source in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert source.startswith("data:image/png")
    assert str(straight.parent) not in page
    for number in ("98.84", "95.28", "72.05", "95.99", "95.61", "98.41"):
        assert number in page


def test_no_subject_of_another_set_was_trained_on(straight):
    sets = pd.read_csv(straight / "sets.csv").groupby("set")["subject"].agg(set)
    assert sets.map(len).to_dict() == {"unlabelled": 5, "test": 3, "labelled": 4, "two": 2}
    assert len(set.union(*sets)) == 14
    runs = list((straight / "cells").glob("*/run/manifest.csv"))
    assert len(runs) == 4  # two regressors and two points of the sweep
    for manifest in runs:
        table = pd.read_csv(manifest)
        assert set(table["use"]) == {"train"}
        assert set(table["subject"]) <= sets["unlabelled"]


def test_a_killed_run_goes_on_to_the_same_results(straight, tmp_path):
    out = tmp_path / "killed"
    file = tmp_path / "config.yaml"
    file.write_text(config_to_yaml(TINY))
    shutil.copytree(straight / "phantoms", out / "phantoms")
    shutil.copy(straight / "config.yaml", out / "config.yaml")  # a run that has just begun
    killed = subprocess.run(
        [sys.executable, "-c", KILL_AT, str(file), str(out), "position-all-seed0"],
        check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    assert not (out / "evidence.json").exists()
    before = {f: f.stat().st_mtime_ns for f in (out / "cells").glob("*/facts.json")}
    assert {file.parent.name for file in before} == {
        "vgg16-seed0", "alexnet-seed0", "pool6-seed0", "supervised-seed0", "order-seed0",
    }  # fmt: skip
    assert gather_evidence(TINY, out) == 0
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert results(out) == results(straight)


def test_a_finished_run_is_written_anew_without_training(straight):
    page = straight / "evidence.html"
    before = results(straight), page.read_text()
    page.unlink()
    assert gather_evidence(TINY, straight) == 0
    assert (results(straight), page.read_text()) == before


def test_a_cohort_of_ones_own_is_drawn_by_subject(straight, tmp_path):
    parts = sorted((straight / "phantoms").glob("part_*"))
    table = pd.concat(pd.read_csv(part / "slice_classes.csv") for part in parts)
    table.to_csv(tmp_path / "classes.csv", index=False)
    shares = SetSizes(unlabelled=0.35, test=0.25, labelled=0.2)
    own = TINY.model_copy(
        update={"data": tuple(parts), "labels": tmp_path / "classes.csv", "sets": shares}
    )
    assert gather_evidence(own, tmp_path / "out") == 0
    evidence = results(tmp_path / "out")
    total = len(set(table["volume"]))
    assert {name: counts["subjects"] for name, counts in evidence["sets"].items()} == {
        "unlabelled": int(0.35 * total),
        "test": int(0.25 * total),
        "labelled": int(0.2 * total),
        "two": 2,
    }
    page = (tmp_path / "out/evidence.html").read_text()
    assert str(tmp_path) not in page
    assert str(tmp_path) not in (tmp_path / "out/evidence.json").read_text()
    assert "on the cohort given" in page


def test_data_that_changed_are_refused(straight, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(straight / "phantoms", out / "phantoms")
    for name in ("config.yaml", "run.json"):
        shutil.copy(straight / name, out / name)
    table = pd.read_csv(out / "phantoms/part_000/manifest.csv")
    (out / f"phantoms/part_000/{table['volume'][0]}.nii.gz").unlink()
    with pytest.raises(ValueError, match="the data have changed"):
        gather_evidence(TINY, out)


def test_names_are_escaped(straight):
    from ubr_pretrain.evidence_page import Evidence

    evidence = Evidence.model_validate_json((straight / "evidence.json").read_text())
    bad = evidence.abnormal[0].model_copy(update={"what": "<script>alert(1)</script>"})
    page = render_page(
        evidence.model_copy(update={"abnormal": (bad,)}),
        dict.fromkeys(("fig2", "fig3a", "fig3b", "fig4"), b""),
        "phantoms",
    )
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("name", ["laptop", "paper-scale"])
def test_presets_are_whole(name):
    config = read_config(configs_folder("evidence") / f"{name}.yaml", EvidenceConfig)
    assert len(config.seeds) >= 3
    assert len(config.sweep.seeds) >= 3
    if name == "paper-scale":
        sets = config.sets
        assert (sets.unlabelled, sets.test, sets.labelled) == (800, 260, 88)
        assert (config.ubr.width, config.alexnet_width) == (1.0, 1.0)
        assert (config.ubr.input.size_px, config.ubr.iterations) == (128, 1500)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": "x.csv"}, "data and labels belong together"),
        ({"ubr": {"g": 6}}, "must make 96 slices"),
        ({"ubr": {"seed": 3}}, "ubr.seed: the rows set it themselves"),
        ({"sweep": {"m": [5]}}, "must be at least 3"),
        ({"seeds": [1, 1]}, "seeds [1, 1]: at least one, none twice"),
        ({"baselines": {"order": 0}}, "baselines.order"),
    ],
)
def test_impossible_questions_are_refused_in_one_line(tmp_path, capsys, changes, words):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(changes))
    with pytest.raises(SystemExit) as stop:
        main(["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_phantoms_are_counted(tmp_path, capsys):
    argv = ["--preset", "laptop", "--sets.test", "0.2", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "a share needs data" in capsys.readouterr().err
