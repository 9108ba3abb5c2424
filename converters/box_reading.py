"""How a stored box must be read to be the table's box: origin, layout, scale, rounding.

A reading is found per box; where rounding leaves the origin open, the mean over all rounded boxes
of the file decides (``rounded_convention``).

Shapes:
    Corners are x1, y1, x2, y2 in pixels from 0, continuous; a stored box is four numbers in the
    layout that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converters.lesions import Box

EXACT_PX = 0.011
"""Boxes are equal within this: the table has six digits, and some files keep two decimals."""

SAME_SCALE = 0.005
"""A scale this close to 1 is none."""

CONVENTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("E-SHIFT",),
    ("E-INCLUSIVE",),
    ("E-SHIFT", "E-INCLUSIVE"),
)
"""What may be wrong with a corner convention, the simplest first."""

_ROUNDING_SD = 0.41
"""Of the difference of two rounding errors, each uniform over 1 px: sqrt(2 / 12)."""


@dataclass(frozen=True)
class Reading:
    """One way in which a stored box is the table's box.

    Attributes:
        codes: the defects that it has; none where it is right.
        rounded: it fits within the rounding of its numbers only.
        offset_px: mean of x and y beyond the table's, for ``rounded_convention``.
        growth_px: mean of w and h beyond the table's.
        alternatives: of a rounded box, the conventions that fit as well.
    """

    codes: tuple[str, ...]
    rounded: bool = False
    offset_px: float = 0.0
    growth_px: float = 0.0
    alternatives: tuple[tuple[str, ...], ...] = ()

    @property
    def right_within(self) -> bool:
        """Whether the box may still leave its image: nothing else explains its place."""
        return set(self.codes) <= {"W-ROUNDED"}


def read_box(
    stored: Box,
    official: Box,
    size_px: tuple[int, int],
    scale: tuple[float, float] | None = None,
) -> Reading | None:
    """Return the simplest reading under which ``stored`` is ``official``; None where none is.

    Args:
        stored: four finite numbers.
        official: corners, clipped to their image.
        size_px: width and height of the image.
        scale: stated image size over the official one, where they differ.
    """
    a, b, c, d = stored
    tolerance = _tolerances(stored)
    if reading := _read_corners((a, b, a + c, b + d), official, size_px, tolerance):
        return reading
    x1, y1, x2, y2 = official
    width, height = x2 - x1, y2 - y1
    layouts: tuple[tuple[str, Box, Box], ...] = (
        ("E-XYXY", (a, b, c, d), official),
        ("E-CENTRE", (a - c / 2, b - d / 2, a + c / 2, b + d / 2), official),
        ("E-TRANSPOSED", (b, a, b + d, a + c), official),
    )
    for code, corners, target in layouts:
        for origin in (0, 1):
            moved = (
                corners[0] - origin,
                corners[1] - origin,
                corners[2] - origin,
                corners[3] - origin,
            )
            off_px = _distance(_clip(moved, size_px), target)
            if off_px <= max(tolerance):
                rounded = ("W-ROUNDED",) if off_px > EXACT_PX else ()
                return Reading((code, *(("E-SHIFT",) if origin else ()), *rounded))
    for kx, ky, slack in _scales(stored, (width, height), scale, max(tolerance)):
        for origin in (0, 1):
            target = (kx * (x1 + origin), ky * (y1 + origin), kx * width, ky * height)
            if _distance(stored, target) <= slack:
                return Reading(("E-SCALED", *(("E-SHIFT",) if origin else ())))
    return None


def rounded_convention(readings: Sequence[Reading]) -> tuple[str, ...]:
    """Return the convention of a file's rounded boxes, as their means show it.

    Whole pixels below a box from 1 lie half a pixel right of it on average, those around a box
    from 0 not at all, those below one from 0 half a pixel left. Halfway between the first and the
    second decides, and only where the mean is sure to three standard errors.
    """
    offsets = [reading.offset_px for reading in readings if reading.rounded]
    growths = [reading.growth_px for reading in readings if reading.rounded]
    shift = ("E-SHIFT",) if _surely_above(offsets, 0.25) else ()
    return (*shift, *(("E-INCLUSIVE",) if _surely_above(growths, 0.25) else ()))


def settled(reading: Reading, convention: tuple[str, ...]) -> Reading:
    """Return a rounded reading under the convention of its file, where that fits it."""
    if not reading.rounded or convention not in reading.alternatives:
        return reading
    return Reading((*convention, "W-ROUNDED"), rounded=True)


def overlap(a: Box, b: Box) -> float:
    """Return intersection over union of two boxes of corners; 0 where one has no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if math.isfinite(union) else 0.0


