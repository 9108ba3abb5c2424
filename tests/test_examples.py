"""The examples: the commands of their README run, and what they compute is right."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score

from converters.export_backbone import main as export_backbone
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import network_input
from ubr_pretrain.phantom_cohort import main as make_phantoms
from ubr_pretrain.phantom_tissues import Tissue
from ubr_pretrain.phantom_volumes import STORED_DIRECTIONS, write_cohort
from ubr_pretrain.train_ubr import main as train_ubr
from ubr_pretrain.trunk import Trunk, torchvision_names

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "examples" / "README.md").read_text("utf-8")
PROGRAMS = {
    "make_phantoms.py": make_phantoms,
    "export_backbone.py": export_backbone,
    "train_ubr.py": train_ubr,
}
SMALLEST = {
    "make_phantoms.py": "--subjects 4 --matrix 32 --step-mm 40",
    "export_backbone.py": "",
    "examples/segment_organs.py": "--iterations 2 --eval-every 1 --batch 2 --test 2 --size-px 32 "
    "--patients 1 2 --seeds 0",
    "examples/classify_slices.py": "--iterations 2 --seeds 0",
}
"""Flags behind those of the README: of two the last counts."""

STARTS = ("random", "shuffled", "ubr")
ORGANS = {"liver": [13, 14], "spleen": [16]}

needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None,
    reason="needs segmentation_models_pytorch: pip install .[examples]",
)


def commands(fence: str) -> list[tuple[str, list[str]]]:
    """Return program and arguments of what the README prints in blocks of one kind, in order.

    ``sh`` is what was run; ``bash`` what a reader with a GPU would run.
    """
    blocks = re.findall(rf"^```{fence}\n(.*?)^```", README, re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [w for line in lines if (w := shlex.split(line, comments=True))]
    return [(w[1], w[2:]) if w[0] == "python" else (w[0], w[1:]) for w in words]


def script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def example(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def segment_organs() -> ModuleType:
    return example("segment_organs")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Run the README's commands; return the folder, and what the scripts said."""
    top = tmp_path_factory.mktemp("examples")
    (top / "ubr_pretrain").symlink_to(ROOT / "ubr_pretrain")
    said: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        for program, arguments in commands("sh"):
            if program == "pip":
                continue
            arguments += shlex.split(SMALLEST[program])
            if program in PROGRAMS:
                assert PROGRAMS[program](arguments) == 0, arguments
                continue
            done = script(Path(program).name, *arguments, cwd=top)
            assert done.returncode == 0, done.stderr
            said[program] = done.stdout
    return top, said


