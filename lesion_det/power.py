"""The smallest difference in recall that a comparison can see: before it starts, and afterwards.

Before: from stated assumptions. With q the share of lesions that exactly one of two arms finds, q0
the same for two seeds of one arm, rho the correlation of the arms' difference between two lesions
of a patient, and n_p the lesions of patient p, the pooled difference has

    clumping = sum_p n_p (1 + (n_p - 1) rho) / L^2
    between  = clumping * (q - q0)                          (the same in every seed)
    within   = (clumping * q0 + 2 seed_sd^2) / S            (averages out over seeds)
    variance = between + within
    df       = variance^2 / (within^2 / (S - 1) + between^2 / (P - 1))

and the test of ``significance`` sees a difference d with the power of a t test of noncentrality
d / sqrt(variance). Afterwards: the same with the standard error and df that were measured; not the
power at the measured difference, which says nothing that p does not.

Shapes:
    S: seeds; P: patients; L: lesions.

Reference:
    Obuchowski & Rockette, Commun. Stat. Simul. 1995; Hillis, Stat. Med. 2007 (seeds are the
    readers, patients the cases); Hoenig & Heisey, Am. Stat. 2001 (against observed power).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t

from lesion_det.significance import ALPHA, MIN_SEEDS
from ubr_pretrain.config import Config

CHANCE = 0.8
"""A difference is called visible that is seen in four of five repetitions."""


class Assumptions(Config):
    """What two arms are expected to be like, before any was trained.

    Attributes:
        recall: of both arms.
        discordance: share of the lesions that exactly one of two arms finds, one seed each.
        seed_discordance: the same for two seeds of one arm.
        patient_correlation: of the difference of two arms, between two lesions of a patient.
        seed_sd: standard deviation of an arm's recall over trainings, for endless lesions.
    """

    recall: float = Field(default=0.74, gt=0, lt=1)
    discordance: float = Field(default=0.12, gt=0, lt=1)
    seed_discordance: float = Field(default=0.10, ge=0, lt=1)
    patient_correlation: float = Field(default=0.05, ge=0, lt=1)
    seed_sd: float = Field(default=0.005, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Assumptions:
        most = 2 * min(self.recall, 1 - self.recall)
        if not self.seed_discordance <= self.discordance <= most:
            raise ValueError(
                f"seed_discordance {self.seed_discordance} <= discordance {self.discordance} <= "
                f"{most:g} (twice the rarer of hit and miss) does not hold"
            )
        return self

    @property
    def words(self) -> str:
        """The same for a reader."""
        return (
            f"recall {100 * self.recall:g} %, two arms differ on {100 * self.discordance:g} % of "
            f"the lesions, two seeds of an arm on {100 * self.seed_discordance:g} %, correlation "
            f"within a patient {self.patient_correlation:g}, sd of a training "
            f"{100 * self.seed_sd:g} points"
        )


class Power(Config):
    """What a design can see.

    Attributes:
        num_seeds: trainings an arm.
        num_patients: validated on.
        num_lesions: theirs.
        num_pairs: that share the level of 5 %.
        alpha: level of one pair where no other one differs (Holm's first step).
        standard_error: of the difference, as assumed.
        df: degrees of freedom of that standard error.
        smallest_difference: in recall, seen in four of five repetitions; None with one patient.
        assumptions: that it rests on.
    """

    num_seeds: int
    num_patients: int
    num_lesions: int
    num_pairs: int
    alpha: float
    standard_error: float
    df: float
    smallest_difference: float | None
    assumptions: Assumptions

    @property
    def words(self) -> str:
        """One or two sentences for the plan and the report."""
        patients = f"{self.num_patients:,} patient{'' if self.num_patients == 1 else 's'}"
        seeds = f"{self.num_seeds} seed{'' if self.num_seeds == 1 else 's'}"
        design = f"with {seeds} and {patients} ({self.num_lesions:,} lesions)"
        if self.smallest_difference is None:
            return f"{design} no difference in recall can be judged: patients cannot be resampled"
        share = f"5 % shared by {self.num_pairs} pair{'' if self.num_pairs == 1 else 's'}"
        seen = f"a difference in recall below {100 * self.smallest_difference:.1f} points"
        power = f"({100 * CHANCE:g} % power, {share})"
        if self.num_seeds == 1:
            text = f"{design} the luck of one training cannot be told from the start, and {seen}"
            text += f" would not be seen even without it {power}"
        else:
            text = f"{design} {seen} will not be seen {power}"
        if self.num_seeds < MIN_SEEDS:
            text += f"; a verdict needs {MIN_SEEDS} seeds"
        return f"{text}. Assumed: {self.assumptions.words}"


def design_power(
    num_seeds: int,
    lesions_per_patient: Sequence[int],
    num_pairs: int,
    assumptions: Assumptions | None = None,
) -> Power:
    """Return what a design can see.

    Args:
        num_seeds: trainings an arm.
        lesions_per_patient: of the patients validated on who have lesions.
        num_pairs: pairs of arms that are compared.
        assumptions: None for the defaults of ``Assumptions``.

    Raises:
        ValueError: no seed, pair or patient, or a patient without lesions.
    """
    assumed = assumptions or Assumptions()
    counts = np.asarray(lesions_per_patient, dtype=np.float64)
    if num_seeds < 1 or num_pairs < 1 or not len(counts) or counts.min() < 1:
        raise ValueError(
            f"{num_seeds} seeds, {num_pairs} pairs, {len(counts)} patients: each must be >= 1, "
            "and every patient must have a lesion"
        )
    num_lesions = float(counts.sum())
    clumping = (counts * (1 + (counts - 1) * assumed.patient_correlation)).sum() / num_lesions**2
    between = float(clumping) * (assumed.discordance - assumed.seed_discordance)
    training = 2 * assumed.seed_sd**2 if num_seeds > 1 else 0.0  # one seed: not in its own test
    within = (float(clumping) * assumed.seed_discordance + training) / num_seeds
    if num_seeds == 1:
        between, within = between + within, 0.0
    variance = between + within
    unsure = between**2 / max(len(counts) - 1, 1) + within**2 / max(num_seeds - 1, 1)
    error, df = math.sqrt(variance), variance**2 / unsure
    alpha = ALPHA / num_pairs
    return Power(
        num_seeds=num_seeds,
        num_patients=len(counts),
        num_lesions=int(num_lesions),
        num_pairs=num_pairs,
        alpha=alpha,
        standard_error=error,
        df=df,
        smallest_difference=smallest_difference(error, df, alpha) if len(counts) > 1 else None,
        assumptions=assumed,
    )


def smallest_difference(standard_error: float, df: float, alpha: float) -> float:
    """Return the difference that a two-sided t test sees with a power of ``CHANCE``.

    Args:
        standard_error: of the difference, > 0.
        df: degrees of freedom of the standard error.
        alpha: level of the test.
    """
    critical = t.isf(alpha / 2, df)
    # scipy's noncentral t is undefined far out: the mean of normal tails over a grid of errors.
    errors = np.sqrt(chi2.ppf((np.arange(1000) + 0.5) / 1000, df) / df)

    def lack(true: float) -> float:
        tails = norm.sf(critical * errors - true) + norm.cdf(-critical * errors - true)
        return float(tails.mean()) - CHANCE

    return standard_error * float(brentq(lack, 0.0, 4 * critical + 10))
