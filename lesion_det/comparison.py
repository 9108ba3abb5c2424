"""The comparison as one frozen record: what ran, what did not and why, numbers, verdicts.

It is gathered from the run folders of the cells (arm x seed), so that a comparison that was
interrupted, or finished on several days, is read like any other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from lesion_det.breakdown import GroupOfArms, break_down
from lesion_det.cells import BOOTSTRAP_SEED, Cell, CellAnswers, CellKey
from lesion_det.claims import CLAIMS, ClaimVerdict, judge_claims
from lesion_det.filter_drift import LayerDrift
from lesion_det.ground_truth import GroundTruth
from lesion_det.label_efficiency import LabelPair, LabelPoint, label_pairs, label_points
from lesion_det.learning_curve import CurvePoint, TimeTo, curve_points, early_words, times_to
from lesion_det.metrics import TOP_K
from lesion_det.power import Power, design_power, measured_power
from lesion_det.significance import (
    ArmHits,
    Interval,
    PairDifference,
    PatientDraws,
    all_pairs,
    correct,
    draw_patients,
    recall_interval,
)
from lesion_det.topk_recall import lesion_ranks
from ubr_pretrain.config import Config
from ubr_pretrain.runtime import generator


class Spread(Config):
    """One number over the seeds of an arm; sd is None below two seeds."""

    mean: float | None
    sd: float | None


class ArmResult(Config):
    """One start over its seeds.

    Attributes:
        arm: the start.
        not_run: why no cell of it was tried; "" where some were.
        cells: one a seed.
        pooled: recall over all finished seeds and lesions with its interval.
        spreads: mean and sd over the finished seeds of every metric.
        weights: the rows of ``weights.csv`` of one cell.
    """

    arm: str
    not_run: str = ""
    cells: tuple[Cell, ...] = ()
    pooled: Interval = Interval(value=None, low=None, high=None, note="nothing finished")
    spreads: Mapping[str, Spread] = {}
    weights: tuple[Mapping[str, str], ...] = ()

    @property
    def finished(self) -> tuple[Cell, ...]:
        """The cells that count."""
        return tuple(cell for cell in self.cells if cell.status == "finished")


class AuditRow(Config):
    """One thing that must be equal in all arms, or is declared to differ.

    Attributes:
        what: in words.
        values: by arm.
        equal: whether they are equal.
        required: whether a difference forbids the comparison.
    """

    what: str
    values: Mapping[str, str]
    equal: bool
    required: bool = True


UNITS = "recall, sensitivity, precision and their differences are fractions of 1; times are seconds"


class Comparison(Config):
    """Everything that the report says about the detectors.

    Holm's correction is over all pairs at the end (``pairs``, ``claims``), over all pairs of all
    early evaluations together (``curve_points``), and over the claims at all smaller fractions of
    the labels (``label_pairs``): three questions, each answered with its own 5 %.

    Attributes:
        title: of the report.
        units: of all numbers.
        data: file names, hashes and counts.
        recipe: the nearest preset and what the settings mean, in words.
        settings: the common configuration as YAML; paths are reduced to names.
        audit: made before training.
        arms: in the order asked for.
        pairs: all pairs of arms with a finished cell.
        claims: verdicts on the paper's claims whose arms were compared.
        untested: the claims that were not, with the reason.
        curve_points: the pairs at every evaluation along the training, and the early verdicts.
        early_words: which evaluations are early, and why.
        time_to: when the arms reach shares of the best recall.
        label_efficiency: recall by fraction of the labels; empty where there is one fraction.
        label_pairs: the claims' pairs at the fractions below the largest.
        label_cells: the trainings at these fractions, in any state.
        breakdown: recall of the arms by type, size and slice interval.
        drift: what the trainings changed in the filters; one seed an arm.
        power: the smallest difference that this design can see; None for a single arm.
        versions: of the software.
    """

    title: str
    units: str = UNITS
    data: Mapping[str, str]
    recipe: Mapping[str, str] = {}
    settings: str
    audit: tuple[AuditRow, ...]
    arms: tuple[ArmResult, ...]
    pairs: tuple[PairDifference, ...]
    claims: tuple[ClaimVerdict, ...]
    untested: Mapping[str, str]
    curve_points: tuple[CurvePoint, ...] = ()
    early_words: str = ""
    time_to: tuple[TimeTo, ...] = ()
    label_efficiency: tuple[LabelPoint, ...] = ()
    label_pairs: tuple[LabelPair, ...] = ()
    label_cells: tuple[Cell, ...] = ()
    breakdown: tuple[GroupOfArms, ...] = ()
    drift: tuple[LayerDrift, ...] = ()
    power: Power | None = None
    versions: Mapping[str, Any]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, those at the largest fraction of the labels first."""
        return (*(cell for arm in self.arms for cell in arm.cells), *self.label_cells)

    @property
    def faults(self) -> tuple[Cell, ...]:
        """Cells that did not finish, or not yet."""
        return tuple(cell for cell in self.cells if cell.status != "finished")


