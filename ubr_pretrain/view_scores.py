"""One slice seen several ways: the mean of its scores, and their spread as a sign of doubt.

The views are the same few for every slice and every run, small against the random views of
training (``augmentation``), and balanced: every change comes with its opposite, so that the mean is
not led away.

Shapes:
    z: slices; S: ``InputSpec.size_px``; y, x: as in ``ct``; n: slices at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy import ndarray
from torch import Tensor

from ubr_pretrain.ct import AIR_HU, InputSpec
from ubr_pretrain.network_backend import ScoreNetwork
from ubr_pretrain.network_input import network_input, resample_slices
from ubr_pretrain.regressor import Regressor


@dataclass(frozen=True)
class View:
    """How a slice is seen.

    Attributes:
        scale: the body enlarged.
        shift: the body moved towards the back, in image sides (rounded to whole pixels, which
            blurs nothing).
        offset_hu: added.
    """

    scale: float = 1.0
    shift: float = 0.0
    offset_hu: float = 0.0


SCALE, SHIFT, OFFSET_HU = 1.06, 0.03, 10.0
"""Differences between scanners and ways of lying that no change of anatomy comes with."""

VIEWS = (
    View(),
    View(scale=SCALE),
    View(scale=1 / SCALE),
    View(shift=SHIFT),
    View(shift=-SHIFT),
    View(offset_hu=OFFSET_HU),
    View(offset_hu=-OFFSET_HU),
)
"""The first ``num_views`` of them are used; odd numbers are balanced.

No view exchanges left and right: nobody is scanned so, volumes are turned by their geometry, and
slices of thin people fell to the level of the chest in the mirror.
"""


def score_views(
    regressor: Regressor,
    slices_hu: Int16[ndarray, "z S S"],
    spec: InputSpec,
    device: torch.device,
    num_views: int = 3,
    batch: int = 64,
) -> tuple[Float[ndarray, " z"], Float[ndarray, " z"] | None]:
    """Return the mean score of every slice over its views, and their standard deviation.

    The regressor is left in the mode it was in.

    Args:
        regressor: on ``device``.
        slices_hu: of ``resample_slices``.
        spec: the input convention of the regressor.
        device: where it runs.
        num_views: 1 (the slice as it is; then the deviation is None) to ``len(VIEWS)``.
        batch: slices at a time.

    Raises:
        ValueError: more or fewer views than there are.
        FloatingPointError: a score is not finite; the slice is named.
    """
    if not 1 <= num_views <= len(VIEWS):
        raise ValueError(f"num_views {num_views} must be 1 to {len(VIEWS)}")
    was_training = regressor.training
    regressor.eval()
    scores = np.empty((num_views, len(slices_hu)))
    with torch.inference_mode():
        for first in range(0, len(slices_hu), batch):
            part = slice(first, first + batch)
            hu = torch.from_numpy(slices_hu[part].astype(np.float32)).to(device)
            for row, view in zip(scores, VIEWS, strict=False):
                seen = network_input(view_slices(hu, view), spec)
                row[part] = regressor(seen).double().cpu().numpy()
    regressor.train(was_training)
    return mean_and_sd([scores])


def score_part(
    network: ScoreNetwork,
    spec: InputSpec,
    num_views: int,
    hu: Int16[ndarray, "z y x"],
    pixel_mm_yx: tuple[float, float],
    part: slice,
) -> Float[ndarray, "views n"]:
    """Resample some slices of a scan and score every view of them, on this thread.

    Args:
        network: plain PyTorch or its equal.
        spec: the input convention of the network.
        num_views: of a slice.
        hu: slices as they are stored.
        pixel_mm_yx: row height and column width.
        part: which slices.
    """
    square = torch.from_numpy(resample_slices(hu[part], pixel_mm_yx, spec))
    if network.device.type == "cuda":
        square = square.pin_memory().to(network.device, non_blocking=True)
    with torch.inference_mode():
        seen = [network.scores(view_slices(square.float(), view)) for view in VIEWS[:num_views]]
        return torch.stack(seen).double().cpu().numpy()


def mean_and_sd(
    parts: Iterable[Float[ndarray, "views n"]],
) -> tuple[Float[ndarray, " z"], Float[ndarray, " z"] | None]:
    """Return the mean score of every slice and its standard deviation over the views.

    Args:
        parts: of ``score_part``, in the order of the slices.

    Raises:
        FloatingPointError: a score is not finite; the slice is named.
    """
    scores = np.concatenate([*parts], axis=1)
    finite = np.isfinite(scores).all(axis=0)
    if not finite.all():
        raise FloatingPointError(f"slice {np.flatnonzero(~finite)[0]}: score not finite")
    if len(scores) == 1:
        return scores[0], None
    return scores.mean(axis=0), scores.std(axis=0, ddof=1)


def view_slices(hu: Float[Tensor, "z S S"], view: View) -> Float[Tensor, "z S S"]:
    """Return the slices as a view shows them; what comes in from outside is air."""
    if view.scale != 1.0 or view.shift:
        pixels = hu.shape[-2]
        grid_shift = 2 * math.floor(abs(view.shift) * pixels + 0.5) / pixels  # it spans -1..1
        theta = torch.tensor([[[1 / view.scale, 0, 0], [0, 1 / view.scale, 0]]])
        theta[0, 1, 2] = -math.copysign(grid_shift, view.shift)
        grid = torch.nn.functional.affine_grid(
            theta.to(hu), [1, *hu.shape], align_corners=False
        )  # the slices as the channels of one image: they share the grid
        # Padding by zeros would be water, so air is moved to zero and back.
        hu = (
            AIR_HU
            + torch.nn.functional.grid_sample(hu[None] - AIR_HU, grid, align_corners=False)[0]
        )
    return hu + view.offset_hu
