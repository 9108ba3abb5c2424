"""From slices to scores, and what a curve of scores says about a volume.

Shapes:
    z: slices of a volume, superior -> inferior; S: ``InputSpec.size_px``.

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 3 (r between slice index and score; r < 0.99 is abnormal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy import ndarray

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import network_input
from ubr_pretrain.rank_correlation import spearman
from ubr_pretrain.regressor import Regressor

Direction = Literal["superior_to_inferior", "inferior_to_superior", "undetermined"]

FLAT = 1e-4
"""Scores that differ by no more than this, relative to their size, differ by rounding alone."""

CLEAR_R = 0.5
"""Below this |r| a curve does not say which way the patient lies."""


def score_slices(
    regressor: Regressor,
    slices_hu: Int16[ndarray, "z S S"],
    spec: InputSpec,
    device: torch.device,
    batch: int = 64,
) -> Float[ndarray, " z"]:
    """Return one score a slice; the regressor is left in the mode it was in.

    Raises:
        FloatingPointError: a score is not finite; the slice is named.
    """
    was_training = regressor.training
    regressor.eval()
    parts = []
    with torch.inference_mode():
        for first in range(0, len(slices_hu), batch):
            hu = torch.from_numpy(slices_hu[first : first + batch].astype(np.float32)).to(device)
            parts.append(regressor(network_input(hu, spec)).double().cpu().numpy())
    regressor.train(was_training)
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all():
        raise FloatingPointError(
            f"slice {np.flatnonzero(~np.isfinite(scores))[0]}: score not finite"
        )
    return scores


SMOOTH_MM = 15.0
"""Along the body; a vertebra is 20 to 40 mm high. Measured on held-out scans, see RESULTS.md."""

TRUSTED_SD = 0.2
"""A slice whose views agree better than this weighs no more for it (units of the score)."""


def smooth_scores(
    scores: Float[ndarray, " z"],
    z_mm: Float[ndarray, " z"],
    scores_sd: Float[ndarray, " z"] | None = None,
    sigma_mm: float = SMOOTH_MM,
) -> Float[ndarray, " z"]:
    """Return the scores of a volume, each led by its neighbours: a line is fitted around a slice.

    Local linear regression with Gaussian weights, which keeps a straight curve straight up to its
    ends; a slice whose views disagree weighs less.

    Args:
        scores: of one volume, by slices alone.
        z_mm: position of every slice.
        scores_sd: spread of every slice over its views.
        sigma_mm: of the Gaussian.
    """
    away_mm = z_mm[None] - z_mm[:, None]
    weight = np.exp(-0.5 * (away_mm / sigma_mm) ** 2)
    if scores_sd is not None:
        weight = weight / (scores_sd**2 + TRUSTED_SD**2)
    sums = [(weight * away_mm**power).sum(axis=1) for power in (0, 1, 2)]
    level = (weight * scores).sum(axis=1)
    tilt = (weight * away_mm * scores).sum(axis=1)
    determinant = sums[0] * sums[2] - sums[1] ** 2
    alone = determinant <= 1e-9 * sums[0] * sums[2]  # no neighbour within reach: no line
    line = (sums[2] * level - sums[1] * tilt) / np.where(alone, 1.0, determinant)
    return np.where(alone, level / sums[0], line)


@dataclass(frozen=True)
class ScoreCurve:
    """The scores of one volume and what they say.

    Attributes:
        scores: [z].
        z_mm: [z] position of every slice below the first.
        r: Pearson correlation of score and position; None where undefined (fewer than three slices,
            or scores equal up to rounding).
        rank_r: Spearman correlation, likewise.
        slope_per_mm: of the least-squares line, likewise.
        direction: of the stored slices, by the sign of r where |r| >= ``CLEAR_R``.
    """

    scores: Float[ndarray, " z"]
    z_mm: Float[ndarray, " z"]
    r: float | None
    rank_r: float | None
    slope_per_mm: float | None
    direction: Direction


def read_curve(scores: Float[ndarray, " z"], z_mm: Float[ndarray, " z"]) -> ScoreCurve:
    """Summarise the scores of a volume."""
    if len(scores) < 3 or np.ptp(scores) <= FLAT * max(1e-3, np.abs(scores).max()):
        return ScoreCurve(scores, z_mm, None, None, None, "undetermined")
    r = float(np.corrcoef(z_mm, scores)[0, 1])
    direction: Direction = "undetermined"
    if abs(r) >= CLEAR_R:
        direction = "superior_to_inferior" if r > 0 else "inferior_to_superior"
    return ScoreCurve(
        scores,
        z_mm,
        r,
        spearman(z_mm, scores),
        float(np.polyfit(z_mm, scores, 1)[0]),
        direction,
    )
