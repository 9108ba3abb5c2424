"""The two shapes of which the synthetic body is made: solids with an outline per height, and rods.

Shapes:
    k: heights at which an outline is drawn by hand (knots).
    m: control points of one closed outline.
    n: slices.
    b: balls of one rod.

A body part is a table of numbers in the reference body (mm): x to the patient's left, y to the
back, z from the vertex to the feet. Everything else, interpolation over z and rounding over the
outline, is linear algebra on the control points: a whole scan takes a few array operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ubr_pretrain.phantom_tissues import Tissue

Floats = NDArray[np.float64]
Point = tuple[float, float]
Outlines = Mapping[float, Sequence[Point]]
Blades = Mapping[float, tuple[float, Sequence[Point]]]

KNOT_STEP_MM = 4.0
"""Outlines are interpolated smoothly to this step once, and linearly in between at every scan."""

SAMPLES_PER_POINT = 5
"""Contour samples between two control points: 40 for an oval, chords below 1 mm on most organs."""

BALL_STEP = 0.8
"""Distance of a rod's balls in radii: its outline is wavy by less than a tenth of the radius."""


class Layer(IntEnum):
    """Painting order: what comes later covers what came before."""

    SKIN = 0
    FAT = 1
    MUSCLE = 2
    DEEP_MUSCLE = 3
    CAVITY = 4
    INNER_CAVITY = 5
    BACKGROUND_ORGAN = 6
    ORGAN = 7
    CONTENT = 8
    INNER_CONTENT = 9
    VESSEL = 10
    AIRWAY_WALL = 11
    AIRWAY = 12
    CARTILAGE = 13
    CORTEX = 14
    MARROW = 15
    BONE_CONTENT = 16
    IMPLANT = 17


class Frame(Enum):
    """Which of the two head-to-feet maps moves a part: bones, or organs (which breathe)."""

    SKELETON = "skeleton"
    VISCERA = "viscera"


@lru_cache
def closed_curve_matrix(num_points: int) -> Floats:
    """Return [SAMPLES_PER_POINT * m, m], the closed Catmull-Rom curve through m control points."""
    t = np.arange(SAMPLES_PER_POINT) / SAMPLES_PER_POINT
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1
    )
    matrix = np.zeros((num_points, SAMPLES_PER_POINT, num_points))
    for i in range(num_points):
        for offset in range(4):
            matrix[i, :, (i + offset - 1) % num_points] += weights[:, offset]
    return matrix.reshape(-1, num_points)


