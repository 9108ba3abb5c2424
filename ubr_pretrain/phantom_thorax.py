"""Lungs, mediastinum, heart, great vessels and airways of the reference body.

Shapes:
    All tables are mm in the reference body (see ``phantom_shapes``).
"""

from __future__ import annotations

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

ORGANS = Frame.VISCERA

LUNG_APEX_MM = 278.0
CARINA_MM = 373.0
LIVER_DOME_MM = 463.0
LUNG_BASE_MM = 530.0


def _lungs() -> list[Part]:
    return both_sides(
        [
            outline(
                "lung", Tissue.LUNG, Layer.BACKGROUND_ORGAN, ORGANS,
                {
                    278: [(28, 14), (38, 8), (52, 14), (58, 30), (50, 46), (36, 48), (28, 30)],
                    300: [(18, 0), (38, -14), (66, -2), (80, 32), (68, 62), (42, 68), (22, 40)],
                    325: [(14, -34), (42, -50), (88, -26), (109, 24), (94, 70), (54, 86), (22, 50)],
                    348: [(8, -60), (44, -76), (104, -46), (122, 16), (108, 72), (60, 93),
                          (23, 58)],
                    373: [(6, -78), (44, -90), (112, -56), (131, 12), (116, 74), (64, 97),
                          (23, 66)],
                    420: [(5, -90), (48, -98), (118, -62), (139, 8), (124, 74), (66, 100),
                          (22, 68)],
                    465: [(6, -92), (50, -98), (118, -62), (139, 6), (124, 72), (66, 99),
                          (22, 66)],
                    530: [(6, -88), (48, -94), (112, -62), (135, 4), (120, 68), (64, 95),
                          (24, 62)],
                },
                (14, 0),
            ),
        ]
    )  # fmt: skip


def _diaphragm() -> list[Part]:
    """Build the two domes under which everything is abdomen: they grow until no lung is left."""
    right: Outlines = {
        461: [(-36, -34), (-60, -48), (-88, -40), (-104, -8), (-90, 24), (-62, 32), (-38, 10)],
        474: [(-14, -62), (-52, -80), (-100, -60), (-122, -6), (-102, 38), (-62, 50), (-24, 24)],
        490: [(0, -84), (-50, -92), (-110, -62), (-132, -2), (-112, 52), (-62, 64), (-12, 34)],
        508: [(4, -94), (-50, -98), (-114, -64), (-137, 2), (-116, 58), (-62, 72), (-8, 44)],
        530: [(6, -96), (-50, -99), (-112, -66), (-137, 4), (-119, 66), (-63, 84), (-8, 54)],
        545: [(6, -96), (-50, -98), (-110, -66), (-136, 4), (-121, 70), (-63, 94), (-8, 56)],
        585: [(6, -92), (-54, -91), (-100, -64), (-128, 4), (-111, 58), (-62, 72), (-8, 22)],
    }
    left: Outlines = {
        474: [(34, -16), (52, -34), (84, -28), (100, 4), (88, 36), (60, 40), (38, 16)],
        486: [(14, -50), (50, -66), (98, -50), (121, 2), (104, 46), (62, 54), (26, 30)],
        500: [(0, -80), (50, -90), (110, -60), (131, 2), (113, 56), (62, 66), (14, 38)],
        514: [(-4, -92), (50, -98), (113, -64), (137, 2), (116, 60), (62, 74), (8, 46)],
        530: [(-6, -96), (50, -99), (112, -66), (137, 4), (119, 66), (63, 84), (8, 54)],
        545: [(-6, -96), (50, -98), (110, -66), (136, 4), (121, 70), (63, 94), (8, 56)],
        585: [(-6, -92), (54, -91), (100, -64), (128, 4), (111, 58), (62, 72), (8, 22)],
    }
    return [
        part
        for side, rows in (("right", right), ("left", left))
        for muscle in [
            outline(f"diaphragm_{side}", Tissue.MUSCLE, Layer.BACKGROUND_ORGAN, ORGANS, rows,
                    (16, 0))
        ]
        for part in (
            muscle,
            shell(muscle, Tissue.VISCERAL_FAT, Layer.BACKGROUND_ORGAN, 2.5),
        )
    ]  # fmt: skip


