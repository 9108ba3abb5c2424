"""Recall against the share of the training patients whose labels were learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lesion_det.claims import CLAIMS
from lesion_det.significance import (
    ArmHits,
    Interval,
    PairDifference,
    PatientDraws,
    correct,
    pair_difference,
    recall_interval,
)
from ubr_pretrain.config import Config

HitsByLabels = Mapping[float, Mapping[str, ArmHits]]
"""By fraction of the training patients, then by arm."""


class LabelPoint(Config):
    """One arm at one fraction of the labels.

    Attributes:
        fraction: of the training patients.
        arm: the start.
        num_patients: learned from; None where the whole number was not given.
        seeds: of the finished cells.
        recall: over them, with its interval.
        per_seed: the recall of every seed.
    """

    fraction: float
    arm: str
    num_patients: int | None
    seeds: tuple[int, ...]
    recall: Interval
    per_seed: tuple[float, ...]


class LabelPair(Config):
    """The two arms of a claim at one fraction of the labels below the largest.

    Attributes:
        fraction: of the training patients.
        pair: ``p_holm`` is over the claims at all these fractions together.
    """

    fraction: float
    pair: PairDifference


def label_points(
    hits: HitsByLabels, draws: PatientDraws, train_patients: int | None
) -> list[LabelPoint]:
    """Return the points of the curve, the largest fraction first; none of a single fraction."""
    if len(hits) < 2:
        return []
    return [
        LabelPoint(
            fraction=fraction,
            arm=arm,
            num_patients=None if train_patients is None else math.ceil(fraction * train_patients),
            seeds=found.seeds,
            recall=recall_interval(found, draws),
            per_seed=tuple(found.hits.mean(axis=1).tolist()) if found.hits.size else (),
        )
        for fraction in sorted(hits, reverse=True)
        for arm, found in hits[fraction].items()
    ]


def label_pairs(hits: HitsByLabels, draws: PatientDraws) -> list[LabelPair]:
    """Return the claims' pairs at every fraction below the largest."""
    fractions, pairs = [], []
    for fraction in sorted(hits, reverse=True)[1:]:
        arms = hits[fraction]
        for better, worse, _ in CLAIMS:
            if better in arms and worse in arms:
                fractions.append(fraction)
                pairs.append(pair_difference(better, arms[better], worse, arms[worse], draws))
    return [
        LabelPair(fraction=fraction, pair=pair)
        for fraction, pair in zip(fractions, correct(pairs), strict=True)
    ]
