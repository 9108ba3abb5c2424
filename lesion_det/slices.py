"""The detector's input from DeepLesion's 16-bit PNG folders: three slices, one scale, no border.

HU are kept as int16, whatever the backbone: window and normalisation come from its ``InputSpec``
on the training device, so that all arms of a comparison read the same stored input.

Shapes:
    C: 3 slices, superior -> inferior; y, x: rows and columns of the PNG; h, w: of the input.

Reference:
    DeepLesion, Yan et al., 2018: HU = stored value - 32768; the three slices at 2 mm, 0.8 mm per
    pixel, 512 pixels at most and the clipped border are those of the authors' later detectors.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int16
from numpy import ndarray
from numpy.typing import NDArray

from lesion_det.boxes import Frame
from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.image_names import require_inside
from ubr_pretrain.png_slices import read_stored_slice

STORED_ZERO_HU = 32768
"""DeepLesion stores HU + 32768."""

BORDER_HU = -175
"""What is black in the paper's window. The clipped border must not depend on a backbone's own."""

BORDER_MARGIN_PX = 8
"""Kept around the body: DeepLesion's boxes reach 5 px beyond the lesion."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """One input: HU int16 [C, h, w] and where it lies in the PNG."""

    hu: NDArray[np.int16]
    frame: Frame


