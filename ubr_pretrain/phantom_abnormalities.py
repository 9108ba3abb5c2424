"""What makes a synthetic body or scan abnormal: free fluid, metal, lost slices, a wrong order.

Shapes:
    Y, X: pixels of a label map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.phantom_painter import Canvas
from ubr_pretrain.phantom_shapes import Frame, Layer, Part
from ubr_pretrain.phantom_subject import SPINE_FRONT_MM, Subject
from ubr_pretrain.phantom_tissues import Tissue

Abnormality = Literal["ascites", "effusion", "metal", "reversed", "missing_slices"]
ABNORMALITIES: tuple[Abnormality, ...] = get_args(Abnormality)

ASCITES_RISE_MM = 105.0
"""From the gutters beside the spine to the abdominal wall: how far fluid can rise."""

EFFUSION_RISE_MM = 120.0
CHEST_BACK_MM = 100.0
PELVIS_MM = 755.0
"""Below this height of the reference body fluid also runs behind the bowel, to the sacrum."""


def with_metal(subject: Subject, rng: np.random.Generator) -> Subject:
    """Return the subject with one artificial hip and gold-filled teeth."""
    side = "left" if rng.random() < 0.5 else "right"
    names = (f"femoral_head_{side}", f"femoral_neck_{side}", "teeth_172")
    metal: list[Part] = [
        replace(part, name=f"{part.name}_metal", tissue=Tissue.METAL, layer=Layer.IMPLANT)
        for part in subject.parts
        if part.name in names
    ]
    return replace(subject, parts=(*subject.parts, *metal))


def pour_fluid(labels: NDArray[np.uint8], subject: Subject, canvas: Canvas, z_mm: float) -> None:
    """Let ascites and pleural effusion of a lying subject rise in one slice [Y, X], in place."""
    if subject.ascites:
        reference_mm = subject.to_reference(Frame.SKELETON, np.array([z_mm]))[0]
        back_mm = 75.0 if reference_mm > PELVIS_MM else SPINE_FRONT_MM + 8
        level_mm = SPINE_FRONT_MM + 8 - subject.ascites * ASCITES_RISE_MM
        _flood(labels, Tissue.VISCERAL_FAT, canvas, level_mm, back_mm)
    if subject.effusion:
        level_mm = CHEST_BACK_MM - subject.effusion * EFFUSION_RISE_MM
        _flood(labels, Tissue.LUNG, canvas, level_mm, np.inf)


def _flood(
    labels: NDArray[np.uint8], tissue: Tissue, canvas: Canvas, level_mm: float, back_mm: float
) -> None:
    rows = canvas.to_pixels(np.array([[0.0, level_mm], [0.0, min(back_mm, 1e4)]]))[:, 1]
    first, last = np.clip(np.rint(rows), 0, canvas.size_px).astype(int)
    deep = labels[first:last]
    deep[deep == tissue] = Tissue.FLUID
