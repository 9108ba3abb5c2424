"""Table 1: six ways to tell chest, abdomen and pelvis apart, and how their order compares.

Shapes:
    n: tested slices.

Reference:
    Yan, Lu, Summers, ISBI 2018, Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from ubr_pretrain.config import Config
from ubr_pretrain.evidence_cells import Cell
from ubr_pretrain.evidence_data import EvidenceData
from ubr_pretrain.runtime import generator
from ubr_pretrain.zone_accuracy import (
    accuracy_by_distance,
    calibrate,
    clustered_interval,
    confusion_matrix,
    distance_to_border,
    recall_of_zones,
    spread,
)
from ubr_pretrain.zones import ZONES

NEAR_MM = 20.0
"""Slices this near to a border of zones are where the paper says that the errors are."""

_RESAMPLES = 30
"""A stream of random numbers."""

Verdict = Literal["as in the paper", "not told apart", "the other way round"]


@dataclass(frozen=True)
class Method:
    """A row as the paper prints it.

    Attributes:
        number: of the row.
        name: of the method.
        labelled: which labelled volumes it uses.
        paper: accuracy in the paper.
    """

    number: int
    name: str
    labelled: Literal["labelled set", "two volumes"]
    paper: float


METHODS = (
    Method(1, "Supervised softmax [2]", "labelled set", 0.9884),
    Method(2, "Self-supervised pairs [3]", "labelled set", 0.9528),
    Method(3, "Self-supervised pairs [3]", "two volumes", 0.7205),
    Method(4, "UBR, VGG-16", "two volumes", 0.9599),
    Method(5, "UBR, AlexNet", "two volumes", 0.9561),
    Method(6, "UBR pool6 + logistic regression", "labelled set", 0.9841),
)


class Row(Config):
    """A row as this run measured it.

    Attributes:
        number: of the row.
        name: of the method.
        labelled: which labelled volumes it uses.
        num_labelled_volumes: how many they are.
        paper: accuracy in the paper.
        seeds: trained with each.
        accuracy_of_seeds: share of the tested slices classified rightly.
        accuracy: their mean.
        sd_over_seeds: their standard deviation (0 for one seed).
        interval_95: of the mean over seeds, subjects of the test set resampled; None for one.
        recall: of every zone, mean over seeds.
        confusion: rows are the true zones; counts added up over the seeds.
        by_distance: accuracy against the distance to the nearest border.
        share_of_errors_near: errors within ``NEAR_MM`` of a border; None without errors.
        over_pairs: accuracies with other pairs of volumes in the place of the two.
    """

    number: int
    name: str
    labelled: str
    num_labelled_volumes: int
    paper: float
    seeds: tuple[int, ...]
    accuracy_of_seeds: tuple[float, ...]
    accuracy: float
    sd_over_seeds: float
    interval_95: tuple[float, float] | None
    recall: Mapping[str, float]
    confusion: tuple[tuple[int, ...], ...]
    by_distance: tuple[Mapping[str, Any], ...]
    share_of_errors_near: float | None
    over_pairs: Mapping[str, int | float] | None


class OrderOfTwo(Config):
    """Two rows in the paper's order, and what this run says.

    Attributes:
        better: the row that is ahead in the paper.
        worse: the other.
        paper: difference of accuracy in the paper.
        difference: in this run.
        interval_95: of it, subjects resampled; None for a single subject.
        verdict: by whether the interval leaves out 0.
        share_near: of the difference that comes from slices within ``NEAR_MM`` of a border.
        zone: whose slices contribute most to the difference.
    """

    better: int
    worse: int
    paper: float
    difference: float
    interval_95: tuple[float, float] | None
    verdict: Verdict
    share_near: float | None
    zone: str


@dataclass(frozen=True, eq=False)
class Table1:
    """The rows, and every two of them compared."""

    rows: tuple[Row, ...]
    order: tuple[OrderOfTwo, ...]


def make_table1(data: EvidenceData, cells: Mapping[str, Cell]) -> Table1:
    """Return the six rows of a finished plan."""
    answers = {
        1: [cells[f"supervised-seed{s}"].arrays["predicted"] for s in data.config.seeds],
        2: [cells[f"position-all-seed{s}"].arrays["predicted"] for s in data.config.seeds],
        3: [cells[f"position-pair0-seed{s}"].arrays["predicted"] for s in data.config.seeds],
        4: [classify(data, cells[f"vgg16-seed{s}"], data.two) for s in data.config.seeds],
        5: [classify(data, cells[f"alexnet-seed{s}"], data.two) for s in data.config.seeds],
        6: [cells[f"pool6-seed{s}"].arrays["predicted"] for s in data.config.seeds],
    }
    zones = data.test["zone"].to_numpy()
    other_pairs = {
        3: [
            float((cells[name].arrays["predicted"] == zones).mean())
            for name in (
                f"position-pair{i}-seed{data.config.seeds[0]}"
                for i in range(len(data.position_pairs))
            )
        ],
        4: accuracies_over_pairs(data, [cells[f"vgg16-seed{s}"] for s in data.config.seeds]),
        5: accuracies_over_pairs(data, [cells[f"alexnet-seed{s}"] for s in data.config.seeds]),
    }
    num_volumes = {"labelled set": len(data.sets.labelled), "two volumes": 2}
    rows = tuple(
        make_row(
            method,
            num_volumes[method.labelled],
            dict(zip(data.config.seeds, answers[method.number], strict=True)),
            data.test,
            other_pairs.get(method.number),
        )
        for method in METHODS
    )
    correct = {
        number: np.mean([predicted == zones for predicted in of_row], axis=0)
        for number, of_row in answers.items()
    }
    return Table1(rows, tuple(compare_rows(correct, data.test)))


def classify(data: EvidenceData, cell: Cell, pair: Sequence[str]) -> Int[ndarray, " n"]:
    """Classify the tested slices by the thresholds that a pair of volumes sets."""
    scores = cell.arrays["scores"]
    thresholds = calibrate(data.calibrating, scores[data.calibrating["row"]], pair)
    return thresholds.classify(scores[data.test["row"]])


def accuracies_over_pairs(data: EvidenceData, cells: Sequence[Cell]) -> list[float]:
    """Return the accuracy for every cell and every pair of ``data.pairs``."""
    zones = data.test["zone"].to_numpy()
    return [
        float((classify(data, cell, pair) == zones).mean()) for cell in cells for pair in data.pairs
    ]


def make_row(
    method: Method,
    num_labelled_volumes: int,
    predicted: Mapping[int, Int[ndarray, " n"]],
    test: pd.DataFrame,
    over_pairs: Sequence[float] | None,
) -> Row:
    """Return a row from its classes of the tested slices.

    Args:
        method: what the paper prints.
        num_labelled_volumes: that it used here.
        predicted: classes of the tested slices, by seed.
        test: columns volume, subject, zone, z_mm.
        over_pairs: accuracies with other pairs of volumes.
    """
    zones = test["zone"].to_numpy()
    confusions = [confusion_matrix(zones, classes) for classes in predicted.values()]
    correct = np.mean([classes == zones for classes in predicted.values()], axis=0)
    of_seeds = [float(np.trace(c) / c.sum()) for c in confusions]
    recalls = [recall_of_zones(c) for c in confusions]
    distance = distance_to_border(test)
    rng = generator(method.number, _RESAMPLES)
    wrong = 1 - correct
    return Row(
        number=method.number,
        name=method.name,
        labelled=method.labelled,
        num_labelled_volumes=num_labelled_volumes,
        paper=method.paper,
        seeds=tuple(predicted),
        accuracy_of_seeds=tuple(of_seeds),
        accuracy=float(np.mean(of_seeds)),
        sd_over_seeds=spread(of_seeds)["sd"],
        interval_95=clustered_interval(correct, test["subject"].to_numpy(str), rng),
        recall={zone: float(np.mean([r[zone] for r in recalls])) for zone in recalls[0]},
        confusion=tuple(tuple(row) for row in np.sum(confusions, axis=0).tolist()),
        by_distance=tuple(accuracy_by_distance(distance, correct)),
        share_of_errors_near=(
            float(wrong[distance < NEAR_MM].sum() / wrong.sum()) if wrong.any() else None
        ),
        over_pairs=None if over_pairs is None else spread(over_pairs),
    )


def compare_rows(
    correct: Mapping[int, Float[ndarray, " n"]], test: pd.DataFrame
) -> list[OrderOfTwo]:
    """Compare every two rows on the same slices, in the order of the paper's differences.

    Args:
        correct: share of the seeds that classify a slice rightly, by row.
        test: columns volume, subject, zone, z_mm.
    """
    ranked = sorted(METHODS, key=lambda method: -method.paper)
    subjects = test["subject"].to_numpy(str)
    near = distance_to_border(test) < NEAR_MM
    compared = []
    for better, worse in combinations(ranked, 2):
        gain = correct[better.number] - correct[worse.number]
        rng = generator(better.number, worse.number, _RESAMPLES)
        interval = clustered_interval(gain, subjects, rng)
        total = float(gain.sum())
        by_zone = gain_by_zone(gain, test["zone"].to_numpy())
        compared.append(
            OrderOfTwo(
                better=better.number,
                worse=worse.number,
                paper=better.paper - worse.paper,
                difference=float(gain.mean()),
                interval_95=interval,
                verdict=_verdict(interval),
                share_near=float(gain[near].sum() / total) if total else None,
                zone=max(by_zone, key=lambda zone: by_zone[zone] * np.sign(total or 1.0)),
            )
        )
    return compared


def gain_by_zone(gain: Float[ndarray, " n"], zones: Int[ndarray, " n"]) -> dict[str, float]:
    """Return what the slices of every zone add to the sum of ``gain``."""
    return {zone: float(gain[zones == k].sum()) for k, zone in enumerate(ZONES)}


def _verdict(interval: tuple[float, float] | None) -> Verdict:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "not told apart"
    return "as in the paper" if interval[0] > 0 else "the other way round"
