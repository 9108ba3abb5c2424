"""The fine-grained position of a slice, interpolated between the borders of body parts.

Row 2 and 3 of Table 1 regress it. The unit is one body part: 1 is the lung apex (head and neck end,
chest begins), 2 the liver dome, 3 the iliac crest, 4 the lower end of the symphysis; linear in mm
between two borders that a volume shows. Beyond its outermost border a volume goes on at the typical
length of the body part, as far as that part's end.

Shapes:
    z: slices of a volume, superior -> inferior.

Reference:
    The scheme of "fine-grained body part recognition" that the paper's row [3] compares with
    (Zhang, Wang, Zheng, ISBI 2017), from the labels that this project has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.slice_classes import BODY_PARTS

Border = tuple[float, float]
"""Position and height in mm of the border between two body parts."""


def find_borders(
    classes: Sequence[str], z_mm: Float[ndarray, " z"], name: str = "volume"
) -> list[Border]:
    """Return the borders that a volume shows, from superior to inferior.

    Args:
        classes: of labelled slices, in order; gaps are allowed.
        z_mm: of the same slices.
        name: for the message.

    Raises:
        ValueError: the classes do not run from head to legs.
    """
    places = [BODY_PARTS.index(name) for name in classes]
    borders = []
    for (upper, lower), (top_mm, bottom_mm) in zip(
        pairwise(places), pairwise(z_mm.tolist()), strict=True
    ):
        if lower < upper:
            raise ValueError(
                f"{name}: {BODY_PARTS[lower]} lies above {BODY_PARTS[upper]} in its slice classes"
            )
        crossed = lower - upper
        for i in range(crossed):  # coarse slices may cross several borders at once
            height_mm = top_mm + (bottom_mm - top_mm) * (i + 1) / (crossed + 1)
            borders.append((float(upper + 1 + i), height_mm))
    return borders


def typical_lengths(
    volumes: Sequence[tuple[Sequence[str], Float[ndarray, " _"]]],
) -> dict[str, float]:
    """Return the length in mm of every body part: the median of those that are seen whole.

    A part that no volume shows whole is as long as the longest piece of it that was seen.

    Args:
        volumes: classes and heights of their labelled slices.
    """
    whole: dict[str, list[float]] = {part: [] for part in BODY_PARTS}
    pieces: dict[str, list[float]] = {part: [] for part in BODY_PARTS}
    for classes, z_mm in volumes:
        for (above, top_mm), (below, bottom_mm) in pairwise(find_borders(classes, z_mm)):
            if below == above + 1:
                whole[BODY_PARTS[int(above)]].append(bottom_mm - top_mm)
        for part in set(classes):
            inside = z_mm[np.array([name == part for name in classes])]
            pieces[part].append(float(np.ptp(inside)))
    return {
        part: float(np.median(whole[part])) if whole[part] else max(pieces[part])
        for part in BODY_PARTS
        if whole[part] or any(pieces[part])
    }


def slice_positions(
    classes: Sequence[str],
    z_mm: Float[ndarray, " z"],
    lengths_mm: Mapping[str, float],
    name: str = "volume",
) -> Float[ndarray, " z"] | None:
    """Return the position of labelled slices; None for a volume that shows no border.

    Args:
        classes: of the labelled slices, in order.
        z_mm: of the same slices.
        lengths_mm: of body parts, for what lies beyond the outermost borders.
        name: for messages.

    Raises:
        ValueError: the classes do not run from head to legs.
    """
    borders = find_borders(classes, z_mm, name)
    if not borders:
        return None
    (first, first_mm), (last, last_mm) = borders[0], borders[-1]
    inside = np.interp(z_mm, [mm for _, mm in borders], [position for position, _ in borders])
    above = np.maximum(first_mm - z_mm, 0) / lengths_mm.get(BODY_PARTS[int(first) - 1], np.inf)
    below = np.maximum(z_mm - last_mm, 0) / lengths_mm.get(BODY_PARTS[int(last)], np.inf)
    return inside - np.minimum(above, 1) + np.minimum(below, 1)
