"""A layer-wise study in one comparison: ``ubr@conv3`` is ``ubr`` with conv1 to conv3 alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from lesion_det.cells import CellKey
from lesion_det.compare_inits import compare, main
from lesion_det.plan import Question, build_question, make_plan
from tests.lesion_det.toy_comparison import write_toy_ubr
from tests.lesion_det.toy_grid import Trainer, quiet, result

ARMS = ("random", "ubr@conv1", "ubr@conv4", "ubr")


def asked_for(question: Question, *arms: str, **more: object) -> Question:
    return build_question(question.common, arms, (0,), (1.0,), title="t", **more)  # type: ignore[arg-type]


def test_a_cell_transfers_as_far_as_its_arm_says(question: Question) -> None:
    asked = asked_for(question, *ARMS)
    configs = [asked.cell_config(CellKey(arm, 0)) for arm in ARMS]
    assert [config.init for config in configs] == ["random", "ubr", "ubr", "ubr"]
    through = [config.transfer_through for config in configs]
    assert through == ["conv5", "conv1", "conv4", "conv5"]
    assert configs[1].ubr == question.common.ubr


def test_parts_start_apart_and_are_equal_in_all_else(question: Question) -> None:
    plan = make_plan(asked_for(question, *ARMS), quiet)
    assert [key.arm for key in plan.configs] == list(ARMS)
    trunks = [found.hashes["trunk_sha256"] for found in plan.fingerprints.values()]
    assert len(set(trunks)) == 4
    assert all(row.equal for row in plan.audit if row.required)


def test_the_report_has_a_row_for_every_part(question: Question, tmp_path: Path) -> None:
    trainer = Trainer()
    asked = asked_for(question, *ARMS)
    assert compare(asked, tmp_path, trainer, say=quiet) == (0, {})
    assert trainer.trained == [f"{arm}-seed0" for arm in ARMS]
    assert [arm.arm for arm in result(tmp_path).arms] == list(ARMS)
    table = (tmp_path / "table.md").read_text("utf-8")
    assert all(arm in table for arm in ARMS)


def test_a_part_of_a_trunk_of_others(question: Question, tmp_path: Path) -> None:
    file = write_toy_ubr(tmp_path / "theirs.safetensors", init="external")
    asked = asked_for(question, "random", "mine@conv2", externals=(f"mine={file}",))
    assert asked.inits == ("random", "mine@conv2", "mine")
    config = asked.cell_config(CellKey("mine@conv2", 0))
    assert (config.init, config.external, config.transfer_through) == ("external", file, "conv2")


def test_a_folder_of_a_hub_is_an_arm(question: Question, tmp_path: Path) -> None:
    write_toy_ubr(tmp_path / "hub" / "model.safetensors")
    asked = asked_for(question, "random", externals=(f"hub={tmp_path / 'hub'}",))
    plan = make_plan(asked, quiet)
    assert [key.arm for key in plan.configs] == ["random", "hub"]
    with pytest.raises(ValueError, match="a folder with 0 of model"):
        asked_for(question, "random", externals=(f"hub={tmp_path}",))


def test_a_part_without_its_file_is_not_run_and_named(question: Question) -> None:
    common = question.common.model_copy(update={"ubr": None})
    plan = make_plan(replace(question, common=common, inits=("random", "ubr@conv2")), quiet)
    assert plan.not_run == {"ubr@conv2": "--ubr FILE was not given"}


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("random@conv2", "--inits random@conv2: has nothing to transfer; write random"),
        ("ubr@conv5", "--inits ubr@conv5: is the whole trunk; write ubr"),
        ("ubr@conv6", "--inits ubr@conv6: conv6 is not one of conv1, conv2, conv3, conv4, conv5"),
        ("ubr@", "--inits ubr@:  is not one of conv1"),
        ("theirs@conv2", "--inits theirs@conv2: not one of random, ubr"),
    ],
)
def test_a_part_that_does_not_exist(question: Question, arm: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asked_for(question, arm)


def test_the_flag_of_one_training_is_answered_with_the_word_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--coco", "c", "--out", str(tmp_path), "--transfer-through", "conv2"])
    assert end.value.code == 2
    assert "every cell has its own; use --inits ARM@BLOCK" in capsys.readouterr().err
