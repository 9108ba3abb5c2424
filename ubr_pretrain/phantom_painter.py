"""Painting of a subject's parts into a map of tissue labels, slice by slice.

Shapes:
    n: slices.
    z, y, x: the label map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.phantom_shapes import Floats, Frame, Layer, Rod, Solid, closed_curve_matrix
from ubr_pretrain.phantom_subject import Subject

SUBPIXEL_BITS = 4
"""Fractional bits of the coordinates that OpenCV draws."""

MIN_HALF_THICKNESS_MM = 0.8
"""A ball is seen by slices this near to its centre, however thin it is: slices have a thickness."""

Contour = NDArray[np.int32]
Circle = tuple[int, int, int]


@dataclass(frozen=True)
class Canvas:
    """Where the body lies in the picture.

    Attributes:
        size_px: side of the label map.
        pixel_mm: side of one of its pixels.
        offset_mm: x and y of the body's origin from the picture's centre.
        turn_rad: rotation of the body, clockwise in the picture.
    """

    size_px: int
    pixel_mm: float
    offset_mm: tuple[float, float] = (0.0, 0.0)
    turn_rad: float = 0.0

    def to_pixels(self, points_xy: Floats) -> Floats:
        """Return pixel coordinates (pixel centres are integers) of body points [..., 2] in mm."""
        cos, sin = np.cos(self.turn_rad), np.sin(self.turn_rad)
        x, y = points_xy[..., 0], points_xy[..., 1]
        turned = np.stack([cos * x - sin * y, sin * x + cos * y], -1) + self.offset_mm
        return turned / self.pixel_mm + (self.size_px - 1) / 2

    def fixed_point(self, points_xy: Floats) -> NDArray[np.int32]:
        """Return pixel coordinates in OpenCV's fixed-point form."""
        return np.rint(self.to_pixels(points_xy) * (1 << SUBPIXEL_BITS)).astype(np.int32)


class Painter:
    """All parts of a subject, cut at the heights of a scan and projected onto its canvas.

    Args:
        subject: the person.
        z_mm: [n] heights of the slices in the person, mm below the vertex.
        canvas: where the body lies in the picture.
    """

    def __init__(self, subject: Subject, z_mm: Floats, canvas: Canvas) -> None:
        self.canvas = canvas
        self.lowest_px = -np.inf
        self._strokes: list[list[tuple[int, Contour | list[Circle]]]] = [[] for _ in z_mm]
        heights = {frame: subject.to_reference(frame, z_mm) for frame in Frame}
        bone_mm = heights[Frame.SKELETON]
        for part in subject.parts:
            if isinstance(part, Solid):
                self._cut_solid(part, heights[part.frame], bone_mm, subject)
            else:
                self._cut_rod(part, z_mm, subject)

    def _cut_solid(self, solid: Solid, z_mm: Floats, bone_mm: Floats, subject: Subject) -> None:
        inside, control_xy = solid.at(z_mm)
        if not inside.size:
            return
        control_xy = subject.place(control_xy, bone_mm[inside])
        contours_xy = closed_curve_matrix(control_xy.shape[1]) @ control_xy
        if solid.gas_fraction:
            top, bottom = contours_xy[..., 1].min(1), contours_xy[..., 1].max(1)
            level = top + solid.gas_fraction * (bottom - top)
            contours_xy[..., 1] = np.minimum(contours_xy[..., 1], level[:, None])
        contours = self.canvas.fixed_point(contours_xy)
        if solid.layer is Layer.SKIN:
            lowest = float(contours[..., 1].max()) / (1 << SUBPIXEL_BITS)
            self.lowest_px = max(self.lowest_px, lowest)
        for index, contour in zip(inside.tolist(), contours, strict=True):
            self._strokes[index].append((int(solid.tissue), contour))

    def _cut_rod(self, rod: Rod, z_mm: Floats, subject: Subject) -> None:
        for index, circles in cut_balls(rod, z_mm, subject, self.canvas):
            self._strokes[index].append((int(rod.tissue), circles))

    def paint(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Paint one slice over ``labels`` [y, x], in place."""
        for tissue, stroke in self._strokes[index]:
            if isinstance(stroke, list):
                for x, y, radius in stroke:
                    cv2.circle(labels, (x, y), radius, tissue, -1, cv2.LINE_8, SUBPIXEL_BITS)
            else:
                cv2.fillPoly(labels, [stroke], tissue, cv2.LINE_8, SUBPIXEL_BITS)


def cut_balls(
    rod: Rod, z_mm: Floats, subject: Subject, canvas: Canvas
) -> Iterator[tuple[int, list[Circle]]]:
    """Yield the index of every slice that cuts the rod, with the circles to draw there."""
    ball_mm = subject.to_body(rod.frame, rod.balls_mm[:, 2])
    bone_mm = subject.to_reference(Frame.SKELETON, ball_mm)
    width, depth, _ = subject.scales(bone_mm)
    radius_mm = rod.balls_mm[:, 3] * np.sqrt(width * depth)
    reach_mm = np.maximum(radius_mm, MIN_HALF_THICKNESS_MM)
    first = np.searchsorted(z_mm, ball_mm - reach_mm)
    count = np.searchsorted(z_mm, ball_mm + reach_mm, side="right") - first
    if not count.any():
        return
    ball = np.repeat(np.arange(len(ball_mm)), count)
    within = np.arange(len(ball)) - np.repeat(np.cumsum(count) - count, count)
    slice_index = first[ball] + within
    gap_mm = z_mm[slice_index] - ball_mm[ball]
    cut_mm = np.sqrt(np.maximum(np.square(radius_mm[ball]) - np.square(gap_mm), 0.04))
    centre_xy = subject.place(rod.balls_mm[:, None, :2], bone_mm)[:, 0]
    unit = 1 << SUBPIXEL_BITS
    table = np.column_stack(
        [
            canvas.fixed_point(centre_xy)[ball],
            np.rint(cut_mm * (unit / canvas.pixel_mm)).astype(np.int32),
        ]
    )
    order = np.argsort(slice_index, kind="stable")
    rows = zip(slice_index[order].tolist(), map(tuple, table[order].tolist()), strict=True)
    for index, group in groupby(rows, key=lambda row: row[0]):
        yield index, [circle for _, circle in group]
