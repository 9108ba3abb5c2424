"""The room that a slice store will take on its disk, told by headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import disk_usage

from ubr_pretrain.ct import InputSpec, VolumeRefused
from ubr_pretrain.png_slices import slice_number
from ubr_pretrain.stored_file import StoredFile
from ubr_pretrain.time_limit import in_time
from ubr_pretrain.volume_file import HEADER_READERS
from ubr_pretrain.volumes import VolumeEntry

SPARE = 1.05
"""Room that is asked for, in multiples of what will be written."""


def require_room(folder: Path, num_slices: int, spec: InputSpec) -> None:
    """Refuse a disk that is too small, before hours are spent on filling it.

    Raises:
        ValueError: with both sizes.
    """
    num_bytes = SPARE * num_slices * 2 * spec.size_px**2
    free = disk_usage(folder).free
    if num_bytes > free:
        raise ValueError(
            f"{folder}: {num_bytes / 1e9:.1f} GB of slices are to be written and "
            f"{free / 1e9:.1f} GB are free; name a folder on another disk by --store"
        )


def promised_slices(entries: Sequence[VolumeEntry]) -> int:
    """Return how many slices the headers of volumes promise; what will be refused has none."""
    return sum(map(_promised, entries))


def _promised(entry: VolumeEntry) -> int:
    if entry.refusal is not None:
        return 0
    if entry.headers:
        return sum(len(header.frames) for header in entry.headers)
    try:
        if entry.path.is_dir():
            return sum(slice_number(file) is not None for file in entry.path.iterdir())
        return in_time(entry.path, _stated, entry.path)
    except (VolumeRefused, OSError, KeyError):
        return 0


def _stated(path: Path) -> int:
    with StoredFile(path) as file:
        return max(HEADER_READERS[file.format](file.stream, path).shape[0], 0)