def _read_corners(
    corners: Box, official: Box, size_px: tuple[int, int], tolerance: Box
) -> Reading | None:
    """Read corners from x, y, w, h: right, from 1, inclusive, rounded."""
    for codes in CONVENTIONS:
        if _distance(_corrected(corners, codes, size_px), official) <= EXACT_PX:
            return Reading(codes)
    if max(tolerance) <= EXACT_PX:
        return None
    fitting = tuple(
        codes
        for codes in CONVENTIONS
        if all(
            abs(mine - theirs) <= allowed
            for mine, theirs, allowed in zip(
                _corrected(corners, codes, size_px), official, tolerance, strict=True
            )
        )
    )
    if not fitting:
        return None
    dx1, dy1, dx2, dy2 = (mine - theirs for mine, theirs in zip(corners, official, strict=True))
    return Reading(
        codes=(*fitting[0], "W-ROUNDED"),
        rounded=True,
        offset_px=(dx1 + dy1) / 2,
        growth_px=(dx2 - dx1 + dy2 - dy1) / 2,
        alternatives=fitting,
    )


def _corrected(corners: Box, codes: tuple[str, ...], size_px: tuple[int, int]) -> Box:
    start = 1 if "E-SHIFT" in codes else 0
    end = start + (1 if "E-INCLUSIVE" in codes else 0)
    x1, y1, x2, y2 = corners
    return _clip((x1 - start, y1 - start, x2 - end, y2 - end), size_px)


def _clip(corners: Box, size_px: tuple[int, int]) -> Box:
    (width, height), (x1, y1, x2, y2) = size_px, corners
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _tolerances(stored: Box) -> Box:
    """Return how far each corner of x, y, w, h may be off by the decimals that are stored."""
    x, y, w, h = (_rounding(value) for value in stored)
    return max(x, EXACT_PX), max(y, EXACT_PX), max(x + w, EXACT_PX), max(y + h, EXACT_PX)


def _rounding(value: float) -> float:
    if value.is_integer():
        return 1.0
    return 0.1 if abs(value * 10 - round(value * 10)) < 1e-6 else 0.0


def _distance(a: Box, b: Box) -> float:
    return max(abs(left - right) for left, right in zip(a, b, strict=True))


def _scales(
    stored: Box,
    official_wh: tuple[float, float],
    scale: tuple[float, float] | None,
    tolerance: float,
) -> Iterator[tuple[float, float, float]]:
    """Yield scales in x and y that may have been applied, and how far off a number may then be."""
    if scale is not None:
        yield (*scale, max(tolerance, 2 * EXACT_PX))
    sides = official_wh[0] + official_wh[1]
    uniform = (stored[2] + stored[3]) / sides
    if abs(uniform - 1) > SAME_SCALE and math.isfinite(uniform):
        # the scale is known to the sides' rounding only, which grows with the distance from 0
        far = max(abs(stored[0]), abs(stored[1]), sides)
        yield uniform, uniform, EXACT_PX * (1 + far / sides / max(uniform, 1e-3))


def _surely_above(values: Sequence[float], limit: float) -> bool:
    if not values:
        return False
    mean = sum(values) / len(values)
    return mean - 3 * _ROUNDING_SD / math.sqrt(2 * len(values)) > limit
