"""The header of a MetaImage file (.mha, or .mhd with a data file beside it).

Reference:
    "ITK/MetaIO/Documentation", https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.plain_numbers import plain_float
from ubr_pretrain.reading_rules import check_spacing
from ubr_pretrain.volume_header import VolumeHeader, affine_of, neighbour, shape_of, unit_rows

MAX_LINE_BYTES = 1 << 16
MAX_LINES = 1_000

VOXEL_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
"""MET_LONG is missing on purpose: it has 4 or 8 bytes, depending on the machine that wrote it."""

YES, NO = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")
MAX_UNIT_ERROR = 1e-3

BYTE_ORDERS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
ROTATIONS = ("TransformMatrix", "Rotation", "Orientation")
ORIGINS = ("Offset", "Position", "Origin")
"""One thing under several names; where a file gives more than one, they must agree."""


def read_metaimage_header(stream: BinaryIO, path: Path) -> VolumeHeader:
    """Parse and check the header; ``stream`` is left behind the ElementDataFile line.

    Raises:
        VolumeRefused: E-HEADER, E-DIM, E-4D, E-RGB, E-CODEC, E-RESCALE, E-SPACING, E-GEOM,
            E-UNSAFE.
    """
    fields = _fields(stream, path)
    sides = _numbers(fields, "DimSize", path)
    if sides is None or _numbers(fields, "NDims", path) != [len(sides)]:
        raise VolumeRefused(
            "E-HEADER",
            path,
            f"NDims {fields.get('NDims', 'missing')}, DimSize {fields.get('DimSize', 'missing')}",
        )
    if not all(side.is_integer() for side in sides):
        raise VolumeRefused("E-HEADER", path, f"DimSize {fields['DimSize']} is not whole numbers")
    if (channels := fields.get("ElementNumberOfChannels", "1")) != "1":
        raise VolumeRefused("E-RGB", path, f"ElementNumberOfChannels = {channels}, a CT has 1")
    shape = shape_of(path, tuple(int(side) for side in sides))
    _refuse_unread(fields, path)
    data_name = fields["ElementDataFile"]
    spacing_mm = _spacing_mm(fields, len(sides), path)
    axes_lps = _axes_lps(fields, len(sides), path)
    return VolumeHeader(
        shape=shape,
        dtype=_voxel_type(fields, path),
        axes_lps=axes_lps,
        spacing_mm=spacing_mm,
        zipped=_true(fields, "CompressedData", path),
        data_file=None if data_name.upper() == "LOCAL" else neighbour(path, data_name),
        affine_lps=_affine_lps(fields, axes_lps, spacing_mm, path),
    )


def _fields(stream: BinaryIO, path: Path) -> dict[str, str]:
    """Return the ``Name = value`` lines up to ElementDataFile, which ends a MetaImage header."""
    fields: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = stream.readline(MAX_LINE_BYTES)
        name, equals, value = line.decode("utf-8", errors="replace").partition("=")
        if not line or not equals or not name.strip().isprintable():
            raise VolumeRefused(
                "E-HEADER",
                path,
                "a header line is not 'Name = value', or ElementDataFile is missing",
            )
        name = name.strip()
        if name in fields:
            raise VolumeRefused("E-HEADER", path, f"field {name!r} is given twice")
        fields[name] = value.strip()
        if name == "ElementDataFile":
            return fields
    raise VolumeRefused("E-HEADER", path, f"the header has more than {MAX_LINES} lines")


def _numbers(fields: dict[str, str], name: str, path: Path) -> list[float] | None:
    if name not in fields:
        return None
    try:
        if not fields[name].replace("\t", " ").isprintable():
            raise ValueError("Python parts words at control characters, which ITK does not")
        return [plain_float(word) for word in fields[name].split()]
    except ValueError as error:
        raise VolumeRefused("E-HEADER", path, f"{name} = {fields[name]} is not numbers") from error


def _true(fields: dict[str, str], name: str, path: Path) -> bool:
    word = fields.get(name, "False").lower()
    if word not in (*YES, *NO):
        raise VolumeRefused("E-HEADER", path, f"{name} = {fields[name]} is neither True nor False")
    return word in YES


def _refuse_unread(fields: dict[str, str], path: Path) -> None:
    """Refuse the parts of the format that change the voxels and that nobody uses for CT."""
    if not _true({"BinaryData": "True", **fields}, "BinaryData", path):
        raise VolumeRefused("E-CODEC", path, "voxels written as text are not read")
    if fields.get("HeaderSize", "0") != "0":
        raise VolumeRefused("E-CODEC", path, f"HeaderSize = {fields['HeaderSize']} is not read")
    if fields.get("DistanceUnits", "mm") not in ("mm", "?"):
        raise VolumeRefused("E-SPACING", path, f"DistanceUnits = {fields['DistanceUnits']}, not mm")
    for name, neutral in (
        ("ElementToIntensityFunctionSlope", 1.0),
        ("ElementToIntensityFunctionOffset", 0.0),
    ):
        if _numbers(fields, name, path) not in (None, [neutral]):
            raise VolumeRefused("E-RESCALE", path, f"{name} = {fields[name]} is not applied")


def _voxel_type(fields: dict[str, str], path: Path) -> np.dtype[np.generic]:
    name = fields.get("ElementType", "missing")
    if name not in VOXEL_TYPES:
        raise VolumeRefused("E-HEADER", path, f"ElementType {name} is no portable real voxel type")
    stated = {_true(fields, name, path) for name in BYTE_ORDERS if name in fields}
    if len(stated) > 1:
        raise VolumeRefused("E-HEADER", path, f"{' and '.join(BYTE_ORDERS)} contradict each other")
    big = True in stated
    return np.dtype(VOXEL_TYPES[name]).newbyteorder(">" if big else "<")


def _spacing_mm(
    fields: dict[str, str], num_sides: int, path: Path
) -> tuple[float, float, float] | None:
    steps = _numbers(fields, "ElementSpacing", path)
    if steps is None:
        return None
    if len(steps) != num_sides or num_sides != 3:
        raise VolumeRefused("E-SPACING", path, f"ElementSpacing = {fields['ElementSpacing']}")
    return steps[2], steps[1], steps[0]


def _axes_lps(fields: dict[str, str], num_sides: int, path: Path) -> NDArray[np.float64] | None:
    """Return the k, j, i axes: the n-th triple of the matrix is where the n-th index grows."""
    name, numbers = _synonym(fields, ROTATIONS, path)
    if numbers is None:
        return None
    if len(numbers) != 9 or num_sides != 3:
        raise VolumeRefused("E-GEOM", path, f"{name} = {fields[name]} is not 3 x 3 for three axes")
    rows = np.array(numbers).reshape(3, 3)[::-1]
    units = unit_rows(path, rows)
    if np.abs(rows - units).max() > MAX_UNIT_ERROR:  # readers disagree whether it is a spacing
        raise VolumeRefused("E-GEOM", path, f"{name} = {fields[name]} is not of unit vectors")
    return units


def _affine_lps(
    fields: dict[str, str],
    axes_lps: NDArray[np.float64] | None,
    spacing_mm: tuple[float, float, float] | None,
    path: Path,
) -> NDArray[np.float64] | None:
    """Return the affine of the k, j, i indices; None without directions or spacing."""
    if axes_lps is None or spacing_mm is None:
        return None
    check_spacing(path, spacing_mm)
    origin_mm = np.array(_synonym(fields, ORIGINS, path)[1] or [0.0, 0.0, 0.0])
    return affine_of(path, axes_lps * np.array(spacing_mm)[:, np.newaxis], origin_mm)


def _synonym(
    fields: dict[str, str], names: tuple[str, ...], path: Path
) -> tuple[str, list[float] | None]:
    """Return what a field with several names says, and the name that was used.

    Raises:
        VolumeRefused: E-GEOM: two names say two things.
    """
    given = {name: _numbers(fields, name, path) for name in names if name in fields}
    name, numbers = next(iter(given.items()), (names[0], None))
    for other, others in given.items():
        if others != numbers:
            raise VolumeRefused(
                "E-GEOM", path, f"{name} = {fields[name]}, but {other} = {fields[other]}"
            )
    return name, numbers
