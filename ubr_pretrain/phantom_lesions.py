"""Lesions in the synthetic body: ellipsoids placed in their organ, with exact measurements.

Shapes:
    z, y, x: slices and pixels of the picture; pixel centres are integers, counted from 0.

Reference:
    Yan et al., "DeepLesion", J. Med. Imaging 5(3), 2018: eight coarse types; a lesion is measured
    by its longest diameter and the one across it, and boxed by those four points plus 5 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.phantom_shapes import Floats
from ubr_pretrain.phantom_tissues import Tissue

BOX_MARGIN_PX = 5.0
MIN_RADIUS_PX = 1.8
RADIUS_RANGE_MM = (3.5, 28.0)
LESION_MM = 17.0
"""Median long diameter where there is room, as in DeepLesion (18 mm over the public rows)."""
MIN_CONTRAST_HU = 45.0
MAX_CONTRAST_HU = 85.0
TRIES = 60


class LesionKind(IntEnum):
    """DeepLesion's coarse types."""

    BONE = 1
    ABDOMEN = 2
    MEDIASTINUM = 3
    LIVER = 4
    LUNG = 5
    KIDNEY = 6
    SOFT_TISSUE = 7
    PELVIS = 8


HOSTS: dict[LesionKind, tuple[Tissue, ...]] = {
    LesionKind.BONE: (Tissue.SPONGY_BONE,),
    LesionKind.ABDOMEN: (Tissue.VISCERAL_FAT,),
    LesionKind.MEDIASTINUM: (Tissue.MEDIASTINAL_FAT,),
    LesionKind.LIVER: (Tissue.LIVER, Tissue.LIVER_VESSEL),
    LesionKind.LUNG: (Tissue.LUNG, Tissue.LUNG_VESSEL),
    LesionKind.KIDNEY: (Tissue.KIDNEY_CORTEX, Tissue.KIDNEY_MEDULLA),
    LesionKind.SOFT_TISSUE: (Tissue.FAT,),
    LesionKind.PELVIS: (Tissue.VISCERAL_FAT,),
}
"""The tissues in which a lesion of each kind grows."""

