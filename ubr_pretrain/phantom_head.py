"""Head and neck of the reference body: skull, brain, face, jaw, airway, muscles, great vessels.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``): x to the patient's left, y to
    the back, z down from the vertex.
"""

from __future__ import annotations

from dataclasses import replace

from ubr_pretrain.phantom_shapes import (
    Frame,
    Layer,
    Outlines,
    Part,
    both_sides,
    inner,
    outline,
    oval,
    rod,
    shell,
)
from ubr_pretrain.phantom_tissues import Tissue

BONES = Frame.SKELETON


def _cranium() -> list[Part]:
    skull = outline(
        "skull", Tissue.SKULL, Layer.CORTEX, BONES,
        {
            8: [(0, -20), (13, -17), (22, -6), (26, 6), (22, 19), (13, 29), (0, 33)],
            20: [(0, -50), (24, -44), (43, -24), (51, 4), (43, 35), (25, 56), (0, 63)],
            40: [(0, -72), (30, -64), (53, -36), (64, 4), (54, 46), (30, 73), (0, 81)],
            60: [(0, -82), (32, -74), (57, -43), (69, 4), (59, 51), (33, 80), (0, 89)],
            90: [(0, -88), (30, -81), (55, -52), (70, 2), (62, 53), (35, 82), (0, 92)],
            104: [(0, -89), (30, -81), (55, -54), (70, 0), (63, 50), (35, 80), (0, 91)],
            116: [(0, -52), (30, -46), (56, -40), (70, 0), (67, 48), (38, 80), (0, 90)],
            126: [(0, -30), (26, -28), (55, -24), (68, 4), (65, 44), (38, 76), (0, 87)],
            140: [(0, -12), (24, -10), (50, -6), (60, 12), (58, 40), (36, 66), (0, 77)],
            152: [(0, 0), (16, 2), (30, 10), (38, 24), (34, 42), (22, 56), (0, 62)],
        },
        cap_mm=(5, 3), half=True,
    )  # fmt: skip
    inside: Outlines = {
        14: [(0, -24), (13, -20), (24, -8), (29, 6), (24, 22), (13, 33), (0, 37)],
        24: [(0, -50), (24, -44), (42, -24), (49, 4), (41, 34), (24, 55), (0, 61)],
        40: [(0, -65), (27, -58), (47, -33), (57, 4), (48, 42), (27, 66), (0, 73)],
        60: [(0, -75), (29, -68), (51, -40), (63, 4), (53, 47), (30, 73), (0, 80)],
        90: [(0, -79), (27, -73), (49, -48), (64, 2), (56, 49), (31, 74), (0, 82)],
        104: [(0, -76), (25, -71), (47, -50), (64, 0), (57, 46), (31, 72), (0, 80)],
        116: [(0, -42), (26, -40), (50, -34), (64, 0), (61, 44), (34, 72), (0, 79)],
        126: [(0, -16), (22, -20), (48, -18), (60, 6), (58, 40), (33, 68), (0, 76)],
        140: [(0, 4), (16, 6), (34, 8), (44, 20), (44, 38), (28, 58), (0, 67)],
        152: [(0, 12), (8, 14), (13, 20), (15, 28), (13, 36), (8, 42), (0, 45)],
        156: [(0, 13), (7, 14), (12, 20), (14, 27), (12, 34), (7, 39), (0, 41)],
    }
    cavity = outline(
        "cranial_cavity", Tissue.CSF, Layer.MARROW, BONES, inside, cap_mm=(5, 1), half=True
    )
    brain = inner(cavity, Tissue.BRAIN, Layer.BONE_CONTENT, 0.955, "brain")
    white = inner(cavity, Tissue.WHITE_MATTER, Layer.BONE_CONTENT, 0.6, "white_matter")
    ventricles = both_sides(
        [
            oval("ventricle", Tissue.CSF, Layer.BONE_CONTENT, BONES,
                 [(58, 9, 8, 5, 24, -8), (70, 9, -2, 6, 32, -10), (84, 12, 4, 5, 30, -14),
                  (98, 20, 26, 5, 14, -30)]),
            oval("sylvian_fissure", Tissue.CSF, Layer.BONE_CONTENT, BONES,
                 [(76, 52, -14, 8, 3, -30), (100, 48, -22, 10, 3, -40)]),
            oval("thalamus", Tissue.BRAIN, Layer.BONE_CONTENT, BONES,
                 [(76, 13, 2, 9, 14, 15), (92, 13, 0, 8, 12, 15)]),
        ]
    )  # fmt: skip
    midline: list[Part] = [
        oval("falx", Tissue.MUSCLE, Layer.BONE_CONTENT, BONES,
             [(16, 0, 5, 1.2, 36), (40, 0, 0, 1.2, 62), (54, 0, 0, 1.2, 74)]),
        oval("third_ventricle", Tissue.CSF, Layer.BONE_CONTENT, BONES,
             [(84, 0, 0, 2.5, 12), (98, 0, -6, 2.5, 8)]),
        oval("basal_cisterns", Tissue.CSF, Layer.BONE_CONTENT, BONES,
             [(100, 0, -10, 14, 9), (116, 0, -8, 16, 8)]),
        oval("fourth_ventricle", Tissue.CSF, Layer.BONE_CONTENT, BONES,
             [(118, 0, 34, 7, 4), (136, 0, 32, 5, 4)]),
    ]  # fmt: skip
    return [skull, cavity, brain, white, *ventricles, *midline]


