"""How often the test of significance errs, where the truth is known, and what a design can see.

Commands:
    python benchmarks/significance.py --table DL_info.csv --rounds 2000

Two equal arms are drawn again and again on the patients of DeepLesion's validation split: how often
is a difference found (at 5 %, and at 5 % / 6 as Holm begins with six pairs), how often does the
interval of one arm's recall hold the truth, and what percentiles of a bootstrap over seeds and
patients would have found. Then two arms that differ by the smallest visible difference: how often
is it seen. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesion_det.power import Assumptions, Power, design_power
from lesion_det.significance import (
    ALPHA,
    ArmHits,
    PatientDraws,
    draw_patients,
    pair_difference,
    recall_interval,
)
from lesion_det.simulated_arms import simulate_arms
from ubr_pretrain.runtime import generator

SEEDS = (2, 3, 5, 10)
SEED_SDS = (0.0, 0.005, 0.02)
NUM_PAIRS = 6
VALIDATION = 2
"""Train_Val_Test of DL_info.csv."""
NUM_DRAWS = 999
"""Of the patients: enough for a covariance."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--table", type=Path, required=True, help="DL_info.csv")
    parser.add_argument("--rounds", type=int, default=2000)
    arguments = parser.parse_args(argv)
    table = pd.read_csv(arguments.table)
    judged = table[table["Train_Val_Test"] == VALIDATION]
    deeplesion = judged.groupby("Patient_index").size().tolist()
    small = [1, 1, 2, 3] * 15
    print_power(deeplesion)
    print("\n| patients | seeds | sd of a training | 5 % | 5 % / 6 | recall held | percentiles |")
    print("|---|---|---|---|---|---|---|")
    for cohort in (deeplesion, small):
        draws = draw_patients(places(cohort), generator(0), NUM_DRAWS)
        for num_seeds in SEEDS:
            for seed_sd in SEED_SDS:
                print_errors(cohort, num_seeds, seed_sd, draws, arguments.rounds)
    print("\n| seeds | smallest visible difference, one pair | seen in |\n|---|---|---|")
    draws = draw_patients(places(deeplesion), generator(0), NUM_DRAWS)
    for num_seeds in SEEDS[1:]:
        print_seen(design_power(num_seeds, deeplesion, 1), deeplesion, draws, arguments.rounds)
    return 0


def places(cohort: Sequence[int]) -> np.ndarray:
    return np.repeat(np.arange(len(cohort)), cohort)


def print_power(cohort: Sequence[int]) -> None:
    print("| seeds | six pairs, points | one pair, points |\n|---|---|---|")
    for num_seeds in (1, 2, 3, 5, 10, 20):
        seen = [design_power(num_seeds, cohort, pairs).smallest_difference for pairs in (6, 1)]
        print(f"| {num_seeds} | {' | '.join(f'{100 * (value or 0):.1f}' for value in seen)} |")


def print_errors(
    cohort: Sequence[int], num_seeds: int, seed_sd: float, draws: PatientDraws, rounds: int
) -> None:
    assumptions = Assumptions(seed_sd=seed_sd)
    rng = generator(1, num_seeds, round(1000 * seed_sd))
    found, found_first, held, percentiles = 0, 0, 0, 0
    for _ in range(rounds):
        a, b = simulate_arms(num_seeds, cohort, assumptions, rng)
        p = pair_difference("a", a, "b", b, draws).p or 0.0
        found += p < ALPHA
        found_first += p < ALPHA / NUM_PAIRS
        interval = recall_interval(a, draws)
        held += (interval.low or 0.0) <= assumptions.recall <= (interval.high or 0.0)
        percentiles += percentiles_exclude_zero(a, b, draws, rng)
    rates = [f"{100 * count / rounds:.1f}" for count in (found, found_first, held, percentiles)]
    sd = f"{100 * seed_sd:g} points"
    print(f"| {len(cohort)} | {num_seeds} | {sd} | {' | '.join(rates)} |", flush=True)


def percentiles_exclude_zero(
    a: ArmHits, b: ArmHits, draws: PatientDraws, rng: np.random.Generator
) -> bool:
    difference = a.hits.astype(np.float64) - b.hits
    sums = np.stack([np.bincount(draws.place, weights=row) for row in difference])
    of_seeds = draws.times @ sums.T / (draws.times @ np.bincount(draws.place))[:, None]
    num_seeds = len(sums)
    drawn = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), len(of_seeds))
    low, high = np.quantile((of_seeds * drawn).sum(axis=1) / num_seeds, [ALPHA / 2, 1 - ALPHA / 2])
    return bool(low > 0 or high < 0)


def print_seen(power: Power, cohort: Sequence[int], draws: PatientDraws, rounds: int) -> None:
    rng, true = generator(2, power.num_seeds), power.smallest_difference or 0.0
    seen = 0
    for _ in range(rounds):
        a, b = simulate_arms(power.num_seeds, cohort, power.assumptions, rng, true)
        seen += (pair_difference("a", a, "b", b, draws).p or 0.0) < power.alpha
    print(f"| {power.num_seeds} | {100 * true:.2f} points | {100 * seen / rounds:.1f} % |")


if __name__ == "__main__":
    raise SystemExit(main())