@dataclass(frozen=True, eq=False)
class Solid:
    """A part with one closed outline per height.

    Attributes:
        name: what it is; paired parts end in ``_right`` and ``_left``.
        tissue: the label that it paints.
        layer: painting order.
        frame: which head-to-feet map moves it.
        z_mm: [k] heights of the knots, increasing.
        points_xy: [k, m, 2] control points in mm.
        cap_mm: over these lengths the upper and the lower end are rounded off.
        gas_fraction: 0, or the upper (anterior) share of the outline's depth that is painted: gas
            over a fluid level.
    """

    name: str
    tissue: Tissue
    layer: Layer
    frame: Frame
    z_mm: Floats
    points_xy: Floats
    cap_mm: tuple[float, float] = (6.0, 6.0)
    gas_fraction: float = 0.0

    def at(self, z_mm: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Return which of the heights [n] cut the solid, and their control points [n', m, 2]."""
        top, bottom = self.z_mm[0], self.z_mm[-1]
        inside = np.flatnonzero((z_mm >= top) & (z_mm <= bottom))
        z = z_mm[inside]
        knot = np.clip(np.searchsorted(self.z_mm, z, side="right") - 1, 0, len(self.z_mm) - 2)
        t = (z - self.z_mm[knot]) / (self.z_mm[knot + 1] - self.z_mm[knot])
        t = t[:, None, None]
        points_xy = (1 - t) * self.points_xy[knot] + t * self.points_xy[knot + 1]
        if any(self.cap_mm):
            scale = _cap(z - top, self.cap_mm[0]) * _cap(bottom - z, self.cap_mm[1])
            centre = points_xy.mean(1, keepdims=True)
            points_xy = centre + scale[:, None, None] * (points_xy - centre)
        return inside, points_xy


@dataclass(frozen=True, eq=False)
class Rod:
    """A bent rod: balls in a row, painted as the circles in which a slice cuts them.

    Attributes:
        name: what it is.
        tissue: the label that it paints.
        layer: painting order.
        frame: which head-to-feet map moves it.
        balls_mm: [b, 4] x, y, z and radius.
    """

    name: str
    tissue: Tissue
    layer: Layer
    frame: Frame
    balls_mm: Floats

    def core(self, tissue: Tissue, layer: Layer, shrink_mm: float, up_mm: float = 0.0) -> Rod:
        """Return a thinner rod inside this one: marrow, lumen, or (moved up, to -y) gas."""
        balls_mm = self.balls_mm - [0.0, up_mm, 0.0, shrink_mm]
        return replace(self, tissue=tissue, layer=layer, balls_mm=balls_mm[balls_mm[:, 3] > 0.5])


Part = Solid | Rod


def _cap(depth_mm: Floats, cap_mm: float) -> Floats:
    if not cap_mm:
        return np.ones_like(depth_mm)
    return np.sqrt(np.clip(1 - np.square(1 - np.clip(depth_mm / cap_mm, 0, 1)), 0.04, 1))


def _solid(
    name: str,
    tissue: Tissue,
    layer: Layer,
    frame: Frame,
    z_mm: Floats,
    points_xy: Floats,
    cap_mm: tuple[float, float],
) -> Solid:
    fine_mm = np.linspace(z_mm[0], z_mm[-1], max(2, round((z_mm[-1] - z_mm[0]) / KNOT_STEP_MM) + 1))
    fine_xy = PchipInterpolator(z_mm, points_xy, axis=0)(fine_mm)
    return Solid(name, tissue, layer, frame, fine_mm, fine_xy, cap_mm)


def oval(
    name: str,
    tissue: Tissue,
    layer: Layer,
    frame: Frame,
    rows: Sequence[tuple[float, ...]],
    cap_mm: tuple[float, float] = (6.0, 6.0),
) -> Solid:
    """Build a solid of ellipses from rows of z, x, y, half-width, half-depth and (optional) turn.

    The turn is in degrees, clockwise in the picture.
    """
    table = np.array([(*row, 0.0)[:6] for row in rows])
    z_mm, x, y, rx, ry, turn = table.T[:, :, None]
    angle = np.arange(8) * (np.pi / 4)
    u, v, turn = rx * np.cos(angle), ry * np.sin(angle), np.deg2rad(turn)
    points_xy = np.stack(
        [x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], -1
    )
    return _solid(name, tissue, layer, frame, z_mm[:, 0], points_xy, cap_mm)


def outline(
    name: str,
    tissue: Tissue,
    layer: Layer,
    frame: Frame,
    rows: Outlines,
    cap_mm: tuple[float, float] = (6.0, 6.0),
    half: bool = False,
) -> Solid:
    """Build a solid from control points per height; the i-th points of all heights correspond.

    Args:
        name: see ``Solid``.
        tissue: see ``Solid``.
        layer: see ``Solid``.
        frame: see ``Solid``.
        rows: height to control points, the same number at every height.
        cap_mm: see ``Solid``.
        half: the points run from the anterior to the posterior midline on the patient's left, and
            are completed by their mirror image.
    """
    points_xy = np.array([rows[z] for z in rows], dtype=np.float64)
    if half:
        mirrored = points_xy[:, -2:0:-1] * [-1.0, 1.0]
        points_xy = np.concatenate([points_xy, mirrored], 1)
    return _solid(name, tissue, layer, frame, np.array(list(rows), np.float64), points_xy, cap_mm)


def blade(
    name: str,
    tissue: Tissue,
    layer: Layer,
    frame: Frame,
    rows: Blades,
    cap_mm: tuple[float, float] = (4.0, 4.0),
) -> Solid:
    """Build a thin solid (scapula, iliac wing) from height to thickness and centre line."""
    outlines: dict[float, list[Point]] = {}
    for z, (thickness_mm, line) in rows.items():
        centre = np.array(line, dtype=np.float64)
        along = np.gradient(centre, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
        normal *= 0.5 * thickness_mm / np.linalg.norm(normal, axis=1, keepdims=True)
        ring = np.concatenate([centre + normal, (centre - normal)[::-1]])
        outlines[z] = [(float(x), float(y)) for x, y in ring]
    return outline(name, tissue, layer, frame, outlines, cap_mm)


def rod(
    name: str,
    tissue: Tissue,
    layer: Layer,
    frame: Frame,
    rows: Sequence[tuple[float, float, float, float]],
) -> Rod:
    """Build a smooth rod through rows of x, y, z and radius."""
    table = np.array(rows, dtype=np.float64)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(table[:, :3], axis=0), axis=1))]
    step = max(1.0, BALL_STEP * table[:, 3].mean())
    along = np.linspace(0, length[-1], max(2, round(length[-1] / step) + 1))
    return Rod(name, tissue, layer, frame, PchipInterpolator(length, table, axis=0)(along))


def inner(solid: Solid, tissue: Tissue, layer: Layer, scale: float, name: str = "") -> Solid:
    """Return the solid shrunk around its axis and at its ends: a lumen, marrow, medulla."""
    centre = solid.points_xy.mean(1, keepdims=True)
    middle, half = solid.z_mm.mean(), np.ptp(solid.z_mm) / 2
    shrink_mm = (1 - scale) * np.linalg.norm(solid.points_xy - centre, axis=2).mean()
    ends = max(0.2, 1 - shrink_mm / half)
    return replace(
        solid,
        name=name or f"{solid.name}_inner",
        tissue=tissue,
        layer=layer,
        points_xy=centre + scale * (solid.points_xy - centre),
        z_mm=middle + ends * (solid.z_mm - middle),
    )


def shell(solid: Solid, tissue: Tissue, layer: Layer, thickness_mm: float) -> Solid:
    """Return the solid moved inwards by a thickness: the marrow inside a bone's cortex."""
    centre = solid.points_xy.mean(1, keepdims=True)
    ray = solid.points_xy - centre
    length = np.linalg.norm(ray, axis=2, keepdims=True)
    points_xy = centre + ray * np.clip(1 - thickness_mm / np.maximum(length, 1e-6), 0.1, 1)
    return replace(
        solid, name=f"{solid.name}_inner", tissue=tissue, layer=layer, points_xy=points_xy
    )


def both_sides(parts: Iterable[Part]) -> list[Part]:
    """Return every part as drawn on the patient's left, and its mirror image on the right."""
    pairs: list[Part] = []
    for part in parts:
        pairs.append(replace(part, name=f"{part.name}_left"))
        if isinstance(part, Solid):
            flipped_xy = part.points_xy * [-1.0, 1.0]
            pairs.append(replace(part, name=f"{part.name}_right", points_xy=flipped_xy))
        else:
            flipped_mm = part.balls_mm * [-1.0, 1.0, 1.0, 1.0]
            pairs.append(replace(part, name=f"{part.name}_right", balls_mm=flipped_mm))
    return pairs
