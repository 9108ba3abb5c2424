"""How well slices are told apart: accuracy, confusion, where the errors lie, and how sure it is.

The one place for these statistics: Table 1 and the evaluation of a folder of scores share it.

Shapes:
    n: tested slices; zones are counted from the head: 0 chest, 1 abdomen, 2 pelvis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from ubr_pretrain.zones import ZONES, ZoneThresholds, fit_thresholds

NUM_RESAMPLES = 2000
MAX_PAIRS = 200
"""Pairs of volumes tried for the spread over the draw; all of them where there are fewer."""

CONFIDENCE = 0.95

DISTANCE_EDGES_MM = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, np.inf)
"""Bins of the distance to the nearest border of zones."""


def confusion_matrix(
    true: Int[ndarray, " n"], predicted: Int[ndarray, " n"]
) -> Int[ndarray, "3 3"]:
    """Count slices by true zone (rows) and predicted zone (columns)."""
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (true, predicted), 1)
    return counts


def recall_of_zones(confusion: Int[ndarray, "3 3"]) -> dict[str, float]:
    """Return the recognised share of every zone; zones without a slice are left out."""
    return {
        zone: float(confusion[k, k] / confusion[k].sum())
        for k, zone in enumerate(ZONES)
        if confusion[k].sum()
    }


def clustered_interval(
    values: Float[ndarray, " n"], subjects: Shaped[ndarray, " n"], rng: np.random.Generator
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean of ``values``, whole subjects resampled.

    Args:
        values: one a slice: 1 where it is classified rightly, or a difference of two methods.
        subjects: whose slice it is.
        rng: of the resamples.

    Returns:
        None for a single subject, of whom nothing can be said about others.
    """
    names, codes = np.unique(subjects.astype(str), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(codes, weights=values)
    slices = np.bincount(codes)
    draws = rng.integers(len(names), size=(NUM_RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / slices[draws].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def distance_to_border(table: pd.DataFrame) -> Float[ndarray, " n"]:
    """Return every slice's distance to the nearest change of zone in its volume, mm; inf for none.

    Args:
        table: columns volume, zone, z_mm.
    """
    distance = np.full(len(table), np.inf)
    for _, rows in table.reset_index(drop=True).groupby("volume"):
        ordered = rows.sort_values("z_mm")
        z, zone = ordered["z_mm"].to_numpy(), ordered["zone"].to_numpy()
        changes = np.flatnonzero(np.diff(zone))
        borders = (z[changes] + z[changes + 1]) / 2
        if len(borders):
            distance[ordered.index] = np.abs(z[:, None] - borders).min(axis=1)
    return distance


def accuracy_by_distance(
    distance_mm: Float[ndarray, " n"], correct: Float[ndarray, " n"] | Bool[ndarray, " n"]
) -> list[dict[str, Any]]:
    """Return accuracy and number of slices in every bin of the distance to the nearest border.

    Slices of volumes without a border are left out; an empty bin has no accuracy (None).
    """
    bins = np.digitize(distance_mm, DISTANCE_EDGES_MM) - 1
    rows = []
    for i, low in enumerate(DISTANCE_EDGES_MM[:-1]):
        inside = (bins == i) & np.isfinite(distance_mm)
        high = DISTANCE_EDGES_MM[i + 1]
        rows.append(
            {
                "from_mm": low,
                "to_mm": high if np.isfinite(high) else None,
                "num_slices": int(inside.sum()),
                "accuracy": float(correct[inside].mean()) if inside.any() else None,
            }
        )
    return rows


def calibration_pairs(
    slices: pd.DataFrame, max_pairs: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Return pairs of volumes of two subjects in which both borders of zones can be seen.

    A border is seen where one of the two volumes shows both of its sides: two volumes that merely
    have all three zones between them may leave a gap in which a threshold could lie anywhere.

    Args:
        slices: columns volume, subject, zone.
        max_pairs: a draw of so many, where there are more.
        rng: of the draw.

    Raises:
        ValueError: there is no such pair.
    """
    zones = slices.groupby("volume")["zone"].agg(set)
    subject = slices.groupby("volume")["subject"].first()
    pairs = [
        (a, b)
        for a, b in combinations(sorted(zones.index), 2)
        if subject[a] != subject[b]
        and any({0, 1} <= zones[v] for v in (a, b))
        and any({1, 2} <= zones[v] for v in (a, b))
    ]
    if not pairs:
        raise ValueError(
            "no two volumes of two subjects show the borders of chest, abdomen and pelvis"
        )
    if len(pairs) <= max_pairs:
        return pairs
    return [pairs[i] for i in sorted(rng.choice(len(pairs), max_pairs, replace=False))]


@dataclass(frozen=True, eq=False)
class Trial:
    """What a pair of volumes makes of the slices of all other subjects.

    Attributes:
        pair: names of the volumes that set the thresholds.
        thresholds: what they set.
        table: the rows of all other subjects.
        predicted: their zones by the thresholds.
        correct: where that is their true zone.
    """

    pair: tuple[str, ...]
    thresholds: ZoneThresholds
    table: pd.DataFrame
    predicted: Int[ndarray, " n"]
    correct: Bool[ndarray, " n"]


def try_pair(slices: pd.DataFrame, pair: tuple[str, ...]) -> Trial:
    """Set the thresholds on ``pair`` and classify the slices of all other subjects.

    Args:
        slices: columns volume, subject, zone, score.
        pair: names of volumes.

    Raises:
        ValueError: an unknown volume, a zone that the pair lacks, or nobody left to test on.
    """
    if unknown := set(pair) - set(slices["volume"]):
        raise ValueError(f"{sorted(unknown)[0]}: no such labelled volume to calibrate on")
    inside = slices["volume"].isin(pair)
    table = slices[~slices["subject"].isin(slices.loc[inside, "subject"])]
    if table.empty:
        raise ValueError("no labelled volume is left to test on")
    thresholds = calibrate(slices, slices["score"].to_numpy(), pair)
    predicted = thresholds.classify(table["score"].to_numpy())
    return Trial(pair, thresholds, table, predicted, predicted == table["zone"].to_numpy())


def calibrate(
    slices: pd.DataFrame, scores: Float[ndarray, " n"], pair: Sequence[str]
) -> ZoneThresholds:
    """Return the thresholds that two volumes set.

    Args:
        slices: columns volume, zone.
        scores: of these slices.
        pair: names of the volumes.

    Raises:
        ValueError: the volumes lack a zone.
    """
    known = slices["volume"].isin(pair).to_numpy()
    return fit_thresholds(scores[known], slices["zone"].to_numpy()[known])


def spread(values: Sequence[float]) -> Mapping[str, int | float]:
    """Return number, mean, standard deviation and range of some accuracies."""
    array = np.asarray(values, float)
    return {
        "num": len(array),
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)) if len(array) > 1 else 0.0,
        "min": float(array.min()),
        "max": float(array.max()),
    }
