"""How well two lists of scores of the same slices agree, with an interval over patients.

Shapes:
    n: slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import rankdata

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Agreement:
    """Correlations of two lists of scores.

    Attributes:
        num_slices: how many.
        num_patients: of how many patients.
        spearman: correlation of the ranks.
        spearman_interval_95: percentiles of it over patients drawn with replacement; None for one
            patient.
        pearson: correlation of the values.
        pearson_interval_95: likewise.
    """

    num_slices: int
    num_patients: int
    spearman: float
    spearman_interval_95: tuple[float, float] | None
    pearson: float
    pearson_interval_95: tuple[float, float] | None


def score_agreement(
    scores: Float[ndarray, " n"],
    published: Float[ndarray, " n"],
    patients: Sequence[str],
    rng: np.random.Generator,
) -> Agreement:
    """Compare scores with published ones; slices of a patient are resampled together.

    Raises:
        ValueError: fewer than three slices, values that are all equal, or one that is not finite.
    """
    if odd := np.flatnonzero(~np.isfinite(scores + published)).tolist():
        raise ValueError(f"slice {odd[0]}: {scores[odd[0]]:g} against {published[odd[0]]:g}")
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(published) == 0:
        raise ValueError(
            f"{len(scores)} slices: a correlation needs three, and values that are not all equal"
        )
    names, codes = np.unique(np.asarray(patients, str), return_inverse=True)
    members = [np.flatnonzero(codes == k) for k in range(len(names))]
    spearman, pearson = [], []
    for draw in rng.integers(len(names), size=(NUM_RESAMPLES if len(names) > 1 else 0, len(names))):
        chosen = np.concatenate([members[k] for k in draw])
        a, b = scores[chosen], published[chosen]
        if np.ptp(a) > 0 and np.ptp(b) > 0:
            spearman.append(_correlation(rankdata(a), rankdata(b)))
            pearson.append(_correlation(a, b))
    return Agreement(
        len(scores),
        len(names),
        _correlation(rankdata(scores), rankdata(published)),
        _interval(spearman),
        _correlation(scores, published),
        _interval(pearson),
    )


def _correlation(a: Float[ndarray, " n"], b: Float[ndarray, " n"]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    lower, upper = np.quantile(values, [0.025, 0.975])
    return float(lower), float(upper)
