"""From HU to what a network reads, as an ``InputSpec`` says.

Shapes:
    Z: slices; Y, X: stored rows and columns; S: ``InputSpec.size_px``.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy import ndarray
from torch import Tensor

from ubr_pretrain.ct import AIR_HU, InputSpec, Window

GREY_MAX = 255.0
"""White of a picture; the unit in which others state mean and standard deviation."""


def resample_slices(
    hu: Int16[ndarray, "Z Y X"], spacing_mm_yx: tuple[float, float], spec: InputSpec
) -> Int16[ndarray, "Z S S"]:
    """Return square slices of ``spec.size_px``, the anatomy never stretched.

    With ``spec.fov_mm`` the square is that many millimetres around the centre of the image (cut or
    padded with air); without, it is the longer side of the image. Areas are averaged where pixels
    shrink, interpolated linearly where they grow.

    Args:
        hu: axial slices.
        spacing_mm_yx: row height and column width.
        spec: the input convention.
    """
    extent_mm = [n * s for n, s in zip(hu.shape[1:], spacing_mm_yx, strict=True)]
    pixel_mm = (spec.fov_mm or max(extent_mm)) / spec.size_px
    rows, columns = (max(1, round(extent / pixel_mm)) for extent in extent_mm)
    shrinks = rows < hu.shape[1] or columns < hu.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    into, out_of = _centred(rows, columns, spec.size_px)
    square = np.full((len(hu), spec.size_px, spec.size_px), AIR_HU, np.int16)
    if shrinks and (hu.shape[1] % rows or hu.shape[2] % columns):
        # By a factor that is not whole, OpenCV averages int16 in float32 and rounds to nearest, and
        # needs little longer for four channels than for one.
        four = np.empty((*hu.shape[1:], 4), np.int16)  # fresh pages would cost as much as resizing
        for first in range(0, len(hu), 4):
            image = cv2.merge(list(hu[first : first + 4]), four)
            small = cv2.resize(image, (columns, rows), interpolation=how)
            small = small.reshape(rows, columns, -1)[out_of]
            square[first : first + 4, *into] = small.transpose(2, 0, 1)
        return square
    image = np.empty(hu.shape[1:], np.float32)  # int16 would not always be rounded to nearest
    for target, one in zip(square, hu, strict=True):
        np.copyto(image, one)
        small = cv2.resize(image, (columns, rows), interpolation=how)
        target[into] = np.rint(small[out_of])
    return square


def _centred(rows: int, columns: int, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where an image lies in a centred square, and which part of it fits."""
    into, out_of = [], []
    for n in (rows, columns):
        first = (size - n) // 2
        kept = min(n, size)
        into.append(slice(max(0, first), max(0, first) + kept))
        out_of.append(slice(max(0, -first), max(0, -first) + kept))
    return (into[0], into[1]), (out_of[0], out_of[1])


def network_input(hu: Float[Tensor, "Z Y X"], spec: InputSpec) -> Float[Tensor, "Z 3 Y X"]:
    """Window and normalise HU, the grey value repeated over three channels."""
    return normalise(hu[:, None].expand(-1, 3, -1, -1), spec)


def normalise(hu: Float[Tensor, "Z 3 Y X"], spec: InputSpec) -> Float[Tensor, "Z 3 Y X"]:
    """Window and normalise three channels of HU: ``(scale * window(hu) - mean) / std``."""
    grey = grey_image(hu, spec.window, spec.scale)
    statistics = torch.tensor([spec.mean, spec.std], dtype=hu.dtype, pin_memory=hu.is_cuda)
    mean, std = statistics.to(hu.device, non_blocking=True)[:, :, None, None]  # no GPU waits here
    return (grey - mean) / std


def grey_image(
    hu: Float[Tensor, "*shape"], window: Window, white: float = GREY_MAX
) -> Float[Tensor, "*shape"]:
    """Return ``white * clip((hu - lower_hu) / (upper_hu - lower_hu), 0, 1)``."""
    scale = white / (window.upper_hu - window.lower_hu)
    return ((hu - window.lower_hu) * scale).clamp(0.0, white)
