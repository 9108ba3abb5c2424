"""What the scores of labelled volumes are worth: every figure learned from other subjects.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ubr_pretrain.calibration import Calibration
from ubr_pretrain.labelled_curves import LabelledCurve
from ubr_pretrain.landmark_errors import HEADLINE, LandmarkError, landmark_errors
from ubr_pretrain.landmarks import LandmarkMark
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.uncertainty import (
    coverage,
    cross_coverage,
    fit_uncertainty_scale,
    held_out_misses,
    misses_of,
)
from ubr_pretrain.zone_accuracy import calibrate, calibration_pairs
from ubr_pretrain.zones import ZoneThresholds

MAX_PAIRS = 200
"""Pairs of calibration volumes tried; all of them where there are fewer."""


def judge(
    curves: Sequence[LabelledCurve],
    tested: Sequence[str],
    calibration: Calibration | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the records of the tested volumes and landmarks, and their summary.

    Args:
        curves: all volumes.
        tested: names of those that are judged; all teach, where they are another subject's.
        calibration: gives scores of landmarks and thresholds, in place of the other subjects.
        rng: of the draw of calibration pairs, where there are more than ``MAX_PAIRS``.

    Raises:
        ValueError: scores that do not grow towards the feet.
    """
    chosen = [curve for curve in curves if curve.name in tested]
    records = [volume_record(curve) for curve in chosen]
    thresholds = None if calibration is None else calibration.thresholds
    zones = zone_accuracy(curves, tested, thresholds, rng)
    for record in records:
        record["zone_accuracy"] = zones["per_volume"].get(record["volume"])
    if calibration is None:
        errors = landmark_errors(curves, tested)
    else:
        expected = {mark.name: mark.score for mark in calibration.landmarks}
        errors = landmark_errors(curves, tested, expected, calibration.slope_per_mm)
    off_mm: dict[str, list[float]] = {}
    for error in errors:
        off_mm.setdefault(error.landmark, []).append(abs(error.error_mm))
    trunk = [r["trunk_abs_r"] for r in records if r["trunk_abs_r"] is not None]
    return {
        "volumes": records,
        "landmarks": [asdict(error) for error in errors],
        "landmark_error_mm": {
            name: {"median": float(np.median(values)), "num": len(values)}
            for name, values in sorted(off_mm.items())
        },
        "uncertainty": judge_uncertainty(curves, tested, calibration),
        "summary": {
            "num_volumes": len(records),
            "right_direction": sum(r["direction"] == "superior_to_inferior" for r in records),
            "trunk_abs_r_median": float(np.median(trunk)) if trunk else None,
            "trunk_abs_r_worst": min(trunk) if trunk else None,
            "zone_accuracy_mean": zones["mean"],
            "zone_accuracy_sd": zones["sd"],
            "zone_calibrations": zones["num_calibrations"],
            "landmark_error_mm_median": _median_mm(errors),
            "headline_error_mm_median": _median_mm(
                [error for error in errors if error.landmark in HEADLINE]
            ),
        },
    }


def volume_record(curve: LabelledCurve) -> dict[str, Any]:
    """Return direction, straightness and the worst fall of one curve.

    ``max_fall_back`` is the furthest that a score lies below one further up, in score, and in mm of
    the curve's own slope.
    """
    whole = read_curve(curve.scores, curve.z_mm)
    trunk = read_curve(curve.scores[curve.in_trunk], curve.z_mm[curve.in_trunk])
    fall = float((np.maximum.accumulate(curve.scores) - curve.scores).max())
    rises = whole.slope_per_mm is not None and whole.slope_per_mm > 0
    return {
        "volume": curve.name,
        "subject": curve.subject,
        "num_slices": len(curve.scores),
        "direction": whole.direction,
        "abs_r": _size(whole.r),
        "abs_rank_r": _size(whole.rank_r),
        "trunk_slices": int(curve.in_trunk.sum()),
        "trunk_abs_r": _size(trunk.r),
        "trunk_abs_rank_r": _size(trunk.rank_r),
        "max_fall_back": fall,
        "max_fall_back_mm": fall / whole.slope_per_mm if rises and whole.slope_per_mm else None,
    }


