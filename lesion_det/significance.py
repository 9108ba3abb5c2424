"""Is a difference between two starts more than chance? A paired bootstrap over patients and seeds.

Lesions of one patient resemble each other, and every seed is one draw of the training. The
statistic is the difference of pooled recall,

    d = mean_s d_s,    d_s = sum_p (a[s, p] - b[s, p]) / num_lesions

and it varies for two reasons. Patients: they are resampled with replacement, the same draw for both
arms and all seeds; with Sigma = cov(d_s*, d_t*) over the draws, times P / (P - 1), what the seeds
have in common is

    patient_error^2 = mean of Sigma[s, t] over s != t          (Sigma itself with one seed)

Seeds: seed k of one arm saw the same data order and the same random head as seed k of the other,
and

    seed_error^2 = var(d_s) / S                                (S - 1 degrees of freedom)

also holds what patients and seeds do together. Interval and p are one statement:

    half_width(alpha)^2 = (t[alpha, S - 1] seed_error)^2 + (t[alpha, P - 1] patient_error)^2

with 95 % interval d +- half_width(0.05), and p the alpha at which the interval touches 0. Where
both sources are normal, equal arms are told apart at most as often as alpha says, whatever their
shares. Where patients and seeds all fared alike there is no spread to resample: the recall of none
or of all has the exact binomial interval over patients, and anything else has none, nor a verdict.

Deviation: seeds are not resampled. Percentiles of a bootstrap that draws 3 seeds out of 3 see
neither the lost degree of freedom nor the tails of t: where the recall of trainings has a standard
deviation of 2 points, they told equal arms apart in 16 % of the simulated comparisons instead of
5 % (3 %: this test; ``benchmarks/significance.py``).

Shapes:
    S: seeds; L: lesions; P: patients; B: bootstrap samples.

Reference:
    Obuchowski & Rockette, Commun. Stat. Simul. 1995, and Hillis, Stat. Med. 2007, for the variance
    (seeds are their readers, patients their cases); Banerjee, Sankhya 1960, for the half width and
    its guarantee; Owen, Ann. Appl. Stat. 2007, for bootstraps of crossed effects; Holm, Scand. J.
    Stat. 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.optimize import brentq
from scipy.special import stdtrit  # t.isf(q, df) is -stdtrit(df, q); scipy.stats takes 0.7 s

from ubr_pretrain.config import Config

NUM_SAMPLES = 9999
ALPHA = 0.05
SMALLEST_P = 2 / (NUM_SAMPLES + 1)
"""Nothing is known about the tails beyond what the bootstrap has seen."""

ROUNDING = 1e-12
"""Sums of equal terms in another order may miss 0 by this much."""

NO_SPREAD = "interval undefined: no spread over patients and seeds"


@dataclass(frozen=True, eq=False)
class ArmHits:
    """Which lesions each seed of one arm found.

    Attributes:
        seeds: of the finished runs.
        hits: [S, L].
        patient_index: [L] equal in all arms.
    """

    seeds: tuple[int, ...]
    hits: Bool[np.ndarray, "S L"]
    patient_index: Int64[np.ndarray, " L"]


class Interval(Config):
    """An estimate with its bootstrap interval, or the exact one of ``exact_interval``.

    Attributes:
        value: the estimate over all seeds and lesions; None where there are no lesions.
        low: lower end of the 95 % interval; None where it is undefined.
        high: upper end.
        note: why the interval is undefined, or what it leaves out.
        seed_error: standard error from the draw of the seeds; None with one seed, or no spread.
        patient_error: standard error from the draw of the patients; None where there is no spread.
    """

    value: float | None
    low: float | None
    high: float | None
    note: str = ""
    seed_error: float | None = None
    patient_error: float | None = None


class PairDifference(Interval):
    """Recall of arm ``a`` minus recall of arm ``b`` over the seeds that both finished.

    Attributes:
        a: the first arm.
        b: the second arm.
        seeds: common to both.
        per_seed: the difference of every seed.
        p: two-sided, not below ``SMALLEST_P``; None where it is undefined.
        p_holm: p after Holm's correction; None where the difference was not tested.
        family: number of tests that Holm's correction was over.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    p: float | None
    p_holm: float | None = None
    family: int | None = None