def summarise_arm(
    arm: str, cells: Sequence[CellAnswers], hits: ArmHits | None, draws: PatientDraws
) -> ArmResult:
    """Average the finished cells of one arm.

    Args:
        arm: the start.
        cells: all that were tried.
        hits: what the finished ones found; None where there are none.
        draws: of the patients.
    """
    everything = tuple(answers.cell for answers in cells)
    weights = next((answers.weights for answers in cells if answers.weights), ())
    columns = [c.metrics.scalars() for c in everything if c.metrics is not None]
    if hits is None or not columns:
        return ArmResult(arm=arm, cells=everything, weights=weights)
    return ArmResult(
        arm=arm,
        cells=everything,
        pooled=recall_interval(hits, draws),
        spreads={name: _spread([column[name] for column in columns]) for name in columns[0]},
        weights=weights,
    )


def arm_hits(cells: Sequence[CellAnswers], ground_truth: GroundTruth) -> ArmHits | None:
    """Return which lesions the finished cells of one arm found; None where none is finished."""
    done = {a.cell.seed: a.predictions for a in cells if a.predictions is not None}
    if not done:
        return None
    ranks = [lesion_ranks(ground_truth, predictions) for predictions in done.values()]
    return ArmHits(tuple(done), np.stack([r.hits(TOP_K) for r in ranks]), ranks[0].patient_index)


def _spread(values: Sequence[float | None]) -> Spread:
    defined = [value for value in values if value is not None]
    if not defined:
        return Spread(mean=None, sd=None)
    sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
    return Spread(mean=float(np.mean(defined)), sd=sd)


def compare_arms(
    arms: Sequence[str],
    cells: Mapping[CellKey, CellAnswers],
    not_run: Mapping[str, str],
    ground_truth: GroundTruth,
    train_patients: int | None = None,
) -> dict[str, Any]:
    """Return the fields of ``Comparison`` that follow from the cells.

    The arms are compared at the largest fraction of the labels; smaller ones go into the curve of
    label efficiency alone. Whatever is not finished is left out, and the rest goes on.

    Args:
        arms: in the order to be shown.
        cells: of every arm that was tried.
        not_run: why the others were not.
        ground_truth: of the validation images.
        train_patients: that the largest fraction learns from.
    """
    by_labels: dict[float, dict[str, list[CellAnswers]]] = {}
    for key, answers in cells.items():
        by_labels.setdefault(key.fraction, {}).setdefault(key.arm, []).append(answers)
    hits_by_labels = {
        fraction: {
            arm: found
            for arm, of_arm in by_arm.items()
            if (found := arm_hits(of_arm, ground_truth)) is not None
        }
        for fraction, by_arm in by_labels.items()
    }
    whole = max(by_labels)
    compared, hits = by_labels[whole], hits_by_labels[whole]
    lesions = [image.num_lesions for image in ground_truth.images]
    patients = np.repeat([image.patient_index for image in ground_truth.images], lesions)
    draws = draw_patients(patients.astype(np.int64), generator(BOOTSTRAP_SEED))
    results = [summarise_arm(arm, compared[arm], hits.get(arm), draws) for arm in compared]
    results += [ArmResult(arm=arm, not_run=reason) for arm, reason in not_run.items()]
    results.sort(key=lambda result: arms.index(result.arm))
    pairs = correct(all_pairs(hits, draws))
    done = {arm: [a for a in compared[arm] if a.predictions is not None] for arm in hits}
    points = curve_points(done, draws)
    return {
        "arms": tuple(results),
        "pairs": tuple(pairs),
        "claims": tuple(judge_claims(pairs)),
        "untested": _untested(arms, hits),
        "curve_points": tuple(points),
        "early_words": early_words(points),
        "time_to": tuple(times_to({arm: [a.cell for a in of_arm] for arm, of_arm in done.items()})),
        "label_efficiency": tuple(label_points(hits_by_labels, draws, train_patients)),
        "label_pairs": tuple(label_pairs(hits_by_labels, draws)),
        "label_cells": tuple(a.cell for key, a in cells.items() if key.fraction != whole),
        "breakdown": tuple(break_down(hits, ground_truth, BOOTSTRAP_SEED)),
        "power": _power(compared, pairs, patients),
    }


def _power(
    compared: Mapping[str, Sequence[CellAnswers]],
    pairs: Sequence[PairDifference],
    patients: Int64[np.ndarray, " L"],
) -> Power | None:
    """Return what the design can see, as assumed and, of the pairs so far, as measured."""
    counts = np.unique(patients, return_counts=True)[1].tolist()
    if len(compared) < 2 or not counts:
        return None
    num_seeds = len({answers.cell.seed for of_arm in compared.values() for answers in of_arm})
    design = design_power(num_seeds, counts, math.comb(len(compared), 2))
    measured = measured_power(pairs, len(counts), design.alpha) if len(counts) > 1 else []
    return design.model_copy(update={"measured": tuple(measured)})


def _untested(asked: Collection[str], compared: Collection[str]) -> dict[str, str]:
    """Return the claims about arms that were asked for of which one has no finished cell."""
    return {
        words: f"no finished cell of {' or '.join(lacking)}"
        for better, worse, words in CLAIMS
        if {better, worse} <= set(asked)
        and (lacking := [arm for arm in (better, worse) if arm not in compared])
    }
