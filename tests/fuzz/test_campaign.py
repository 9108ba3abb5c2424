"""The fuzzing itself: a few inputs of every kind, and what becomes of a child that dies."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import campaign
from tests.fuzz.__main__ import fuzz, main
from tests.fuzz.campaign import Campaign, files_of, run
from tests.fuzz.dying_child import dying
from tests.fuzz.judges import Seen, differences
from tests.fuzz.originals import VOLUMES
from tests.fuzz.outcome import Outcome, Work
from tests.fuzz.record_originals import ORIGINALS
from tests.fuzz.volume_cases import originals_of, verdict
from tests.fuzz.worker import case_of
from ubr_pretrain.ct import Volume

FEW = {"command-line": 2, "dicom-j2k": 4, "dicom-jpeg-lossless": 4}


@pytest.mark.parametrize("kind", [*VOLUMES, *ORIGINALS])
def test_a_few_inputs_of_every_kind_are_refused_or_right(kind: str) -> None:
    count = FEW.get(kind, 8)
    case = case_of(Work(kind, 99, 0, count))
    next(case)
    for index in range(count):
        step = case.send(index)
        while not isinstance(step, Outcome):
            step = next(case)
        assert not step.is_fault, (step.name, step.how, step.detail)
        next(case)


@pytest.mark.parametrize("kind", ["nii", "dicom-rle", "coco"])
def test_an_input_is_made_again_from_its_seed_and_number(tmp_path: Path, kind: str) -> None:
    assert files_of(kind, 5, 17) == files_of(kind, 5, 17)
    assert files_of(kind, 5, 17) != files_of(kind, 6, 17)
    main(["--replay", kind, "--seed", "5", "--index", "17", "--out", str(tmp_path)])
    for name, content in files_of(kind, 5, 17).items():
        assert (tmp_path / name).read_bytes() == content


def test_a_voxel_that_was_not_touched_must_not_differ() -> None:
    original = originals_of("nii")[0]
    hu = original.stored_hu(original.files).astype(np.int16)
    truth = Seen(hu.astype(float), None, np.arange(5) * 5.0, (5.0, 0.75, 0.5))
    touched = dict(original.files)
    at = original.voxels["scan.nii"].start + 20
    content = bytearray(touched["scan.nii"])
    content[at] ^= 1
    touched["scan.nii"] = bytes(content)
    right = original.stored_hu(touched).astype(np.int16)
    said = verdict("nii", original, truth, touched, Volume(right, truth.spacing_mm), {})
    assert said == ("only the voxels touched", "")
    wrong = right.copy()
    wrong[4, 0, 0] += 1
    name, why = verdict("nii", original, truth, touched, Volume(wrong, truth.spacing_mm), {})
    assert (name, why) == ("WRONG", "1 voxels, first at [4, 0, 0]")
    name, _ = verdict("nii", original, truth, touched, Volume(right, (5.0, 0.75, 0.6)), {})
    assert name == "WRONG"


def test_readers_are_heard_where_a_header_was_touched() -> None:
    original = originals_of("nii")[0]
    hu = original.stored_hu(original.files)
    truth = Seen(hu, None, np.arange(5) * 5.0, (5.0, 0.75, 0.5))
    cut = {"scan.nii": original.files["scan.nii"][:-1]}
    other = Seen(hu, None, truth.z_mm, (5.0, 0.75, 0.6))
    ours = Volume(hu.astype(np.int16), (5.0, 0.75, 0.6))
    names = {
        word: verdict("nii", original, truth, cut, ours, opinions)[0]
        for word, opinions in {
            "agree": {"a": other, "b": other},
            "differ": {"a": other, "b": truth},
            "alone": {"a": truth},
            "none": {"a": None},
        }.items()
    }
    assert names == {
        "agree": "another volume, as other readers see it",
        "differ": "DISPUTED",
        "alone": "WRONG",
        "none": "UNJUDGED",
    }


def test_differences_are_of_size_voxels_spacing_positions_and_place() -> None:
    hu = np.zeros((2, 3, 4))
    seen = Seen(hu, np.eye(4), np.array([0.0, 5.0]), (5.0, 1.0, 1.0))
    moved = np.eye(4)
    moved[0, 3] = 1.0
    assert differences(seen, seen) == []
    assert differences(seen, Seen(hu[:1], *_rest(seen)))[0].startswith("size")
    assert differences(seen, Seen(hu - 2, *_rest(seen)))[0].startswith("24 voxels")
    assert differences(seen, Seen(hu, seen.affine_lps, seen.z_mm, (5.0, 1.0, 1.1)))
    assert differences(seen, Seen(hu, seen.affine_lps, seen.z_mm * 1.1, seen.spacing_mm))
    assert differences(seen, Seen(hu, moved, seen.z_mm, seen.spacing_mm)) == ["corners by 1.000 mm"]


def _rest(seen: Seen) -> tuple:
    return seen.affine_lps, seen.z_mm, seen.spacing_mm


def test_a_child_that_dies_or_hangs_is_an_outcome_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "serve", dying)
    monkeypatch.setattr(campaign, "HANG_S", 5.0)
    found = Campaign(tmp_path, 0)
    run(found, "nii", 0, 5)
    assert found.counts["nii"] == {
        "equal to the original": 3, "FAULT CRASH -11": 1, "FAULT HANG": 1,
    }  # fmt: skip
    assert (found.num_inputs, found.num_faults) == (5, 2)
    saved = tmp_path / "faults" / "nii-0-1"
    assert (saved / "fault.txt").read_text().startswith("FAULT CRASH -11")
    assert sorted(p.name for p in saved.iterdir()) == sorted(["fault.txt", *files_of("nii", 0, 1)])


def test_figures_are_written_as_it_goes(tmp_path: Path, capsys) -> None:
    found = fuzz(["metrics"], 30, 3, tmp_path)
    figures = json.loads((tmp_path / "fuzz.json").read_text())
    assert figures["inputs"] == found.num_inputs == 30
    assert sum(figures["outcomes"]["metrics"].values()) == 30
    assert "| metrics | 30 |" in (tmp_path / "fuzz.md").read_text()
    assert "30 of 30 inputs" in capsys.readouterr().out
