"""One synthetic person: the reference body, stretched, widened, fattened and jittered.

Shapes:
    n: slices.
    m: points of one outline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.phantom_abdomen import KIDNEY_LOWER_POLE_MM, KIDNEY_UPPER_POLE_MM, abdomen
from ubr_pretrain.phantom_envelope import THIGH_END_MM, envelope
from ubr_pretrain.phantom_head import head_and_neck
from ubr_pretrain.phantom_pelvis import (
    FEMORAL_HEAD_TOP_MM,
    ILIAC_CREST_MM,
    LESSER_TROCHANTER_MM,
    SYMPHYSIS_LOWER_MM,
    pelvis_and_thighs,
)
from ubr_pretrain.phantom_shapes import Floats, Frame, Part, Solid
from ubr_pretrain.phantom_skeleton import C7_T1_MM, skeleton
from ubr_pretrain.phantom_thorax import (
    CARINA_MM,
    LIVER_DOME_MM,
    LUNG_APEX_MM,
    LUNG_BASE_MM,
    thorax,
)
from ubr_pretrain.phantom_tissues import sample_hu
from ubr_pretrain.phantom_tubes import abdominal_vessels, bowel, lung_vessels

VERTEX_MM = 2.0

LANDMARKS: dict[str, tuple[Frame, float]] = {
    "vertex": (Frame.SKELETON, VERTEX_MM),
    "C7_T1": (Frame.SKELETON, C7_T1_MM),
    "lung_apex": (Frame.VISCERA, LUNG_APEX_MM),
    "carina": (Frame.VISCERA, CARINA_MM),
    "liver_dome": (Frame.VISCERA, LIVER_DOME_MM),
    "lung_base": (Frame.VISCERA, LUNG_BASE_MM),
    "kidney_upper_pole": (Frame.VISCERA, KIDNEY_UPPER_POLE_MM),
    "kidney_lower_pole": (Frame.VISCERA, KIDNEY_LOWER_POLE_MM),
    "iliac_crest": (Frame.SKELETON, ILIAC_CREST_MM),
    "femoral_head_top": (Frame.SKELETON, FEMORAL_HEAD_TOP_MM),
    "pubic_symphysis_lower": (Frame.SKELETON, SYMPHYSIS_LOWER_MM),
    "lesser_trochanter": (Frame.SKELETON, LESSER_TROCHANTER_MM),
}
"""Landmarks, superior to inferior: the map that moves them, their place in the reference body."""

SKELETON_KNOTS_MM = np.array(
    [0, C7_T1_MM, LUNG_APEX_MM, 535, ILIAC_CREST_MM, FEMORAL_HEAD_TOP_MM, SYMPHYSIS_LOWER_MM,
     LESSER_TROCHANTER_MM, THIGH_END_MM]
)  # fmt: skip
VISCERA_KNOTS_MM = np.array(
    [0, C7_T1_MM, LUNG_APEX_MM, CARINA_MM, LIVER_DOME_MM, LUNG_BASE_MM, KIDNEY_UPPER_POLE_MM,
     KIDNEY_LOWER_POLE_MM, ILIAC_CREST_MM, FEMORAL_HEAD_TOP_MM, SYMPHYSIS_LOWER_MM,
     LESSER_TROCHANTER_MM, THIGH_END_MM]
)  # fmt: skip

GAP_SPREADS = (0.11, 0.32, 0.28, 0.5, 0.08, 0.4)
"""Spread of the logarithm of the gaps between lung apex and iliac crest: build and breath."""

WIDTH_KNOTS_MM = np.array([0, 210, 262, 300, 400, 520, 620, 700, 800, 900, 1110], np.float64)
BELLY_KNOTS_MM = np.array([470, 580, 640, 700, 800], np.float64)
BELLY_SHAPE = np.array([0, 0.8, 1, 0.85, 0])
SPINE_FRONT_MM = 12.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A synthetic person.

    Attributes:
        female: sex.
        age: in years.
        height_mm: vertex to sole of the whole person.
        fat_scale: subcutaneous fat, 1 is average.
        belly: how far visceral fat pushes the abdominal wall out, as a share of its depth.
        arms_raised: above the head, or along the trunk.
        parts: the body in reference mm, in painting order within every layer.
        hu: float32 [256], HU per tissue.
        skeleton_mm: where the knots of the bones' head-to-feet map lie in this person.
        viscera_mm: the same for the organs.
        width: [k] factor of x at ``WIDTH_KNOTS_MM``.
        depth: [k] factor of y at ``WIDTH_KNOTS_MM``.
        waves: [w, 6] slow waves that bend the whole body: x, y and z wave numbers per mm, phase,
            and amplitudes of the shift in x and in y, mm.
        texture_seed: what makes the fine texture of this person's tissues.
        ascites: 0 for none, 1 where free fluid reaches the abdominal wall of the lying person.
        effusion: 0 for none, 1 where pleural fluid fills the chest.
    """

    female: bool
    age: int
    height_mm: float
    fat_scale: float
    belly: float
    arms_raised: bool
    parts: tuple[Part, ...]
    hu: NDArray[np.float32]
    skeleton_mm: Floats
    viscera_mm: Floats
    width: Floats
    depth: Floats
    waves: Floats
    texture_seed: int
    ascites: float = 0.0
    effusion: float = 0.0

    def to_body(self, frame: Frame, reference_mm: Floats) -> Floats:
        """Return where heights of the reference body lie in this person, in mm below the vertex."""
        if frame is Frame.SKELETON:
            return np.interp(reference_mm, SKELETON_KNOTS_MM, self.skeleton_mm)
        return np.interp(reference_mm, VISCERA_KNOTS_MM, self.viscera_mm)

    def to_reference(self, frame: Frame, body_mm: Floats) -> Floats:
        """Return the heights of the reference body that correspond to heights in this person.

        Above the vertex and below the thighs the map goes on with slope 1.
        """
        if frame is Frame.SKELETON:
            known, wanted = self.skeleton_mm, SKELETON_KNOTS_MM
        else:
            known, wanted = self.viscera_mm, VISCERA_KNOTS_MM
        inside = np.interp(body_mm, known, wanted)
        return inside + np.minimum(body_mm, 0) + np.maximum(body_mm - known[-1], 0)

    def place(self, points_xy: Floats, reference_mm: Floats) -> Floats:
        """Move outline points [n, m, 2] of the reference body to this person.

        Args:
            points_xy: points in reference mm.
            reference_mm: [n] their heights on the bones' map.
        """
        width, depth, belly = self.scales(reference_mm)
        x, y = points_xy[..., 0], points_xy[..., 1]
        bent_x, bent_y = x.copy(), y.copy()
        for kx, ky, kz, phase, shift_x, shift_y in self.waves:
            wave = np.sin(kx * x + ky * y + (kz * reference_mm + phase)[:, None])
            bent_x += shift_x * wave
            bent_y += shift_y * wave
        x, y = bent_x * width[:, None], bent_y * depth[:, None]
        forward = np.minimum(y - SPINE_FRONT_MM, 0)
        return np.stack([x * (1 + 0.55 * belly[:, None]), y + belly[:, None] * forward], -1)

    def scales(self, reference_mm: Floats) -> tuple[Floats, Floats, Floats]:
        """Return width and depth factors and the belly's share [n] at heights [n]."""
        return (
            np.interp(reference_mm, WIDTH_KNOTS_MM, self.width),
            np.interp(reference_mm, WIDTH_KNOTS_MM, self.depth),
            self.belly * np.interp(reference_mm, BELLY_KNOTS_MM, BELLY_SHAPE),
        )

    @property
    def landmarks_mm(self) -> dict[str, float]:
        """Where every landmark lies, in mm below the vertex plane."""
        return {
            name: float(self.to_body(frame, np.array([z]))[0])
            for name, (frame, z) in LANDMARKS.items()
        }


