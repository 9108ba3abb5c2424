"""The losses of the body-part regressor: order and distance, and beyond the paper, millimetres.

Shapes:
    g: groups (one volume each); m: equidistant slices of a group, superior -> inferior;
    k: slices of known place.

Reference:
    Yan, Lu, Summers, ISBI 2018, Eq. 1-3; the readings are explained in ``ubr_config.Losses``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ubr_pretrain.ubr_config import Losses


def order_loss(scores: Float[Tensor, "g m"], logit_scale: float) -> Float[Tensor, ""]:
    """Return Eq. 1, ``-sum_i sum_j log sigmoid(logit_scale * (S(i, j+1) - S(i, j)))``.

    Deviation: written with log-sigmoid, which stays finite where ``log(sigmoid(x))`` does not.
    """
    return -torch.nn.functional.logsigmoid(logit_scale * scores.diff()).sum()


def distance_loss(scores: Float[Tensor, "g m"]) -> Float[Tensor, ""]:
    """Return Eq. 2, the sum of smooth-L1 (beta 1) of the second difference; 0 for m = 2."""
    second = scores.diff(n=2)
    return torch.nn.functional.smooth_l1_loss(second, torch.zeros_like(second), reduction="sum")


UNIT_MM, BETA_MM = 100.0, 20.0
"""The losses in millimetres are smooth-L1 in units of 100 mm, quadratic below 20 mm."""


def spacing_loss(
    scores: Float[Tensor, "g m"],
    z_mm: Float[Tensor, "g m"],
    score_per_mm: float,
    slope_tolerance: float,
) -> Float[Tensor, ""]:
    """Return the sum over all pairs j < k of a group of how far their distance is off.

    ``h(max(0, |D - d| - slope_tolerance * d))`` with ``d = z(i, k) - z(i, j)`` the true distance,
    ``D = (S(i, k) - S(i, j)) / score_per_mm`` the one that the scores say, h smooth-L1.
    """
    j, k = torch.triu_indices(z_mm.shape[1], z_mm.shape[1], offset=1, device=z_mm.device)
    true_mm = z_mm[:, k] - z_mm[:, j]
    said_mm = (scores[:, k] - scores[:, j]) / score_per_mm
    return _smooth_mm(((said_mm - true_mm).abs() - slope_tolerance * true_mm).clamp(min=0))


def anchor_loss(
    scores: Float[Tensor, "g m"],
    known_mm: Float[Tensor, "g m"],
    score_per_mm: float,
    zero_mm: float,
    known: Int[Tensor, " k"] | None = None,
) -> Float[Tensor, ""]:
    """Return the sum over slices of known place of how far their score is off, in millimetres.

    Args:
        scores: of all slices.
        known_mm: coordinate of every slice in the reference body; NaN where it is not known.
        score_per_mm: score of a millimetre.
        zero_mm: coordinate whose score is 0.
        known: where ``known_mm``, laid flat, is not NaN; None: is found, for which a GPU waits.
    """
    if known is None:
        known = torch.nonzero(~known_mm.isnan().flatten()).squeeze(1)
    known_scores, known_mm = (t.flatten().index_select(0, known) for t in (scores, known_mm))
    return _smooth_mm(known_scores / score_per_mm + zero_mm - known_mm)


def _smooth_mm(error_mm: Tensor) -> Float[Tensor, ""]:
    error = error_mm / UNIT_MM
    return torch.nn.functional.smooth_l1_loss(
        error, torch.zeros_like(error), beta=BETA_MM / UNIT_MM, reduction="sum"
    )


@dataclass(frozen=True)
class LossTerms:
    """Eq. 3, its two terms and the two in millimetres, before their weights.

    None: ``distance`` for m = 2, where no second difference is; the others where not asked for.
    """

    order: Float[Tensor, ""]
    distance: Float[Tensor, ""] | None
    spacing: Float[Tensor, ""] | None
    anchor: Float[Tensor, ""] | None
    total: Float[Tensor, ""]

    def named(self) -> dict[str, Float[Tensor, ""]]:
        """Return what there is by its name in a record, the total as ``loss``."""
        terms = {
            "loss": self.total,
            "order": self.order,
            "distance": self.distance,
            "spacing": self.spacing,
            "anchor": self.anchor,
        }
        return {name: term for name, term in terms.items() if term is not None}


def ubr_loss(
    scores: Float[Tensor, "g m"],
    reading: Losses,
    num_groups: int,
    z_mm: Float[Tensor, "g m"] | None = None,
    known_mm: Float[Tensor, "g m"] | None = None,
    known: Int[Tensor, " k"] | None = None,
) -> LossTerms:
    """Return Eq. 3 in the reading asked for, and the terms in millimetres.

    Args:
        scores: of the groups at hand.
        reading: sums or means, logit scale, weights.
        num_groups: groups of the whole batch: where several processes share it, a mean is over all
            of them, so that the processes' losses add up to that of one process.
        z_mm: position of every slice in its volume; the spacing loss needs it.
        known_mm: coordinate in the reference body, NaN where not known; for the anchor loss.
        known: see ``anchor_loss``.

    Raises:
        ValueError: a loss is asked for without what it needs.
    """
    m = scores.shape[1]
    mean = reading.reduction == "mean"
    order = order_loss(scores, reading.logit_scale) / (num_groups * (m - 1) if mean else 1)
    total = reading.order_weight * order
    distance = spacing = anchor = None
    if m > 2:
        distance = distance_loss(scores) / (num_groups * (m - 2) if mean else 1)
        total = total + reading.distance_weight * distance
    if reading.spacing_weight:
        if z_mm is None:
            raise ValueError("the spacing loss needs z_mm")
        spacing = spacing_loss(scores, z_mm, reading.score_per_mm, reading.slope_tolerance)
        spacing = spacing / (num_groups * m * (m - 1) / 2 if mean else 1)
        total = total + reading.spacing_weight * spacing
    if reading.anchor_weight:
        if known_mm is None:
            raise ValueError("the anchor loss needs known_mm")
        anchor = anchor_loss(scores, known_mm, reading.score_per_mm, reading.zero_mm, known)
        anchor = anchor / (num_groups * m if mean else 1)
        total = total + reading.anchor_weight * anchor
    return LossTerms(order, distance, spacing, anchor, total)
