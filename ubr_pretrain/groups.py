"""Which slices a training step sees: g volumes, m equidistant slices of each, inside one run.

A volume may hold runs of slices parted by gaps (DeepLesion folders do). Equal index steps across a
gap are not equal distances, which would break the distance loss without a word, so a group never
leaves a run.

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 2; ``ends`` is the authors' released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from ubr_pretrain.runtime import generator

StartRule = Literal["uniform", "ends"]

_VOLUMES, _SLICES = 0, 1  # streams of random numbers that must not meet


def equidistant_slices(
    runs: Sequence[range],
    m: int,
    rng: np.random.Generator,
    start_rule: StartRule = "uniform",
    min_k: int = 1,
) -> Int[ndarray, " m"]:
    """Draw indices j, j + k, ..., j + (m - 1) k inside one run.

    The run is drawn with a chance in proportion to its slices; the interval k is uniform in
    min_k .. floor((n - 1) / (m - 1)); the start is uniform over what remains, or by ``ends``
    floor(s (n - k (m - 1))) with s = sigmoid(U(-5, 5)), which favours the ends of the volume.

    Args:
        runs: index ranges of constant z step; those with fewer than m slices are left aside.
        m: slices of a group, at least 2.
        rng: where the numbers come from.
        start_rule: "uniform" or "ends".
        min_k: smallest interval, as far as the run is long enough for it.

    Raises:
        ValueError: no run has m slices.
    """
    usable = [run for run in runs if len(run) >= m]
    if not usable:
        longest = max((len(run) for run in runs), default=0)
        raise ValueError(f"E-FEW: no run of {m} slices at one step (the longest has {longest})")
    lengths = np.array([len(run) for run in usable])
    run = usable[rng.choice(len(usable), p=lengths / lengths.sum())]
    n = len(run)
    max_k = (n - 1) // (m - 1)
    k = int(rng.integers(min(min_k, max_k), max_k + 1))
    num_starts = n - k * (m - 1)
    if start_rule == "uniform":
        start = int(rng.integers(num_starts))
    else:
        s = 1.0 / (1.0 + np.exp(-rng.uniform(-5.0, 5.0)))
        start = int(s * num_starts)
    return run.start + start + k * np.arange(m)


class GroupSampler:
    """The g groups of any iteration, as a pure function of (seed, iteration).

    Volumes are drawn without replacement inside an iteration (with, where there are fewer than g).

    Args:
        runs: for every volume its runs.
        g: groups of an iteration.
        m: slices of a group.
        seed: of the training run.
        start_rule: see ``equidistant_slices``.
        weights: relative chance of every volume; None: all equal.
        min_k: smallest interval of every volume; None: 1.
    """

    def __init__(
        self,
        runs: Sequence[Sequence[range]],
        g: int,
        m: int,
        seed: int,
        start_rule: StartRule = "uniform",
        weights: Sequence[float] | None = None,
        min_k: Sequence[int] | None = None,
    ) -> None:
        if not runs:
            raise ValueError("no volume to draw groups from")
        for index, volume_runs in enumerate(runs):
            if all(len(run) < m for run in volume_runs):
                raise ValueError(f"volume {index}: no run of {m} slices at one step")
        self.runs, self.g, self.m, self.seed, self.start_rule = runs, g, m, seed, start_rule
        self.min_k = [1] * len(runs) if min_k is None else min_k
        chances = np.ones(len(runs)) if weights is None else np.asarray(weights, float)
        self.chances = chances / chances.sum()

    def draw(self, iteration: int) -> list[tuple[int, Int[ndarray, " m"]]]:
        """Return (volume index, slice indices) of the g groups of ``iteration``."""
        rng = generator(self.seed, _VOLUMES, iteration)
        volumes = rng.choice(
            len(self.runs), self.g, replace=len(self.runs) < self.g, p=self.chances
        )
        return [
            (int(volume), self._slices(int(volume), iteration, i))
            for i, volume in enumerate(volumes)
        ]

    def _slices(self, volume: int, iteration: int, group: int) -> Int[ndarray, " m"]:
        rng = generator(self.seed, _SLICES, iteration, group)
        return equidistant_slices(
            self.runs[volume], self.m, rng, self.start_rule, self.min_k[volume]
        )