@needs_smp
def test_every_start_met_the_same_patients_and_the_tables_agree_with_the_record(printed):
    top, said = printed
    folder = top / "runs/segment"
    results = json.loads((folder / "results.json").read_text())
    trainings = results["trainings"]
    key = [(t["num_patients"], t["seed"], t["start"]) for t in trainings]
    assert key == list(product((1, 2), (0,), STARTS))
    assert results["input_spec"]["mean"] == [50.0, 50.0, 50.0]
    assert results["input_spec"]["size_px"] == 32
    for one, of_them in zip(trainings[::3], zip(*[iter(trainings)] * 3, strict=True), strict=True):
        assert all(t["trained_on"] == one["trained_on"] for t in of_them)
        assert len(one["trained_on"]) == one["num_patients"]
    for training in trainings:
        assert not set(training["trained_on"]) & set(training["dice"])
        assert [point["iteration"] for point in training["curve"]] == [1, 2]
        values = np.array(list(training["dice"].values()), float)
        assert values.shape == (2, len(results["organs"]))
        assert ((values >= 0) & (values <= 1))[np.isfinite(values)].all()
    table = pd.read_csv(folder / "dice.csv")
    assert table.organ.tolist() == [*results["organs"], "mean"] * 2
    for _, row in table[table.organ == "liver"].iterrows():
        for start in STARTS:
            mean = np.mean([
                [patient[results["organs"].index("liver")] for patient in t["dice"].values()]
                for t in trainings
                if (t["num_patients"], t["start"]) == (row.patients, start)
            ])  # fmt: skip
            assert row[start].startswith(f"{mean:.3f} (")
    for picture in ("curve.png", "slices.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert "ubr - random" in said["examples/segment_organs.py"]


@needs_smp
def test_the_classifier_says_the_accuracy_of_both_starts(printed):
    _, said = printed
    for start in ("random", "ubr"):
        (reached,) = re.findall(
            rf"^seed 0  {start:6s}  accuracy (0\.\d{{3}}|1\.000)$",
            said["examples/classify_slices.py"],
            re.M,
        )
        assert f"{start:6s}  mean of 1 seeds {reached}" in said["examples/classify_slices.py"]


@needs_smp
def test_flags_of_the_commands_that_need_a_gpu_exist(
    segment_organs: ModuleType, capsys: pytest.CaptureFixture[str]
):
    programs = PROGRAMS | {"examples/segment_organs.py": segment_organs.main}
    asked = commands("bash")
    assert "examples/segment_organs.py" in dict(asked)
    for program, arguments in asked:
        with pytest.raises(SystemExit, match="0"):
            programs[program](["--help"])
        known = capsys.readouterr().out
        for flag in (a for a in arguments if a.startswith("--")):
            assert re.search(rf"{flag}\b", known), (program, flag)


@needs_smp
@given(
    st.integers(1, 4).flatmap(
        lambda z: st.tuples(*[hnp.arrays(np.uint8, (z, 3, 3), elements=st.integers(0, 3))] * 2)
    )
)
def test_dice_is_the_f1_score_of_scikit_learn(segment_organs, maps):
    found, truth = maps
    for organ, score in enumerate(segment_organs.dice(found, truth, 3), start=1):
        if score is None:
            assert organ not in found
            assert organ not in truth
        else:
            judge = f1_score((truth == organ).ravel(), (found == organ).ravel(), zero_division=0.0)
            assert score == pytest.approx(judge)


@needs_smp
def test_labels_lie_where_the_scan_shows_the_organ_in_every_stored_direction(
    segment_organs, tmp_path: Path
):
    ct, labels = tmp_path / "ct", tmp_path / "labels"
    cohort = write_cohort(ct, len(STORED_DIRECTIONS), 3, 48, 0, "abdomen", 30.0, labels=labels)
    for name, phantom in cohort:
        stored = InputSpec(size_px=48)  # the scan's own grid
        patient = segment_organs.read_patient(ct / f"{name}.nii.gz", labels, ORGANS, stored)
        np.testing.assert_array_equal(patient.hu, phantom.volume.hu)
        liver = np.isin(phantom.tissues, (Tissue.LIVER, Tissue.LIVER_VESSEL))
        np.testing.assert_array_equal(patient.organs == 1, liver)
        np.testing.assert_array_equal(patient.organs == 2, phantom.tissues == Tissue.SPLEEN)


@needs_smp
def test_starts_differ_in_the_encoder_alone_and_the_trunk_computes_what_it_did(segment_organs):
    torch.manual_seed(5)
    trunk = Trunk(width=0.125)
    names = torchvision_names("vgg16", prefix="")
    tensors = {names[name]: tensor for name, tensor in trunk.state_dict().items()}
    exported = segment_organs.ExportedTrunk(tensors, 0.125, InputSpec())
    nets = {start: segment_organs.build_unet(exported, start, 2, seed=1) for start in STARTS}
    for part in ("decoder", "segmentation_head"):
        states = [getattr(nets[start], part).state_dict() for start in STARTS]
        for name, tensor in states[0].items():
            assert all(torch.equal(tensor, state[name]) for state in states[1:]), name
    for name, tensor in tensors.items():
        shuffled = nets["shuffled"].encoder.features.state_dict()[name]
        assert torch.equal(shuffled.flatten().sort().values, tensor.flatten().sort().values)
        if name.endswith("weight"):
            assert not torch.equal(shuffled, tensor)
            assert not torch.equal(nets["random"].encoder.features.state_dict()[name], tensor)
    x = network_input(torch.linspace(-300, 400, 2 * 32 * 32).view(2, 32, 32), InputSpec())
    with torch.no_grad():
        torch.testing.assert_close(nets["ubr"].encoder(x)[4], trunk(x))


@needs_smp
def test_wrong_input_ends_with_one_line(segment_organs, printed, tmp_path: Path, capsys):
    top, _ = printed
    trunk = next((top / "runs").rglob("vgg16.safetensors"))
    folders = ["--ct", str(top / "runs/organs/ct"), "--labels", str(tmp_path)]
    out = ["--encoder", str(trunk), "--out", str(tmp_path / "out")]
    for wrong, reason in (
        ([*out, "--test", "4"], "4 patients, --test 4"),
        ([*out, "--organs", "liver"], "expected NAME=NUMBER"),
        ([*out, "--test", "1"], "no labels for"),
        ([*out, "--encoder", str(ROOT / "pyproject.toml")], "pyproject.toml"),
    ):
        with pytest.raises(SystemExit) as stopped:
            segment_organs.main([*folders, "--patients", "1", *wrong])
        assert stopped.value.code == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert reason in said[0]
