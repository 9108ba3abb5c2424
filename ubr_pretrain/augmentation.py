"""Random views of a group of slices: where the patient lies, how large, how grey, how noisy.

One draw serves the m slices of a group (they come from one scan), so that the order and the
distances of the slices remain the only signal. What is random is drawn on the host, by a generator
a group, and can be drawn ahead of time; pixels are changed for all groups at once, where they lie.

Shapes:
    g: groups; m: slices of a group; Y, X: pixels of the store; S: pixels of the view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray
from torch import Tensor

from ubr_pretrain.ct import AIR_HU
from ubr_pretrain.ubr_config import Augmentation


def augment_groups(
    hu: Float[Tensor, "g m Y X"],
    ranges: Augmentation,
    rngs: Sequence[np.random.Generator],
    size_px: int | None = None,
) -> Float[Tensor, "g m S S"]:
    """Return one random view of every group: ``draw_views`` and ``view_groups`` in one.

    Args:
        hu: slices in HU, a whole multiple of ``size_px`` a side.
        ranges: how far to go.
        rngs: one generator a group, so that a group's view does not depend on its neighbours.
        size_px: side of the view; None: as it comes.
    """
    side_px = size_px or hu.shape[-1]
    views = draw_views(ranges, rngs, hu.shape[1], side_px)
    return view_groups(hu, views.moved(lambda tensor: tensor.to(hu.device)), side_px)


@dataclass(frozen=True)
class Views:
    """What the scans of a batch look like; None: that is not changed.

    Attributes:
        matrix: from output to input coordinates; both span -1..1.
        gain: factor of the HU.
        offset_hu: added to them.
        blur: weight of the 3x3 mean.
        inside: the reconstructed field.
        erased_px: first row, row behind the last, first column and column behind the last of the
            rectangle that a slice loses; all 0 where it loses none.
        erased_hu: the grey in its place.
        noise_hu: added at last.
    """

    matrix: Float32[Tensor, "g 2 3"] | None = None
    gain: Float32[Tensor, "g 1 1 1"] | None = None
    offset_hu: Float32[Tensor, "g 1 1 1"] | None = None
    blur: Float32[Tensor, "g 1 1 1"] | None = None
    inside: Bool[Tensor, "g 1 S S"] | None = None
    erased_px: Int64[Tensor, "4 g m 1 1"] | None = None
    erased_hu: Float32[Tensor, "g m 1 1"] | None = None
    noise_hu: Float32[Tensor, "g m S S"] | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Views:
        """Return these views with every tensor moved: to a device, or into pinned memory."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return Views(**{name: None if t is None else move(t) for name, t in tensors.items()})


def draw_views(
    ranges: Augmentation, rngs: Sequence[np.random.Generator], m: int, side_px: int
) -> Views:
    """Draw one view a group.

    Args:
        ranges: how far to go.
        rngs: one generator a group; another view needs another generator.
        m: slices of a group.
        side_px: of the view.
    """
    if ranges.is_identity:
        return Views()
    g = len(rngs)
    drawn = [_draw(ranges, rng) for rng in rngs]
    matrix = torch.tensor([view.matrix for view in drawn], dtype=torch.float32)
    greys = torch.tensor([view.greys for view in drawn], dtype=torch.float32)
    gain, offset_hu, blur = greys.T[..., None, None, None].contiguous()

    # Each group's generator goes on where it stopped: field, rectangles, noise.
    inside = np.ones((g, 1, side_px, side_px), bool)
    erased_px, erased_hu = np.zeros((4, g, m), np.int64), np.zeros((g, m), np.float32)
    noise_hu = np.empty((g, m, side_px, side_px) if ranges.noise_hu else 0, np.float32)
    for i, (rng, view) in enumerate(zip(rngs, drawn, strict=True)):
        if rng.uniform() < ranges.field:
            inside[i] = _field(side_px, rng)
        if ranges.erase:
            for index in np.flatnonzero(rng.uniform(size=m) < ranges.erase):
                erased_px[:, i, index], erased_hu[i, index] = _rectangle(side_px, rng)
        if ranges.noise_hu:
            rng.standard_normal(out=noise_hu[i], dtype=np.float32)
            noise_hu[i] *= view.noise_hu
    return Views(
        matrix if ranges.moves else None,
        gain,
        offset_hu,
        blur if ranges.blur else None,
        torch.from_numpy(inside) if ranges.field else None,
        torch.from_numpy(erased_px)[..., None, None] if ranges.erase else None,
        torch.from_numpy(erased_hu)[..., None, None] if ranges.erase else None,
        torch.from_numpy(noise_hu) if ranges.noise_hu else None,
    )


