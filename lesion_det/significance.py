"""Is a difference between two starts more than chance? A paired bootstrap over seeds and patients.

Lesions of one patient resemble each other and every seed is one draw of the training, so both are
resampled: patients and seeds independently, with replacement, the same draw for both arms (seed k
of one arm saw the same data order and the same random head as seed k of the other). The statistic
is the difference of pooled recall,

    d = sum_s sum_p (a[s, p] - b[s, p]) / (num_seeds * num_lesions),

with percentile intervals (BCa degenerates where all resamples are equal) and
p = 2 min(P(d* <= 0), P(d* >= 0)), one added to each count and to the total.

Shapes:
    S: seeds; L: lesions; P: patients; B: bootstrap samples.

Reference:
    Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 2007 (conservative for crossed effects);
    Holm, Scand. J. Stat. 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ubr_pretrain.config import Config

NUM_SAMPLES = 9999
CONFIDENCE = 0.95
ALPHA = 0.05
MIN_SEEDS = 3
"""Fewer runs an arm cannot tell a start from its luck."""

Verdict = Literal["supported", "not resolved", "contradicted"]

CLAIMS = (
    ("ubr", "random", "a UBR trunk is better than a random one"),
    ("imagenet", "ubr", "an ImageNet trunk is better than a UBR one"),
    ("ubr+imagenet", "imagenet", "ImageNet, then UBR, is better than ImageNet alone"),
)
"""The three claims of the paper's Fig. 3c: (better arm, worse arm, words)."""


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
    """An estimate with its bootstrap interval.

    Attributes:
        value: the estimate over all seeds and lesions; None where there are no lesions.
        low: lower end of the 95 % interval; None where it is undefined.
        high: upper end.
        note: why the interval is undefined, or what it leaves out.
    """

    value: float | None
    low: float | None
    high: float | None
    note: str = ""


class PairDifference(Interval):
    """Recall of arm ``a`` minus recall of arm ``b`` over the seeds that both finished.

    Attributes:
        a: the first arm.
        b: the second arm.
        seeds: common to both.
        per_seed: the difference of every seed.
        p: two-sided bootstrap p; None where it is undefined.
        p_holm: p after Holm's correction over all pairs.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    p: float | None
    p_holm: float | None = None


class ClaimVerdict(Config):
    """One claim of the paper, judged by the pair that it speaks of."""

    claim: str
    better: str
    worse: str
    verdict: Verdict
    reason: str
    difference: float | None
    p_holm: float | None


def pooled_recall(arm: ArmHits, rng: np.random.Generator) -> Interval:
    """Return the recall over all seeds of an arm with its interval."""
    interval, _ = _estimate(arm.hits.astype(np.float64), arm.patient_index, rng)
    return interval


def pair_difference(
    name_a: str, arm_a: ArmHits, name_b: str, arm_b: ArmHits, rng: np.random.Generator
) -> PairDifference:
    """Compare two arms over the seeds that both have.

    Raises:
        ValueError: the arms were not judged on the same lesions.
    """
    if not np.array_equal(arm_a.patient_index, arm_b.patient_index):
        raise ValueError(f"{name_a} and {name_b} were not evaluated on the same lesions")
    seeds = tuple(seed for seed in arm_a.seeds if seed in arm_b.seeds)
    rows_a = [arm_a.seeds.index(seed) for seed in seeds]
    rows_b = [arm_b.seeds.index(seed) for seed in seeds]
    difference = arm_a.hits[rows_a].astype(np.float64) - arm_b.hits[rows_b].astype(np.float64)
    interval, p = _estimate(difference, arm_a.patient_index, rng)
    return PairDifference(
        a=name_a,
        b=name_b,
        seeds=seeds,
        per_seed=tuple(difference.mean(axis=1).tolist()) if difference.size else (),
        p=p,
        **interval.model_dump(),
    )


def all_pairs(arms: Mapping[str, ArmHits], rng: np.random.Generator) -> list[PairDifference]:
    """Return every pair of arms, Holm-corrected; the later arm of the mapping comes first."""
    pairs = [
        pair_difference(later, arms[later], earlier, arms[earlier], rng)
        for earlier, later in combinations(arms, 2)
    ]
    corrected = holm([pair.p for pair in pairs])
    return [pair.model_copy(update={"p_holm": p}) for pair, p in zip(pairs, corrected, strict=True)]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p values; undefined ones take no part."""
    defined = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, i) in enumerate(defined):
        highest = max(highest, min(1.0, (len(defined) - place) * p))
        adjusted[i] = highest
    return adjusted


