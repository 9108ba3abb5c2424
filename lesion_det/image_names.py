"""Names of images in a COCO file: where they may lead, what they say, when two mean one slice."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

SliceKey = tuple[int, int, int, int]
"""Patient, study, series, slice."""

_DEEPLESION = re.compile(r"(\d{6,9})_(\d{2,9})_(\d{2,9})[/_](\d{3,9})\.png", re.ASCII)


def require_inside(file_name: str) -> str:
    """Return a name of a file below a folder; refuse one that may lead out of it, on any system.

    Raises:
        ValueError: absolute, with a drive, a backslash, a ``..`` or what no name can hold.
    """
    if _DEEPLESION.fullmatch(file_name):
        return file_name
    path, windows = PurePosixPath(file_name), PureWindowsPath(file_name)
    climbs = path.is_absolute() or ".." in path.parts or bool(windows.drive)
    if climbs or not {"\\", "\0"}.isdisjoint(file_name):
        raise ValueError(f"{file_name!r:.200} leaves the folder of images")
    return file_name


def one_name(file_name: str) -> str:
    """Return the name of a file that all its spellings share: ``./a//052.png`` is ``a/052.png``.

    DeepLesion's slices lie in the folder of their series or beside it, under the table's name:
    ``000024_01_02_052.png`` is ``000024_01_02/052.png``.
    """
    if (key := slice_key(file_name)) is None:
        return str(PurePosixPath(file_name))
    patient, study, series, number = key
    return f"{patient:06d}_{study:02d}_{series:02d}/{number:03d}.png"


def slice_key(file_name: str) -> SliceKey | None:
    """Return what a name of DeepLesion's form says; None of any other name."""
    match = _DEEPLESION.fullmatch(file_name) or _DEEPLESION.fullmatch(str(PurePosixPath(file_name)))
    return (int(match[1]), int(match[2]), int(match[3]), int(match[4])) if match else None