def read_slice(path: Path) -> Int16[ndarray, "y x"]:
    """Read one PNG as HU; nothing is inflated before its header shows a possible 16-bit slice.

    Raises:
        ValueError: no such file, damaged or cut off, too large, or not a 16-bit grey PNG (an 8-bit
            read would give plausible garbage).
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such slice")
    return (read_stored_slice(path).astype(np.int32) - STORED_ZERO_HU).astype(np.int16)


def source_files(images: Path, record: ImageRecord, config: InputConfig) -> list[Path]:
    """Return the files that an input depends on: the key slice and its run, as far as is needed.

    A run is one of consecutive numbers. A missing file ends it, so no anatomy is made up across a
    gap.

    Raises:
        ValueError: no such file, or not the key slice; the slice interval is no distance.
    """
    key = images / record.file_name
    if key.stem != f"{record.key_slice_index:0{len(key.stem)}d}":
        raise ValueError(f"{key}: the ground truth says key slice {record.key_slice_index}")
    if not key.is_file():
        raise ValueError(f"{key}: no such slice")
    files = deque([key])
    for direction in (-1, 1):
        for away in range(1, math.ceil(_offsets(record, config)[-1]) + 1):
            file = _numbered(key, record.key_slice_index + direction * away)
            if not file.is_file():
                break
            (files.append if direction > 0 else files.appendleft)(file)
    return list(files)


def read_stack(images: Path, record: ImageRecord, config: InputConfig) -> NDArray[np.float32]:
    """Read the slices above, at, and below the key slice, float32 HU [C, y, x].

    Neighbours are interpolated linearly between the files of the run that holds the key slice;
    beyond its ends the last slice is repeated.

    Raises:
        ValueError: as ``source_files``; a slice cannot be read or is not of the size that the
            ground truth states.
    """
    run = source_files(images, record, config)
    first, last = int(run[0].stem), int(run[-1].stem)
    read: dict[int, NDArray[np.float32]] = {}

    def slice_hu(index: int) -> NDArray[np.float32]:
        if index not in read:
            file = run[index - first]
            hu = read_slice(file)
            if hu.shape != (record.height_px, record.width_px):
                raise ValueError(
                    f"{file}: {hu.shape[1]}x{hu.shape[0]} px, the ground truth says "
                    f"{record.width_px}x{record.height_px}"
                )
            read[index] = hu.astype(np.float32)
        return read[index]

    channels = []
    for offset in _offsets(record, config):
        position = min(max(record.key_slice_index + offset, first), last)
        below = math.floor(position)
        weight = np.float32(position - below)
        hu = slice_hu(below)
        channels.append(hu if weight == 0 else hu + weight * (slice_hu(below + 1) - hu))
    return np.stack(channels)


def _offsets(record: ImageRecord, config: InputConfig) -> tuple[float, float, float]:
    """Return where the three slices lie, in slices from the key slice."""
    if config.slices == "single":
        return 0.0, 0.0, 0.0
    interval_mm = record.spacing_mm_zyx[0]
    if not (math.isfinite(interval_mm) and interval_mm > 0):
        raise ValueError(
            f"{record.file_name}: slice interval {interval_mm} mm; three slices need a number > 0 "
            "(input.slices single needs none)"
        )
    steps = config.interval_mm / interval_mm
    return -steps, 0.0, steps


def _numbered(key: Path, index: int) -> Path:
    """Return the file of another slice of the series."""
    return key.with_name(f"{index:0{len(key.stem)}d}{key.suffix}")


def body_frame(
    stack_hu: NDArray[np.float32], spacing_mm_yx: tuple[float, float], config: InputConfig
) -> Frame:
    """Return the part of a stack that is kept, and the size it is resampled to.

    A frame depends on the image alone, never on its boxes.
    """
    (top, bottom), (left, right) = ((0, side) for side in stack_hu.shape[1:])
    if config.clip_border:
        body = np.any(stack_hu > BORDER_HU, axis=0)
        (top, bottom), (left, right) = _extent(np.any(body, axis=1)), _extent(np.any(body, axis=0))
    height, width = bottom - top, right - left
    zoom = [spacing / (config.pixel_mm or spacing) for spacing in spacing_mm_yx]
    longest = max(height * zoom[0], width * zoom[1])
    limit = min(1.0, (config.max_px or longest) / longest)
    return Frame(
        left_px=left,
        top_px=top,
        kept_width_px=width,
        kept_height_px=height,
        width_px=max(1, round(width * zoom[1] * limit)),
        height_px=max(1, round(height * zoom[0] * limit)),
    )


def _extent(occupied: NDArray[np.bool_]) -> tuple[int, int]:
    """Return start and end of the occupied span with its margin; everything where it is empty."""
    indices = np.flatnonzero(occupied)
    if indices.size == 0:
        return 0, len(occupied)
    start = max(0, int(indices[0]) - BORDER_MARGIN_PX)
    return start, min(len(occupied), int(indices[-1]) + 1 + BORDER_MARGIN_PX)


def prepare_image(images: Path, record: ImageRecord, config: InputConfig) -> PreparedImage:
    """Read, clip and resample the input of one key slice.

    Deviation: the authors interpolate linearly at any scale; areas are averaged here where pixels
    shrink, because a detector of half the size would read aliasing otherwise.

    Raises:
        ValueError: as ``read_stack``.
    """
    stack = read_stack(images, record, config)
    frame = body_frame(stack, record.spacing_mm_zyx[1:], config)
    rows = slice(frame.top_px, frame.top_px + frame.kept_height_px)
    columns = slice(frame.left_px, frame.left_px + frame.kept_width_px)
    shrinks = frame.width_px < frame.kept_width_px or frame.height_px < frame.kept_height_px
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    size = (frame.width_px, frame.height_px)
    small = [cv2.resize(hu[rows, columns], size, interpolation=how) for hu in stack]
    return PreparedImage(np.rint(np.stack(small)).astype(np.int16), frame)


def require_files(images: Path, records: Iterable[ImageRecord]) -> None:
    """Refuse to start where a key slice is missing (DeepLesion comes in 56 parts).

    Raises:
        ValueError: naming the number of missing slices and the first; or a name that leaves the
            folder.
    """
    records = list(records)
    for record in records:
        require_inside(record.file_name)
    missing = [r.file_name for r in records if not (images / r.file_name).is_file()]
    if missing:
        raise ValueError(f"{images}: {len(missing)} key slices are missing, first {missing[0]}")
