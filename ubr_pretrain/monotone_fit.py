"""The isotonic regression of ``scipy.optimize``, to the last bit, without its quarter of a second.

Shapes:
    n: values.

Reference:
    Busing, Monotone Regression: A Simple and Fast O(n) PAVA Implementation, J. Stat. Softw. 2022;
    blocks are merged in its order, which decides how sums are rounded.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def monotone_fit(
    values: Float[ndarray, " n"],
    weights: Float[ndarray, " n"] | None = None,
    *,
    increasing: bool = True,
) -> Float[ndarray, " n"]:
    """Return the least-squares fit that nowhere falls (``increasing``) or nowhere rises.

    Args:
        values: finite, at least one.
        weights: positive; None: all equal.
        increasing: which way the fit goes.
    """
    if not increasing:
        turned = None if weights is None else weights[::-1]
        return monotone_fit(values[::-1], turned)[::-1]
    y = values.tolist()
    w = [1.0] * len(y) if weights is None else weights.tolist()
    means, masses, ends = y[:1], w[:1], [1]
    i = 1
    while i < len(y):
        mean, mass = y[i], w[i]
        if means[-1] >= mean:
            total = masses[-1] * means[-1] + mass * mean
            mass += masses[-1]
            mean = total / mass
            for kept in (means, masses, ends):
                kept.pop()
            while i < len(y) - 1 and mean >= y[i + 1]:
                i += 1
                total += w[i] * y[i]
                mass += w[i]
                mean = total / mass
            while means and means[-1] >= mean:
                total += masses[-1] * means.pop()
                mass += masses.pop()
                mean = total / mass
                ends.pop()
        means.append(mean)
        masses.append(mass)
        i += 1
        ends.append(i)
    return np.repeat(means, np.diff(ends, prepend=0))
