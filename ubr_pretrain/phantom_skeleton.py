"""Spine, rib cage and shoulder girdle of the reference body.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ubr_pretrain.phantom_shapes import (
    Blades,
    Frame,
    Layer,
    Part,
    blade,
    both_sides,
    inner,
    outline,
    oval,
    rod,
)
from ubr_pretrain.phantom_tissues import Tissue

BONES = Frame.SKELETON

C7_T1_MM = 265.0
L5_S1_MM = 730.0

SPINE_Z_MM = (145, 190, 225, 265, 320, 400, 470, 535, 600, 660, 700, 730)
SPINE_Y_MM = (14, 14, 17, 30, 46, 57, 55, 44, 33, 27, 29, 38)
"""Anterior-posterior position of the vertebral bodies: lordosis, kyphosis, lordosis."""

BODY_Z_MM = (170, 265, 290, 400, 535, 640, 730)
BODY_HALF_WIDTH_MM = (10, 14, 15, 15, 20, 24, 26)
BODY_HALF_DEPTH_MM = (8, 9, 10, 14, 15.5, 17.5, 18)

VERTEBRAE = (
    *(f"C{n}" for n in range(3, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
)

DISC_SHARE = 0.2
"""Share of a level's height that is intervertebral disc."""

RIB_HALF_WIDTH_MM = (52, 82, 106, 122, 132, 139, 143, 144, 143, 140, 134, 112)
RIB_FRONT_MM = (58, 80, 92, 98, 100, 101, 101, 98, 94, 88, 80, 70)
RIB_BACK_MM = (66, 84, 96, 102, 104, 105, 105, 104, 102, 98, 93, 86)
RIB_DROP_MM = (34, 58, 78, 92, 102, 110, 116, 118, 118, 112, 92, 70)
RIB_END_DEG = (150, 152, 152, 152, 150, 148, 146, 138, 128, 118, 96, 66)


def vertebra_tops_mm() -> list[float]:
    """Return the upper end of C3..C7, T1..T12, L1..L5 and, last, of the sacrum."""
    cervical = np.linspace(190, C7_T1_MM, 6)
    heights = np.linspace(19, 26, 12)
    thoracic = C7_T1_MM + np.cumsum(heights) * (270 / heights.sum())
    lumbar = np.linspace(thoracic[-1], L5_S1_MM, 6)
    return [float(z) for z in (*cervical, *thoracic, *lumbar[1:])]


def _vertebra(index: int, top: float, bottom: float) -> list[Part]:
    """Build one vertebra with the disc below it; ``index`` counts from C3."""
    height = bottom - top
    y = float(np.interp(top + height / 2, SPINE_Z_MM, SPINE_Y_MM))
    rx = float(np.interp(top, BODY_Z_MM, BODY_HALF_WIDTH_MM))
    ry = float(np.interp(top, BODY_Z_MM, BODY_HALF_DEPTH_MM))
    cervical, lumbar = index < 5, index >= 17
    name = VERTEBRAE[index]
    back = y + ry

    def at(share: float) -> float:
        return top + share * height

    body_end = at(1 - DISC_SHARE)
    waist = 0.92
    body = oval(
        f"{name}_body", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        [(top, 0, y, rx, ry), (at(0.4), 0, y, waist * rx, waist * ry), (body_end, 0, y, rx, ry)],
        (0, 0),
    )  # fmt: skip
    disc = oval(
        f"{name}_disc", Tissue.DISC, Layer.CARTILAGE, BONES,
        [(body_end, 0, y, rx, ry), (bottom, 0, y, rx, ry)], (0, 0),
    )  # fmt: skip
    spine_length = 16.0 if cervical else 27.0 if lumbar else 24.0
    slope = 0.0 if lumbar else 0.35 if cervical else 0.75
    tip = back + 17 + spine_length
    spinous = oval(
        f"{name}_spinous", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        [(at(0.35), 0, back + 17, 3, 5),
         (at(0.55 + slope / 2), 0, (back + 17 + tip) / 2, 3, spine_length / 2 + 2),
         (at(0.85 + slope), 0, tip - 5, 3.5, 6)],
        (3, 3),
    )  # fmt: skip
    out, drop = (7.0, 3.0) if cervical else (24.0, 6.0) if lumbar else (22.0, 20.0)
    wings = both_sides(
        [
            oval(f"{name}_pedicle", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                 [(at(0.08), 0.74 * rx, back + 3, 4.5, 9), (at(0.55), 0.74 * rx, back + 3, 4, 9)],
                 (2, 2)),
            rod(f"{name}_transverse", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                [(0.74 * rx, back + 4, at(0.3), 4.5),
                 (0.74 * rx + out, back + 4 + drop, at(0.32), 4 if lumbar else 4.5)]),
            blade(f"{name}_lamina", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                  {at(0.25): (5.5, [(0.85 * rx, back + 6), (8, back + 13), (0, back + 18)]),
                   at(0.95): (5.5, [(0.85 * rx, back + 8), (8, back + 15), (0, back + 19)])}),
            oval(f"{name}_facet", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                 [(at(0.72), 0.85 * rx + 1, back + 9, 6, 5),
                  (at(1.12), 0.85 * rx + 1, back + 9, 6, 5)], (2, 2)),
        ]
    )  # fmt: skip
    marrow = inner(body, Tissue.SPONGY_BONE, Layer.MARROW, 0.88)
    return [body, marrow, disc, spinous, *wings]


