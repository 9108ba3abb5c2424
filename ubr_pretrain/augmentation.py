"""Random views of a group of slices: where the patient lies, how large, how grey, how noisy.

One draw serves the m slices of a group (they come from one scan), so that the order and the
distances of the slices remain the only signal.

Shapes:
    g: groups; m: slices of a group; H, W: pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ubr_pretrain.ct import AIR_HU
from ubr_pretrain.ubr_config import Augmentation


def augment_groups(
    hu: Float[Tensor, "g m H W"], ranges: Augmentation, rngs: Sequence[np.random.Generator]
) -> Float[Tensor, "g m H W"]:
    """Return one random view of every group.

    Args:
        hu: slices in HU.
        ranges: how far to go.
        rngs: one generator a group, so that a group's view does not depend on its neighbours.
    """
    if ranges.is_identity:
        return hu
    draws = [_draw(ranges, rng) for rng in rngs]
    if ranges.scale or ranges.shift or ranges.rotate_deg or ranges.flip:
        theta = torch.tensor([d[0] for d in draws], dtype=hu.dtype, device=hu.device)
        grid = torch.nn.functional.affine_grid(theta, list(hu.shape), align_corners=False)
        # Padding by zeros would be water, so air is moved to zero and back.
        hu = AIR_HU + torch.nn.functional.grid_sample(hu - AIR_HU, grid, align_corners=False)
    gain = torch.tensor([d[1] for d in draws], dtype=hu.dtype, device=hu.device)
    offset = torch.tensor([d[2] for d in draws], dtype=hu.dtype, device=hu.device)
    hu = hu * gain[:, None, None, None] + offset[:, None, None, None]
    if ranges.noise_hu:
        noise = np.stack(
            [
                d[3] * rng.standard_normal(hu.shape[1:], dtype=np.float32)
                for d, rng in zip(draws, rngs, strict=True)
            ]
        )
        hu = hu + torch.from_numpy(noise).to(hu)
    return hu


def _draw(
    ranges: Augmentation, rng: np.random.Generator
) -> tuple[list[list[float]], float, float, float]:
    """Draw (2x3 matrix from output to input coordinates, gain, offset in HU, noise in HU)."""
    size = math.exp(rng.uniform(-1, 1) * math.log1p(ranges.scale))
    angle = math.radians(rng.uniform(-1, 1) * ranges.rotate_deg)
    dx, dy = (2 * ranges.shift * rng.uniform(-1, 1) for _ in range(2))  # the grid spans -1..1
    mirror = -1.0 if rng.uniform() < ranges.flip else 1.0
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    gain = 1 + ranges.contrast * rng.uniform(-1, 1)
    offset = ranges.offset_hu * rng.uniform(-1, 1)
    noise = ranges.noise_hu * rng.uniform()
    return [[mirror * cos, -sin, dx], [mirror * sin, cos, dy]], gain, offset, noise
