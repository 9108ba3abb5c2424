"""Bony pelvis, hips, muscles of trunk, pelvis and thigh, and pelvic organs of the reference body.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``).
"""

from __future__ import annotations

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
    shell,
)
from ubr_pretrain.phantom_tissues import Tissue

BONES = Frame.SKELETON
ORGANS = Frame.VISCERA

ILIAC_CREST_MM = 685.0
FEMORAL_HEAD_TOP_MM = 808.0
SYMPHYSIS_LOWER_MM = 872.0
LESSER_TROCHANTER_MM = 890.0


def _hip_bones() -> list[Part]:
    wing: Blades = {
        685: (8.0, [(94, 42), (107, 28), (118, 12), (123, 0)]),
        704: (9.0, [(68, 66), (94, 46), (115, 18), (128, -14)]),
        730: (10.0, [(50, 80), (80, 52), (109, 16), (130, -30)]),
        760: (11.0, [(46, 84), (70, 56), (100, 14), (123, -36)]),
        784: (12.0, [(60, 66), (77, 42), (96, 10), (108, -28)]),
        800: (17.0, [(78, 42), (84, 22), (92, 0), (98, -26)]),
    }
    marrow: Blades = {z: (t - 5.5, line) for z, (t, line) in wing.items()}
    bones: list[Part] = [
        blade("ilium", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES, wing),
        blade("ilium_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES, marrow),
        oval("acetabulum", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
             [(794, 87, 4, 12, 32, 6), (815, 80, 4, 18, 36, 4), (835, 76, 4, 16, 35, 2),
              (856, 76, 10, 14, 26)], (4, 6)),
        oval("acetabulum_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
             [(799, 87, 4, 9, 28, 6), (815, 79, 4, 15, 33, 4), (835, 74, 4, 13, 32, 2),
              (852, 74, 10, 11, 22)], (4, 6)),
        oval("joint_space", Tissue.CARTILAGE, Layer.BONE_CONTENT, BONES,
             [(804, 95, 2, 22, 22), (830, 96, 2, 27.5, 27.5), (856, 97, 2, 22, 22)], (10, 10)),
        oval("femoral_head", Tissue.CORTICAL_BONE, Layer.BONE_CONTENT, BONES,
             [(FEMORAL_HEAD_TOP_MM, 95, 2, 19, 19), (831, 96, 2, 25, 25), (855, 99, 3, 20, 19)],
             (14, 12)),
        oval("femoral_head_inner", Tissue.SPONGY_BONE, Layer.BONE_CONTENT, BONES,
             [(811, 95, 2, 16, 16), (831, 96, 2, 22.5, 22.5), (852, 99, 3, 17, 16)], (14, 12)),
        rod("pubis_upper", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(74, -22, 834, 12), (54, -40, 840, 9), (30, -54, 846, 8.5), (14, -58, 852, 9)]),
        rod("pubis_upper_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
            [(74, -22, 834, 9), (54, -40, 840, 6), (30, -54, 846, 5.5), (14, -58, 852, 6)]),
        oval("pubis_body", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
             [(838, 13, -58, 10, 8, -15), (852, 13, -56, 10, 13, -20),
              (SYMPHYSIS_LOWER_MM, 12, -50, 8, 12, -25)], (5, 5)),
        oval("pubis_body_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
             [(841, 13, -58, 7, 5, -15), (852, 13, -56, 7, 10, -20), (869, 12, -50, 5, 9, -25)],
             (5, 5)),
        rod("pubis_lower", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(13, -48, 866, 7), (28, -30, 880, 6), (42, -6, 892, 6), (52, 16, 898, 8)]),
        rod("ischium", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(74, 32, 836, 13), (66, 42, 858, 13), (60, 40, 880, 14), (54, 28, 902, 11)]),
        rod("ischium_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
            [(74, 32, 836, 10), (66, 42, 858, 10), (60, 40, 880, 11), (54, 28, 902, 8)]),
    ]  # fmt: skip
    return both_sides(bones)


