"""The coat of the reference body: skin, fat and muscle of trunk, breasts, arms and thighs.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ubr_pretrain.phantom_shapes import (
    Floats,
    Frame,
    Layer,
    Outlines,
    Part,
    Solid,
    both_sides,
    inner,
    outline,
    oval,
    rod,
)
from ubr_pretrain.phantom_tissues import Tissue

BONES = Frame.SKELETON

THIGH_END_MM = 1110.0

TRUNK: Outlines = {
    2: [(0, -18), (13, -15), (22, -6), (26, 5), (22, 18), (13, 28), (0, 33)],
    12: [(0, -44), (23, -38), (40, -19), (47, 5), (40, 31), (23, 50), (0, 57)],
    30: [(0, -70), (30, -61), (53, -35), (63, 4), (54, 43), (30, 70), (0, 79)],
    55: [(0, -87), (33, -79), (60, -46), (72, 4), (62, 53), (35, 83), (0, 93)],
    85: [(0, -94), (32, -88), (60, -56), (75, 2), (66, 54), (37, 87), (0, 98)],
    105: [(0, -97), (31, -91), (59, -62), (74, -2), (67, 52), (37, 84), (0, 96)],
    118: [(0, -105), (24, -92), (58, -66), (73, -6), (67, 48), (36, 80), (0, 93)],
    138: [(0, -121), (17, -99), (54, -71), (68, -15), (64, 40), (36, 73), (0, 84)],
    152: [(0, -107), (22, -100), (52, -70), (66, -15), (61, 35), (37, 66), (0, 76)],
    170: [(0, -108), (27, -98), (52, -62), (64, -10), (60, 32), (37, 62), (0, 70)],
    195: [(0, -102), (27, -92), (50, -56), (61, -5), (57, 32), (37, 60), (0, 68)],
    211: [(0, -97), (25, -84), (46, -48), (58, 0), (57, 34), (37, 60), (0, 68)],
    226: [(0, -60), (26, -56), (44, -34), (56, 2), (58, 36), (39, 61), (0, 69)],
    240: [(0, -46), (26, -44), (46, -27), (57, 4), (60, 40), (41, 66), (0, 74)],
    258: [(0, -42), (27, -42), (50, -28), (66, 6), (72, 46), (46, 76), (0, 84)],
    270: [(0, -40), (32, -42), (66, -26), (92, 10), (92, 52), (54, 85), (0, 92)],
    285: [(0, -45), (42, -49), (88, -32), (122, 8), (116, 62), (63, 97), (0, 99)],
    305: [(0, -58), (50, -65), (104, -47), (142, 6), (133, 72), (70, 106), (0, 105)],
    330: [(0, -78), (56, -84), (112, -64), (154, 4), (144, 80), (76, 112), (0, 110)],
    375: [(0, -99), (60, -101), (117, -75), (161, 2), (148, 83), (78, 114), (0, 112)],
    420: [(0, -107), (61, -107), (117, -76), (156, 2), (141, 82), (76, 112), (0, 111)],
    470: [(0, -109), (61, -107), (114, -74), (151, 2), (134, 78), (72, 107), (0, 106)],
    520: [(0, -107), (60, -103), (110, -70), (148, 2), (129, 74), (69, 101), (0, 99)],
    570: [(0, -103), (58, -98), (106, -67), (142, 4), (123, 70), (65, 94), (0, 89)],
    620: [(0, -99), (58, -95), (104, -65), (137, 5), (119, 67), (62, 89), (0, 83)],
    665: [(0, -96), (60, -92), (107, -63), (142, 6), (122, 66), (62, 88), (0, 83)],
    700: [(0, -94), (64, -91), (116, -63), (151, 8), (131, 66), (66, 93), (0, 86)],
    750: [(0, -93), (70, -91), (126, -63), (161, 8), (141, 71), (72, 102), (0, 96)],
    800: [(0, -87), (74, -89), (132, -63), (168, 6), (147, 75), (76, 110), (0, 97)],
    850: [(0, -76), (74, -87), (137, -60), (171, 8), (144, 77), (74, 109), (0, 88)],
    880: [(0, -58), (66, -82), (134, -58), (166, 8), (138, 75), (74, 104), (0, 72)],
    902: [(0, -46), (44, -62), (84, -44), (104, 8), (94, 62), (60, 92), (0, 58)],
    922: [(0, -36), (26, -42), (46, -28), (52, 8), (50, 44), (32, 64), (0, 50)],
}
"""Half outlines of the muscle coat, anterior to posterior midline."""

NECK_START_MM = 222.0
MUSCLE_END_MM = 712.0
"""Above, in the face, and below the loin the coat is fat, in which single muscles lie."""

FAT_Z_MM = (0, 150, 240, 265, 300, 375, 470, 570, 640, 700, 800, 860, 920, 1110)
FAT_FRONT_MM = (3.5, 3, 4, 5, 6, 7, 10, 15, 20, 22, 20, 16, 11, 10)
FAT_SIDE_MM = (3.5, 4, 5, 6, 7, 9, 10, 14, 18, 24, 30, 30, 17, 13)
FAT_BACK_MM = (3.5, 4, 6, 8, 9, 9, 9, 11, 16, 24, 30, 26, 13, 10)

SKIN_MM = 2.0


def _coat(muscle: Solid, fat_scale: float) -> list[Part]:
    """Return skin and subcutaneous fat around a muscle coat."""
    centre = muscle.points_xy.mean(1, keepdims=True)
    ray = muscle.points_xy - centre
    length = np.linalg.norm(ray, axis=2)
    away = ray / np.maximum(length, 1e-6)[..., None]
    front, side, back = (
        np.interp(muscle.z_mm, FAT_Z_MM, row)[:, None]
        for row in (FAT_FRONT_MM, FAT_SIDE_MM, FAT_BACK_MM)
    )
    forward = np.square(away[..., 1])
    fat_mm = np.where(away[..., 1] < 0, front, back) * forward + side * (1 - forward)
    head = np.clip((muscle.z_mm - 230) / 60, 0, 1)[:, None]
    fat_mm = fat_mm * (1 + head * (fat_scale - 1) + (1 - head) * 0.3 * (fat_scale - 1))

    def moved(by_mm: Floats, tissue: Tissue, layer: Layer, name: str) -> Solid:
        points_xy = muscle.points_xy + away * by_mm[..., None]
        return replace(
            muscle, name=f"{muscle.name}_{name}", tissue=tissue, layer=layer, points_xy=points_xy
        )

    return [
        moved(fat_mm + SKIN_MM, Tissue.SKIN, Layer.SKIN, "skin"),
        moved(fat_mm, Tissue.FAT, Layer.FAT, "fat"),
    ]


def _trunk(fat_scale: float) -> list[Part]:
    muscle = outline(
        "trunk", Tissue.MUSCLE, Layer.MUSCLE, BONES, TRUNK, (10, 10), half=True
    )  # fmt: skip
    chest = (muscle.z_mm >= NECK_START_MM) & (muscle.z_mm <= MUSCLE_END_MM)
    scalp = muscle.z_mm <= 100
    parts = _coat(muscle, fat_scale)
    for name, where in (("scalp", scalp), ("chest", chest)):
        parts.append(
            replace(
                muscle, name=f"trunk_{name}", z_mm=muscle.z_mm[where],
                points_xy=muscle.points_xy[where], cap_mm=(10, 0) if name == "scalp" else (0, 0),
            )
        )  # fmt: skip
    axilla = both_sides(
        [
            oval("axilla", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(318, 122, -18, 14, 16, 20), (350, 136, -18, 12, 26, 14),
                  (400, 146, 0, 6, 30, 8), (430, 146, 10, 3, 24, 6)]),
            oval("supraclavicular_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(240, 44, 16, 4, 11, -15), (264, 52, 12, 8, 12, -20), (284, 70, 12, 15, 8, 28),
                  (306, 92, 8, 18, 9, 28)]),
            oval("axillary_plexus_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(268, 44, -14, 7, 10), (290, 70, -16, 20, 7, 24), (312, 100, -14, 20, 8, 24)]),
            oval("carotid_sheath_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(222, 30, -8, 8, 10, -20), (262, 27, -14, 9, 9), (292, 24, -26, 9, 12)]),
            oval("flank_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(560, 88, 76, 14, 3, -32), (610, 86, 70, 22, 7, -30), (680, 88, 68, 24, 7, -28),
                  (712, 88, 68, 20, 6, -28)]),
            oval("nuchal_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(222, 40, 34, 4, 22, 35), (262, 52, 52, 3.5, 26, 45), (285, 66, 66, 3, 30, 55)]),
            oval("scapular_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(310, 90, 46, 24, 5, -50), (360, 108, 76, 26, 4, -55),
                  (420, 122, 76, 20, 3, -55)]),
            oval("pectoral_fat", Tissue.FAT, Layer.DEEP_MUSCLE, BONES,
                 [(325, 74, -66, 32, 3, 18), (380, 100, -82, 30, 3.5, 24)]),
        ]
    )  # fmt: skip
    return [*parts, *axilla]


def _breasts(size: float) -> list[Part]:
    rows = [(376, 76, -98, 34, 14, 22), (425, 90, -98, 58 * size, 31 * size, 26),
            (452, 92, -98, 60 * size, 32 * size, 26), (484, 88, -94, 38, 16, 26)]  # fmt: skip
    skin = oval("breast_skin", Tissue.SKIN, Layer.SKIN, BONES, rows, (14, 12))
    return both_sides(
        [
            skin,
            inner(skin, Tissue.FAT, Layer.FAT, 0.955, "breast_fat"),
            inner(skin, Tissue.BREAST, Layer.FAT, 0.68, "breast_gland"),
        ]
    )


def _thighs(fat_scale: float) -> list[Part]:
    muscle = oval(
        "thigh", Tissue.FAT, Layer.FAT, BONES,
        [(872, 94, 4, 68, 82), (900, 94, 2, 72, 86), (950, 94, 2, 70, 82), (1000, 92, 0, 67, 78),
         (THIGH_END_MM, 88, -4, 62, 72)],
        (0, 0),
    )  # fmt: skip
    return both_sides(_coat(muscle, fat_scale))


def _arms(raised: bool, fat_scale: float, aside_mm: float) -> list[Part]:
    """Build deltoids and arms, beside the trunk (moved out by ``aside_mm``) or above the head."""
    z = np.array((288, 312, 350, 420, 520, 600, 640, 700, 770, 850, 905), np.float64)
    if raised:
        z = np.array((352, 322, 296, 262, 215, 150, 100, 60, 30, 0, -20), np.float64)
        x = np.array((152, 168, 182, 190, 190, 182, 172, 150, 120, 90, 60), np.float64)
        y = np.array((14, 8, 0, -8, -16, -20, -22, -24, -28, -30, -30), np.float64)
        aside = np.zeros_like(x)
    else:
        x = np.array((150, 168, 182, 198, 208, 212, 214, 216, 214, 210, 206), np.float64)
        y = np.array((14, 14, 20, 26, 28, 24, 18, 8, 0, -8, -10), np.float64)
        aside = aside_mm * np.array((0, 0, 0.4, 0.8, 1, 1, 1, 1, 1, 1, 1))
    rx = np.array((22, 38, 42, 37, 34, 36, 36, 32, 24, 28, 14), np.float64)
    ry = np.array((24, 44, 46, 42, 40, 38, 36, 30, 26, 16, 8), np.float64)
    order = np.argsort(z)
    rows = np.stack([z, x + aside, y, rx, ry], 1)[order]
    muscle = oval(
        "arm", Tissue.MUSCLE, Layer.MUSCLE, BONES, [tuple(row) for row in rows.tolist()], (12, 12)
    )
    path = [(float(a + s), float(b)) for a, s, b in zip(x, aside, y, strict=True)]
    humerus = [
        (160, 14, 312, 14),
        *[(*path[i], float(z[i]), 12.0) for i in (2, 3, 4)],
        (*path[5], float(z[5]), 15.0),
    ]
    forearm = [(*path[i], float(z[i]), r) for i, r in ((6, 10), (7, 8), (8, 8))]
    radius = [(a - 10, b - 4, c, r) for a, b, c, r in forearm]
    ulna = [(a + 9, b + 6, c, r) for a, b, c, r in forearm]
    bones = [
        rod("humerus", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES, humerus),
        rod("radius", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES, radius),
        rod("ulna", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES, ulna),
    ]
    head = oval(
        "humeral_head", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        [(298, 156, 10, 15, 15), (318, 158, 12, 24, 24), (344, 164, 14, 15, 15)], (10, 8),
    )  # fmt: skip
    return both_sides(
        [
            *_coat(muscle, 0.6 + 0.4 * fat_scale), muscle, *bones,
            *[b.core(Tissue.FAT, Layer.MARROW, 4.0) for b in bones],
            head, inner(head, Tissue.SPONGY_BONE, Layer.MARROW, 0.86),
        ]
    )  # fmt: skip


def envelope(
    fat_scale: float, breast_size: float, arms_raised: bool, arms_aside_mm: float
) -> list[Part]:
    """Return skin, fat and muscle coat, breasts (size 0: none), arms and thighs.

    Args:
        fat_scale: 1 is an average thickness of subcutaneous fat.
        breast_size: 0 for men, about 1 for women.
        arms_raised: above the head, as in most body scans, or along the trunk.
        arms_aside_mm: how far arms along the trunk are moved out.
    """
    return [
        *_trunk(fat_scale),
        *(_breasts(breast_size) if breast_size else []),
        *_thighs(fat_scale),
        *_arms(arms_raised, fat_scale, arms_aside_mm),
    ]
