"""Why thresholds on scores err: the two volumes that set them, or the scores themselves.

The order and distance losses leave every volume its own offset, so one landmark may score
differently in two scans; no thresholds can mend that.

Shapes:
    n: tested slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.config import Config
from ubr_pretrain.evidence_cells import Cell
from ubr_pretrain.evidence_data import EvidenceData
from ubr_pretrain.zone_accuracy import calibrate

BORDERS = ("liver dome", "iliac crest")
"""Where chest ends and abdomen begins, and where abdomen ends and pelvis begins."""


class ScoreDiagnosis(Config):
    """A row that sets thresholds on scores; every number is the mean over its seeds.

    Attributes:
        row: of Table 1.
        two_volumes: accuracy with the thresholds of the two volumes, as in the table.
        all_labelled: with thresholds from the whole labelled set.
        ceiling: with thresholds from the test slices themselves: none on these scores is better.
        border_sd_mm: standard deviation over test volumes of the score at a border, in mm of the
            typical slope; borders that fewer than two volumes show are left out.
    """

    row: int
    two_volumes: float
    all_labelled: float
    ceiling: float
    border_sd_mm: Mapping[str, float]


def diagnose(data: EvidenceData, row: int, cells: Sequence[Cell]) -> ScoreDiagnosis:
    """Return what thresholds can and cannot do with the scores of a row's regressors."""
    zones = data.test["zone"].to_numpy()
    labelled = [volume.name for volume in data.sets.labelled]
    everyone = [volume.name for volume in data.sets.test]
    accuracies, spreads = [], []
    for cell in cells:
        scores = cell.arrays["scores"]
        tested = scores[data.test["row"]]
        known = scores[data.calibrating["row"]]
        borders = (
            calibrate(data.calibrating, known, data.two),
            calibrate(data.calibrating, known, labelled),
            calibrate(data.test, tested, everyone),
        )
        accuracies.append([float((b.classify(tested) == zones).mean()) for b in borders])
        spreads.append(border_spread_mm(data.test, tested))
    two, everything, ceiling = np.mean(accuracies, axis=0).tolist()
    return ScoreDiagnosis(
        row=row,
        two_volumes=two,
        all_labelled=everything,
        ceiling=ceiling,
        border_sd_mm={
            name: float(np.mean([spread[name] for spread in spreads])) for name in spreads[0]
        },
    )


def border_spread_mm(table: pd.DataFrame, scores: Float[ndarray, " n"]) -> dict[str, float]:
    """Return how far apart, in mm, volumes score the same border.

    The score at a border is the mean of the two slices around it; millimetres are by the median
    slope of the volumes' least-squares lines.

    Args:
        table: columns volume, zone, z_mm.
        scores: of its rows.
    """
    at_border: dict[str, list[float]] = {name: [] for name in BORDERS}
    slopes = []
    for _, rows in table.assign(score=scores).groupby("volume"):
        ordered = rows.sort_values("z_mm")
        z, zone, score = (ordered[name].to_numpy() for name in ("z_mm", "zone", "score"))
        if len(z) > 2:
            slopes.append(float(np.polyfit(z, score, 1)[0]))
        for k, name in enumerate(BORDERS):
            crossed = np.flatnonzero((zone[:-1] == k) & (zone[1:] == k + 1))
            at_border[name] += [float(score[i : i + 2].mean()) for i in crossed]
    slope = abs(float(np.median(slopes))) if slopes else 0.0
    return {
        name: float(np.std(values, ddof=1)) / slope
        for name, values in at_border.items()
        if len(values) > 1 and slope > 0
    }
