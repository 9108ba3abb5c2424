"""Pictures of volumes: axial slices from head to feet, and coronal and sagittal views.

Shapes:
    z, y, x: a volume, as in ``ubr_pretrain.ct``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume, Window
from ubr_pretrain.whole_file import write_atomically

TILE_PX = 150
VIEW_PX = 420
GAP_PX = 2
VIEW_SHARES = (0.42, 0.5, 0.58)
"""Where the coronal and the sagittal views cut, as shares of the field of view."""

Picture = NDArray[np.uint8]


def draw_contact_sheet(
    volumes: Sequence[Volume],
    path: Path,
    slices_per_volume: int = 12,
    columns: int = 12,
    window: Window | None = None,
) -> None:
    """Draw axial slices of several volumes, superior to inferior, one volume after the other.

    Args:
        volumes: what to draw.
        path: PNG to write.
        slices_per_volume: evenly spaced slices of each.
        columns: pictures in a row.
        window: HU range; the soft-tissue window where absent.

    Raises:
        ValueError: no volume, slice or column.
    """
    if not volumes or slices_per_volume < 1 or columns < 1:
        raise ValueError(f"{path}: a contact sheet needs at least one volume, slice and column")
    tiles = []
    for volume in volumes:
        picks = np.linspace(0, volume.num_slices - 1, slices_per_volume).round().astype(int)
        for index in np.unique(picks).tolist():
            tiles.append(_shrunk(_windowed(volume.hu[index], window), TILE_PX, TILE_PX))
    write_png(path, _tiled(tiles, columns))


def draw_views(volumes: Sequence[Volume], path: Path, window: Window | None = None) -> None:
    """Draw three coronal and three sagittal views of every volume, true to scale, one row each.

    Args:
        volumes: what to draw.
        path: PNG to write.
        window: HU range; the soft-tissue window where absent.

    Raises:
        ValueError: no volume.
    """
    if not volumes:
        raise ValueError(f"{path}: there is no volume to draw")
    rows = []
    for volume in volumes:
        step_mm, row_mm, column_mm = volume.spacing_mm_zyx
        scale = VIEW_PX / (volume.num_slices * step_mm)
        _, height, width = volume.hu.shape
        cuts = [volume.hu[:, int(share * height)] for share in VIEW_SHARES]
        cuts += [volume.hu[:, :, int(share * width)] for share in reversed(VIEW_SHARES)]
        sides_mm = [width * column_mm] * 3 + [height * row_mm] * 3
        views = [
            _shrunk(_windowed(cut, window), max(1, round(side_mm * scale)), VIEW_PX)
            for cut, side_mm in zip(cuts, sides_mm, strict=True)
        ]
        rows.append(np.hstack([np.pad(view, GAP_PX) for view in views]))
    widest = max(row.shape[1] for row in rows)
    write_png(path, np.vstack([np.pad(r, ((0, 0), (0, widest - r.shape[1]))) for r in rows]))


def _windowed(hu: NDArray[np.int16], window: Window | None) -> Picture:
    window = window or Window()
    share = (hu - window.lower_hu) / (window.upper_hu - window.lower_hu)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _shrunk(picture: Picture, width: int, height: int) -> Picture:
    smaller = picture.shape[0] >= height and picture.shape[1] >= width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.uint8)


def _tiled(tiles: Sequence[Picture], columns: int) -> Picture:
    rows = -(-len(tiles) // columns)
    step = TILE_PX + GAP_PX
    sheet = np.zeros((rows * step, min(columns, len(tiles)) * step), np.uint8)
    for number, tile in enumerate(tiles):
        y, x = divmod(number, columns)
        sheet[y * step : y * step + TILE_PX, x * step : x * step + TILE_PX] = tile
    return sheet


def write_png(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a grey PNG of 8 or 16 bits atomically.

    Raises:
        OSError: it cannot be encoded or written.
    """
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise OSError(f"{path}: a picture {picture.dtype}{picture.shape} is no PNG")
    with write_atomically(path) as file:
        file.write(data.tobytes())
