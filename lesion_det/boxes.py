"""Boxes between the PNG and the detector's input: clip the border, resample, and back.

A box is its outline: pixel i covers i..i+1, so an image of W columns spans 0..W and a box of
pixels a..b is (a, b + 1). Cutting shifts outlines and resampling scales them; both are exact.

Shapes:
    n: boxes, x1, y1, x2, y2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""[n, 4] float64: x1, y1, x2, y2."""


@dataclass(frozen=True)
class Frame:
    """Where a detector's input lies in the PNG that it was made from.

    Attributes:
        left_px: first column that was kept, in pixels of the PNG.
        top_px: first row that was kept.
        kept_width_px: columns that were kept.
        kept_height_px: rows that were kept.
        width_px: columns of the input, after resampling.
        height_px: rows of the input.
    """

    left_px: int
    top_px: int
    kept_width_px: int
    kept_height_px: int
    width_px: int
    height_px: int

    def to_input(self, boxes_xyxy: Boxes) -> Boxes:
        """Return boxes of the PNG in pixels of the input; they may leave it."""
        return (boxes_xyxy - self._corner) * self._scale

    def to_original(self, boxes_xyxy: Boxes) -> Boxes:
        """Return boxes of the input in pixels of the PNG."""
        return boxes_xyxy / self._scale + self._corner

    @property
    def kept_xyxy(self) -> Boxes:
        """The part of the PNG that was kept, [1, 4]."""
        right, bottom = self.left_px + self.kept_width_px, self.top_px + self.kept_height_px
        return np.array([[self.left_px, self.top_px, right, bottom]], dtype=np.float64)

    @property
    def _corner(self) -> Boxes:
        return np.array([self.left_px, self.top_px] * 2, dtype=np.float64)

    @property
    def _scale(self) -> Boxes:
        x, y = self.width_px / self.kept_width_px, self.height_px / self.kept_height_px
        return np.array([x, y, x, y])


def clip_boxes(boxes_xyxy: Boxes, width_px: int, height_px: int) -> Boxes:
    """Return boxes cut to an image; one that lies outside becomes empty."""
    limit = np.array([width_px, height_px] * 2, dtype=np.float64)
    return np.clip(boxes_xyxy, 0.0, limit)


def flip_boxes(boxes_xyxy: Boxes, width_px: int) -> Boxes:
    """Return boxes of the image mirrored left to right."""
    x1, y1, x2, y2 = boxes_xyxy.T
    return np.stack([width_px - x2, y1, width_px - x1, y2], axis=1)


def require_trainable(boxes_xyxy: Boxes, width_px: int, height_px: int, source: str) -> None:
    """Refuse boxes that the detector would learn nonsense from without a word.

    torchvision takes a NaN box (all losses NaN) and a box outside the image (a loss of 37).

    Raises:
        ValueError: a box is not finite, has no area, or leaves the image; ``source`` and the box
            are named.
    """
    for index, (x1, y1, x2, y2) in enumerate(boxes_xyxy.tolist()):
        if not np.isfinite([x1, y1, x2, y2]).all():
            rule = "is not finite"
        elif x2 <= x1 or y2 <= y1:
            rule = "has no area"
        elif x1 < 0 or y1 < 0 or x2 > width_px or y2 > height_px:
            rule = f"leaves the input of {width_px}x{height_px} px"
        else:
            continue
        box = ", ".join(f"{v:.2f}" for v in (x1, y1, x2, y2))
        raise ValueError(f"{source}: box {index} ({box}) {rule}")
