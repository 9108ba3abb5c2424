"""Abdominal cavity and its organs in the reference body.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``).
"""

from __future__ import annotations

from dataclasses import replace

from ubr_pretrain.phantom_shapes import (
    Frame,
    Layer,
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
ORGANS = Frame.VISCERA

KIDNEY_UPPER_POLE_MM = 545.0
KIDNEY_LOWER_POLE_MM = 655.0


def _cavity() -> list[Part]:
    return [
        outline(
            "abdominal_cavity", Tissue.VISCERAL_FAT, Layer.CAVITY, BONES,
            {
                490: [(0, -90), (52, -95), (104, -64), (132, 4), (116, 60), (62, 76), (0, 44)],
                535: [(0, -94), (53, -94), (100, -64), (134, 4), (118, 66), (62, 88), (0, 40)],
                565: [(0, -91), (54, -89), (95, -61), (130, 4), (114, 63), (64, 80), (0, 26)],
                600: [(0, -88), (55, -85), (92, -58), (126, 4), (110, 58), (67, 71), (0, 18)],
                650: [(0, -85), (57, -82), (93, -55), (127, 4), (109, 52), (68, 60), (0, 10)],
                690: [(0, -83), (62, -82), (104, -58), (128, 0), (104, 38), (62, 46), (0, 12)],
                730: [(0, -82), (62, -82), (106, -56), (112, -14), (84, 30), (44, 44), (0, 22)],
                770: [(0, -80), (62, -80), (100, -56), (100, -16), (74, 34), (38, 56), (0, 48)],
                805: [(0, -74), (56, -76), (84, -54), (76, -14), (66, 24), (36, 62), (0, 74)],
                840: [(0, -58), (36, -50), (54, -30), (58, -4), (52, 28), (32, 58), (0, 72)],
                868: [(0, -38), (16, -34), (30, -18), (36, 0), (32, 26), (22, 50), (0, 60)],
            },
            (0, 4), half=True,
        )
    ]  # fmt: skip


def _liver() -> list[Part]:
    liver = outline(
        "liver", Tissue.LIVER, Layer.ORGAN, ORGANS,
        {
            463: [(-34, -30), (-58, -46), (-86, -40), (-103, -8), (-91, 22), (-64, 32), (-42, 18),
                  (-30, -8)],
            476: [(-12, -56), (-50, -76), (-98, -58), (-121, -6), (-103, 38), (-64, 50), (-30, 26),
                  (-8, -18)],
            492: [(40, -64), (-20, -88), (-106, -60), (-130, -2), (-111, 50), (-64, 63), (-30, 30),
                  (4, -22)],
            512: [(76, -66), (0, -93), (-108, -62), (-134, 0), (-115, 58), (-66, 73), (-34, 30),
                  (4, -24)],
            535: [(72, -64), (0, -92), (-106, -62), (-133, 0), (-114, 60), (-66, 72), (-36, 26),
                  (0, -24)],
            562: [(44, -68), (-12, -89), (-100, -62), (-128, 0), (-110, 58), (-72, 62), (-46, 22),
                  (-18, -26)],
            590: [(2, -74), (-32, -84), (-94, -62), (-123, 2), (-107, 52), (-80, 50), (-60, 14),
                  (-36, -38)],
            625: [(-60, -62), (-74, -70), (-100, -54), (-119, 2), (-106, 46), (-92, 42), (-80, 12),
                  (-68, -34)],
            665: [(-94, -30), (-100, -34), (-108, -22), (-114, 4), (-108, 26), (-101, 28),
                  (-95, 14), (-91, -8)],
        },
        (12, 16),
    )  # fmt: skip
    gallbladder = oval(
        "gallbladder", Tissue.BILE, Layer.CONTENT, ORGANS,
        [(578, -44, -48, 9, 12, 20), (600, -50, -54, 14, 19, 25), (630, -60, -60, 11, 14, 25)],
        (8, 10),
    )  # fmt: skip
    fissure = oval(
        "falciform_fissure", Tissue.VISCERAL_FAT, Layer.CONTENT, ORGANS,
        [(530, -4, -50, 3, 16, -6), (575, -8, -58, 5, 20, -8)],
    )  # fmt: skip
    return [
        liver, fissure,
        inner(gallbladder, Tissue.GUT_WALL, Layer.ORGAN, 1.1, "gallbladder_wall"), gallbladder,
    ]  # fmt: skip


def _stomach() -> list[Part]:
    wall = oval(
        "stomach", Tissue.GUT_WALL, Layer.ORGAN, ORGANS,
        [(484, 62, 6, 26, 24), (505, 66, -6, 36, 36), (530, 66, -30, 32, 42, 8),
         (552, 56, -50, 36, 28, 8), (572, 34, -60, 48, 20, 6), (590, 8, -62, 40, 15, 4),
         (606, -8, -58, 24, 10)],
        (12, 6),
    )  # fmt: skip
    lumen = shell(wall, Tissue.GUT_FLUID, Layer.CONTENT, 4.5)
    gas = replace(
        lumen, name="stomach_gas", tissue=Tissue.GAS, layer=Layer.INNER_CONTENT, gas_fraction=0.4
    )
    return [wall, lumen, gas]


def _spleen() -> list[Part]:
    return [
        oval("spleen", Tissue.SPLEEN, Layer.ORGAN, ORGANS,
             [(488, 92, 36, 20, 16, 30), (506, 103, 38, 16, 34, 24), (535, 108, 34, 15, 42, 18),
              (560, 112, 30, 14, 38, 14), (590, 114, 24, 9, 22, 10)], (10, 12)),
    ]  # fmt: skip


def _retroperitoneum() -> list[Part]:
    return [
        rod("pancreas", Tissue.PANCREAS, Layer.ORGAN, ORGANS,
            [(84, 18, 548, 9), (56, 4, 552, 11), (26, -18, 558, 11), (2, -26, 566, 10),
             (-22, -22, 578, 13), (-30, -14, 600, 12)]),
        rod("duodenum", Tissue.GUT_WALL, Layer.ORGAN, ORGANS,
            [(-22, -48, 596, 13), (-44, -28, 594, 13), (-48, -8, 615, 13), (-44, 2, 640, 13),
             (-16, -10, 652, 12), (18, -18, 645, 12), (30, -28, 625, 12)]),
        rod("duodenum_lumen", Tissue.GUT_FLUID, Layer.CONTENT, ORGANS,
            [(-22, -48, 596, 9), (-44, -28, 594, 9), (-48, -8, 615, 9), (-44, 2, 640, 8),
             (-16, -10, 652, 7), (18, -18, 645, 7), (30, -28, 625, 7)]),
        rod("portal_vein", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(-46, -14, 540, 6), (-28, -16, 556, 7), (-8, -20, 572, 7), (2, -28, 590, 6),
             (4, -34, 640, 5)]),
        rod("splenic_vein", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(-4, -20, 570, 5), (30, -8, 560, 4.5), (60, 10, 554, 4.5), (92, 26, 548, 4)]),
        rod("mesenteric_artery", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(6, 2, 578, 4), (9, -16, 596, 4), (10, -28, 640, 3.5), (12, -32, 690, 3)]),
        rod("celiac_trunk", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(5, 8, 560, 4), (4, -10, 558, 4), (-14, -22, 556, 3.5)]),
        *both_sides(
            [
                oval("crus", Tissue.MUSCLE, Layer.ORGAN, ORGANS,
                     [(498, 22, 24, 4, 20, 20), (540, 19, 18, 5, 16, 12), (590, 16, 14, 5, 8)]),
                rod("adrenal", Tissue.GLAND, Layer.ORGAN, ORGANS,
                    [(32, 8, 534, 3), (36, 20, 542, 3.5), (38, 30, 552, 3)]),
                rod("renal_vein", Tissue.VEIN, Layer.VESSEL, ORGANS,
                    [(10, -4, 592, 4.5), (24, 8, 596, 4.5), (42, 26, 600, 4)]),
                rod("renal_artery", Tissue.ARTERY, Layer.VESSEL, ORGANS,
                    [(8, 4, 590, 3), (24, 16, 594, 3), (42, 32, 598, 2.5)]),
            ]
        ),
    ]  # fmt: skip