def _femurs() -> list[Part]:
    bones: list[Part] = [
        rod("femoral_neck", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(104, 4, 838, 17), (122, 10, 850, 16), (138, 14, 862, 18)]),
        rod("femoral_neck_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
            [(104, 4, 838, 14.5), (122, 10, 850, 13.5), (138, 14, 862, 15.5)]),
        oval("greater_trochanter", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
             [(826, 148, 20, 10, 12), (846, 148, 18, 14, 18), (876, 138, 12, 18, 20),
              (894, 130, 8, 17, 18)], (5, 0)),
        oval("greater_trochanter_inner", Tissue.SPONGY_BONE, Layer.MARROW, BONES,
             [(829, 148, 20, 7.5, 9.5), (846, 148, 18, 11, 15), (876, 138, 12, 15, 17),
              (894, 130, 8, 13, 14)], (5, 0)),
        rod("femur", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(134, 10, 876, 17), (128, 6, 900, 16.5), (118, -2, 960, 15), (108, -6, 1120, 14.5)]),
        rod("femur_inner", Tissue.FAT, Layer.MARROW, BONES,
            [(134, 10, 876, 13), (128, 6, 900, 10.5), (118, -2, 960, 8), (108, -6, 1120, 7.5)]),
        oval("lesser_trochanter", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
             [(LESSER_TROCHANTER_MM - 9, 119, 26, 8, 7),
              (LESSER_TROCHANTER_MM + 9, 117, 22, 9, 7)], (6, 6)),
    ]  # fmt: skip
    return both_sides(bones)


def _sacrum() -> list[Part]:
    bone = outline(
        "sacrum", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
        {
            728: [(0, 24), (24, 28), (42, 46), (48, 62), (30, 72), (14, 78), (0, 84)],
            748: [(0, 34), (26, 38), (52, 52), (48, 74), (30, 80), (14, 86), (0, 92)],
            772: [(0, 54), (22, 56), (42, 66), (40, 84), (24, 90), (10, 94), (0, 99)],
            800: [(0, 74), (14, 75), (26, 80), (24, 92), (15, 97), (7, 100), (0, 102)],
            826: [(0, 86), (8, 86), (14, 90), (12, 97), (8, 100), (4, 102), (0, 103)],
        },
        (3, 3), half=True,
    )  # fmt: skip
    return [
        bone,
        shell(bone, Tissue.SPONGY_BONE, Layer.MARROW, 3.0),
        rod("coccyx", Tissue.CORTICAL_BONE, Layer.CORTEX, BONES,
            [(0, 94, 826, 5), (0, 92, 840, 4.5), (0, 84, 854, 3.5)]),
        rod("symphysis", Tissue.CARTILAGE, Layer.BONE_CONTENT, BONES,
            [(0, -58, 840, 2.5), (0, -54, 855, 3), (0, -50, 870, 2.5)]),
        *both_sides(
            [rod("sacral_foramen", Tissue.FAT, Layer.BONE_CONTENT, BONES,
                 [(20, 62, 745, 4), (19, 74, 770, 4), (14, 86, 800, 3)])]
        ),
    ]  # fmt: skip


