"""A dry run says what the cells will cost, from a trial of the real thing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lesion_det.cells import CellKey
from lesion_det.compare_inits import OF_A_CELL, main
from lesion_det.estimate import Costs, make_estimate, measure_costs
from lesion_det.launch import LocalLauncher
from lesion_det.plan import Plan, Question, make_plan
from tests.lesion_det.toy_cells import end_somehow
from tests.lesion_det.toy_comparison import toy_config, write_toy_data

COSTS = Costs(
    seconds_per_iteration=2.0,
    seconds_per_evaluated_image=0.5,
    seconds_per_checkpoint=10.0,
    seconds_around=7.0,
    seconds_per_input=0.1,
    input_bytes=1e6,
    checkpoint_bytes=1e9,
)


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    coco, images = write_toy_data(tmp_path_factory.mktemp("toy"))
    return Question(toy_config(coco, images), ("random", "ubr-stats"), (0, 1, 2))


@pytest.fixture(scope="module")
def plan(question: Question) -> Plan:
    return make_plan(replace(question, inits=("random",)), lambda _: None)


def test_cost_of_a_cell_is_the_sum_of_what_it_does(plan: Plan) -> None:
    config = plan.configs[CellKey("random", 0)]
    assert (config.iterations, config.eval_every, config.save_every) == (40, 10, 500)
    # 4 evaluations of 12 images, once 3 images at the end; 1 regular checkpoint and 4 best ones
    assert COSTS.cell_seconds(config, 12, 3, 0) == 7 + 40 * 2 + (4 * 12 + 3) * 0.5 + 5 * 10
    assert COSTS.cell_seconds(config, 12, 3, 35) == 7 + 5 * 2 + (12 + 3) * 0.5 + 2 * 10


def test_cells_are_dealt_to_whoever_is_free_and_finished_ones_cost_nothing(
    plan: Plan, tmp_path: Path
) -> None:
    whole_s = 7 + 40 * 2 + 4 * 12 * 0.5 + 5 * 10
    estimate = make_estimate(plan, tmp_path, COSTS, 2)
    assert estimate.cells == {f"random-seed{seed}": whole_s for seed in (0, 1, 2)}
    assert [3600 * hours for hours in estimate.hours_per_worker] == [2 * whole_s, whole_s]
    assert estimate.hours * 3600 == pytest.approx(3 * whole_s)
    assert estimate.hours_to_decode * 3600 == pytest.approx(15 * 0.1)
    assert estimate.disk_gb == pytest.approx(15 * 1e-3 + 3 * 2)
    for name, manifest, iteration in (("0", "finished", 40), ("1", "running", 30)):
        folder = tmp_path / "cells" / f"random-seed{name}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"status": manifest}))
        (folder / "metrics.jsonl").write_text(f'{{"iteration": {iteration}}}\n')
    left = make_estimate(plan, tmp_path, COSTS, 2)
    assert left.cells == {
        "random-seed1": 7 + 10 * 2 + 12 * 0.5 + 2 * 10,
        "random-seed2": whole_s,
    }


def test_nothing_left_costs_nothing(plan: Plan, tmp_path: Path) -> None:
    for key in plan.configs:
        (tmp_path / "cells" / key.name).mkdir(parents=True)
        (tmp_path / "cells" / key.name / "run.json").write_text('{"status": "finished"}')
    estimate = make_estimate(plan, tmp_path, COSTS, 1)
    assert (estimate.cells, estimate.hours, estimate.hours_to_decode) == ({}, 0, 0)


def test_failed_trial_is_told_with_its_reason(plan: Plan) -> None:
    config = plan.configs[CellKey("random", 2)].model_copy(update={"seed": 4})  # "refused"
    launcher = LocalLauncher(1, (), end_somehow)
    with pytest.raises(ValueError, match=r"the trial training failed: weights.pth: no such file"):
        measure_costs(config, launcher)


def test_dry_run_measures_prints_the_plan_and_writes_nothing(
    question: Question, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common, out = question.common, tmp_path / "out"
    config = tmp_path / "config.yaml"
    own = {*OF_A_CELL, "external"}
    config.write_text(common.model_dump_json(exclude=own))  # JSON is YAML
    asked = ["--config", str(config), "--out", str(out), "--inits", "random", "--seeds", "0", "1"]
    assert main([*asked, "--label-fractions", "1", "0.5", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "equal    random head, seed 0: " in printed
    assert "would train random, seed 1: 0:00:" in printed
    assert "would train random, seed 0, 50 % of the labels: 0:00:" in printed
    assert "a trial first, in a folder that is deleted at once: 12 iterations" in printed
    assert "s an iteration" in printed
    assert "4 cells: 0:0" in printed
    assert not out.exists()
