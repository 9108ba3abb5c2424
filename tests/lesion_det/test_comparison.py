"""What follows from the cells: points along the training, early verdicts, labels, missing cells."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesion_det import kept_metrics
from lesion_det.cells import Cell, CellAnswers, CellKey, is_finished, read_cell
from lesion_det.comparison import Comparison, compare_arms
from lesion_det.ground_truth import GroundTruth
from lesion_det.kept_metrics import METRICS_FILE
from lesion_det.learning_curve import (
    curve_points,
    early_iterations,
    early_words,
    times_to,
)
from lesion_det.plan import Question, make_plan
from lesion_det.significance import draw_patients, holm
from tests.lesion_det.toy_comparison import (
    pretend_training,
    toy_config,
    write_toy_data,
    write_toy_ubr,
)
from ubr_pretrain.checkpoint import file_sha256

ARMS = ("random", "ubr")


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    folder = tmp_path_factory.mktemp("toy")
    coco, images = write_toy_data(folder, num_val=40)
    ubr = write_toy_ubr(folder / "ubr.safetensors")
    return Question(toy_config(coco, images, ubr), ARMS, (0, 1, 2), (1.0, 0.5, 0.25))


@pytest.fixture(scope="module")
def truth(question: Question) -> GroundTruth:
    return make_plan(question, lambda _: None).ground_truth


@pytest.fixture(scope="module")
def runs(question: Question, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for key in question.keys:
        pretend_training(question.cell_config(key), out / key.name)
    return out


@pytest.fixture(scope="module")
def cells(question: Question, truth: GroundTruth, runs: Path) -> dict[CellKey, CellAnswers]:
    return {key: read_cell(runs / key.name, key, truth, expected={}) for key in question.keys}


def gathered(cells: Mapping[CellKey, CellAnswers], truth: GroundTruth, **more: int) -> Comparison:
    fields = compare_arms(ARMS, cells, {}, truth, **more)
    return Comparison(title="", data={}, settings="", audit=(), versions={}, **fields)


def test_last_point_of_the_curve_is_the_comparison_at_the_end(cells, truth) -> None:
    comparison = gathered(cells, truth)
    points = comparison.curve_points
    assert [point.iteration for point in points] == [10, 20, 30, 40]
    (at_end,), (final,) = points[-1].pairs, comparison.pairs
    assert at_end.model_copy(update={"p_holm": final.p_holm, "family": final.family}) == final
    recalls = {
        arm: [cells[CellKey(arm, seed)].cell.curve[1][1] for seed in (0, 1, 2)] for arm in ARMS
    }
    expected = np.subtract(recalls["ubr"], recalls["random"])
    assert points[1].pairs[0].per_seed == pytest.approx(tuple(expected))


def test_early_points_are_one_family_and_the_others_are_not_tested(cells, truth) -> None:
    comparison = gathered(cells, truth)
    early = [point for point in comparison.curve_points if point.early]
    assert [point.iteration for point in early] == [10, 20]
    pairs = [pair for point in early for pair in point.pairs]
    assert [pair.p_holm for pair in pairs] == holm([pair.p for pair in pairs])
    assert {pair.family for pair in pairs} == {2}
    assert [claim.claim[-16:] for point in early for claim in point.claims] == [
        " at iteration 10",
        " at iteration 20",
    ]
    for point in comparison.curve_points[2:]:
        assert point.claims == ()
        assert [pair.p_holm for pair in point.pairs] == [None]
    assert comparison.early_words == (
        "early: iterations 10 and 20, the first before the end, as none of 2,500 and 5,000 "
        "was evaluated"
    )


@pytest.mark.parametrize(
    ("iterations", "early"),
    [
        (range(2500, 70001, 2500), (2500, 5000)),
        ((1000, 5000, 9000), (5000,)),
        ((2500, 5000), (2500,)),
        ((500, 1000, 1500, 2000), (500, 1000)),
        ((100, 200), (100,)),
        ((100,), ()),
        ((), ()),
    ],
)
def test_early_is_where_the_paper_looks_else_the_first_two_before_the_end(
    iterations, early
) -> None:
    assert early_iterations(iterations) == early


def answers(arm: str, seed: int, hits: Mapping[int, list[int]]) -> CellAnswers:
    curve = tuple((i, float(np.mean(found))) for i, found in hits.items())
    cell = Cell(arm=arm, seed=seed, status="finished", curve=curve)
    return CellAnswers(cell, None, (), {i: np.array(h, bool) for i, h in hits.items()})


def test_pair_has_a_point_only_where_all_its_common_seeds_were_evaluated() -> None:
    draws = draw_patients(np.arange(3), np.random.default_rng(0))
    every, few = {i: [1, 0, 1] for i in (2500, 5000, 7500)}, {i: [1, 1, 1] for i in (5000, 7500)}
    compared = {
        "random": [answers("random", 0, every), answers("random", 1, few)],
        "ubr": [answers("ubr", seed, every) for seed in (0, 1, 2)],
        "imagenet": [answers("imagenet", 0, every)],
    }
    points = {
        p.iteration: {(d.a, d.b): d.seeds for d in p.pairs} for p in curve_points(compared, draws)
    }
    assert points[2500] == {("imagenet", "random"): (0,), ("imagenet", "ubr"): (0,)}
    assert points[5000][("ubr", "random")] == (0, 1)


def test_cells_without_kept_hits_have_no_points() -> None:
    draws = draw_patients(np.arange(3), np.random.default_rng(0))
    old = {"random": [answers("random", 0, {})], "ubr": [answers("ubr", 0, {5: [1, 0, 0]})]}
    assert curve_points(old, draws) == []
    assert early_words([]).startswith("nothing is early")


def test_time_to_shares_of_the_best() -> None:
    def cell(arm: str, seed: int, recalls: list[float | None]) -> Cell:
        curve = tuple((10 * (i + 1), r) for i, r in enumerate(recalls))
        return Cell(arm=arm, seed=seed, status="finished", curve=curve)

    times = times_to(
        {
            "slow": [
                cell("slow", 0, [0.1, 0.2, 0.5, 0.48]),
                cell("slow", 1, [0.1, 0.2, 0.4, 0.42]),
            ],
            "fast": [cell("fast", 0, [0.46, 0.49, 0.5, 0.49])],
            "blind": [cell("blind", 0, [0.0, 0.0])],
            "nothing to find": [cell("nothing to find", 0, [None, None])],
        }
    )
    assert [(t.arm, t.share, t.of_own, t.of_best_arm) for t in times] == [
        ("slow", 0.9, 30, 30),
        ("slow", 0.95, 30, None),
        ("slow", 0.99, 30, None),
        ("fast", 0.9, 10, 10),
        ("fast", 0.95, 20, 20),
        ("fast", 0.99, 30, 30),
        *(("blind", share, None, None) for share in (0.9, 0.95, 0.99)),
    ]


def test_smaller_fractions_enter_the_curve_of_labels_and_nothing_else(cells, truth) -> None:
    everything = gathered(cells, truth, train_patients=3)
    whole = gathered({key: a for key, a in cells.items() if key.fraction == 1}, truth)
    assert whole.label_efficiency == whole.label_pairs == ()
    without_labels = {"label_efficiency": (), "label_pairs": (), "label_cells": ()}
    assert everything.model_copy(update=without_labels) == whole
    points = everything.label_efficiency
    assert [(p.fraction, p.arm) for p in points] == [(f, a) for f in (1, 0.5, 0.25) for a in ARMS]
    assert [p.num_patients for p in points] == [3, 3, 2, 2, 1, 1]
    pooled = {arm.arm: arm.pooled for arm in everything.arms}
    assert [p.recall for p in points[:2]] == [pooled["random"], pooled["ubr"]]
    for point in points:
        measured = [cells[CellKey(point.arm, s, point.fraction)].cell.metrics for s in point.seeds]
        assert point.per_seed == tuple(m.top5_recall for m in measured if m is not None)
    pairs = [label.pair for label in everything.label_pairs]
    assert [(label.fraction, label.pair.a) for label in everything.label_pairs] == [
        (0.5, "ubr"),
        (0.25, "ubr"),
    ]
    assert [pair.p_holm for pair in pairs] == holm([pair.p for pair in pairs])


def test_missing_and_failed_cells_do_not_stop_the_rest(cells, truth) -> None:
    gone = {
        CellKey("ubr", 0, 0.25),
        CellKey("random", 1, 0.25),
        CellKey("ubr", 2),
        *(CellKey("random", seed, 0.5) for seed in (0, 1, 2)),
    }
    left = {
        key: replace(
            a,
            cell=Cell(arm=key.arm, seed=key.seed, fraction=key.fraction, status="failed"),
            predictions=None,
            curve_hits={},
        )
        if key in gone
        else a
        for key, a in cells.items()
    }
    comparison = gathered(left, truth)
    assert comparison.pairs[0].seeds == (0, 1)
    assert comparison.curve_points[0].pairs[0].seeds == (0, 1)
    assert comparison.claims[0].verdict == "not resolved"
    seeds = {(p.fraction, p.arm): p.seeds for p in comparison.label_efficiency}
    assert (0.5, "random") not in seeds
    assert (seeds[0.25, "ubr"], seeds[0.25, "random"]) == ((1, 2), (0, 2))
    assert [(label.fraction, label.pair.seeds) for label in comparison.label_pairs] == [
        (0.25, (2,))
    ]
    nothing = {
        key: replace(a, cell=Cell(arm=key.arm, seed=key.seed, status="failed"), predictions=None)
        for key, a in cells.items()
        if key.fraction == 1
    }
    empty = gathered(nothing, truth)
    assert (empty.pairs, empty.curve_points, empty.time_to) == ((), (), ())
    assert empty.power is not None


def test_power_is_of_the_design_as_planned_and_of_the_pairs_as_measured(cells, truth) -> None:
    power = gathered(cells, truth).power
    assert (power.num_seeds, power.num_patients, power.num_lesions) == (3, 40, 50)
    (measured,) = power.measured
    (pair,) = gathered(cells, truth).pairs
    assert measured.half_width == pytest.approx((pair.high - pair.low) / 2)
    only = {key: a for key, a in cells.items() if key.arm == "random"}
    assert gathered(only, truth).power is None


def test_record_survives_its_own_json(cells, truth) -> None:
    comparison = gathered(cells, truth)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


@pytest.mark.parametrize("damage", ["hits", "predictions"])
def test_finished_cell_that_cannot_be_read_is_a_failed_one(
    question: Question, truth: GroundTruth, tmp_path: Path, damage: str
) -> None:
    key = CellKey("random", 0)
    pretend_training(question.cell_config(key), tmp_path / "cell")
    if damage == "hits":
        record = {"iteration": 10, "kind": "val", "top5_recall": 0.5, "hits": "AAAA"}
        (tmp_path / "cell" / "metrics.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    else:
        (tmp_path / "cell" / "predictions_val.json").unlink()
    read = read_cell(tmp_path / "cell", key, truth, expected={})
    assert (read.cell.status, read.predictions, read.cell.metrics) == ("failed", None, None)
    assert read.cell.reason.endswith("delete its folder to train it again")
    assert str(tmp_path) not in read.cell.reason


def damaged(file: Path, text: Callable[[str], str]) -> None:
    file.write_text(text(file.read_text("utf-8")), encoding="utf-8", newline="\n")


@pytest.fixture
def cell(runs: Path, tmp_path: Path) -> Path:
    """A copy of a finished cell."""
    return shutil.copytree(runs / "random-seed0", tmp_path / "random-seed0")


CHANGES: dict[str, Callable[[str], str]] = {
    "metrics.jsonl": lambda text: text[: len(text) // 2],
    "predictions_val.json": lambda text: text.replace(".5", ".6", 1),
    "weights.csv": lambda text: text.replace("1.5", "1.6"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_N94_a_file_that_changed_after_the_end_fails_its_cell(
    cell: Path, truth: GroundTruth, name: str
) -> None:
    """A finished cell whose curve, answers or table of weights are not what they were when it
    finished has failed, the file named; so has one that lacks them."""
    key = CellKey("random", 0)
    assert read_cell(cell, key, truth, expected={}).cell.status == "finished"
    before = file_sha256(cell / name)
    damaged(cell / name, CHANGES[name])
    read = read_cell(cell, key, truth, expected={})
    assert (read.cell.status, read.predictions, read.cell.metrics) == ("failed", None, None)
    assert read.cell.reason == (
        f"{name}: SHA-256 {file_sha256(cell / name)[:12]}, was {before[:12]} when the training "
        "finished: edited, cut or of another cell; put it back, or delete its folder to train it "
        "again"
    )
    (cell / name).unlink()
    assert read_cell(cell, key, truth, expected={}).cell.reason.startswith(f"{name}: is missing;")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"status": "fin', "is damaged, no JSON"),
        ("[]", "is damaged, no JSON object"),
        ('{"status": "finished", "audit": null}', "audit: Input should be a valid dictionary"),
    ],
)
def test_N94_a_damaged_run_json_fails_its_cell(
    cell: Path, truth: GroundTruth, text: str, problem: str
) -> None:
    """A damaged run.json fails the cell that it is of, named with what is wrong in it."""
    damaged(cell / "run.json", lambda _: text)
    read = read_cell(cell, CellKey("random", 0), truth, expected={}, failure="exit code 1")
    assert (read.cell.status, read.cell.metrics) == ("failed", None)
    assert re.match(rf"run\.json: {problem}.*; put it back, or delete", read.cell.reason)
    assert not is_finished(cell)


def test_N94_kept_metrics_are_believed_only_as_they_were_kept(
    cell: Path, runs: Path, truth: GroundTruth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept metrics of a cell that were edited, cut or taken from another cell are measured again;
    as they were kept, they are believed."""
    key, file = CellKey("random", 0), cell / METRICS_FILE
    kept = file.read_bytes()
    measured = read_cell(runs / key.name, key, truth, expected={}).cell.metrics
    assert measured is not None
    calls: list[int] = []
    monkeypatch.setattr(kept_metrics, "measure", lambda *_: calls.append(1) or measured)
    assert read_cell(cell, key, truth, expected={}).cell.metrics == measured
    assert not calls
    other = (runs / "ubr-seed1" / METRICS_FILE).read_bytes()
    edited = re.sub(rb'"top5_recall": 0\.\d+', b'"top5_recall": 0.9', kept, count=1)
    for number, wrong in enumerate((edited, other, kept[:100], b""), start=1):
        assert wrong != kept
        file.write_bytes(wrong)
        assert read_cell(cell, key, truth, expected={}).cell.metrics == measured
        assert len(calls) == number
        assert file.read_bytes() == kept


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("metrics.jsonl", "metrics.jsonl: lacks the evaluation at the end of the training"),
        ("predictions_val.json", "predictions_val.json: finds other lesions than metrics.jsonl"),
    ],
)
def test_N94_a_cell_that_wrote_no_hashes_is_held_to_its_last_evaluation(
    cell: Path, runs: Path, truth: GroundTruth, name: str, reason: str
) -> None:
    """A cell of a version that wrote no hashes counts where its answers find the lesions that its
    last evaluation found, and has failed where they do not."""
    key, manifest = CellKey("random", 0), json.loads((cell / "run.json").read_text("utf-8"))
    del manifest["files_sha256"]
    damaged(cell / "run.json", lambda _: json.dumps(manifest))
    assert read_cell(cell, key, truth, expected={}).cell.status == "finished"
    if name == "metrics.jsonl":
        damaged(cell / name, CHANGES[name])
    else:
        shutil.copy(runs / "ubr-seed1" / name, cell / name)
    read = read_cell(cell, key, truth, expected={})
    assert (read.cell.status, read.predictions, read.cell.metrics) == ("failed", None, None)
    assert read.cell.reason.startswith(reason)
