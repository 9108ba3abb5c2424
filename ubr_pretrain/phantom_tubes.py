"""Bowel and branching vessels, grown anew for every subject.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ubr_pretrain.phantom_shapes import Floats, Frame, Layer, Part, Rod, rod
from ubr_pretrain.phantom_tissues import Tissue

ORGANS = Frame.VISCERA

COLON = (
    (-84, -18, 742, 22), (-98, 8, 715, 25), (-104, 16, 670, 23), (-102, 16, 625, 22),
    (-90, -14, 594, 22), (-66, -58, 606, 21), (-30, -74, 622, 20), (10, -78, 626, 20),
    (50, -72, 612, 20), (86, -44, 575, 20), (106, 2, 546, 20), (112, 26, 590, 18),
    (108, 24, 640, 17), (102, 14, 690, 17), (88, -10, 728, 17), (72, -38, 756, 17),
    (36, -44, 768, 18), (2, -28, 752, 18), (-26, 6, 748, 18), (-14, 42, 768, 18),
    (0, 62, 792, 20), (0, 66, 820, 24), (0, 60, 848, 20), (0, 46, 866, 12), (0, 44, 880, 7),
)  # fmt: skip
"""Caecum to anus: x, y, z, radius."""

SMALL_BOWEL_BOX_MM = ((-80.0, -72.0, 600.0), (84.0, 2.0, 785.0))
PELVIC_LOOPS_BOX_MM = ((-48.0, -62.0, 755.0), (48.0, 36.0, 812.0))

HILUM_MM = (48.0, 8.0, 404.0)
LUNG_TARGETS_MM = ((34.0, -76.0, 296.0), (122.0, 80.0, 520.0))
PORTA_MM = (-30.0, -16.0, 552.0)
HEPATIC_CONFLUENCE_MM = (-24.0, 4.0, 486.0)
LIVER_TARGETS_MM = ((-108.0, -60.0, 488.0), (-14.0, 36.0, 585.0))
MESENTERIC_ROOT_MM = (10.0, -22.0, 612.0)


def _smooth(rng: np.random.Generator, num: int, length: float) -> Floats:
    """Return a smooth random curve [num] that forgets itself over ``length`` points."""
    knots = rng.standard_normal(int(num / length) + 3)
    curve = np.interp(np.arange(num) / length, np.arange(len(knots)), knots)
    return np.asarray(curve, dtype=np.float64)


def _filled(wall: Rod, rng: np.random.Generator, gas: float, content: Tissue) -> list[Part]:
    """Return wall, content and, on some stretches, gas of a bowel loop."""
    lumen = wall.core(content, Layer.CONTENT, 2.6)
    gassy = _smooth(rng, len(wall.balls_mm), 6.0) > 1 - 2 * gas
    if not gassy.any():
        return [wall, lumen]
    balls_mm = wall.balls_mm[gassy].copy()
    shrink_mm = 2.6 + rng.uniform(0.05, 0.4) * (balls_mm[:, 3] - 2.6)
    balls_mm[:, 1] -= shrink_mm - 2.6
    balls_mm[:, 3] -= shrink_mm
    bubble = replace(
        wall, name=f"{wall.name}_gas", tissue=Tissue.GAS, layer=Layer.INNER_CONTENT,
        balls_mm=balls_mm,
    )  # fmt: skip
    return [wall, lumen, bubble]


def bowel(rng: np.random.Generator) -> list[Part]:
    """Grow colon and small bowel."""
    path = np.array(COLON, dtype=np.float64)
    path[:, :3] += (
        rng.normal(0, (7, 6, 9), (len(path), 3)) * np.linspace(1, 0.1, len(path))[:, None]
    )
    path[:, 3] *= rng.uniform(0.75, 1.15)
    colon = rod("colon", Tissue.GUT_WALL, Layer.ORGAN, ORGANS, [tuple(p) for p in path.tolist()])
    balls_mm = colon.balls_mm
    step_mm = np.linalg.norm(np.diff(balls_mm[:2, :3], axis=0))
    haustra = np.sin(np.arange(len(balls_mm)) * step_mm * (2 * np.pi / 36) + rng.uniform(0, 6))
    balls_mm[:, 3] *= 1 + 0.14 * haustra + 0.1 * _smooth(rng, len(balls_mm), 9.0)
    balls_mm[:, 3] = np.clip(balls_mm[:, 3], 6, 30)
    parts = _filled(colon, rng, rng.uniform(0.35, 0.75), Tissue.STOOL)
    num_loops = int(rng.integers(13, 27))
    for loop in range(num_loops):
        low, high = np.array(PELVIC_LOOPS_BOX_MM if loop % 6 == 5 else SMALL_BOWEL_BOX_MM)
        start = rng.uniform(low, high)
        heading = rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(10, 15)
        points = []
        for _ in range(11):
            phase = np.mod(start - low, 2 * (high - low))
            folded = low + np.minimum(phase, 2 * (high - low) - phase)  # turns back at the wall
            points.append((*folded.tolist(), radius * rng.uniform(0.85, 1.15)))
            heading += rng.normal(0, 0.9)
            start += np.array([20 * np.cos(heading), 14 * np.sin(heading), rng.normal(0, 9)])
        wall = rod(f"small_bowel_{loop}", Tissue.GUT_WALL, Layer.ORGAN, ORGANS, points)
        parts += _filled(wall, rng, rng.uniform(0, 0.22), Tissue.GUT_FLUID)
    return parts


def _tree(
    rng: np.random.Generator,
    name: str,
    tissue: Tissue,
    layer: Layer,
    root_mm: tuple[float, float, float],
    targets_mm: tuple[tuple[float, float, float], tuple[float, float, float]],
    num_branches: int,
    num_twigs: int,
    radius_mm: float,
) -> list[Part]:
    """Grow branches from a root to random targets in a box, with thin twigs on them."""
    low, high = np.array(targets_mm)
    root = np.array(root_mm)
    balls: list[Floats] = []

    def grow(start: Floats, end: Floats, first_mm: float, last_mm: float) -> Floats:
        bend = 0.5 * (start + end) + rng.normal(0, 0.1, 3) * np.linalg.norm(end - start)
        num = max(3, int(np.linalg.norm(end - start) / 1.7))
        t = np.linspace(0, 1, num)[:, None]
        centre = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        branch = np.concatenate([centre, first_mm + t * (last_mm - first_mm)], 1)
        balls.append(branch)
        return branch

    for _ in range(num_branches):
        middle, reach = (low + high) / 2, (high - low) / 2
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        target = middle + reach * direction * rng.uniform(0.5, 0.98)
        branch = grow(root, target, radius_mm * rng.uniform(0.8, 1.1), 0.25 * radius_mm)
        for _ in range(num_twigs):
            at = branch[int(rng.uniform(0.3, 0.85) * len(branch))]
            away = target - at[:3] + rng.normal(0, 0.22, 3) * reach
            end = np.clip(at[:3] + 0.8 * away, low, high)
            grow(at[:3], end, 0.75 * at[3], 0.2 * radius_mm)
    return [Rod(name, tissue, layer, ORGANS, np.concatenate(balls))]


def lung_vessels(rng: np.random.Generator) -> list[Part]:
    """Grow the pulmonary vessels of both lungs."""
    parts: list[Part] = []
    low, high = LUNG_TARGETS_MM
    for sign, side in ((1, "left"), (-1, "right")):
        ends = sorted((sign * low[0], sign * high[0]))
        box = ((ends[0], *low[1:]), (ends[1], *high[1:]))
        parts += _tree(
            rng, f"lung_vessels_{side}", Tissue.LUNG_VESSEL, Layer.BACKGROUND_ORGAN,
            (sign * HILUM_MM[0], *HILUM_MM[1:]), box, 24, 3, 3.6,
        )  # fmt: skip
    return parts


def abdominal_vessels(rng: np.random.Generator) -> list[Part]:
    """Grow portal and hepatic veins, and the vessels of the mesentery."""
    return [
        *_tree(rng, "portal_branches", Tissue.LIVER_VESSEL, Layer.CONTENT, PORTA_MM,
               LIVER_TARGETS_MM, 9, 1, 4.5),
        *_tree(rng, "hepatic_veins", Tissue.LIVER_VESSEL, Layer.CONTENT, HEPATIC_CONFLUENCE_MM,
               LIVER_TARGETS_MM, 4, 2, 5.0),
        *_tree(rng, "mesenteric_vessels", Tissue.VEIN, Layer.CAVITY, MESENTERIC_ROOT_MM,
               SMALL_BOWEL_BOX_MM, 14, 2, 2.4),
    ]  # fmt: skip
