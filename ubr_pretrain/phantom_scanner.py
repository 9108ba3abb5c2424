"""How tissue labels become a CT picture: texture, resolution, kernel, noise, streaks, the table.

Shapes:
    y, x: pixels of the picture.
    Y, X: pixels of the label map, a whole number of times finer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import AIR_HU, MAX_HU
from ubr_pretrain.phantom_lesions import Lesion
from ubr_pretrain.phantom_painter import Canvas
from ubr_pretrain.phantom_scan import Scan
from ubr_pretrain.phantom_shapes import Floats
from ubr_pretrain.phantom_subject import Subject
from ubr_pretrain.phantom_tissues import Tissue, texture_table

TEXTURE_MM = 2.2
"""Correlation length of the texture inside a tissue, in the slice."""

TEXTURE_STEP_MM = 5.0
"""The texture of one slice is a new one after this distance."""

NOISE_GROWTH_MM = 180.0
"""Noise grows by e for every such increase of the body's mean diameter over a slim one."""

SLIM_MM = 270.0
BONE_HU = 250.0
SHARPENING_MM = 1.2
"""Width of the overshoot at edges that a sharp kernel makes."""

STREAK_MM = 60.0
"""Length of the horizontal streaks."""

LONG_PATH_MM = (40.0, 130.0)
"""Bone in one row of the slice: streaks begin, and reach their full strength."""

METAL_STREAK_HU = 240.0
METAL_REACH_MM = 60.0

Pixels = NDArray[np.float32]


class Scanner:
    """Turns painted labels into HU, one slice after the other.

    Args:
        subject: who is scanned: HU per tissue and the seed of the texture.
        scan: how.
        size_px: side of the picture.
        oversampling: label pixels per picture pixel, along one side.
    """

    def __init__(self, subject: Subject, scan: Scan, size_px: int, oversampling: int) -> None:
        self.scan, self.size_px = scan, size_px
        self.pixel_mm = scan.fov_mm / size_px
        self._hu = subject.hu + np.float32(scan.shift_hu)
        self._texture_hu = texture_table()
        self._fine_px = size_px * oversampling
        texture_rng = np.random.default_rng(subject.texture_seed)
        tile = texture_rng.standard_normal((self._fine_px, self._fine_px), dtype=np.float32)
        blur_px = max(0.6, TEXTURE_MM * oversampling / self.pixel_mm)
        tile = cv2.GaussianBlur(tile, (0, 0), blur_px, borderType=cv2.BORDER_REFLECT)
        self._tile = np.tile(tile / tile.std(), (2, 2))
        self._shifts = texture_rng.integers(self._fine_px, size=(512, 2))
        self._rng = np.random.default_rng(scan.noise_seed)
        axis = (np.arange(size_px) - (size_px - 1) / 2) / (size_px / 2)
        self._outside = np.hypot(axis[:, None], axis[None, :]) > 1

    def expose(
        self, labels: NDArray[np.uint8], z_mm: float, lesions: Sequence[Lesion] = ()
    ) -> NDArray[np.int16]:
        """Return int16 HU [y, x] of one slice from its labels [Y, X] and the lesions it may cut."""
        scan, size = self.scan, (self.size_px, self.size_px)
        hu = cv2.LUT(labels, self._texture_hu)
        hu *= self._texture(z_mm)
        hu += cv2.LUT(labels, self._hu)
        if hu.shape != size:
            hu = cv2.resize(hu, size, interpolation=cv2.INTER_AREA)
        for lesion in lesions:
            lesion.blend(hu, z_mm)
        blur_px = scan.kernel_mm / self.pixel_mm
        if blur_px > 0.25:
            hu = cv2.GaussianBlur(hu, (0, 0), blur_px)
        if scan.sharpen:
            blurred = cv2.GaussianBlur(hu, (0, 0), max(0.8, SHARPENING_MM / self.pixel_mm))
            # Coarse pixels average the overshoot at edges away.
            hu += scan.sharpen * min(1.0, SHARPENING_MM / self.pixel_mm) ** 2 * (hu - blurred)
        hu += self._noise(hu)
        metal = labels == Tissue.METAL
        if metal.any():
            hu += self._metal_streaks(metal)
        if scan.round_field:
            hu[self._outside] = AIR_HU
        return np.clip(np.rint(hu), AIR_HU, MAX_HU).astype(np.int16)

    def _texture(self, z_mm: float) -> Pixels:
        """Return unit-variance texture [Y, X] that changes smoothly from slice to slice."""
        cell = math.floor(z_mm / TEXTURE_STEP_MM)
        t = z_mm / TEXTURE_STEP_MM - cell
        (y0, x0), (y1, x1) = self._shifts[[cell % 512, (cell + 1) % 512]].tolist()
        n = self._fine_px
        weight = 1 / math.hypot(1 - t, t)
        here, there = self._tile[y0 : y0 + n, x0 : x0 + n], self._tile[y1 : y1 + n, x1 : x1 + n]
        return cv2.addWeighted(here, weight * (1 - t), there, weight * t, 0)

    def _noise(self, hu: Pixels) -> Pixels:
        """Draw the noise of one slice: it grows with the body's thickness; long paths streak."""
        scan = self.scan
        body = (hu > -300).astype(np.float32)
        body_mm = math.sqrt(float(body.sum())) * self.pixel_mm
        bone_mm = int(np.count_nonzero(hu > BONE_HU, axis=1).max()) * self.pixel_mm
        sigma_hu = scan.noise_hu * math.exp((body_mm - SLIM_MM) / NOISE_GROWTH_MM)
        sigma_hu /= max(1.0, self.pixel_mm) ** 0.8
        noise = self._grain(hu.shape)
        noise *= sigma_hu
        streak_hu = scan.streaks * sigma_hu * float(np.interp(bone_mm, LONG_PATH_MM, (0, 1)))
        if streak_hu > 1:
            length_px = max(3, int(STREAK_MM / self.pixel_mm)) | 1
            rows = self._rng.standard_normal(hu.shape, dtype=np.float32)
            body *= streak_hu * math.sqrt(length_px)
            noise += cv2.blur(rows, (length_px, 1)) * body
        return noise

    def _grain(self, shape: tuple[int, ...]) -> Pixels:
        white = self._rng.standard_normal(shape, dtype=np.float32)
        grain_px = self.scan.grain_mm / self.pixel_mm
        if grain_px > 0.3:
            white = cv2.GaussianBlur(white, (0, 0), grain_px)
            white /= white.std()
        return white

    def _metal_streaks(self, metal: NDArray[np.bool_]) -> Pixels:
        """Return bright and dark rays [y, x] that leave every piece of metal."""
        num, _, stats, centres = cv2.connectedComponentsWithStats(metal.astype(np.uint8))
        rows, columns = np.mgrid[: self.size_px, : self.size_px].astype(np.float32)
        streaks = np.zeros((self.size_px, self.size_px), np.float32)
        fine = self._fine_px / self.size_px
        for index in range(1, num):
            x, y = (centres[index] + 0.5) / fine - 0.5
            radius_mm = math.sqrt(stats[index, cv2.CC_STAT_AREA]) * self.pixel_mm / fine
            angle = np.arctan2(rows - y, columns - x)
            away_mm = np.hypot(rows - y, columns - x) * self.pixel_mm
            rays = self._rng.standard_normal(120)
            rays -= 1.2 * np.cos(2 * np.linspace(-np.pi, np.pi, 120))  # dark along the long path
            value = np.interp(angle, np.linspace(-np.pi, np.pi, 120), rays)
            strength = (
                METAL_STREAK_HU * min(1.0, radius_mm / 20) * np.exp(-away_mm / METAL_REACH_MM)
            )
            streaks += (strength * value).astype(np.float32)
        return streaks


