"""The smallest difference in recall that a comparison can see: before it starts, and afterwards.

Before: from stated assumptions. With q the share of lesions that exactly one of two arms finds, q0
the same for two seeds of one arm, rho the correlation of the arms' difference between two lesions
of a patient, and n_p the lesions of patient p, the pooled difference has

    clumping = sum_p n_p (1 + (n_p - 1) rho) / L^2
    patient_error^2 = clumping (q - q0)                        (the same in every seed)
    seed_error^2 = (clumping q0 + 2 seed_sd^2) / S             (averages out over seeds)

and the test of ``significance`` sees a true difference where the estimate, normal around it, leaves
its half width, in which seed_error^2 varies as chi2 with S - 1 degrees of freedom. Afterwards: the
same with the two errors that were measured. Not the power at the measured difference, which says
nothing that p does not.

Shapes:
    S: seeds; P: patients; L: lesions.

Reference:
    Hoenig & Heisey, Am. Stat. 2001 (against observed power).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from lesion_det.claims import MIN_SEEDS
from lesion_det.significance import ALPHA, PairDifference, half_width
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


class PairPower(Config):
    """What the trainings of two arms can see, by the spread that was measured.

    Attributes:
        a: the first arm.
        b: the second arm.
        half_width: of the 95 % interval of their difference.
        smallest_difference: in recall, seen in four of five repetitions.
    """

    a: str
    b: str
    half_width: float
    smallest_difference: float


class Power(Config):
    """What a design can see.

    Attributes:
        num_seeds: trainings an arm.
        num_patients: validated on, with lesions.
        num_lesions: theirs.
        num_pairs: that share the level of 5 %.
        alpha: level of one pair where no other one differs (Holm's first step); where all others
            differ it is 5 %.
        seed_error: standard error of a difference from the draw of the seeds, as assumed.
        patient_error: the same from the draw of the patients.
        smallest_difference: in recall, seen in four of five repetitions; None with one patient.
        assumptions: that these rest on.
        measured: the same for pairs of arms with finished cells, two or more seeds each.
    """

    num_seeds: int
    num_patients: int
    num_lesions: int
    num_pairs: int
    alpha: float
    seed_error: float
    patient_error: float
    smallest_difference: float | None
    assumptions: Assumptions
    measured: tuple[PairPower, ...] = ()

    @property
    def words(self) -> str:
        """One or two sentences for the plan and the report."""
        patients = f"{self.num_patients:,} patient{'' if self.num_patients == 1 else 's'}"
        seeds = f"{self.num_seeds} seed{'' if self.num_seeds == 1 else 's'}"
        design = f"with {seeds} and {patients} ({self.num_lesions:,} lesions)"
        if self.smallest_difference is None:
            return f"{design} no difference in recall can be judged: patients cannot be resampled"
        seen = f"a difference in recall below {100 * self.smallest_difference:.1f} points"
        if self.smallest_difference >= 1:
            seen = "any difference that recalls can have"
        pairs = f"{self.num_pairs} pair{'' if self.num_pairs == 1 else 's'}"
        power = f"({100 * CHANCE:g} % power, 5 % for {pairs})"
        if self.num_seeds == 1:
            text = f"{design} the luck of one training cannot be told from the start, and {seen}"
            text += f" would not be seen reliably even without it {power}"
        else:
            text = f"{design} {seen} will not be seen reliably {power}"
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
    correlated = counts * (1 + (counts - 1) * assumed.patient_correlation)
    clumping = float(correlated.sum()) / num_lesions**2
    if num_seeds > 1:
        common = clumping * (assumed.discordance - assumed.seed_discordance)
        own = clumping * assumed.seed_discordance + 2 * assumed.seed_sd**2
    else:  # its interval knows patients alone
        common, own = clumping * assumed.discordance, 0.0
    seed_error, patient_error = math.sqrt(own / num_seeds), math.sqrt(common)
    alpha = ALPHA / num_pairs
    return Power(
        num_seeds=num_seeds,
        num_patients=len(counts),
        num_lesions=int(num_lesions),
        num_pairs=num_pairs,
        alpha=alpha,
        seed_error=seed_error,
        patient_error=patient_error,
        smallest_difference=smallest_difference(
            alpha, seed_error, num_seeds, patient_error, len(counts)
        )
        if len(counts) > 1
        else None,
        assumptions=assumed,
    )


def measured_power(
    pairs: Sequence[PairDifference], num_patients: int, alpha: float
) -> list[PairPower]:
    """Return the same for pairs that were compared over two or more seeds.

    Args:
        pairs: the differences that were measured.
        num_patients: with lesions.
        alpha: level of one pair.
    """
    return [
        PairPower(
            a=pair.a,
            b=pair.b,
            half_width=half_width(ALPHA, *(errors := _errors(pair, num_patients))),
            smallest_difference=smallest_difference(alpha, *errors),
        )
        for pair in pairs
        if pair.seed_error is not None
    ]


def _errors(pair: PairDifference, num_patients: int) -> tuple[float, int, float, int]:
    return pair.seed_error or 0.0, len(pair.seeds), pair.patient_error or 0.0, num_patients


def smallest_difference(
    alpha: float, seed_error: float, num_seeds: int, patient_error: float, num_patients: int
) -> float:
    """Return the true difference that the test sees with a power of ``CHANCE``.

    Args:
        alpha: level of the test.
        seed_error: standard error from the draw of the seeds.
        num_seeds: its degrees of freedom and one.
        patient_error: standard error from the draw of the patients.
        num_patients: its degrees of freedom and one.
    """
    error = math.hypot(seed_error, patient_error)
    if error == 0.0:
        return 0.0
    middles = (np.arange(1000) + 0.5) / 1000
    freedom = max(num_seeds - 1, 1)
    of_seeds = half_width(alpha, seed_error, num_seeds, 0.0, num_patients)
    of_patients = half_width(alpha, 0.0, num_seeds, patient_error, num_patients)
    # One half width for each of 1,000 equally likely spreads of the seeds.
    widths = np.hypot(of_seeds * np.sqrt(chi2.ppf(middles, freedom) / freedom), of_patients)

    def lack(true: float) -> float:
        tails = norm.sf((widths - true) / error) + norm.cdf((-widths - true) / error)
        return float(tails.mean()) - CHANCE

    return float(brentq(lack, 0.0, widths.max() + 4 * error))
