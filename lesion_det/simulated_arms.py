"""Two arms drawn from stated assumptions, to try the test and the power where the truth is known.

A run finds a lesion where a normal number falls below a threshold,

    z = sqrt(c) common + sqrt(a - c) of_arm + sqrt(1 - a) of_run < threshold + of_seed

and each of the three parts is shared in the same proportion within a patient,

    part = sqrt(h) of_patient + sqrt(1 - h) of_lesion.

c, a and h are the ones that give the discordance of two arms, that of two seeds of an arm, and the
correlation of the arms' difference within a patient.

Shapes:
    S: seeds; L: lesions; P: patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from scipy.optimize import brentq
from scipy.stats import norm

from lesion_det.power import Assumptions
from lesion_det.significance import ArmHits

ALMOST_ONE = 1 - 1e-6
GRID = norm.ppf((np.arange(4000) + 0.5) / 4000)
"""Equally likely values of a normal number."""


class Shares(NamedTuple):
    """Shares of the variance: c, a and h of the module's equation."""

    common: float
    of_arm: float
    of_patient: float


def simulate_arms(
    num_seeds: int,
    lesions_per_patient: Sequence[int],
    assumptions: Assumptions,
    rng: np.random.Generator,
    difference: float = 0.0,
) -> tuple[ArmHits, ArmHits]:
    """Draw what two arms find, patients, lesions and trainings anew.

    Args:
        num_seeds: trainings an arm.
        lesions_per_patient: of every patient.
        assumptions: what the arms are like.
        rng: draws.
        difference: true recall of the first arm minus that of the second, half of it each.
    """
    shares = solve_shares(assumptions)
    counts = np.asarray(lesions_per_patient)
    place = np.repeat(np.arange(len(counts)), counts)

    def part(share: float, *shape: int) -> Float32[np.ndarray, "... L"]:
        of_patient = rng.standard_normal((*shape, len(counts)), np.float32)[..., place]
        of_lesion = rng.standard_normal((*shape, len(place)), np.float32)
        h = shares.of_patient
        return np.float32(share**0.5) * (
            np.float32(h**0.5) * of_patient + np.float32((1 - h) ** 0.5) * of_lesion
        )

    seeds = tuple(range(num_seeds))
    common, arms = part(shares.common), []
    for sign in (0.5, -0.5):
        recall = assumptions.recall + sign * difference
        threshold = norm.ppf(recall)
        of_seed = rng.normal(0, assumptions.seed_sd / norm.pdf(threshold), (num_seeds, 1))
        z = common + part(shares.of_arm - shares.common, 1) + part(1 - shares.of_arm, num_seeds)
        arms.append(ArmHits(seeds, z < threshold + of_seed, place))
    return arms[0], arms[1]


@lru_cache(maxsize=32)
def solve_shares(assumptions: Assumptions) -> Shares:
    """Return the shares of the variance that give what is assumed."""
    threshold = norm.ppf(assumptions.recall)

    def both(correlation: float) -> float:
        """Return how often two normal numbers of that correlation are below the threshold."""
        below = norm.cdf((threshold - correlation**0.5 * GRID) / (1 - correlation) ** 0.5)
        return float((below**2).mean())

    def correlation_of(discordance: float) -> float:
        wanted = assumptions.recall - discordance / 2
        if wanted >= both(ALMOST_ONE):
            return ALMOST_ONE
        return float(brentq(lambda c: both(c) - wanted, 0.0, ALMOST_ONE))

    common = correlation_of(assumptions.discordance)

    def patient_correlation(h: float) -> float:
        return 2 * (both(h) - both(h * common)) / assumptions.discordance

    wanted = assumptions.patient_correlation
    of_patient = float(brentq(lambda h: patient_correlation(h) - wanted, 0.0, ALMOST_ONE))
    return Shares(common, max(common, correlation_of(assumptions.seed_discordance)), of_patient)
