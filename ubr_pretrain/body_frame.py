"""The body of an axial slice by itself, in the middle, at one size.

A regressor that reads slices in millimetres takes thin people for a place further up, and the
couch, the arms and the field of view change what it sees. Here everything but the body becomes air,
and the body is centred and scaled so that its cross-section has the area of one disc.

Deviation: the paper reads the whole image. What it is worth stands in the lab book.

Shapes:
    z: slices; y, x: stored rows and columns; S: side of the square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Int16, UInt8
from numpy import ndarray

from ubr_pretrain.ct import AIR_HU

BODY_HU = -300
"""Between fat and lung; couches are mostly foam below it."""

MASK_PIXEL_MM = 2.0
"""The body is looked for at about this pixel size, whatever the stored one."""

OPENING_MM = 6.0
"""What is thinner is no body: the shells of a couch, blankets, tubes. With 10 mm, the chest wall of
thin people opens here and there and the lung is lost (sizes of neighbouring slices jump by 40 mm).
"""

MARGIN_MM = 4.0
"""Of air kept around the body, so that skin is not cut."""

LEAST_SHARE = 0.25
"""Parts with this share of the largest one's area belong to the body: the other leg, not an arm."""

DIAMETERS_MM = (100.0, 480.0)
"""What is smaller or larger is no cross-section of a person; it is scaled as the nearer of them."""


@dataclass(frozen=True, eq=False)
class BodyFrame:
    """Where the body of one slice lies.

    Attributes:
        mask: uint8 [y, x], 1 in the body (holes filled) and the margin around it.
        centre_yx_px: middle of the box around the body.
        diameter_mm: of the disc with the area of the body.
    """

    mask: UInt8[ndarray, "y x"]
    centre_yx_px: tuple[float, float]
    diameter_mm: float


def find_body(hu: Int16[ndarray, "y x"], pixel_mm_yx: tuple[float, float]) -> BodyFrame | None:
    """Return the body of one slice; None where there is only air."""
    rows, columns = hu.shape
    small_size = [
        max(1, round(n * mm / MASK_PIXEL_MM)) for n, mm in zip(hu.shape, pixel_mm_yx, strict=True)
    ]
    finer = (small_size[1], small_size[0])  # OpenCV counts columns first
    shrinks = small_size[0] < rows or small_size[1] < columns
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    dense = (cv2.resize(hu.astype(np.float32), finer, interpolation=how) > BODY_HU).astype(np.uint8)
    solid = cv2.morphologyEx(dense, cv2.MORPH_OPEN, _disc(OPENING_MM))
    body = _largest_parts(solid)
    if body is None:
        return None
    top, left, height, width = _box(body)
    scale_y, scale_x = rows / small_size[0], columns / small_size[1]
    margin = cv2.dilate(body, _disc(2 * MARGIN_MM))
    area_mm2 = float(body.sum()) * pixel_mm_yx[0] * scale_y * pixel_mm_yx[1] * scale_x
    return BodyFrame(
        cv2.resize(margin, (columns, rows), interpolation=cv2.INTER_NEAREST),
        ((top + height / 2) * scale_y, (left + width / 2) * scale_x),
        2 * math.sqrt(area_mm2 / math.pi),
    )


def frame_bodies(
    hu: Int16[ndarray, "z y x"],
    pixel_mm_yx: tuple[float, float],
    size_px: int,
    fov_mm: float,
    body_mm: float,
) -> Int16[ndarray, "z S S"]:
    """Return square slices of bodies in air, each centred and of one size.

    Args:
        hu: axial slices.
        pixel_mm_yx: row height and column width.
        size_px: side of the square.
        fov_mm: what the square covers, once the body has its size.
        body_mm: diameter of the disc whose area every body gets. A slice of air alone stays so.
    """
    square = np.full((len(hu), size_px, size_px), AIR_HU, np.int16)
    for target, source in zip(square, hu, strict=True):
        body = find_body(source, pixel_mm_yx)
        if body is None:
            continue
        diameter_mm = min(max(body.diameter_mm, DIAMETERS_MM[0]), DIAMETERS_MM[1])
        side_mm = fov_mm * diameter_mm / body_mm
        rows, columns = (max(1, round(side_mm / mm)) for mm in pixel_mm_yx)
        alone = np.where(body.mask, source, AIR_HU).astype(np.float32)
        cut = _cut_out(alone, body.centre_yx_px, (rows, columns))
        how = cv2.INTER_AREA if max(rows, columns) > size_px else cv2.INTER_LINEAR
        # float32: OpenCV has no area averaging for int16 that rounds to nearest
        target[:] = np.rint(cv2.resize(cut, (size_px, size_px), interpolation=how))
    return square


def _largest_parts(solid: UInt8[ndarray, "y x"]) -> UInt8[ndarray, "y x"] | None:
    """Return the outlines of the largest parts, filled; None where there are none."""
    outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(outline) for outline in outlines]
    if not areas or max(areas) == 0:
        return None
    kept = [o for o, area in zip(outlines, areas, strict=True) if area >= LEAST_SHARE * max(areas)]
    return np.asarray(cv2.drawContours(np.zeros_like(solid), kept, -1, 1, cv2.FILLED), np.uint8)


def _box(mask: UInt8[ndarray, "y x"]) -> tuple[int, int, int, int]:
    """Return top, left, height, width of what is not zero."""
    left, top, width, height = cv2.boundingRect(mask)
    return top, left, height, width


def _disc(diameter_mm: float) -> UInt8[ndarray, "k k"]:
    side = 2 * round((diameter_mm / MASK_PIXEL_MM - 1) / 2) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _cut_out(
    image: ndarray, centre_yx_px: tuple[float, float], size_yx: tuple[int, int]
) -> ndarray:
    """Return a rectangle around a point; what lies outside the image is air."""
    result = np.full(size_yx, AIR_HU, np.float32)
    into, out_of = [], []
    for centre, size, length in zip(centre_yx_px, size_yx, image.shape, strict=True):
        first = round(centre - size / 2)
        begin, end = max(0, first), min(length, first + size)
        into.append(slice(begin - first, end - first))
        out_of.append(slice(begin, end))
    result[into[0], into[1]] = image[out_of[0], out_of[1]]
    return result
