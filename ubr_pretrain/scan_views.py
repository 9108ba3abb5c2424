"""Pictures of a scan for a page: every axial slice, reduced, and the two views through its middle.

Shapes:
    z, y, x: as in ``ct``; S: side of a tile in pixels; H, W: pixels of a picture.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Int16, UInt8
from numpy import ndarray
from numpy.typing import NDArray

from ubr_pretrain.ct import STEP_TOLERANCE, InputSpec, Volume, Window
from ubr_pretrain.network_input import resample_slices

SLICE_WINDOWS = {
    "soft tissue": Window(lower_hu=-160, upper_hu=240),
    "lung": Window(lower_hu=-1350, upper_hu=150),
}
"""Of the axial slices: 400 HU around 40 and 1500 HU around -600, as radiologists have them."""

VIEW_WINDOW = Window(lower_hu=-700, upper_hu=500)
"""Of the views: wide, so that lung and bone can be told from what surrounds them."""

TILE_PX = 224
MIN_TILE_PX = 96
TILE_BLOCK_PX = 16
"""Tiles are whole blocks of the encoder, so that no slice bleeds into its neighbour."""

MAX_PIXELS = 16_000_000
"""Of all slices together; more than 318 slices are drawn smaller."""

SHEET_COLUMNS, SHEET_ROWS = 8, 8
VIEW_PX = 640
BODY_HU = -300
BODY_SHARE = 0.03
"""Of the slices: what is dense in fewer of them (a hand beside the head) may be cut away."""

BODY_MARGIN_MM = 12.0
AXIAL_QUALITY, VIEW_QUALITY = 65, 82


@dataclass(frozen=True)
class SliceSheets:
    """All axial slices, tiled row by row onto a few pictures.

    Attributes:
        tile_px: side of a slice.
        columns: slices in a row.
        per_sheet: slices on a picture.
        images: data URIs of the pictures, by the name of the window.
    """

    tile_px: int
    columns: int
    per_sheet: int
    images: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class BodyView:
    """One view along the body, the head at the top, pixels square in mm.

    Attributes:
        name: coronal or sagittal.
        width_mm: of the picture.
        height_mm: from half a slice above the first slice to half a slice below the last.
        image: data URI.
    """

    name: str
    width_mm: float
    height_mm: float
    image: str


def slice_sheets(volume: Volume) -> SliceSheets:
    """Return every axial slice around the body in every window, undistorted on a square."""
    rows, columns = body_box(volume)
    hu, pixel_mm = volume.hu[:, rows, columns], volume.spacing_mm_zyx[1:]
    wanted_px = min(TILE_PX, max(volume.hu.shape[1:]), math.isqrt(MAX_PIXELS // volume.num_slices))
    tile_px = max(MIN_TILE_PX, -(-wanted_px // TILE_BLOCK_PX) * TILE_BLOCK_PX)
    tiles = resample_slices(hu, pixel_mm, InputSpec(size_px=tile_px))
    per_sheet = SHEET_COLUMNS * SHEET_ROWS
    images = {
        name: tuple(
            _data_uri(_sheet(_grey(tiles[first : first + per_sheet], window)), AXIAL_QUALITY)
            for first in range(0, len(tiles), per_sheet)
        )
        for name, window in SLICE_WINDOWS.items()
    }
    return SliceSheets(tile_px, SHEET_COLUMNS, per_sheet, images)


def _sheet(tiles: UInt8[ndarray, "z S S"]) -> NDArray[np.uint8]:
    """Return tiles row by row on one picture, the last row filled up with black."""
    side_px, rows = tiles.shape[1], -(-len(tiles) // SHEET_COLUMNS)
    full = np.zeros((rows * SHEET_COLUMNS, side_px, side_px), np.uint8)
    full[: len(tiles)] = tiles
    grid = full.reshape(rows, SHEET_COLUMNS, side_px, side_px).transpose(0, 2, 1, 3)
    return grid.reshape(rows * side_px, SHEET_COLUMNS * side_px)


def body_views(volume: Volume) -> tuple[BodyView, BodyView]:
    """Return the coronal and the sagittal view through the middle of the body."""
    rows, columns = body_box(volume)
    row, column = _middle_of_body(volume.hu)
    _, row_mm, column_mm = volume.spacing_mm_zyx
    return (
        _body_view("coronal", volume.hu[:, row, columns], column_mm, volume),
        _body_view("sagittal", volume.hu[:, rows, column], row_mm, volume),
    )


def body_box(volume: Volume) -> tuple[slice, slice]:
    """Return the rows and columns that hold the body, with a margin; not the couch, nor the air."""
    dense = (volume.hu > BODY_HU).mean(axis=0) > BODY_SHARE
    _, _, boxes, _ = cv2.connectedComponentsWithStats(dense.astype(np.uint8))
    if len(boxes) < 2:  # only the background
        return slice(None), slice(None)
    left, top, width, height, _ = boxes[1 + np.argmax(boxes[1:, cv2.CC_STAT_AREA])].tolist()
    row_px, column_px = (math.ceil(BODY_MARGIN_MM / mm) for mm in volume.spacing_mm_zyx[1:])
    return (
        slice(max(0, top - row_px), top + height + row_px),
        slice(max(0, left - column_px), left + width + column_px),
    )


def _middle_of_body(hu: Int16[ndarray, "z y x"]) -> tuple[int, int]:
    """Return the row and the column in the middle of what is dense in most slices."""
    body = (hu > BODY_HU).sum(axis=0)
    if not body.any():
        return hu.shape[1] // 2, hu.shape[2] // 2
    rows, columns = np.nonzero(body > 0.3 * body.max())
    return int(np.median(rows)), int(np.median(columns))


def _body_view(
    name: str, plane_hu: Int16[ndarray, "z x"], pixel_mm: float, volume: Volume
) -> BodyView:
    """Return one plane as a picture; rows without a slice near them stay grey."""
    z_mm, step_mm = volume.z_mm, volume.spacing_mm_zyx[0]
    width_mm = plane_hu.shape[1] * pixel_mm
    height_mm = float(z_mm[-1]) + step_mm
    side_mm = max(1.0, max(width_mm, height_mm) / VIEW_PX)
    width, height = (max(1, round(mm / side_mm)) for mm in (width_mm, height_mm))
    how = cv2.INTER_AREA if width < plane_hu.shape[1] else cv2.INTER_LINEAR
    lines = cv2.resize(plane_hu.astype(np.float32), (width, len(z_mm)), interpolation=how)

    row_mm = (np.arange(height) + 0.5) * height_mm / height - step_mm / 2
    place = np.interp(row_mm, z_mm, np.arange(len(z_mm)))
    above = np.floor(place).astype(int)
    below = np.minimum(above + 1, len(z_mm) - 1)
    share = (place - above)[:, np.newaxis]
    picture = _grey(lines[above] * (1 - share) + lines[below] * share, VIEW_WINDOW)
    away_mm = np.minimum(np.abs(row_mm - z_mm[above]), np.abs(row_mm - z_mm[below]))
    picture[away_mm > (0.5 + STEP_TOLERANCE) * step_mm] = 96
    return BodyView(name, width_mm, height_mm, _data_uri(picture, VIEW_QUALITY))


def _grey(hu: ndarray, window: Window) -> NDArray[np.uint8]:
    values = (hu.astype(np.float32) - window.lower_hu) / (window.upper_hu - window.lower_hu)
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _data_uri(picture: UInt8[ndarray, "H W"], quality: int) -> str:
    encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