def _face() -> list[Part]:
    bone = outline(
        "face_bone", Tissue.SPONGY_BONE, Layer.CORTEX, BONES,
        {
            94: [(0, -90), (20, -89), (46, -74), (58, -54), (46, -44), (20, -44), (0, -44)],
            108: [(0, -90), (24, -88), (50, -70), (60, -46), (44, -32), (20, -28), (0, -28)],
            126: [(0, -93), (24, -84), (50, -66), (60, -44), (42, -26), (20, -12), (0, -10)],
            144: [(0, -90), (22, -84), (44, -66), (48, -48), (36, -26), (18, -18), (0, -14)],
            158: [(0, -94), (20, -90), (32, -74), (35, -54), (28, -36), (14, -30), (0, -28)],
        },
        cap_mm=(4, 4), half=True,
    )  # fmt: skip
    tissue = replace(
        shell(bone, Tissue.MUSCLE, Layer.MARROW, 3.5), name="face_tissue",
        z_mm=bone.z_mm + 1.0,
    )  # fmt: skip
    sides = both_sides(
        [
            oval("orbit", Tissue.FAT, Layer.BONE_CONTENT, BONES,
                 [(99, 31, -74, 17, 16, 12), (112, 31, -70, 18, 26, 14), (127, 32, -74, 15, 15)],
                 (5, 5)),
            oval("globe", Tissue.VITREOUS, Layer.BONE_CONTENT, BONES,
                 [(101, 33, -81, 8, 8), (112, 33, -82, 12, 12), (124, 33, -81, 8, 8)]),
            oval("optic_nerve", Tissue.MUSCLE, Layer.BONE_CONTENT, BONES,
                 [(108, 25, -58, 2.5, 13, 22), (116, 25, -58, 2.5, 13, 22)], (2, 2)),
            oval("eye_muscle", Tissue.MUSCLE, Layer.BONE_CONTENT, BONES,
                 [(104, 44, -64, 2, 14, 25), (120, 44, -64, 2, 14, 25)], (2, 2)),
            oval("frontal_sinus", Tissue.GAS, Layer.BONE_CONTENT, BONES,
                 [(86, 9, -84, 5, 2.5), (98, 12, -84, 10, 4.5, 10)], (4, 3)),
            oval("ethmoid_cells", Tissue.AIR_CELLS, Layer.BONE_CONTENT, BONES,
                 [(103, 8, -66, 5, 18), (128, 9, -62, 6, 20)], (3, 3)),
            oval("maxillary_sinus", Tissue.GAS, Layer.BONE_CONTENT, BONES,
                 [(124, 28, -58, 10, 14), (140, 30, -58, 14, 19), (158, 26, -62, 8, 13)], (4, 5)),
            oval("nasal_cavity", Tissue.GAS, Layer.BONE_CONTENT, BONES,
                 [(122, 6, -62, 4, 24), (142, 7, -66, 5.5, 36), (159, 6, -60, 5, 30)], (4, 3)),
            oval("turbinate", Tissue.GUT_WALL, Layer.BONE_CONTENT, BONES,
                 [(132, 8, -60, 2.5, 18), (154, 9, -60, 3, 18)], (3, 3)),
            oval("sphenoid_sinus", Tissue.GAS, Layer.BONE_CONTENT, BONES,
                 [(112, 7, -26, 5, 8), (126, 8, -24, 6, 9)], (4, 4)),
            oval("petrous_bone", Tissue.SKULL, Layer.BONE_CONTENT, BONES,
                 [(122, 40, 10, 24, 6, 32), (132, 40, 12, 26, 9, 32), (142, 44, 14, 18, 8, 30)],
                 (5, 5)),
            oval("mastoid_cells", Tissue.AIR_CELLS, Layer.BONE_CONTENT, BONES,
                 [(124, 56, 26, 8, 11), (140, 55, 28, 9, 13), (156, 54, 26, 4, 7)], (5, 5)),
            oval("mastoid", Tissue.SPONGY_BONE, Layer.CORTEX, BONES,
                 [(120, 57, 26, 11, 15), (140, 57, 28, 11, 16), (160, 54, 26, 5, 8)]),
            oval("ear_canal", Tissue.GAS, Layer.BONE_CONTENT, BONES,
                 [(132, 60, 12, 10, 3), (140, 60, 12, 10, 3)], (3, 3)),
            rod("zygomatic_arch", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                [(50, -66, 130, 6), (62, -48, 131, 4), (67, -24, 130, 3), (64, 0, 128, 4)]),
            oval("skull_base", Tissue.SKULL, Layer.CORTEX, BONES,
                 [(118, 34, -26, 22, 6, -14), (128, 34, -22, 22, 6, -12)], (3, 3)),
        ]
    )  # fmt: skip
    middle: list[Part] = [
        oval("clivus", Tissue.SPONGY_BONE, Layer.BONE_CONTENT, BONES,
             [(118, 0, -8, 15, 7), (134, 0, -5, 14, 7), (150, 0, 2, 9, 5)], (4, 3)),
        oval("nasopharynx", Tissue.AIRWAY, Layer.AIRWAY, BONES,
             [(140, 0, -22, 11, 9), (160, 0, -16, 14, 6), (172, 0, -14, 10, 5)]),
    ]  # fmt: skip
    ear = both_sides(
        [oval("ear", Tissue.SKIN, Layer.SKIN, BONES,
              [(112, 77, 14, 4, 12, -20), (130, 78, 12, 6, 16, -25), (158, 72, 10, 4, 8, -15)])]
    )  # fmt: skip
    return [bone, tissue, *sides, *middle, *ear]