def _atlas_and_axis() -> list[Part]:
    atlas = outline(
        "C1", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        {z: [(0, -1), (12, 1), (24, 10), (38, 16), (24, 26), (14, 40), (0, 46)]
         for z in (150, 162)},
        (3, 3), half=True,
    )  # fmt: skip
    return [
        atlas,
        oval("dens", Tissue.CORTICAL_BONE, Layer.BONE_CONTENT, BONES,
             [(152, 0, 8, 5, 5), (172, 0, 10, 6, 6)]),
        oval("C2_body", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
             [(166, 0, 12, 9, 8), (184, 0, 14, 10, 8)], (3, 0)),
        oval("C2_spinous", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
             [(166, 0, 46, 5, 8), (188, 0, 50, 7, 8)], (3, 3)),
        *both_sides(
            [
                oval("C2_mass", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                     [(160, 16, 16, 9, 8), (178, 18, 20, 9, 7)], (3, 3)),
                blade("C2_lamina", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                      {z: (5, [(18, 24), (13, 36), (0, 44)]) for z in (166, 184)}),
            ]
        ),
    ]  # fmt: skip


def _canal() -> list[Part]:
    z_mm = np.array([150, *SPINE_Z_MM[1:], 770, 800], dtype=np.float64)
    y = np.r_[np.interp(z_mm[:-2], SPINE_Z_MM, SPINE_Y_MM), 62, 82]
    depth = np.r_[np.interp(z_mm[:-2], BODY_Z_MM, BODY_HALF_DEPTH_MM), 12, 8]
    half = np.interp(z_mm, (150, 265, 320, 600, 730, 800), (11, 10.5, 8.5, 10, 11, 6))
    canal = oval(
        "spinal_canal", Tissue.FAT, Layer.BONE_CONTENT, BONES,
        [(a, 0, b + d + 7, h, 0.72 * h)
         for a, b, d, h in zip(z_mm, y, depth, half, strict=True)], (1, 4),
    )  # fmt: skip
    sac = inner(canal, Tissue.CSF, Layer.BONE_CONTENT, 0.82, "dural_sac")
    cord = inner(canal, Tissue.CORD, Layer.BONE_CONTENT, 0.56, "spinal_cord")
    return [canal, sac, cord]


