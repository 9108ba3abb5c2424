"""Whether a training of the regressor goes nowhere: all scores equal, or an order not learned."""

from __future__ import annotations

import math
from collections import deque

from ubr_pretrain.ubr_config import UbrConfig

PATIENCE = 200
"""Iterations that are looked at before anything is said."""

FLAT_STD = 1e-3
"""Scores of a batch that differ by less than this say nothing of the place in the body."""

LEARNED = 0.98
"""An order loss above this part of what equal scores have has not begun to fall."""


class CollapseWatch:
    """Looks at the numbers of every step and warns once of each of the two.

    Args:
        config: of the training; it says what the order loss of equal scores is.
    """

    def __init__(self, config: UbrConfig) -> None:
        pairs = config.g * (config.m - 1) if config.losses.reduction == "sum" else 1
        self._by_chance = math.log(2) * pairs
        self._weighs_order = config.losses.order_weight > 0
        self._orders: deque[float] = deque(maxlen=PATIENCE)
        self._num_flat = 0
        self._said: set[str] = set()

    def look(self, iteration: int, score_std: float, order: float) -> str | None:
        """Return a warning, the first time that there is reason for it.

        Args:
            iteration: of the step.
            score_std: standard deviation of all scores of its batch.
            order: its order loss, before its weight.
        """
        self._num_flat = self._num_flat + 1 if score_std < FLAT_STD else 0
        self._orders.append(order)
        mean = sum(self._orders) / len(self._orders)
        if self._num_flat >= PATIENCE and "flat" not in self._said:
            self._said.add("flat")
            return (
                f"warning: iteration {iteration}: all scores are equal (standard deviation "
                f"{score_std:.1e}, below {FLAT_STD:g} for {PATIENCE} iterations): the training has "
                "collapsed; lower losses.distance_weight or optimiser.lr, or start from weights"
            )
        waited = self._weighs_order and len(self._orders) == PATIENCE
        if waited and mean > LEARNED * self._by_chance and "order" not in self._said:
            self._said.add("order")
            return (
                f"warning: iteration {iteration}: the order loss does not fall ({mean:.4g} over "
                f"{PATIENCE} iterations, {self._by_chance:.4g} by chance)"
            )
        return None
