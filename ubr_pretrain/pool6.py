"""Row 6 of Table 1: frozen pool6 features of the regressor, standardised, logistic regression.

The strength of the regularisation is chosen by cross-validation in which a subject's slices are
never on both sides.

Shapes:
    n: labelled slices; F: features of pool6 (512 at width 1).

Reference:
    Yan, Lu, Summers, ISBI 2018, Table 1, last row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values of C that are tried; the strongest regularisation wins a tie."""

MAX_FOLDS = 5
MAX_ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class Pool6Classifier:
    """A fitted classifier.

    Attributes:
        pipeline: standardisation and logistic regression.
        C: the strength that was chosen.
        cv_accuracy: mean accuracy over the folds, for every C tried.
    """

    pipeline: Pipeline
    C: float
    cv_accuracy: dict[float, float]

    def classify(self, features: Float[ndarray, "n F"]) -> Int[ndarray, " n"]:
        """Return the zone of every slice."""
        return self.pipeline.predict(features)


def fit_pool6(
    features: Float[ndarray, "n F"],
    zones: Int[ndarray, " n"],
    subjects: Shaped[ndarray, " n"],
    seed: int = 0,
) -> Pool6Classifier:
    """Choose C by subject-grouped cross-validation, then fit on all labelled slices.

    Args:
        features: of the labelled slices.
        zones: their classes.
        subjects: whose slices they are.
        seed: of the folds.

    Raises:
        ValueError: fewer than two subjects, or fewer than two zones.
    """
    num_subjects = len(np.unique(subjects))
    if num_subjects < 2 or len(np.unique(zones)) < 2:
        raise ValueError(
            f"{num_subjects} labelled subjects with {len(np.unique(zones))} zones: at least two of "
            "each are needed to choose C"
        )
    smallest = int(np.bincount(zones)[np.unique(zones)].min())
    folds = StratifiedGroupKFold(
        max(2, min(MAX_FOLDS, num_subjects, smallest)), shuffle=True, random_state=seed
    )
    cv_accuracy = {
        C: float(cross_val_score(_pipeline(C), features, zones, groups=subjects, cv=folds).mean())
        for C in INVERSE_STRENGTHS
    }
    best = max(INVERSE_STRENGTHS, key=lambda C: cv_accuracy[C])  # the first of equals: the smallest
    return Pool6Classifier(_pipeline(best).fit(features, zones), best, cv_accuracy)


def _pipeline(C: float) -> Pipeline:
    regression = LogisticRegression(C=C, max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), regression)