def view_groups(
    hu: Float[Tensor, "g m Y X"], views: Views, size_px: int
) -> Float[Tensor, "g m S S"]:
    """Return every group as its view shows it.

    Args:
        hu: slices in HU, a whole multiple of ``size_px`` a side.
        views: on the device of ``hu``.
        size_px: side of the view.
    """
    finer = hu.shape[-1] // size_px
    hu = shrink(hu, finer) if views.matrix is None else _placed(hu, views.matrix, finer)
    if views.gain is not None and views.offset_hu is not None:
        hu = hu * views.gain + views.offset_hu
    if views.blur is not None:
        smooth = torch.nn.functional.avg_pool2d(hu, 3, stride=1, padding=1, count_include_pad=False)
        hu = torch.lerp(hu, smooth, views.blur)
    if views.inside is not None:
        hu = hu.where(views.inside, float(AIR_HU))
    if views.erased_px is not None and views.erased_hu is not None:
        top, bottom, left, right = views.erased_px
        pixel = torch.arange(size_px, device=hu.device)
        y, x = pixel[:, None], pixel
        erased = ((top <= y) & (y < bottom)) & ((left <= x) & (x < right))
        hu = views.erased_hu.where(erased, hu)
    return hu if views.noise_hu is None else hu + views.noise_hu


def shrink(hu: Float[Tensor, "g m Y X"], factor: int) -> Float[Tensor, "g m S S"]:
    """Average ``factor`` x ``factor`` pixels into one."""
    return torch.nn.functional.avg_pool2d(hu, factor) if factor > 1 else hu


@dataclass(frozen=True)
class _View:
    """What is drawn first of one scan: a 2x3 matrix, gain, offset and blur, strength of noise."""

    matrix: list[list[float]]
    greys: tuple[float, float, float]
    noise_hu: float


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
    return _View(matrix, (gain, offset_hu, ranges.blur * rng.uniform()), noise_hu)


def _placed(
    hu: Float[Tensor, "g m Y X"], matrix: Float[Tensor, "g 2 3"], finer: int
) -> Float[Tensor, "g m S S"]:
    """Move, turn and scale; finer slices are smoothed first so that nothing aliases."""
    g, m, side = hu.shape[:3]
    size = side // finer
    grid = torch.nn.functional.affine_grid(matrix, [g, m, size, size], align_corners=False)
    hu = hu - AIR_HU  # padding by zeros would be water, so air is moved to zero and back
    if finer > 1:
        hu = torch.nn.functional.avg_pool2d(hu, finer, stride=1)
    return AIR_HU + torch.nn.functional.grid_sample(hu, grid, align_corners=False)


def _rectangle(side: int, rng: np.random.Generator) -> tuple[tuple[int, int, int, int], float]:
    """Draw the rectangle that a slice loses and its grey."""
    height, width = (int(n) for n in rng.uniform(*ERASED_SIDE, 2) * side)
    y, x = (int(rng.integers(side - n + 1)) for n in (height, width))
    return (y, y + height, x, x + width), rng.uniform(*ERASED_HU)


ERASED_SIDE = (0.1, 0.4)
ERASED_HU = (-200.0, 250.0)
"""Of an erased rectangle: side as a fraction of the image's, and grey."""


def _field(side: int, rng: np.random.Generator) -> Bool[ndarray, "S S"]:
    """Draw a reconstructed field: a disc or a rectangle, a little off the centre."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    x, y = x - rng.normal(0, 0.06), y - rng.normal(0, 0.06)
    half_width, half_height = rng.uniform(0.7, 1.1, 2)
    if rng.uniform() < 0.5:
        return np.asarray(x**2 + y**2 < half_width**2)
    return np.asarray((abs(x) < half_width) & (abs(y) < half_height))
