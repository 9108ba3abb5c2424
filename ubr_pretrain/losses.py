"""The two self-supervised losses of the body-part regressor.

Shapes:
    g: groups (one volume each); m: equidistant slices of a group, superior -> inferior.

Reference:
    Yan, Lu, Summers, ISBI 2018, Eq. 1-3; the readings are explained in ``ubr_config.Losses``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ubr_pretrain.ubr_config import Losses


def order_loss(scores: Float[Tensor, "g m"], logit_scale: float = 1.0) -> Float[Tensor, ""]:
    """Return Eq. 1, ``-sum_i sum_j log sigmoid(logit_scale * (S(i, j+1) - S(i, j)))``.

    Deviation: written with log-sigmoid, which stays finite where ``log(sigmoid(x))`` does not.
    """
    return -torch.nn.functional.logsigmoid(logit_scale * scores.diff(dim=1)).sum()


def distance_loss(scores: Float[Tensor, "g m"]) -> Float[Tensor, ""]:
    """Return Eq. 2, the sum of smooth-L1 (beta 1) of the second difference; 0 for m = 2."""
    second = scores.diff(dim=1).diff(dim=1)
    return torch.nn.functional.smooth_l1_loss(
        second, torch.zeros_like(second), beta=1.0, reduction="sum"
    )


@dataclass(frozen=True)
class LossTerms:
    """Eq. 3 and its two terms; ``distance`` is None for m = 2, where no second difference is."""

    order: Float[Tensor, ""]
    distance: Float[Tensor, ""] | None
    total: Float[Tensor, ""]


def ubr_loss(scores: Float[Tensor, "g m"], reading: Losses, num_groups: int) -> LossTerms:
    """Return Eq. 3 in the reading asked for.

    Args:
        scores: of the groups at hand.
        reading: sums or means, logit scale, weight of the distance loss.
        num_groups: groups of the whole batch: where several processes share it, a mean is over all
            of them, so that the processes' losses add up to that of one process.
    """
    m = scores.shape[1]
    mean = reading.reduction == "mean"
    order = order_loss(scores, reading.logit_scale) / (num_groups * (m - 1) if mean else 1)
    if m == 2:
        return LossTerms(order, None, order)
    distance = distance_loss(scores) / (num_groups * (m - 2) if mean else 1)
    return LossTerms(order, distance, order + reading.distance_weight * distance)