@dataclass(frozen=True, eq=False)
class PatientDraws:
    """Patients drawn with replacement: one set of draws for all estimates on the same lesions.

    Attributes:
        patient_index: [L] of every lesion, as given.
        place: [L] the patient's place in the draws.
        times: [B, P] how often each patient was drawn.
    """

    patient_index: Int64[np.ndarray, " L"]
    place: Int64[np.ndarray, " L"]
    times: Float32[np.ndarray, "B P"]

    def covariance(self, values: Float64[np.ndarray, "S L"]) -> Float64[np.ndarray, "S S"]:
        """Return how the means of the rows vary together over the draws.

        Args:
            values: whole numbers, which single precision adds without error.
        """
        num_patients = self.times.shape[1]
        sums = np.stack([np.bincount(self.place, weights=row) for row in values])  # [S, P]
        drawn = self.times @ sums.T.astype(np.float32)  # [B, S]
        lesions = self.times @ np.bincount(self.place).astype(np.float32)  # [B]
        means = drawn.astype(np.float64) / lesions[:, None]
        deviations = means - means.mean(axis=0)
        return deviations.T @ deviations / (len(means) - 1) * num_patients / (num_patients - 1)


def draw_patients(
    patient_index: Int64[np.ndarray, " L"],
    rng: np.random.Generator,
    num_samples: int = NUM_SAMPLES,
) -> PatientDraws:
    """Draw the patients of a set of lesions again and again."""
    patients, place = np.unique(patient_index, return_inverse=True)
    count = len(patients)
    times = np.empty((num_samples, count), np.float32)
    for row in times if count else ():
        row[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    return PatientDraws(patient_index, place.astype(np.int64), times)


def pooled_recall(arm: ArmHits, rng: np.random.Generator) -> Interval:
    """Return the recall over all seeds of an arm with its interval, from draws of its own."""
    return recall_interval(arm, draw_patients(arm.patient_index, rng))


def recall_interval(arm: ArmHits, draws: PatientDraws) -> Interval:
    """Return the recall over all seeds of an arm with its interval, which 0 and 1 bound."""
    interval, _ = _estimate(arm.hits.astype(np.float64), draws)
    if interval.note == NO_SPREAD and interval.value in (0.0, 1.0):
        return exact_interval(all_found=interval.value == 1.0, num_patients=draws.times.shape[1])
    return _bounded(interval, 0.0, 1.0)


def exact_interval(*, all_found: bool, num_patients: int) -> Interval:
    """Return the recall of none, or of all, with the 95 % interval of n of n patients.

    It ends where n of n still fare alike as often as (1 - reach)^n = ALPHA / 2.

    Reference:
        Clopper & Pearson, Biometrika 1934. A patient is one trial: lesions and seeds of one patient
        are not independent.
    """
    reach = 1 - (ALPHA / 2) ** (1 / num_patients)
    note = f"exact binomial interval: all {num_patients} patients fared alike"
    if all_found:
        return Interval(value=1.0, low=1 - reach, high=1.0, note=note)
    return Interval(value=0.0, low=0.0, high=reach, note=note)


def _bounded(interval: Interval, lowest: float, highest: float) -> Interval:
    """Return an interval without what the quantity cannot be."""
    if interval.low is None or interval.high is None:
        return interval
    bounded = {"low": max(interval.low, lowest), "high": min(interval.high, highest)}
    return interval.model_copy(update=bounded)


def pair_difference(
    name_a: str, arm_a: ArmHits, name_b: str, arm_b: ArmHits, draws: PatientDraws
) -> PairDifference:
    """Compare two arms over the seeds that both have.

    Raises:
        ValueError: the arms, or the draws, are not of the same lesions.
    """
    for index in (arm_b.patient_index, draws.patient_index):
        if not np.array_equal(arm_a.patient_index, index):
            raise ValueError(f"{name_a} and {name_b} were not evaluated on the same lesions")
    seeds = tuple(seed for seed in arm_a.seeds if seed in arm_b.seeds)
    rows_a = [arm_a.seeds.index(seed) for seed in seeds]
    rows_b = [arm_b.seeds.index(seed) for seed in seeds]
    difference = arm_a.hits[rows_a].astype(np.float64) - arm_b.hits[rows_b].astype(np.float64)
    interval, p = _estimate(difference, draws)
    interval = _bounded(interval, -1.0, 1.0)
    return PairDifference(
        a=name_a,
        b=name_b,
        seeds=seeds,
        per_seed=tuple(difference.mean(axis=1).tolist()) if difference.size else (),
        p=p,
        **interval.model_dump(),
    )


def all_pairs(arms: Mapping[str, ArmHits], draws: PatientDraws) -> list[PairDifference]:
    """Return every pair of arms, uncorrected; the later arm of the mapping comes first."""
    return [
        pair_difference(later, arms[later], earlier, arms[earlier], draws)
        for earlier, later in combinations(arms, 2)
    ]


def correct(pairs: Sequence[PairDifference]) -> list[PairDifference]:
    """Return the pairs of one family with Holm's correction."""
    adjusted = holm([pair.p for pair in pairs])
    family = sum(pair.p is not None for pair in pairs)
    return [
        pair.model_copy(update={"p_holm": p, "family": None if p is None else family})
        for pair, p in zip(pairs, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p values; undefined ones take no part."""
    defined = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, i) in enumerate(defined):
        highest = max(highest, min(1.0, (len(defined) - place) * p))
        adjusted[i] = highest
    return adjusted


def half_width(
    alpha: float, seed_error: float, num_seeds: int, patient_error: float, num_patients: int
) -> float:
    """Return how far the interval of level 1 - alpha reaches to either side.

    Args:
        alpha: in (0, 1].
        seed_error: standard error from the draw of the seeds, 0 with one seed.
        num_seeds: >= 1.
        patient_error: standard error from the draw of the patients.
        num_patients: >= 2.
    """
    of_seeds = -stdtrit(num_seeds - 1, alpha / 2) * seed_error if num_seeds > 1 else 0.0
    return float(np.hypot(of_seeds, -stdtrit(num_patients - 1, alpha / 2) * patient_error))


def _estimate(
    values: Float64[np.ndarray, "S L"], draws: PatientDraws
) -> tuple[Interval, float | None]:
    """Return the mean of ``values`` with its interval, and p against 0."""
    if values.size == 0:
        note = "no lesions" if len(values) else "no seed in common"
        return Interval(value=None, low=None, high=None, note=note), None
    value, num_seeds, num_patients = float(values.mean()), len(values), draws.times.shape[1]
    if num_patients < 2:
        note = "interval undefined: the lesions are of one patient"
        return Interval(value=value, low=None, high=None, note=note), None
    covariance = draws.covariance(values)
    if num_seeds > 1:
        seed_error = float(values.mean(axis=1).std(ddof=1)) / num_seeds**0.5
        common = (covariance.sum() - np.trace(covariance)) / (num_seeds * (num_seeds - 1))
    else:
        seed_error, common = 0.0, covariance[0, 0]
    patient_error = float(max(common, 0.0)) ** 0.5

    if math.hypot(seed_error, patient_error) < ROUNDING:
        # A difference of 0 is never told from 0; of any other nothing says how sure it is.
        undefined = Interval(value=value, low=None, high=None, note=NO_SPREAD)
        return undefined, 1.0 if abs(value) < ROUNDING else None

    def reach(alpha: float) -> float:
        return half_width(alpha, seed_error, num_seeds, patient_error, num_patients)

    interval = Interval(
        value=value,
        low=value - reach(ALPHA),
        high=value + reach(ALPHA),
        note="" if num_seeds > 1 else "one seed: the spread of training is not in the interval",
        seed_error=seed_error if num_seeds > 1 else None,
        patient_error=patient_error,
    )
    if abs(value) < ROUNDING:
        return interval, 1.0
    if reach(SMALLEST_P) <= abs(value):
        return interval, SMALLEST_P
    return interval, float(brentq(lambda p: reach(p) - abs(value), SMALLEST_P, 1.0, xtol=1e-9))