HOST_CLASSES: dict[LesionKind, tuple[str, ...]] = {
    LesionKind.MEDIASTINUM: ("chest",),
    LesionKind.ABDOMEN: ("abdomen",),
    LesionKind.PELVIS: ("pelvis",),
}
"""Body parts to which a kind is bound beyond its tissue."""


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid, two axes in the slice and one along the body.

    Attributes:
        kind: DeepLesion's coarse type.
        key_index: the slice through its middle.
        z_mm: height of that slice in the subject.
        centre_xy: pixels.
        radii_px: longer and shorter half axis in the slice.
        radius_z_mm: half axis along the body.
        angle_rad: direction of the longer axis, clockwise in the picture.
        hu: its density.
    """

    kind: LesionKind
    key_index: int
    z_mm: float
    centre_xy: tuple[float, float]
    radii_px: tuple[float, float]
    radius_z_mm: float
    angle_rad: float
    hu: float

    @property
    def measurement_xy(self) -> Floats:
        """Four points [4, 2]: the ends of the longest diameter, then of the one across it."""
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        a, b = self.radii_px
        ends = np.array([[a * cos, a * sin], [-a * cos, -a * sin], [-b * sin, b * cos],
                         [b * sin, -b * cos]])  # fmt: skip
        return ends + self.centre_xy

    @property
    def box_xyxy(self) -> Floats:
        """The box as DeepLesion draws it: the measurement points plus 5 pixels on every side."""
        points = self.measurement_xy
        return np.concatenate([points.min(0) - BOX_MARGIN_PX, points.max(0) + BOX_MARGIN_PX])

    @property
    def tight_box_xyxy(self) -> Floats:
        """The smallest box around the ellipse in the key slice."""
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        a, b = self.radii_px
        half = np.array([math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)])
        return np.concatenate([self.centre_xy - half, self.centre_xy + half])

    def weight(self, shape: tuple[int, ...], z_mm: float) -> NDArray[np.float32]:
        """Return the share [y, x] of every pixel of a slice that the lesion fills."""
        height = 1 - ((z_mm - self.z_mm) / self.radius_z_mm) ** 2
        if height <= 0:
            return np.zeros(shape, np.float32)
        y, x = np.ogrid[: shape[0], : shape[1]]
        dx, dy = x - self.centre_xy[0], y - self.centre_xy[1]
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        a, b = (radius * math.sqrt(height) for radius in self.radii_px)
        distance = np.hypot((cos * dx + sin * dy) / a, (cos * dy - sin * dx) / b)
        return np.clip((1 - distance) * math.sqrt(a * b) + 0.5, 0, 1).astype(np.float32)

    def blend(self, hu: NDArray[np.float32], z_mm: float) -> None:
        """Put the lesion into a slice [y, x] in place."""
        if abs(z_mm - self.z_mm) < self.radius_z_mm:
            weight = self.weight(hu.shape, z_mm)
            hu += weight * (np.float32(self.hu) - hu)


def lesion_hu(kind: LesionKind, host_hu: float, rng: np.random.Generator) -> float:
    """Draw a density that stands out from the host in the soft-tissue window."""
    if kind in (LesionKind.LIVER, LesionKind.KIDNEY):
        contrast_hu = rng.uniform(MIN_CONTRAST_HU, MAX_CONTRAST_HU)
        return host_hu - contrast_hu if host_hu - contrast_hu > -5 else host_hu + contrast_hu
    return float(rng.uniform(30, 75))


def host_slices(kind: LesionKind, classes: Sequence[str]) -> list[int]:
    """Return the slices of those body parts to which a kind is bound."""
    bound = HOST_CLASSES.get(kind)
    return [i for i, name in enumerate(classes) if bound is None or name in bound]


def place_lesion(
    kind: LesionKind,
    slices: Sequence[int],
    tissues: NDArray[np.uint8],
    z_mm: Floats,
    pixel_mm: float,
    table_hu: NDArray[np.float32],
    others: Sequence[Lesion],
    rng: np.random.Generator,
    lesion_mm: float = LESION_MM,
) -> Lesion | None:
    """Find room for a lesion.

    Args:
        kind: decides the host tissue.
        slices: where its middle may lie.
        tissues: [z, y, x] painted labels.
        z_mm: height of every slice.
        pixel_mm: side of a pixel.
        table_hu: HU per tissue.
        others: lesions that must not be touched.
        rng: source of randomness.
        lesion_mm: median long diameter where there is room.

    Returns:
        The lesion, or None where the scan shows no host with room for the smallest one.
    """
    smallest_px = max(MIN_RADIUS_PX, RADIUS_RANGE_MM[0] / pixel_mm)
    edge = int(BOX_MARGIN_PX)  # a box stays within the picture
    for _ in range(TRIES if slices else 0):
        index = int(rng.choice(slices))
        host = np.zeros(tissues.shape[1:], np.uint8)
        inside = tissues[index, edge:-edge, edge:-edge]
        host[edge:-edge, edge:-edge] = np.isin(inside, HOSTS[kind])
        room_px = cv2.distanceTransform(host, cv2.DIST_L2, 3)
        rows, columns = np.nonzero(room_px >= smallest_px)
        if not rows.size:
            continue
        room = np.square(room_px[rows, columns], dtype=np.float64)
        pick = int(rng.choice(rows.size, p=room / room.sum()))
        y, x = int(rows[pick]), int(columns[pick])
        wanted_px = lesion_mm / 2 * math.exp(rng.normal(0, 0.45)) / pixel_mm
        largest_px = min(float(room_px[y, x]), RADIUS_RANGE_MM[1] / pixel_mm)
        long_px = float(np.clip(wanted_px, smallest_px, max(smallest_px, largest_px)))
        short_px = max(long_px * rng.uniform(0.62, 0.95), 0.85 * smallest_px)
        lesion = Lesion(
            kind=kind,
            key_index=index,
            z_mm=float(z_mm[index]),
            centre_xy=(x + float(rng.uniform(-0.4, 0.4)), y + float(rng.uniform(-0.4, 0.4))),
            radii_px=(long_px, short_px),
            radius_z_mm=short_px * pixel_mm * float(rng.uniform(0.9, 1.3)),
            angle_rad=float(rng.uniform(-np.pi / 2, np.pi / 2)),
            hu=lesion_hu(kind, float(table_hu[HOSTS[kind][0]]), rng),
        )
        if not any(_touch(lesion, other, pixel_mm) for other in others):
            return lesion
    return None


def _touch(a: Lesion, b: Lesion, pixel_mm: float) -> bool:
    gap_px = math.dist(a.centre_xy, b.centre_xy) - a.radii_px[0] - b.radii_px[0]
    gap_z_mm = abs(a.z_mm - b.z_mm) - a.radius_z_mm - b.radius_z_mm
    return gap_px * pixel_mm < 3 and gap_z_mm < 3