def paint_couch(labels: NDArray[np.uint8], scan: Scan, canvas: Canvas, lowest_px: float) -> None:
    """Paint the table below the body into an empty label map [Y, X], in place.

    Args:
        labels: label map.
        scan: shape of the table and its gap to the body.
        canvas: the picture.
        lowest_px: row of the lowest skin in the whole scan.
    """
    if scan.couch == "none":
        return
    across = np.linspace(-1, 1, 25)
    half_mm = 235.0 if scan.couch == "flat" else 215.0
    sag_mm = {"arc": 30.0, "flat": 0.0, "trapezoid": 14.0}[scan.couch]
    upper_mm = -sag_mm * np.square(across)
    lower_mm = {
        "arc": upper_mm + 9.0,
        "flat": np.full_like(across, 45.0),
        "trapezoid": 62.0 * np.clip((1 - np.abs(across)) / 0.45, 0, 1),
    }[scan.couch]
    middle_px = (canvas.size_px - 1) / 2 + 0.3 * scan.offset_mm[0] / canvas.pixel_mm
    top_px = lowest_px + scan.couch_mm / canvas.pixel_mm

    def line(depth_mm: Floats) -> Floats:
        return np.stack(
            [middle_px + across * half_mm / canvas.pixel_mm, top_px + depth_mm / canvas.pixel_mm], 1
        )

    ring = np.rint(16 * np.concatenate([line(upper_mm), line(lower_mm)[::-1]])).astype(np.int32)
    cv2.fillPoly(labels, [ring], int(Tissue.COUCH_FOAM), cv2.LINE_8, 4)
    thickness_px = max(1, round(2.5 / canvas.pixel_mm))
    shell = int(Tissue.COUCH_SHELL)
    cv2.polylines(labels, [ring], True, shell, thickness_px, cv2.LINE_8, 4)