def _jaw() -> list[Part]:
    lower = rod(
        "mandible", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        [(-45, -30, 194, 6), (-38, -60, 200, 7), (-20, -84, 205, 8), (0, -91, 206, 9),
         (20, -84, 205, 8), (38, -60, 200, 7), (45, -30, 194, 6)],
    )  # fmt: skip
    upper = rod(
        "maxilla", Tissue.SPONGY_BONE, Layer.CORTEX, BONES,
        [(-28, -52, 163, 6), (-22, -80, 163, 6), (0, -94, 163, 6), (22, -80, 163, 6),
         (28, -52, 163, 6)],
    )  # fmt: skip
    teeth = [
        rod(f"teeth_{z}", Tissue.TOOTH, Layer.CORTEX, BONES,
            [(-27, -52, z, 4), (-21, -80, z, 3.5), (0, -94, z, 3), (21, -80, z, 3.5),
             (27, -52, z, 4)])
        for z in (172, 180)
    ]  # fmt: skip
    dental_base = rod(
        "alveolar_bone", Tissue.SPONGY_BONE, Layer.CORTEX, BONES,
        [(-34, -52, 191, 6), (-24, -80, 192, 6), (0, -92, 193, 6), (24, -80, 192, 6),
         (34, -52, 191, 6)],
    )  # fmt: skip
    sides = both_sides(
        [
            oval("mandible_ramus", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
                 [(132, 53, -2, 8, 5, 15), (142, 51, -6, 4, 6, 10), (152, 49, -16, 3.5, 15, 8),
                  (176, 47, -20, 4, 17, 8), (196, 45, -26, 5, 12, 8)], (4, 5)),
            oval("masseter", Tissue.MUSCLE, Layer.DEEP_MUSCLE, BONES,
                 [(136, 58, -38, 5, 10, 5), (160, 57, -28, 7, 18, 8), (196, 52, -26, 6, 14, 8)]),
            oval("pterygoid", Tissue.MUSCLE, Layer.DEEP_MUSCLE, BONES,
                 [(134, 34, -18, 8, 10, 25), (165, 38, -18, 8, 15, 20), (190, 40, -22, 6, 10, 15)]),
            oval("temporalis", Tissue.MUSCLE, Layer.DEEP_MUSCLE, BONES,
                 [(70, 68, -36, 3, 16, -12), (104, 63, -50, 8, 20, -16), (140, 54, -36, 8, 12)]),
            oval("parotid", Tissue.GLAND, Layer.ORGAN, BONES,
                 [(150, 59, 6, 8, 14), (172, 58, 8, 9, 16), (198, 54, 4, 6, 10)]),
            oval("submandibular_gland", Tissue.GLAND, Layer.ORGAN, BONES,
                 [(200, 34, -32, 9, 12), (224, 30, -26, 8, 10)]),
        ]
    )  # fmt: skip
    middle: list[Part] = [
        oval("tongue", Tissue.MUSCLE, Layer.ORGAN, BONES,
             [(164, 0, -64, 18, 22), (184, 0, -60, 27, 28), (212, 0, -52, 26, 30),
              (224, 0, -44, 20, 20)], (4, 6)),
        oval("mouth_air", Tissue.GAS, Layer.CONTENT, BONES,
             [(162, 0, -58, 13, 14), (169, 0, -56, 12, 14)], (2, 2)),
        oval("lips", Tissue.MUSCLE, Layer.DEEP_MUSCLE, BONES,
             [(158, 0, -98, 24, 8), (192, 0, -96, 26, 8)]),
    ]  # fmt: skip
    return [
        lower, lower.core(Tissue.SPONGY_BONE, Layer.MARROW, 3), upper, *teeth, dental_base,
        *sides, *middle,
    ]  # fmt: skip


