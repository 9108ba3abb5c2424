"""When a detection hits a lesion: intersection over union of boxes.

Shapes:
    k: detections, n: lesions of one image; boxes are x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64


@dataclass(frozen=True)
class HitRule:
    """What counts as a hit.

    Attributes:
        iou: the threshold on intersection over union.
        strict: True: IoU > ``iou``, the paper's "larger than 0.5"; False: IoU >= ``iou``.
        plus_one: count pixels as in the authors' released code, a box from x1 to x2 being
            x2 - x1 + 1 wide. False takes x2 - x1, which is what our boxes mean.
    """

    iou: float = 0.5
    strict: bool = True
    plus_one: bool = False


PAPER_RULE = HitRule()


def box_iou(
    boxes_xyxy: Float64[np.ndarray, "k 4"],
    others_xyxy: Float64[np.ndarray, "n 4"],
    *,
    plus_one: bool = False,
) -> Float64[np.ndarray, "k n"]:
    """Return area(a and b) / area(a or b) of every pair, 0 where both areas are 0.

    Args:
        boxes_xyxy: first set.
        others_xyxy: second set.
        plus_one: see ``HitRule``.
    """
    extra = 1.0 if plus_one else 0.0
    first, second = boxes_xyxy[:, None, :], others_xyxy[None, :, :]
    lower = np.maximum(first[..., :2], second[..., :2])
    upper = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.maximum(upper - lower + extra, 0.0).prod(axis=-1)
    area = (first[..., 2:] - first[..., :2] + extra).prod(axis=-1)
    other_area = (second[..., 2:] - second[..., :2] + extra).prod(axis=-1)
    union = area + other_area - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def hit_matrix(
    detections_xyxy: Float64[np.ndarray, "k 4"],
    lesions_xyxy: Float64[np.ndarray, "n 4"],
    rule: HitRule = PAPER_RULE,
) -> Bool[np.ndarray, "k n"]:
    """Return which detection hits which lesion."""
    iou = box_iou(detections_xyxy, lesions_xyxy, plus_one=rule.plus_one)
    return iou > rule.iou if rule.strict else iou >= rule.iou