def _rib(number: int, vertebra_mm: float) -> list[Part]:
    """Build one pair of ribs (0..11), with the cartilage of those that reach the sternum."""
    end = np.deg2rad(RIB_END_DEG[number])
    angle = np.linspace(np.deg2rad(10), end, 12)
    depth = np.where(angle < np.pi / 2, RIB_BACK_MM[number], RIB_FRONT_MM[number])
    shift = 6.0 if number > 2 else (26.0, 14.0, 8.0)[number]
    x = RIB_HALF_WIDTH_MM[number] * np.sin(angle) ** 0.75
    y = shift + depth * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.9
    z = vertebra_mm + RIB_DROP_MM[number] * (angle / np.deg2rad(150)) ** 1.15
    radius = np.full_like(x, 5.6)
    spine_y = float(np.interp(vertebra_mm, SPINE_Z_MM, SPINE_Y_MM))
    head = (15.0, spine_y + 12, vertebra_mm, 5.0)
    bone = rod(
        f"rib_{number + 1}", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        [head, *np.stack([x, y, z, radius], 1)],
    )  # fmt: skip
    parts: list[Part] = [bone, bone.core(Tissue.SPONGY_BONE, Layer.MARROW, 2.6)]
    if number < 10:
        sternal = min(number, 7)
        target = (16.0, -66.0 - 5.2 * sternal, 332.0 + 19 * sternal, 6.0)
        middle = (
            0.5 * (x[-1] + target[0]) + 6, min(y[-1], target[1]) - 1,
            0.72 * z[-1] + 0.28 * target[2], 6.0,
        )  # fmt: skip
        parts.append(
            rod(f"cartilage_{number + 1}", Tissue.CARTILAGE, Layer.CARTILAGE, BONES,
                [(x[-1], y[-1], z[-1], 6.0), middle, target])
        )  # fmt: skip
    return both_sides(parts)


def _sternum() -> list[Part]:
    bone = oval(
        "sternum", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        [(320, 0, -60, 22, 6), (336, 0, -70, 29, 7), (362, 0, -84, 23, 6.5), (376, 0, -90, 15, 5.5),
         (420, 0, -98, 17, 5.5), (455, 0, -100, 16, 5.5), (466, 0, -99, 8, 4), (480, 0, -97, 5, 3)],
        (3, 4),
    )  # fmt: skip
    return [bone, inner(bone, Tissue.SPONGY_BONE, Layer.MARROW, 0.7)]


def _shoulders() -> list[Part]:
    lines: Blades = {
        298: (9.0, [(148, 14), (132, 36), (112, 54), (98, 62)]),
        312: (9.0, [(134, 18), (122, 38), (104, 58), (86, 74)]),
        330: (9.0, [(130, 22), (116, 42), (99, 64), (82, 84)]),
        352: (7.0, [(130, 32), (114, 48), (98, 68), (82, 88)]),
        395: (6.0, [(132, 52), (117, 68), (101, 83), (86, 96)]),
        430: (6.0, [(124, 74), (115, 84), (106, 92), (96, 98)]),
    }
    marrow: Blades = {z: (t - 4.5, line) for z, (t, line) in lines.items() if z < 350}
    return both_sides(
        [
            blade("scapula", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES, lines),
            blade("scapula_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES, marrow),
            oval("glenoid", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                 [(306, 131, 14, 8, 14, -25), (338, 129, 20, 7, 13, -25)]),
            rod("coracoid", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                [(128, 8, 310, 7), (124, -10, 306, 7), (132, -22, 312, 6)]),
            rod("acromion", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                [(100, 66, 306, 5), (128, 52, 298, 6), (154, 26, 292, 7), (156, 6, 290, 6)]),
            rod("clavicle", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                [(17, -58, 326, 9), (36, -62, 318, 7), (68, -50, 306, 6), (104, -18, 298, 6),
                 (138, 6, 292, 6.5)]),
            rod("clavicle_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
                [(17, -58, 326, 6), (36, -62, 318, 4), (68, -50, 306, 3), (104, -18, 298, 3),
                 (138, 6, 292, 3.5)]),
        ]
    )  # fmt: skip


def skeleton() -> list[Part]:
    """Return spine, ribs, sternum and shoulder girdle; arms and pelvis are elsewhere."""
    tops = vertebra_tops_mm()
    parts = [*_atlas_and_axis(), *_canal(), *_sternum(), *_shoulders()]
    for index, (top, bottom) in enumerate(pairwise(tops)):
        parts += _vertebra(index, top, bottom)
    for number in range(12):
        parts += _rib(number, tops[5 + number] + 6)
    return parts