def _muscles() -> list[Part]:
    muscle, deep = Layer.MUSCLE, Layer.DEEP_MUSCLE
    tissue = Tissue.MUSCLE
    pelvic_wall = outline(
        "pelvic_wall", tissue, muscle, BONES,
        {
            700: [(0, -92), (66, -91), (114, -64), (136, 0), (112, 52), (70, 76), (0, 78)],
            735: [(0, -91), (68, -90), (114, -64), (120, -18), (92, 42), (56, 62), (0, 60)],
            775: [(0, -88), (68, -87), (106, -60), (104, -16), (80, 36), (50, 60), (0, 60)],
            808: [(0, -82), (60, -82), (88, -56), (80, -14), (72, 28), (44, 70), (0, 84)],
            842: [(0, -66), (40, -58), (58, -34), (64, -4), (60, 32), (38, 66), (0, 80)],
            872: [(0, -48), (20, -44), (36, -22), (44, 0), (42, 30), (28, 58), (0, 68)],
        },
        (0, 6), half=True,
    )  # fmt: skip
    pairs: list[Part] = [
        oval("rectus_abdominis", tissue, deep, BONES,
             [(470, 34, -101, 26, 5, 3), (560, 34, -95, 30, 5.5, 3), (650, 34, -88, 30, 6, 3),
              (760, 30, -85, 28, 6, 2), (845, 18, -66, 14, 6)]),
        oval("erector_spinae", tissue, deep, BONES,
             [(320, 24, 88, 18, 11), (480, 30, 86, 24, 14), (600, 36, 72, 29, 17),
              (690, 34, 68, 29, 19), (735, 26, 84, 22, 12), (780, 18, 100, 14, 5)]),
        oval("quadratus_lumborum", tissue, deep, BONES,
             [(570, 54, 58, 14, 7, -20), (620, 66, 50, 17, 9, -30), (688, 82, 46, 18, 9, -40)]),
        oval("psoas", tissue, Layer.INNER_CAVITY, BONES,
             [(550, 24, 38, 6, 7), (600, 31, 30, 11, 14), (650, 39, 25, 16, 19, 10),
              (700, 46, 20, 18, 21, 15), (740, 56, 6, 19, 20, 20), (790, 74, -22, 19, 16, 25),
              (830, 92, -36, 19, 15, 20), (865, 104, -26, 17, 15), (892, 116, 8, 10, 12)]),
        oval("iliacus", tissue, Layer.INNER_CAVITY, BONES,
             [(696, 106, 18, 8, 22, 35), (730, 98, 4, 13, 36, 32), (765, 90, -6, 14, 34, 24),
              (800, 88, -28, 16, 18, 10)]),
        oval("gluteus_maximus", tissue, muscle, BONES,
             [(712, 62, 86, 28, 10, -32), (745, 76, 80, 56, 18, -34), (790, 88, 74, 70, 27, -30),
              (840, 92, 68, 74, 32, -28), (880, 98, 62, 60, 30, -32), (930, 116, 48, 50, 20, -40)],
             (8, 12)),
        oval("gluteus_medius", tissue, muscle, BONES,
             [(688, 114, 26, 11, 28, 38), (720, 119, 19, 19, 47, 36), (760, 123, 10, 24, 52, 26),
              (800, 130, 0, 25, 48, 10), (840, 148, -4, 17, 32)]),
        oval("gluteus_minimus", tissue, deep, BONES,
             [(745, 106, 0, 11, 30, 26), (790, 112, -4, 14, 32, 10), (836, 128, -12, 13, 24)]),
        oval("gluteal_plane", Tissue.FAT, deep, BONES,
             [(735, 112, 44, 20, 2, -40), (780, 118, 44, 30, 2.5, -36), (830, 122, 44, 30, 5, -24),
              (868, 118, 44, 24, 6, -10)]),
        oval("sciatic_fat", Tissue.FAT, deep, BONES,
             [(800, 84, 62, 24, 4, -34), (850, 86, 58, 22, 6, -20), (884, 84, 60, 16, 5, -20)]),
        oval("tensor_fasciae", tissue, muscle, BONES,
             [(760, 132, -38, 8, 14, 10), (820, 136, -48, 12, 15), (900, 146, -34, 10, 18, -10),
              (960, 148, -16, 5, 18)]),
        oval("sartorius", tissue, muscle, BONES,
             [(765, 124, -50, 8, 8), (830, 112, -66, 12, 8), (900, 92, -64, 13, 8),
              (1000, 62, -52, 13, 9), (1100, 46, -30, 11, 12)]),
        oval("rectus_femoris", tissue, muscle, BONES,
             [(812, 112, -50, 12, 11), (860, 116, -56, 17, 14), (930, 112, -62, 22, 15),
              (1110, 98, -56, 22, 14)]),
        oval("obturator_internus", tissue, deep, BONES,
             [(800, 64, 22, 6, 22, 8), (830, 58, 14, 8, 28, 4), (868, 46, 10, 7, 24, -6)]),
        oval("piriformis", tissue, muscle, BONES,
             [(775, 62, 76, 22, 8, -22), (805, 82, 54, 34, 9, -34), (828, 106, 40, 30, 8, -28)]),
        oval("pectineus", tissue, muscle, BONES,
             [(840, 50, -48, 20, 9, -25), (880, 64, -38, 26, 14, -20), (910, 84, -24, 18, 14)]),
        oval("obturator_externus", tissue, muscle, BONES,
             [(856, 56, -16, 28, 12, 25), (890, 76, 0, 26, 12, 20)]),
        oval("adductors", tissue, muscle, BONES,
             [(872, 34, -34, 17, 16), (910, 54, -14, 40, 38, 20), (980, 62, 4, 42, 40),
              (1110, 60, 12, 38, 34)]),
        oval("hamstrings", tissue, muscle, BONES,
             [(880, 66, 52, 20, 11), (930, 88, 54, 36, 20), (1000, 90, 50, 44, 24),
              (1110, 86, 46, 44, 25)]),
        oval("vastus", tissue, muscle, BONES,
             [(880, 138, -6, 20, 22), (930, 128, -8, 33, 42, -15), (1000, 116, -12, 42, 48, -15),
              (1110, 106, -14, 43, 48, -15)]),
        oval("gracilis", tissue, muscle, BONES,
             [(880, 22, -24, 6, 14), (1000, 23, 2, 6, 17), (1110, 25, 20, 7, 14)]),
        oval("thigh_septum", Tissue.FAT, deep, BONES,
             [(925, 96, 30, 30, 1.5, 6), (1110, 92, 24, 34, 1.5, 4)]),
        oval("adductor_septum", Tissue.FAT, deep, BONES,
             [(925, 86, -34, 2, 16, 20), (1110, 74, -26, 2, 16, 20)]),
        rod("femoral_artery", Tissue.ARTERY, Layer.VESSEL, BONES,
            [(4, 2, 688, 7), (26, 8, 720, 6), (46, -8, 760, 5.5), (72, -46, 815, 5.5),
             (78, -60, 860, 5), (76, -48, 930, 4.5), (64, -30, 1110, 4)]),
        rod("femoral_vein", Tissue.VEIN, Layer.VESSEL, BONES,
            [(4, 12, 692, 8), (28, 18, 725, 7), (42, 6, 765, 6.5), (62, -38, 820, 6),
             (67, -56, 860, 6), (70, -38, 930, 5.5), (60, -22, 1110, 5)]),
        rod("iliac_internal", Tissue.ARTERY, Layer.VESSEL, BONES,
            [(40, 4, 750, 4), (46, 30, 775, 4), (50, 36, 805, 3)]),
    ]  # fmt: skip
    return [pelvic_wall, *both_sides(pairs)]


