"""A grid of trainings that never ran, with everything that a report can show."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from lesion_det.cells import Cell, CellAnswers, CellKey
from lesion_det.comparison import ArmResult, AuditRow, Comparison, Spread, compare_arms
from lesion_det.det_config import DetConfig
from lesion_det.filter_drift import ArmDrift, LayerDrift
from lesion_det.ground_truth import GroundTruth, read_ground_truth
from lesion_det.metrics import DetectionMetrics, measure
from lesion_det.predictions import Predictions
from lesion_det.recipe import describe_recipe
from lesion_det.report import Evidence
from lesion_det.significance import Interval, PairDifference
from lesion_det.topk_recall import lesion_ranks, recall_curve
from tests.lesion_det.toy_comparison import write_toy_data
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions

SKILL = {"random": 0.45, "ubr": 0.68, "imagenet": 0.76, "ubr+imagenet": 0.78, "ubr-stats": 0.47}
LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3")
TYPES = (1, 4, 5, 7, -1)
SIZES_PX = (8.0, 20.0, 45.0)
INTERVALS_MM = (1.0, 2.0, 5.0)


def toy_truth(folder: Path, num_val: int) -> tuple[GroundTruth, Path]:
    """Write slices and read them back with lesions of all types and sizes, two slices a patient."""
    coco, images = write_toy_data(folder, num_train=1, num_val=num_val)
    truth = read_ground_truth(coco / "val.json")
    records = []
    for i, record in enumerate(truth.images):
        n = record.num_lesions
        spacing_mm = (INTERVALS_MM[i % 3], 0.8, 0.8)
        long_px = np.full(n, SIZES_PX[i % 4 % 3])
        records.append(
            replace(
                record,
                patient_index=record.patient_index // 2,
                spacing_mm_zyx=spacing_mm,
                lesion_types=np.full(n, TYPES[i % len(TYPES)], np.int64),
                diameters_px=np.stack([long_px, long_px / 2], axis=1),
            )
        )
    return GroundTruth(truth.sha256, tuple(records), truth.source), images


def toy_answers(truth: GroundTruth, skill: float, rng: np.random.Generator) -> Predictions:
    """Return detections that find a lesion with probability ``skill``, and six false ones."""
    boxes, scores = {}, {}
    for record in truth.images:
        found = record.boxes_xyxy[rng.random(record.num_lesions) < skill]
        corner = rng.uniform(10, 60, (6, 2))
        false = np.concatenate([corner, corner + rng.uniform(8, 24, (6, 2))], axis=1)
        boxes[record.id] = np.concatenate([found + rng.normal(0, 0.4, found.shape), false])
        scores[record.id] = np.concatenate(
            [rng.uniform(0.5, 1, len(found)), rng.uniform(0, 0.8, len(false))]
        )
    return Predictions(truth.sha256, boxes, scores)


def toy_cell(
    key: CellKey, truth: GroundTruth, iterations: Sequence[int], *, shared: Cell | None = None
) -> CellAnswers:
    """Return a finished cell.

    Args:
        key: which one.
        truth: the lesions.
        iterations: of its evaluations.
        shared: a cell whose metrics are taken, all but the recall, since measuring takes a second.
    """
    rng = np.random.default_rng([key.seed, sum(map(ord, key.arm)), round(1000 * key.fraction)])
    skill = SKILL.get(key.arm, 0.6) * key.fraction**0.15
    predictions = toy_answers(truth, skill, rng)
    luck = rng.random(truth.num_lesions)
    curve_hits = {i: luck < skill * (1 - 0.8 * 0.02 ** (i / iterations[-1])) for i in iterations}
    ranks = lesion_ranks(truth, predictions)
    curve_hits[iterations[-1]] = ranks.hits(5)
    if shared is None or shared.metrics is None:
        metrics = measure(truth, predictions, rng)
    else:
        own = {"top5_recall": ranks.recall(5), "topk_recall": recall_curve(ranks)}
        metrics = shared.metrics.model_copy(update=own)
    cell = Cell(
        arm=key.arm,
        seed=key.seed,
        fraction=key.fraction,
        status="finished",
        seconds=61.5,
        curve=tuple((i, float(hits.mean())) for i, hits in curve_hits.items()),
        metrics=metrics,
        audit={"source_sha256": "ab" * 32, "trunk_sha256": "cd" * 32},
    )
    loaded = str(key.arm != "random")
    weights = tuple(
        {"tensor": f"trunk.{layer}.weight", "source": f"{key.arm}.safetensors", "shape": "8x3x3x3",
         "l2_norm": "1.5", "loaded": loaded}
        for layer in LAYERS
    )  # fmt: skip
    return CellAnswers(cell, predictions, weights, curve_hits)


def toy_drift(arm: str) -> ArmDrift:
    """Return what a training might have changed."""
    rng = np.random.default_rng(len(arm))
    steps = ["start -> detector"] if arm == "random" else ["ubr start -> ubr", "start -> detector"]
    layers = tuple(
        LayerDrift(
            step=step, arm=arm, layer=layer, cosine=0.99 - 0.04 * n * rng.random(),
            relative_l2=0.05 + 0.1 * n * rng.random(), cka=None if n == 6 else 0.98 - 0.05 * n,
        )
        for step in steps
        for n, layer in enumerate(LAYERS)
    )  # fmt: skip
    torch.manual_seed(0)
    stages = ("start", "detector") if arm == "random" else ("ubr start", "start", "detector")
    filters = {stage: torch.randn(16, 3, 3, 3) for stage in stages}
    return ArmDrift(arm, layers, filters)


def toy_report(
    folder: Path,
    arms: Sequence[str] = ("random", "ubr", "imagenet"),
    seeds: Sequence[int] = (0, 1, 2),
    fractions: Sequence[float] = (1.0, 0.1),
    iterations: Sequence[int] = (2500, 5000, 7500, 10000),
    *,
    num_val: int = 24,
    title: str = "Toy lesions from three starts",
    reason: str = "iteration 7: loss not finite",
) -> tuple[Comparison, Evidence]:
    """Return a comparison and what is drawn of it; the last seed of the last arm has failed.

    Args:
        folder: of the slices.
        arms: any names; what is known of them decides how well they do.
        seeds: of every arm.
        fractions: of the labels, falling.
        iterations: of the evaluations.
        num_val: slices.
        title: of the report.
        reason: why the last training failed, and an arm could not be run.
    """
    truth, images = toy_truth(folder, num_val)
    cells: dict[CellKey, CellAnswers] = {}
    shared: Cell | None = None
    for arm in arms:
        for fraction in fractions:
            for seed in seeds:
                key = CellKey(arm, seed, fraction)
                cells[key] = toy_cell(key, truth, iterations, shared=shared)
                shared = cells[key].cell
    failed = CellKey(arms[-1], seeds[-1], fractions[-1])
    cell = Cell(
        arm=failed.arm, seed=failed.seed, fraction=failed.fraction, status="failed", reason=reason
    )
    cells[failed] = CellAnswers(cell, None)
    config = DetConfig(coco=folder, iterations=iterations[-1])
    absent = "ubr+imagenet" if "ubr+imagenet" not in arms else "imagenet-stats"
    comparison = Comparison(
        title=title,
        data={
            "trained on": "80 slices with 96 lesions of 40 patients",
            "judged on": f"{len(truth.images)} slices with {truth.num_lesions} lesions of "
            f"{truth.num_patients} patients",
            "SHA-256, val.json": truth.sha256,
        },
        recipe=describe_recipe(config),
        settings="iterations: 10000\n",
        audit=(
            AuditRow(what="random head, seed 0", values=dict.fromkeys(arms, "ab12"), equal=True),
            AuditRow(
                what="input of the trunk", values={arm: f"mean {i}" for i, arm in enumerate(arms)},
                equal=False, required=False,
            ),
        ),
        versions={"python": "3.11", "packages": {"torch": "2.15", "numpy": "2.3"}},
        drift=tuple(row for arm in arms for row in toy_drift(arm).layers),
        **compare_arms((*arms, absent), cells, {absent: reason}, truth, 40),
    )  # fmt: skip
    finished: dict[str, list[Predictions]] = {}
    for key, answers in cells.items():
        if answers.predictions is not None and key.fraction == fractions[0]:
            finished.setdefault(key.arm, []).append(answers.predictions)
    evidence = Evidence(
        truth,
        {arm: tuple(of_arm) for arm, of_arm in finished.items()},
        images,
        tuple(toy_drift(arm) for arm in arms),
    )
    return comparison, evidence


LESION = (10.0, 20.0, 40.0, 60.0)


def tiny_truth() -> tuple[GroundTruth, Predictions]:
    """Return three images with two lesions, one of them found."""
    truth = toy_ground_truth([[LESION], [LESION], []])
    return truth, toy_predictions([[(0.9, LESION)], [], [(0.3, LESION)]])


@cache
def _tiny_metrics() -> DetectionMetrics:
    return measure(*tiny_truth(), np.random.default_rng(0))


def tiny_record(text: str = "random") -> Comparison:
    """Return a comparison of one finished arm in which every free text is ``text``."""
    metrics = _tiny_metrics()
    cell = Cell(
        arm=text, seed=0, status="finished", curve=((5, 0.2), (10, 0.5)), metrics=metrics, seconds=3
    )
    failed = Cell(arm=text, seed=1, status="failed", reason=text)
    arm = ArmResult(
        arm=text,
        cells=(cell, failed),
        pooled=Interval(value=0.5, low=0.25, high=0.75, note=text),
        spreads={name: Spread(mean=value, sd=0.01) for name, value in metrics.scalars().items()},
        weights=({"tensor": text, "shape": "3", "l2_norm": "1", "loaded": "True", "source": text},),
    )
    pair = PairDifference(
        a=text, b=text, seeds=(0,), per_seed=(0.1,), value=0.1, low=0, high=0.2, p=0.2, note=text
    )
    return Comparison(
        title=text,
        data={text: text},
        recipe={text: text},
        settings=text,
        audit=(AuditRow(what=text, values={text: text, "b": "c"}, equal=False),),
        arms=(arm, ArmResult(arm="imagenet", not_run=text)),
        pairs=(pair,),
        claims=(),
        untested={text: text},
        versions={text: text},
    )


def tiny_evidence(text: str = "random") -> Evidence:
    """Return what belongs to it; its slices are nowhere."""
    truth, answers = tiny_truth()
    return Evidence(truth, {text: (answers,)}, Path("nowhere"))