@lru_cache
def _reference_organs(female: bool) -> dict[str, list[Part]]:
    """Return what is the same table for everyone of one sex, by organ."""
    organs = {**thorax(), **abdomen(), **pelvis_and_thighs(female)}
    return {**organs, "head_and_neck": head_and_neck(), "skeleton": skeleton()}


ORGAN_VARIATION: dict[str, tuple[float, float]] = {
    "heart": (4.0, 0.10),
    "great_vessels": (1.5, 0.03),
    "liver": (2.0, 0.05),
    "stomach": (5.0, 0.25),
    "spleen": (3.0, 0.14),
    "retroperitoneum": (2.0, 0.04),
    "kidney_left": (3.5, 0.09),
    "kidney_right": (3.5, 0.09),
    "bladder": (4.0, 0.22),
    "pelvic_organs": (3.0, 0.12),
}
"""Spread of an organ's shift in mm and of the logarithm of its size; the rest keeps its place."""


def _varied(
    parts: list[Part], rng: np.random.Generator, shift_mm: float, size: float
) -> list[Part]:
    """Move and scale the parts of one organ together, within their slices."""
    shift = rng.normal(0, shift_mm, 2)
    scale = float(np.exp(rng.normal(0, size)))
    body = parts[0]
    centre = (
        body.points_xy.mean((0, 1)) if isinstance(body, Solid) else body.balls_mm[:, :2].mean(0)
    )
    offset = shift + (1 - scale) * centre
    moved: list[Part] = []
    for part in parts:
        if isinstance(part, Solid):
            level = part.gas_fraction and float(rng.uniform(0.08, 0.6))
            points_xy = scale * part.points_xy + offset
            moved.append(replace(part, points_xy=points_xy, gas_fraction=level))
        else:
            balls_mm = part.balls_mm * [scale, scale, 1, scale] + [*offset, 0, 0]
            moved.append(replace(part, balls_mm=balls_mm))
    return moved