def _mediastinum() -> list[Part]:
    tissue = outline(
        "mediastinum", Tissue.MEDIASTINAL_FAT, Layer.BACKGROUND_ORGAN, ORGANS,
        {
            270: [(0, -26), (14, -26), (24, -16), (26, 4), (24, 24), (16, 44), (0, 50)],
            305: [(0, -54), (15, -52), (24, -30), (24, 0), (22, 26), (24, 56), (0, 62)],
            340: [(0, -80), (8, -74), (23, -42), (25, -4), (29, 30), (24, 62), (0, 70)],
            373: [(0, -92), (6, -84), (24, -50), (25, 0), (28, 36), (22, 64), (0, 72)],
            400: [(0, -98), (7, -90), (30, -56), (30, 0), (26, 38), (20, 62), (0, 72)],
            450: [(0, -100), (14, -94), (36, -60), (26, 0), (21, 36), (18, 60), (0, 70)],
            480: [(0, -98), (22, -92), (36, -60), (26, 0), (22, 36), (18, 58), (0, 68)],
        },
        (0, 0), half=True,
    )  # fmt: skip
    trachea = rod(
        "trachea", Tissue.AIRWAY, Layer.AIRWAY, ORGANS,
        [(0, -20, 246, 8), (0, -14, 270, 8.5), (0, -4, 300, 8.5), (-2, 8, 340, 9),
         (-3, 16, CARINA_MM - 9, 9)],
    )  # fmt: skip
    bronchi = [
        rod("bronchus_right", Tissue.AIRWAY, Layer.AIRWAY, ORGANS,
            [(-12.5, 18, CARINA_MM + 1, 7), (-21, 20, 386, 7), (-36, 18, 398, 6),
             (-46, 24, 420, 4.5)]),
        rod("bronchus_left", Tissue.AIRWAY, Layer.AIRWAY, ORGANS,
            [(6.5, 18, CARINA_MM + 1, 7), (19, 20, 388, 6.5), (38, 20, 402, 6),
             (50, 24, 424, 4.5)]),
        rod("upper_lobe_right", Tissue.AIRWAY, Layer.AIRWAY, ORGANS,
            [(-24, 20, 386, 5), (-46, 14, 384, 4), (-62, 10, 376, 3)]),
        rod("upper_lobe_left", Tissue.AIRWAY, Layer.AIRWAY, ORGANS,
            [(40, 18, 402, 5), (54, 4, 398, 4), (66, -6, 388, 3)]),
    ]  # fmt: skip
    airways = [trachea, *bronchi]
    walls = [a.core(Tissue.GUT_WALL, Layer.AIRWAY_WALL, -1.8) for a in airways]
    esophagus = rod(
        "esophagus", Tissue.GUT_WALL, Layer.ORGAN, ORGANS,
        [(3, 4, 262, 7), (4, 16, 300, 8), (4, 30, 350, 8), (4, 34, 400, 8), (2, 30, 450, 8.5),
         (14, 14, 490, 9), (28, 4, 508, 10)],
    )  # fmt: skip
    swallowed_air = rod(
        "esophagus_gas", Tissue.GAS, Layer.CONTENT, ORGANS,
        [(3, 15, 300, 1.5), (3, 28, 350, 2.6), (3, 32, 400, 2.2), (2, 29, 440, 1.5)],
    )  # fmt: skip
    return [
        tissue, *walls, *airways, esophagus, swallowed_air,
    ]  # fmt: skip