def judge_claims(pairs: Sequence[PairDifference]) -> list[ClaimVerdict]:
    """Return a verdict on each claim whose two arms were compared.

    "supported": better by more than chance (Holm-corrected p < 0.05) over at least ``MIN_SEEDS``
    seeds; "contradicted": worse in the same way; else "not resolved", with the reason.
    """
    verdicts = []
    for better, worse, words in CLAIMS:
        for pair in pairs:
            if {pair.a, pair.b} == {better, worse}:
                sign = 1.0 if pair.a == better else -1.0
                difference = None if pair.value is None else sign * pair.value
                verdict, reason = _verdict(difference, pair)
                verdicts.append(
                    ClaimVerdict(
                        claim=words,
                        better=better,
                        worse=worse,
                        verdict=verdict,
                        reason=reason,
                        difference=difference,
                        p_holm=pair.p_holm,
                    )
                )
    return verdicts


def _verdict(difference: float | None, pair: PairDifference) -> tuple[Verdict, str]:
    if difference is None or pair.p_holm is None:
        return "not resolved", pair.note
    if pair.p_holm >= ALPHA:
        return "not resolved", f"Holm-corrected p = {pair.p_holm:.2g}, not below {ALPHA}"
    if len(pair.seeds) < MIN_SEEDS:
        return "not resolved", f"{len(pair.seeds)} seeds; a verdict needs {MIN_SEEDS}"
    return (
        "supported" if difference > 0 else "contradicted",
        f"Holm-corrected p = {pair.p_holm:.2g}, {len(pair.seeds)} seeds",
    )


def _estimate(
    values: Float64[np.ndarray, "S L"],
    patient_index: Int64[np.ndarray, " L"],
    rng: np.random.Generator,
) -> tuple[Interval, float | None]:
    """Return the mean of ``values`` with its interval, and p against 0."""
    if values.size == 0:
        note = "no lesions" if len(values) else "no seed in common"
        return Interval(value=None, low=None, high=None, note=note), None
    value = float(values.mean())
    if len(np.unique(patient_index)) < 2:
        note = "interval undefined: the lesions are of one patient"
        return Interval(value=value, low=None, high=None, note=note), None
    samples = _bootstrap(values, patient_index, rng)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail]).tolist()
    note = "one seed: the spread of training is not in the interval" if len(values) == 1 else ""
    return Interval(value=value, low=low, high=high, note=note), _two_sided_p(samples)


def _bootstrap(
    values: Float64[np.ndarray, "S L"],
    patient_index: Int64[np.ndarray, " L"],
    rng: np.random.Generator,
) -> Float64[np.ndarray, " B"]:
    """Return the means of B resamples of seeds and patients."""
    patients, patient_of_lesion = np.unique(patient_index, return_inverse=True)
    num_seeds, num_patients = len(values), len(patients)
    sums = np.stack([np.bincount(patient_of_lesion, weights=row) for row in values])  # [S, P]
    lesions = np.bincount(patient_of_lesion)
    drawn = rng.multinomial(num_patients, np.full(num_patients, 1 / num_patients), NUM_SAMPLES)
    drawn_seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), NUM_SAMPLES)
    per_seed = (drawn @ sums.T) / (drawn @ lesions)[:, None]  # [B, S]
    return (per_seed * drawn_seeds).sum(axis=1) / num_seeds


def _two_sided_p(samples: Float64[np.ndarray, " B"]) -> float:
    # Sums of equal terms in another order may miss zero by rounding.
    below = 1 + int((samples <= 1e-12).sum())
    above = 1 + int((samples >= -1e-12).sum())
    return min(1.0, 2 * min(below, above) / (len(samples) + 1))