def zone_accuracy(
    curves: Sequence[LabelledCurve],
    tested: Sequence[str],
    thresholds: ZoneThresholds | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Classify the slices of the tested volumes as chest, abdomen or pelvis.

    Args:
        curves: all volumes.
        tested: names of those that are classified.
        thresholds: the borders; None: those that two volumes set, every pair of two subjects in
            turn, and only volumes of further subjects are classified by them.
        rng: of the draw of pairs.

    Returns:
        mean, sd (over calibrations), num_calibrations, per_volume (mean over calibrations); None
        where no pair of volumes can set the thresholds.
    """
    slices = pd.DataFrame(
        {
            "volume": np.concatenate([[c.name] * c.in_trunk.sum() for c in curves]).astype(str),
            "subject": np.concatenate([[c.subject] * c.in_trunk.sum() for c in curves]).astype(str),
            "zone": np.concatenate([c.zones[c.in_trunk] for c in curves]).astype(int),
            "score": np.concatenate([c.scores[c.in_trunk] for c in curves]),
        }
    )
    chosen = slices["volume"].isin(tested)
    trials: list[tuple[ZoneThresholds, pd.Series]] = []
    if thresholds is not None:
        trials.append((thresholds, chosen))
    else:
        for pair in _pairs(slices, rng):
            taught_by = slices.loc[slices["volume"].isin(pair), "subject"]
            fitted = calibrate(slices, slices["score"].to_numpy(), pair)
            trials.append((fitted, chosen & ~slices["subject"].isin(taught_by)))
    accuracies, per_volume = [], []
    for borders, rows in trials:
        if rows.any():
            table = slices[rows]
            correct = borders.classify(table["score"].to_numpy()) == table["zone"]
            accuracies.append(float(correct.mean()))
            per_volume.append(correct.groupby(table["volume"]).mean())
    each = pd.concat(per_volume, axis=1).mean(axis=1).to_dict() if per_volume else {}
    return {
        "mean": float(np.mean(accuracies)) if accuracies else None,
        "sd": float(np.std(accuracies)) if accuracies else None,
        "num_calibrations": len(accuracies),
        "per_volume": each,
    }


def judge_uncertainty(
    curves: Sequence[LabelledCurve], tested: Sequence[str], calibration: Calibration | None
) -> dict[str, Any] | None:
    """Return how many landmarks lie within the 95 % intervals of their slices; None for one view.

    Without a calibration, a tested subject is read by the calibration of the others, and the scale
    of its uncertainty is the one that they set among themselves; ``scale`` is that of all subjects.
    """
    sds = {c.name: c.scores_sd for c in curves if c.scores_sd is not None}
    if len(sds) < len(curves):
        return None
    scored = {c.name: read_curve(c.scores, c.z_mm) for c in curves}
    subjects = {c.name: c.subject for c in curves}
    marks = [LandmarkMark(c.name, name, index) for c in curves for name, index in c.marks.items()]
    judged = {subjects[name] for name in tested}
    try:
        if calibration is None:
            misses = held_out_misses(scored, sds, marks, subjects)
            scale, covered = fit_uncertainty_scale(misses), cross_coverage(misses, judged)
            misses = [miss for miss in misses if miss.subject in judged]
        else:
            marks = [mark for mark in marks if mark.volume in tested]
            misses = misses_of(calibration, scored, sds, marks, subjects)
            scale = calibration.uncertainty_scale
            covered = coverage(misses, scale)
    except ValueError as error:
        return {"reason": str(error)}
    return {
        "num_landmarks": len(misses),
        "num_subjects": len({miss.subject for miss in misses}),
        "scale": scale,
        "coverage_95": covered,
        "sd_median": float(np.median([miss.sd(scale) for miss in misses])),
        "off_median": float(np.median([abs(miss.off) for miss in misses])),
    }


def _pairs(slices: pd.DataFrame, rng: np.random.Generator) -> list[tuple[str, str]]:
    try:
        return calibration_pairs(slices, MAX_PAIRS, rng)
    except ValueError:  # landmarks can be judged without
        return []


def _median_mm(errors: Sequence[LandmarkError]) -> float | None:
    return float(np.median([abs(error.error_mm) for error in errors])) if errors else None


def _size(r: float | None) -> float | None:
    return None if r is None else abs(r)
