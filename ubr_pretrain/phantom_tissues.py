"""The tissues of the synthetic body and their Hounsfield units in three contrast phases.

Reference:
    Typical values of clinical CT at 120 kV; the spread covers patients, protocols and scanners.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Tissue(IntEnum):
    """One label per tissue; the painted label map holds these values."""

    AIR = 0
    COUCH_SHELL = 1
    COUCH_FOAM = 2
    SKIN = 3
    FAT = 4
    MUSCLE = 5
    LUNG = 6
    VISCERAL_FAT = 7
    MEDIASTINAL_FAT = 8
    AIRWAY = 9
    ARTERY = 10
    VEIN = 11
    MYOCARDIUM = 12
    LIVER = 13
    LIVER_VESSEL = 14
    BILE = 15
    SPLEEN = 16
    PANCREAS = 17
    KIDNEY_CORTEX = 18
    KIDNEY_MEDULLA = 19
    URINE = 20
    GUT_WALL = 21
    GUT_FLUID = 22
    STOOL = 23
    GAS = 24
    BRAIN = 25
    CSF = 26
    GLAND = 27
    THYROID = 28
    BREAST = 29
    UTERUS = 30
    VITREOUS = 31
    CORTICAL_BONE = 32
    SPONGY_BONE = 33
    SKULL = 34
    TOOTH = 35
    CARTILAGE = 36
    DISC = 37
    AIR_CELLS = 38
    CORD = 39
    METAL = 40
    FLUID = 41
    LUNG_VESSEL = 42
    WHITE_MATTER = 43


class Attenuation(NamedTuple):
    """Mean HU plain, arterial and portal venous; spread between subjects; texture inside."""

    plain_hu: float
    arterial_hu: float
    venous_hu: float
    spread_hu: float
    texture_hu: float


def _same(hu: float, spread_hu: float, texture_hu: float) -> Attenuation:
    return Attenuation(hu, hu, hu, spread_hu, texture_hu)


ATTENUATION: dict[Tissue, Attenuation] = {
    Tissue.AIR: _same(-1000, 0, 0),
    Tissue.COUCH_SHELL: _same(190, 190, 0),
    Tissue.COUCH_FOAM: _same(-930, 25, 8),
    Tissue.SKIN: _same(5, 20, 8),
    Tissue.FAT: _same(-105, 6, 9),
    Tissue.MUSCLE: Attenuation(52, 58, 64, 6, 11),
    Tissue.LUNG: _same(-855, 40, 22),
    Tissue.VISCERAL_FAT: _same(-103, 7, 14),
    Tissue.MEDIASTINAL_FAT: _same(-88, 16, 22),
    Tissue.AIRWAY: _same(-985, 10, 0),
    Tissue.ARTERY: Attenuation(42, 330, 155, 25, 3),
    Tissue.VEIN: Attenuation(42, 115, 150, 22, 4),
    Tissue.MYOCARDIUM: Attenuation(44, 105, 108, 8, 5),
    Tissue.LIVER: Attenuation(58, 72, 108, 12, 4),
    Tissue.LIVER_VESSEL: Attenuation(42, 90, 155, 10, 2),
    Tissue.BILE: _same(9, 6, 2),
    Tissue.SPLEEN: Attenuation(50, 115, 120, 9, 5),
    Tissue.PANCREAS: Attenuation(40, 96, 88, 9, 22),
    Tissue.KIDNEY_CORTEX: Attenuation(34, 165, 178, 14, 4),
    Tissue.KIDNEY_MEDULLA: Attenuation(31, 75, 160, 12, 5),
    Tissue.URINE: _same(6, 6, 2),
    Tissue.GUT_WALL: Attenuation(42, 76, 80, 9, 8),
    Tissue.GUT_FLUID: _same(18, 12, 10),
    Tissue.STOOL: _same(10, 40, 110),
    Tissue.GAS: _same(-960, 20, 5),
    Tissue.BRAIN: Attenuation(37, 41, 43, 3, 3),
    Tissue.CSF: _same(8, 4, 2),
    Tissue.GLAND: Attenuation(22, 50, 58, 16, 18),
    Tissue.THYROID: Attenuation(100, 185, 160, 18, 8),
    Tissue.BREAST: _same(-35, 35, 55),
    Tissue.UTERUS: Attenuation(50, 92, 110, 10, 12),
    Tissue.VITREOUS: _same(9, 4, 1),
    Tissue.CORTICAL_BONE: _same(980, 140, 90),
    Tissue.SPONGY_BONE: _same(210, 70, 55),
    Tissue.SKULL: _same(1150, 150, 120),
    Tissue.TOOTH: _same(1900, 250, 200),
    Tissue.CARTILAGE: _same(105, 25, 25),
    Tissue.DISC: _same(88, 14, 8),
    Tissue.AIR_CELLS: _same(-330, 160, 420),
    Tissue.CORD: _same(34, 5, 2),
    Tissue.METAL: _same(3071, 0, 0),
    Tissue.FLUID: _same(9, 7, 3),
    Tissue.LUNG_VESSEL: Attenuation(30, 170, 110, 20, 0),
    Tissue.WHITE_MATTER: Attenuation(29, 31, 32, 2, 2),
}


def sample_hu(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw one subject's HU per label: contrast phase, fatty liver, bone density, oral contrast.

    Args:
        rng: source of randomness.

    Returns:
        float32 [256], HU of every label (unused labels are 0).
    """
    enhancement = rng.choice([0.0, 1.0], p=[0.4, 0.6]) * rng.uniform(0.55, 1.15)
    arterial = rng.random() < 0.3
    table_hu = np.zeros(256, np.float32)
    for tissue, row in ATTENUATION.items():
        contrast_hu = row.arterial_hu if arterial else row.venous_hu
        mean_hu = row.plain_hu + enhancement * (contrast_hu - row.plain_hu)
        table_hu[tissue] = mean_hu + row.spread_hu * np.clip(rng.standard_normal(), -2, 2)
    if rng.random() < 0.2:
        table_hu[Tissue.LIVER] -= rng.uniform(15, 55)  # fatty liver
    if rng.random() < 0.3:
        table_hu[Tissue.GUT_FLUID] = rng.uniform(120, 420)  # oral contrast
    if enhancement and rng.random() < 0.15:
        table_hu[Tissue.URINE] = rng.uniform(80, 600)  # excreted contrast
    table_hu[Tissue.SPONGY_BONE] *= rng.uniform(0.6, 1.4)  # age
    return table_hu


def texture_table() -> NDArray[np.float32]:
    """Return float32 [256], the standard deviation in HU of the texture inside every tissue."""
    table_hu = np.zeros(256, np.float32)
    for tissue, row in ATTENUATION.items():
        table_hu[tissue] = row.texture_hu
    return table_hu