def _knots(rng: np.random.Generator, scale: float) -> tuple[Floats, Floats]:
    """Draw the two head-to-feet maps: bones vary a little, organs slide between the bones."""
    steps = np.diff(SKELETON_KNOTS_MM) * np.exp(rng.normal(0, 0.045, len(SKELETON_KNOTS_MM) - 1))
    steps[0] = 265 * rng.uniform(0.94, 1.06) / scale  # heads vary less than bodies
    skeleton_mm = np.r_[0, np.cumsum(steps)] * scale
    first, last = 2, int(np.flatnonzero(VISCERA_KNOTS_MM == ILIAC_CREST_MM)[0])
    gaps = np.diff(VISCERA_KNOTS_MM[first : last + 1])
    gaps = gaps * np.exp(rng.normal(0, GAP_SPREADS))
    viscera_mm = np.interp(VISCERA_KNOTS_MM, SKELETON_KNOTS_MM, skeleton_mm)
    top, bottom = viscera_mm[first], viscera_mm[last]
    viscera_mm[first : last + 1] = top + np.r_[0, np.cumsum(gaps)] * (bottom - top) / gaps.sum()
    return skeleton_mm, viscera_mm


BUILD_SPREADS = (0.09, 0.08)
"""Spread of the logarithm of width, and of width over depth: slender to broad, flat to round."""


def _waves(rng: np.random.Generator) -> Floats:
    """Draw three slow waves: crooked posture, and no two organs of one outline."""
    direction = rng.standard_normal((3, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wave_number = direction * (2 * np.pi / rng.uniform(110, 320, (3, 1)))
    return np.column_stack(
        [wave_number, rng.uniform(0, 2 * np.pi, 3), rng.normal(0, 2.2, 3), rng.normal(0, 1.8, 3)]
    )


def sample_subject(rng: np.random.Generator, arms_raised: bool | None = None) -> Subject:
    """Draw a person.

    Args:
        rng: source of randomness; the same state gives the same person.
        arms_raised: above the head, or along the trunk; drawn where absent.
    """
    female = bool(rng.random() < 0.48)
    scale = rng.normal(0.965 if female else 1.035, 0.04)
    fat_scale = float(np.clip(np.exp(rng.normal(0.1 if female else -0.1, 0.55)), 0.3, 3.2))
    belly = float(
        np.clip(rng.normal(0.1 if female else 0.16, 0.1) + 0.08 * (fat_scale - 1), 0, 0.5)
    )
    if arms_raised is None:
        arms_raised = bool(rng.random() < 0.65)
    build, flatness = np.exp(rng.normal(0, BUILD_SPREADS))
    width = build * scale * np.exp(rng.normal(0, 0.025, len(WIDTH_KNOTS_MM)))
    depth = np.sqrt(build) * scale / flatness
    depth = depth * np.exp(rng.normal(0, 0.035, len(WIDTH_KNOTS_MM)))
    width[:2] = rng.normal(1, 0.03)
    depth[:2] = rng.normal(1, 0.03)
    width[3:5] *= 0.95 if female else 1.0
    width[7:9] *= 1.04 if female else 1.0
    skeleton_mm, viscera_mm = _knots(rng, scale)
    parts: list[Part] = envelope(
        fat_scale,
        float(rng.uniform(0.75, 1.15) * (0.85 + 0.15 * fat_scale)) if female else 0.0,
        arms_raised,
        arms_aside_mm=float(14 * fat_scale + 60 * belly + rng.uniform(0, 12)),
    )
    for name, organ in _reference_organs(female).items():
        variation = ORGAN_VARIATION.get(name)
        parts += _varied(organ, rng, *variation) if variation else organ
        if name == "lungs":
            parts += lung_vessels(rng)
    parts += [*bowel(rng), *abdominal_vessels(rng)]
    return Subject(
        female=female,
        age=int(np.clip(rng.normal(55, 16), 18, 92)),
        height_mm=1000 * 1.7 * scale,
        fat_scale=fat_scale,
        belly=belly,
        arms_raised=arms_raised,
        parts=tuple(sorted(parts, key=lambda part: part.layer)),
        hu=sample_hu(rng),
        skeleton_mm=skeleton_mm,
        viscera_mm=viscera_mm,
        width=width,
        depth=depth,
        waves=_waves(rng),
        texture_seed=int(rng.integers(2**63)),
    )
