"""Views made one group after another, in plain words: what the batched ones must equal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ubr_pretrain.ct import AIR_HU
from ubr_pretrain.ubr_config import Augmentation


def plainly_augmented(
    hu: torch.Tensor,
    ranges: Augmentation,
    rngs: Sequence[np.random.Generator],
    size_px: int | None = None,
) -> torch.Tensor:
    finer = hu.shape[-1] // (size_px or hu.shape[-1])
    if ranges.is_identity:
        return shrink(hu, finer)
    views = [_draw(ranges, rng) for rng in rngs]
    hu = _placed(hu, ranges, views, finer)
    return torch.stack(
        [
            _altered(group, ranges, view, rng)
            for group, view, rng in zip(hu, views, rngs, strict=True)
        ]
    )


def shrink(hu: torch.Tensor, factor: int) -> torch.Tensor:
    """Average ``factor`` x ``factor`` pixels into one."""
    return torch.nn.functional.avg_pool2d(hu, factor) if factor > 1 else hu


@dataclass(frozen=True)
class _View:
    """What one scan looks like: a 2x3 matrix from output to input coordinates, and greys."""

    matrix: list[list[float]]
    gain: float
    offset_hu: float
    noise_hu: float
    blur: float


def _draw(ranges: Augmentation, rng: np.random.Generator) -> _View:
    size = math.exp(rng.uniform(-1, 1) * math.log1p(ranges.scale))
    angle = math.radians(rng.uniform(-1, 1) * ranges.rotate_deg)
    dx, dy = (2 * ranges.shift * rng.uniform(-1, 1) for _ in range(2))  # the grid spans -1..1
    mirror = -1.0 if rng.uniform() < ranges.flip else 1.0
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    gain = 1 + ranges.contrast * rng.uniform(-1, 1)
    offset_hu = ranges.offset_hu * rng.uniform(-1, 1)
    noise_hu = ranges.noise_hu * rng.uniform()
    wide = math.exp(rng.uniform(-1, 1) * math.log1p(ranges.stretch))
    matrix = [[mirror * cos / wide, -sin, dx], [mirror * sin / wide, cos, dy]]
    return _View(matrix, gain, offset_hu, noise_hu, ranges.blur * rng.uniform())


def _placed(
    hu: torch.Tensor, ranges: Augmentation, views: Sequence[_View], finer: int
) -> torch.Tensor:
    """Move, turn and scale; finer slices are smoothed first so that nothing aliases."""
    if not (ranges.scale or ranges.shift or ranges.rotate_deg or ranges.flip or ranges.stretch):
        return shrink(hu, finer)
    g, m, side = hu.shape[:3]
    theta = torch.tensor([view.matrix for view in views], dtype=hu.dtype, device=hu.device)
    size = side // finer
    grid = torch.nn.functional.affine_grid(theta, [g, m, size, size], align_corners=False)
    hu = hu - AIR_HU  # padding by zeros would be water, so air is moved to zero and back
    if finer > 1:
        hu = torch.nn.functional.avg_pool2d(hu, finer, stride=1)
    return AIR_HU + torch.nn.functional.grid_sample(hu, grid, align_corners=False)


def _altered(
    group: torch.Tensor, ranges: Augmentation, view: _View, rng: np.random.Generator
) -> torch.Tensor:
    """Change the greys, the field of view and single slices of one group."""
    m, side = group.shape[:2]
    group = group * view.gain + view.offset_hu
    if view.blur:
        smooth = torch.nn.functional.avg_pool2d(
            group, 3, stride=1, padding=1, count_include_pad=False
        )
        group = torch.lerp(group, smooth, view.blur)
    if rng.uniform() < ranges.field:
        inside = torch.from_numpy(_field(side, rng)).to(group.device)
        group = group.where(inside, float(AIR_HU))
    if ranges.erase:
        group = group.clone()
        for index in np.flatnonzero(rng.uniform(size=m) < ranges.erase):
            height, width = (int(n) for n in rng.uniform(*ERASED_SIDE, 2) * side)
            y, x = (int(rng.integers(side - n + 1)) for n in (height, width))
            group[index, y : y + height, x : x + width] = rng.uniform(*ERASED_HU)
    if ranges.noise_hu:
        noise = view.noise_hu * rng.standard_normal(group.shape, dtype=np.float32)
        group = group + torch.from_numpy(noise).to(group)
    return group


ERASED_SIDE = (0.1, 0.4)
ERASED_HU = (-200.0, 250.0)
"""Of an erased rectangle: side as a fraction of the image's, and grey."""


def _field(side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a reconstructed field: a disc or a rectangle, a little off the centre."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    x, y = x - rng.normal(0, 0.06), y - rng.normal(0, 0.06)
    half_width, half_height = rng.uniform(0.7, 1.1, 2)
    if rng.uniform() < 0.5:
        return np.asarray(x**2 + y**2 < half_width**2)
    return np.asarray((abs(x) < half_width) & (abs(y) < half_height))