def _heart() -> list[Part]:
    muscle = oval(
        "heart", Tissue.MYOCARDIUM, Layer.ORGAN, ORGANS,
        [(392, 2, -38, 30, 26), (410, 8, -36, 46, 38, 10), (430, 15, -38, 57, 44, 22),
         (452, 22, -42, 62, 45, 28), (470, 30, -48, 58, 38, 28), (492, 38, -56, 40, 24, 24)],
        (5, 12),
    )  # fmt: skip
    sac = inner(muscle, Tissue.MEDIASTINAL_FAT, Layer.BACKGROUND_ORGAN, 1.12, "pericardial_fat")
    chambers: list[Part] = [
        oval("left_ventricle", Tissue.ARTERY, Layer.CONTENT, ORGANS,
             [(418, 36, -32, 10, 14, -30), (440, 44, -36, 17, 25, -38), (465, 52, -46, 15, 22, -42),
              (484, 56, -54, 6, 10, -42)], (8, 8)),
        oval("right_ventricle", Tissue.VEIN, Layer.CONTENT, ORGANS,
             [(408, 8, -62, 14, 10, 12), (436, 12, -66, 26, 14, 26), (462, 22, -68, 30, 11, 28),
              (482, 34, -72, 18, 5, 24)], (8, 8)),
        oval("left_atrium", Tissue.ARTERY, Layer.CONTENT, ORGANS,
             [(404, 4, -6, 24, 10), (424, 6, -6, 30, 15, 4), (446, 6, -6, 24, 12, 8)], (8, 8)),
        oval("right_atrium", Tissue.VEIN, Layer.CONTENT, ORGANS,
             [(404, -26, -40, 10, 16), (434, -29, -38, 16, 24, -8), (468, -24, -34, 14, 20, -10)],
             (8, 8)),
    ]  # fmt: skip
    return [sac, muscle, *chambers]


def _great_vessels() -> list[Part]:
    return [
        rod("ascending_aorta", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(4, -32, 428, 14), (-8, -38, 405, 15.5), (-13, -40, 380, 15.5), (-8, -32, 358, 14.5),
             (6, -14, 346, 13.5), (20, 12, 349, 13), (25, 32, 362, 12.5), (26, 40, 385, 12),
             (24, 40, 430, 12), (16, 34, 480, 11.5), (8, 22, 520, 11), (5, 14, 560, 10.5),
             (5, 2, 610, 9.5), (4, -1, 655, 9), (3, 0, 686, 8.5)]),
        rod("brachiocephalic", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(-2, -28, 348, 6), (-8, -24, 325, 6), (-16, -14, 304, 5.5)]),
        rod("left_carotid", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(8, -14, 342, 4.5), (10, -16, 315, 4.5), (13, -10, 292, 4)]),
        rod("left_subclavian", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(20, 6, 342, 5), (22, 4, 315, 5), (30, -2, 300, 5)]),
        rod("superior_vena_cava", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(-22, -36, 330, 7.5), (-26, -30, 355, 9), (-28, -24, 390, 10), (-28, -28, 412, 10)]),
        rod("left_brachiocephalic_vein", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(24, -40, 326, 6.5), (4, -48, 334, 6.5), (-20, -38, 346, 7)]),
        rod("azygos", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(-24, -10, 366, 4), (-18, 20, 364, 4), (-8, 38, 374, 4), (-6, 38, 440, 3.5),
             (-4, 30, 500, 3)]),
        rod("pulmonary_trunk", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(18, -58, 420, 13), (20, -54, 402, 14), (20, -36, 392, 13.5), (24, -12, 392, 11),
             (42, 6, 398, 9), (52, 14, 412, 8)]),
        rod("right_pulmonary_artery", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(18, -24, 394, 11), (-4, -10, 397, 10), (-30, -8, 400, 9.5), (-46, 2, 408, 8.5),
             (-52, 12, 424, 7)]),
        rod("pulmonary_vein_right", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(-18, -8, 428, 7), (-40, 2, 434, 6), (-58, 14, 440, 4.5)]),
        rod("pulmonary_vein_left", Tissue.ARTERY, Layer.VESSEL, ORGANS,
            [(28, -6, 424, 7), (46, 4, 430, 6), (62, 16, 438, 4.5)]),
        rod("inferior_vena_cava", Tissue.VEIN, Layer.VESSEL, ORGANS,
            [(-24, -26, 466, 11), (-24, -10, 482, 11.5), (-24, 4, 510, 11.5), (-22, 8, 560, 11),
             (-20, 6, 610, 10.5), (-17, 6, 660, 10), (-8, 10, 695, 10)]),
    ]  # fmt: skip


def thorax() -> dict[str, list[Part]]:
    """Return the contents of the chest by organ, without the branching vessels of the lungs."""
    return {
        "lungs": _lungs(),
        "diaphragm": _diaphragm(),
        "mediastinum": _mediastinum(),
        "heart": _heart(),
        "great_vessels": _great_vessels(),
    }