def _neck() -> list[Part]:
    sides = both_sides(
        [
            rod("sternomastoid", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                [(56, 34, 152, 8), (50, 22, 190, 10), (38, -6, 235, 11), (24, -32, 280, 9),
                 (14, -52, 315, 6)]),
            oval("neck_extensors", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                 [(146, 27, 47, 25, 18, 15), (190, 29, 43, 27, 20, 12), (240, 30, 50, 25, 18, 8),
                  (275, 34, 62, 26, 18)]),
            oval("trapezius", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                 [(200, 28, 63, 24, 4, -10), (240, 40, 68, 32, 5, -16), (275, 56, 80, 48, 7, -18),
                  (300, 72, 92, 58, 7, -10)]),
            oval("levator_scapulae", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                 [(180, 46, 32, 7, 10), (230, 52, 42, 8, 11), (285, 66, 58, 10, 12)]),
            oval("scalenes", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                 [(200, 26, 14, 8, 9), (240, 32, 18, 10, 11), (285, 46, 12, 13, 12)]),
            oval("longus_colli", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                 [(150, 10, 0, 8, 5), (200, 12, 4, 8, 5), (285, 12, 14, 7, 5)]),
            rod("carotid", Tissue.ARTERY, Layer.VESSEL, BONES,
                [(24, 0, 150, 3), (26, 4, 200, 4), (24, -4, 240, 3.8), (14, -8, 290, 4),
                 (9, -22, 345, 5)]),
            rod("jugular", Tissue.VEIN, Layer.VESSEL, BONES,
                [(32, 6, 150, 4.5), (36, 6, 200, 5.5), (34, -6, 250, 6.5), (24, -22, 300, 6.5),
                 (22, -36, 330, 6.5)]),
            rod("subclavian", Tissue.VEIN, Layer.VESSEL, BONES,
                [(22, -36, 328, 6), (60, -32, 312, 5), (110, -8, 318, 5), (140, 10, 350, 4)]),
            rod("subclavian_artery", Tissue.ARTERY, Layer.VESSEL, BONES,
                [(16, -10, 335, 5), (34, -4, 302, 5), (70, -10, 300, 4.5), (115, 4, 326, 4)]),
            oval("thyroid", Tissue.THYROID, Layer.ORGAN, BONES,
                 [(246, 15, -16, 6, 9, 10), (262, 14, -16, 8, 11, 10), (280, 11, -14, 5, 7)]),
        ]
    )  # fmt: skip
    middle: list[Part] = [
        oval("pharynx_wall", Tissue.MUSCLE, Layer.ORGAN, BONES,
             [(140, 0, -14, 24, 14), (180, 0, -8, 24, 14), (216, 0, -12, 24, 16),
              (238, 0, -18, 22, 18), (262, 0, -14, 14, 15), (290, 0, -4, 13, 14)]),
        oval("oropharynx", Tissue.AIRWAY, Layer.AIRWAY, BONES,
             [(172, 0, -16, 11, 6), (190, 0, -14, 13, 7), (212, 0, -16, 13, 8),
              (226, 0, -20, 8, 9), (236, 0, -22, 4, 9), (248, 0, -20, 8, 9)], (4, 0)),
        rod("hyoid", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(-20, -14, 218, 2.5), (-12, -34, 222, 3), (0, -40, 223, 3.5), (12, -34, 222, 3),
             (20, -14, 218, 2.5)]),
        rod("thyroid_cartilage", Tissue.CARTILAGE, Layer.CARTILAGE, BONES,
            [(-19, -8, 236, 3), (-12, -28, 237, 3), (0, -38, 238, 3), (12, -28, 237, 3),
             (19, -8, 236, 3)]),
        oval("cricoid", Tissue.CARTILAGE, Layer.CARTILAGE, BONES,
             [(244, 0, -8, 12, 4), (252, 0, -8, 12, 4)], (2, 2)),
    ]  # fmt: skip
    return [*sides, *middle]


def head_and_neck() -> list[Part]:
    """Return the inner parts of head and neck (skin, fat and muscle coat are the envelope's)."""
    return [*_cranium(), *_face(), *_jaw(), *_neck()]
