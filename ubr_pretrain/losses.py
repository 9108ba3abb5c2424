"""The two self-supervised losses of the body-part regressor.

Shapes:
    g: groups (one volume each); m: equidistant slices of a group, superior -> inferior.

Reference:
    Yan, Lu, Summers, ISBI 2018, Eq. 1-3; the ``release`` reading is the authors' Caffe code.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["sum", "mean"]


def order_loss(
    scores: Float[Tensor, "g m"], *, reduction: Reduction = "sum", logit_scale: float = 1.0
) -> Float[Tensor, ""]:
    """Return Eq. 1, ``-sum_i sum_j log sigmoid(S(i, j+1) - S(i, j))``.

    Args:
        scores: one score a slice; at least two slices a group.
        reduction: "sum" as printed, or the mean over the g (m - 1) terms.
        logit_scale: multiplies the difference inside the sigmoid; 2 in the released code.

    Deviation: written with log-sigmoid, which stays finite where ``log(sigmoid(x))`` does not.
    """
    terms = -torch.nn.functional.logsigmoid(logit_scale * scores.diff(dim=1))
    return terms.sum() if reduction == "sum" else terms.mean()


def distance_loss(
    scores: Float[Tensor, "g m"], *, reduction: Reduction = "sum"
) -> Float[Tensor, ""] | None:
    """Return Eq. 2, smooth-L1 (beta 1) of the second difference of the scores.

    Args:
        scores: one score a slice.
        reduction: "sum" as printed, or the mean over the g (m - 2) terms.

    Returns:
        The loss; None for m = 2, where no second difference exists.
    """
    if scores.shape[1] < 3:
        return None
    second = scores.diff(dim=1).diff(dim=1)
    return torch.nn.functional.smooth_l1_loss(
        second, torch.zeros_like(second), beta=1.0, reduction=reduction
    )