def _kidneys() -> list[list[Part]]:
    kidneys: list[list[Part]] = []
    for side, sign, top, bottom in (
        ("left", 1, KIDNEY_UPPER_POLE_MM, 645.0),
        ("right", -1, 555.0, KIDNEY_LOWER_POLE_MM),
    ):
        middle = (top + bottom) / 2
        cortex = oval(
            f"kidney_{side}", Tissue.KIDNEY_CORTEX, Layer.ORGAN, ORGANS,
            [(top, sign * 48, 40, 18, 20, sign * 20), (middle, sign * 62, 31, 26, 28, sign * 25),
             (bottom, sign * 70, 24, 18, 21, sign * 25)],
            (30, 30),
        )  # fmt: skip
        medulla = inner(cortex, Tissue.KIDNEY_MEDULLA, Layer.CONTENT, 0.74)
        sinus = oval(
            f"renal_sinus_{side}", Tissue.VISCERAL_FAT, Layer.INNER_CONTENT, ORGANS,
            [(middle - 26, sign * 52, 32, 7, 8, sign * 25),
             (middle, sign * 45, 29, 16, 9, sign * 25),
             (middle + 26, sign * 58, 27, 7, 8, sign * 25)],
        )  # fmt: skip
        pelvis = oval(
            f"renal_pelvis_{side}", Tissue.URINE, Layer.INNER_CONTENT, ORGANS,
            [(middle - 10, sign * 46, 29, 5, 4), (middle + 16, sign * 44, 28, 6, 4)],
        )  # fmt: skip
        ureter = rod(
            f"ureter_{side}", Tissue.URINE, Layer.VESSEL, ORGANS,
            [(sign * 42, 24, middle + 10, 2.5), (sign * 38, 6, 670, 2), (sign * 44, 4, 740, 2),
             (sign * 52, 34, 790, 2), (sign * 24, 6, 835, 2)],
        )  # fmt: skip
        kidneys.append([cortex, medulla, sinus, pelvis, ureter])
    return kidneys


def abdomen() -> dict[str, list[Part]]:
    """Return the cavity and the organs; the bowel is grown anew for every subject."""
    left, right = _kidneys()
    return {
        "cavity": _cavity(),
        "liver": _liver(),
        "stomach": _stomach(),
        "spleen": _spleen(),
        "retroperitoneum": _retroperitoneum(),
        "kidney_left": left,
        "kidney_right": right,
    }