def _organs(female: bool) -> tuple[list[Part], list[Part], list[Part]]:
    bladder = oval(
        "bladder", Tissue.URINE, Layer.CONTENT, ORGANS,
        [(792, 0, -36, 26, 20), (818, 0, -36, 40, 30), (848, 0, -30, 26, 22)], (12, 10),
    )  # fmt: skip
    wall = inner(bladder, Tissue.GUT_WALL, Layer.ORGAN, 1.1, "bladder_wall")
    floor: Part = oval(
        "pelvic_floor", Tissue.MUSCLE, Layer.INNER_CAVITY, BONES,
        [(850, 0, 42, 20, 20), (872, 0, 34, 24, 26), (895, 0, 30, 18, 18)],
    )  # fmt: skip
    if female:
        own: list[Part] = [
            oval("uterus", Tissue.UTERUS, Layer.ORGAN, ORGANS,
                 [(776, 4, 2, 22, 18), (798, 2, 8, 30, 22), (824, 0, 14, 20, 15),
                  (850, 0, 16, 16, 8)], (12, 6)),
            *both_sides([oval("ovary", Tissue.UTERUS, Layer.ORGAN, ORGANS,
                              [(786, 44, 12, 11, 9), (804, 44, 12, 11, 9)])]),
        ]  # fmt: skip
    else:
        own = [
            oval("prostate", Tissue.UTERUS, Layer.ORGAN, ORGANS,
                 [(844, 0, -4, 20, 15), (860, 0, -6, 21, 17), (874, 0, -10, 12, 10)]),
            oval("seminal_vesicles", Tissue.GLAND, Layer.ORGAN, ORGANS,
                 [(830, 0, 14, 28, 6), (844, 0, 12, 22, 6)], (4, 4)),
            oval("penis_root", Tissue.MUSCLE, Layer.MUSCLE, BONES,
                 [(866, 0, -54, 14, 10), (905, 0, -62, 13, 16), (925, 0, -58, 11, 10)]),
        ]  # fmt: skip
    return [wall, bladder], own, [floor]


def pelvis_and_thighs(female: bool) -> dict[str, list[Part]]:
    """Return bones, muscles and organs from the iliac crest down, and the muscles of the loin."""
    bladder, own, floor = _organs(female)
    return {
        "pelvic_bones": [*_hip_bones(), *_femurs(), *_sacrum()],
        "pelvic_muscles": [*_muscles(), *floor],
        "bladder": bladder,
        "pelvic_organs": own,
    }
