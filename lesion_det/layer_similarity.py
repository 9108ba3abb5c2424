"""How alike two layers are: their filters, and what they compute.

Shapes:
    F: filters of a layer; I: input channels; k: kernel; n: samples; p, q: features of two layers.

Reference:
    Kornblith et al., Similarity of neural network representations revisited, ICML 2019; the
    estimator of HSIC without bias: Song et al., JMLR 13, 2012, Eq. 5.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor


def filter_cosine(before: Float[Tensor, "F I k k"], after: Float[Tensor, "F I k k"]) -> float:
    """Return the mean over the filters of ``<a, b> / (||a|| ||b||)``; 0 for a filter of zeros."""
    a, b = before.flatten(1).double(), after.flatten(1).double()
    return float(torch.cosine_similarity(a, b, dim=1, eps=1e-30).mean())


def relative_l2(before: Float[Tensor, "F I k k"], after: Float[Tensor, "F I k k"]) -> float | None:
    """Return ``||after - before|| / ||before||``; None where ``before`` is zero."""
    norm = float(before.double().norm())
    return float((after.double() - before.double()).norm()) / norm if norm else None


def linear_cka(x: Float64[ndarray, "n p"], y: Float64[ndarray, "n q"]) -> float | None:
    """Return ``HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))`` of linear kernels, HSIC without bias.

    Deviation: Kornblith's own estimator divides biased HSICs, which makes unrelated layers alike
    where there are not many more samples than features.

    Returns:
        1 where y is a rotated and scaled x, about 0 (a little below, even) where they are
        unrelated; None where one of them is constant or there are fewer than four samples.
    """
    if len(x) < 4:
        return None
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    product = _hsic(x, x) * _hsic(y, y)
    return _hsic(x, y) / float(np.sqrt(product)) if product > 0 else None


def _hsic(x: Float64[ndarray, "n p"], y: Float64[ndarray, "n q"]) -> float:
    """Return ``n (n - 3) HSIC`` of centred features.

    With K = x x', L = y y' and their diagonals k, l set to zero, Song's Eq. 5,
    ``tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K L 1``, needs no n x n matrix, since
    the rows of a centred K sum to ``-k``.
    """
    n = len(x)
    k, l = np.square(x).sum(axis=1), np.square(y).sum(axis=1)  # noqa: E741
    shared = float(np.square(x.T @ y).sum())
    return shared - n / (n - 2) * float(k @ l) + float(k.sum() * l.sum()) / ((n - 1) * (n - 2))
