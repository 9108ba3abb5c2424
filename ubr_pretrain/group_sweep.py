"""Fig. 3b: accuracy against the slices of a group, with and without the distance loss.

Reference:
    Yan, Lu, Summers, ISBI 2018, Fig. 3b: m * g = 96.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ubr_pretrain.config import Config
from ubr_pretrain.evidence_cells import Cell
from ubr_pretrain.evidence_data import EvidenceData
from ubr_pretrain.evidence_plan import sweep_name
from ubr_pretrain.table1 import accuracies_over_pairs


class SweepPoint(Config):
    """One m, with or without the distance loss.

    Attributes:
        m: slices of a group.
        g: groups of a batch.
        distance: whether the distance loss was on.
        seeds: trained with each.
        accuracy_of_seeds: mean over the pairs of volumes that might set the thresholds.
        r_of_seeds: median r of score and position over the test volumes.
        accuracy: mean over the seeds.
    """

    m: int
    g: int
    distance: bool
    seeds: tuple[int, ...]
    accuracy_of_seeds: tuple[float, ...]
    r_of_seeds: tuple[float, ...]
    accuracy: float


def make_sweep(data: EvidenceData, cells: Mapping[str, Cell]) -> tuple[SweepPoint, ...]:
    """Return all points of a finished plan.

    Raises:
        ValueError: two points were trained on different volumes.
    """
    sweep = data.config.sweep
    points, trained_on = [], set()
    for distance in (True, False):
        for m in sweep.m:
            of_seeds = [cells[sweep_name(m, distance, seed)] for seed in sweep.seeds]
            trained_on |= {cell.facts["data_sha256"] for cell in of_seeds}
            accuracies = [float(np.mean(accuracies_over_pairs(data, [c]))) for c in of_seeds]
            points.append(
                SweepPoint(
                    m=m,
                    g=int(of_seeds[0].facts["g"]),
                    distance=distance,
                    seeds=sweep.seeds,
                    accuracy_of_seeds=tuple(accuracies),
                    r_of_seeds=tuple(cell.facts["r_median_of_test"] for cell in of_seeds),
                    accuracy=float(np.mean(accuracies)),
                )
            )
    if len(trained_on) > 1:
        raise ValueError("the points of the sweep were trained on different volumes")
    return tuple(points)
