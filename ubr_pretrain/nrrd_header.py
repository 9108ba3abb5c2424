"""The header of an NRRD file (attached or detached), with nothing left to a default.

Reference:
    "Definition of NRRD File Format", https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.plain_numbers import plain_float, plain_int
from ubr_pretrain.volume_header import VolumeHeader, affine_of, neighbour, shape_of, unit_rows

MAX_LINE_BYTES = 1 << 16
MAX_LINES = 10_000
MAGIC_LINE = re.compile(rb"NRRD000[1-5]\r?\n")
ONE_VECTOR = re.compile(r"\(([^()]*)\)")
THREE_VECTORS = re.compile(r"\s*(?:\([^()]*\)\s*){3}")

VOXEL_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int",
           "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip

SPACES_TO_LPS = {
    ("left-posterior-superior", "lps"): (1.0, 1.0, 1.0),
    ("right-anterior-superior", "ras"): (-1.0, -1.0, 1.0),
    ("left-anterior-superior", "las"): (1.0, -1.0, 1.0),
}

FIELDS = {
    "dimension", "type", "blocksize", "encoding", "endian", "content", "min", "max", "oldmin",
    "oldmax", "datafile", "lineskip", "byteskip", "number", "sampleunits", "sizes", "spacings",
    "thicknesses", "axismins", "axismaxs", "centers", "centerings", "kinds", "labels", "units",
    "space", "spacedimension", "spaceunits", "spaceorigin", "spacedirections", "measurementframe",
}  # fmt: skip
"""Every field of the format: another name is a damaged line, whose value would be a default."""

RIVALS_OF_DIRECTIONS = {"spacings", "axismins", "axismaxs", "units"}
"""What the format forbids beside space directions, as it says the same another way."""

SPATIAL_KINDS = {"domain", "space", "time", "???", "none"}
COLOUR_KINDS = {"rgb-color", "rgba-color", "hsv-color", "xyz-color", "vector", "list", "2-vector",
                "3-vector", "4-vector", "complex", "point", "normal"}  # fmt: skip


def read_nrrd_header(stream: BinaryIO, path: Path) -> VolumeHeader:
    """Parse and check the header; ``stream`` is left at the first byte behind it.

    Raises:
        VolumeRefused: E-HEADER, E-TRUNC, E-DIM, E-4D, E-RGB, E-CODEC, E-SPACING, E-GEOM, E-UNSAFE.
    """
    fields = _fields(stream, path)
    sides = tuple(_whole_numbers(fields, "sizes", path))
    if _whole_numbers(fields, "dimension", path) != [len(sides)]:
        raise VolumeRefused(
            "E-HEADER", path, f"dimension {fields['dimension']}, but {len(sides)} sizes"
        )
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) == len(sides) and COLOUR_KINDS.intersection(kinds):
        raise VolumeRefused("E-RGB", path, f"kinds {' '.join(kinds)}: more than one value a voxel")
    if kinds and not (len(kinds) == len(sides) and SPATIAL_KINDS.issuperset(kinds)):
        raise VolumeRefused("E-HEADER", path, f"kinds {' '.join(kinds)} are not those of a volume")
    shape = shape_of(path, sides)
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise VolumeRefused(
            "E-CODEC", path, f"encoding {encoding!r} is not read", "store it raw or with gzip"
        )
    for skip in ("lineskip", "byteskip"):
        if fields.get(skip, "0") != "0":
            raise VolumeRefused("E-CODEC", path, f"{skip} {fields[skip]} is not read")
    vectors = _space_vectors(fields, len(sides), path)
    data_file = fields.get("datafile")
    return VolumeHeader(
        shape=shape,
        dtype=_voxel_type(fields, path),
        axes_lps=None if vectors is None else unit_rows(path, vectors),
        spacing_mm=_spacing(fields, vectors, path),
        zipped=encoding != "raw",
        data_file=None if data_file is None else neighbour(path, data_file),
        affine_lps=None if vectors is None else affine_of(path, vectors, _origin_mm(fields, path)),
    )


def _fields(stream: BinaryIO, path: Path) -> dict[str, str]:
    """Return the ``name: value`` lines up to the empty line, names in lower case without blanks."""
    fields: dict[str, str] = {}
    if not MAGIC_LINE.fullmatch(stream.readline(MAX_LINE_BYTES)):
        raise VolumeRefused("E-HEADER", path, "the first line is not NRRD0001 to NRRD0005")
    for _ in range(MAX_LINES):
        line = stream.readline(MAX_LINE_BYTES)
        text = line.rstrip(b"\r\n").decode("utf-8", errors="replace")
        if not text:
            return fields
        if not line.endswith(b"\n"):
            raise VolumeRefused("E-TRUNC", path, f"ends within the header, after {text!r}")
        if text.startswith("#") or ":=" in text.partition(": ")[0]:  # a comment, a key of the user
            continue
        name, _, value = text.partition(":")
        name = name.replace(" ", "").lower()
        is_plain = text.replace("\t", " ").isprintable()
        if name not in FIELDS or text[0].isspace() or not is_plain:
            raise VolumeRefused("E-HEADER", path, f"line {text!r} is no field of an NRRD header")
        if name in fields:
            raise VolumeRefused("E-HEADER", path, f"field {name!r} is given twice")
        fields[name] = value.strip()
    raise VolumeRefused("E-HEADER", path, f"the header has more than {MAX_LINES} lines")


def _whole_numbers(fields: dict[str, str], name: str, path: Path) -> list[int]:
    try:
        return [plain_int(word) for word in fields[name].split()]
    except (KeyError, ValueError) as error:
        raise VolumeRefused(
            "E-HEADER", path, f"{name} is {fields.get(name, 'missing')!r}, not whole numbers"
        ) from error


def _voxel_type(fields: dict[str, str], path: Path) -> np.dtype[np.generic]:
    name = fields.get("type", "").lower()
    for code, names in VOXEL_TYPES.items():
        if name in names:
            order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
            if order is None and code[1] != "1":
                raise VolumeRefused("E-HEADER", path, f"type {name}, but no endian little or big")
            return np.dtype(f"{order or '<'}{code}")
    raise VolumeRefused("E-HEADER", path, f"type {name!r} is no real voxel type")


def _space_signs(fields: dict[str, str], path: Path) -> tuple[float, float, float]:
    space = fields.get("space", "").lower()
    signs = next((s for names, s in SPACES_TO_LPS.items() if space in names), None)
    if signs is None:
        raise VolumeRefused("E-GEOM", path, f"space {space!r} is not LPS, RAS or LAS")
    return signs


def _space_vectors(
    fields: dict[str, str], num_sides: int, path: Path
) -> NDArray[np.float64] | None:
    """Return the k, j, i steps in mm, LPS; None where the file states no directions."""
    if "spacedirections" not in fields:
        return None
    if rivals := RIVALS_OF_DIRECTIONS.intersection(fields):
        raise VolumeRefused("E-HEADER", path, f"space directions and {', '.join(sorted(rivals))}")
    signs = _space_signs(fields, path)
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if any(unit.lower() not in ("mm", "millimeter", "millimeters", "") for unit in units):
        raise VolumeRefused("E-SPACING", path, f"space units {fields['spaceunits']} are not mm")
    words = re.findall(r"\(([^)]*)\)", fields["spacedirections"])
    try:
        vectors = np.array([[plain_float(x) for x in word.split(",")] for word in words])
    except ValueError:
        vectors = np.empty((0, 0))
    is_three = THREE_VECTORS.fullmatch(fields["spacedirections"]) is not None
    if not is_three or vectors.shape != (3, 3) or num_sides != 3:
        raise VolumeRefused(
            "E-GEOM",
            path,
            f"space directions {fields['spacedirections']!r} are not three vectors for three axes",
        )
    return np.array((vectors * signs)[::-1])


def _origin_mm(fields: dict[str, str], path: Path) -> NDArray[np.float64]:
    """Return the LPS centre of the first voxel; the space is known from its directions."""
    vector = ONE_VECTOR.fullmatch(fields.get("spaceorigin", "(0,0,0)"))
    words = vector[1].split(",") if vector else []
    try:
        signed = zip(words, _space_signs(fields, path), strict=True)
        return np.array([plain_float(word) * sign for word, sign in signed])
    except ValueError as error:
        raise VolumeRefused(
            "E-GEOM", path, f"space origin {fields['spaceorigin']!r} is not three numbers"
        ) from error


def _spacing(
    fields: dict[str, str], vectors: NDArray[np.float64] | None, path: Path
) -> tuple[float, float, float] | None:
    """Return the k, j, i spacing from the directions, or from a bare ``spacings`` line."""
    if vectors is not None:
        steps = np.linalg.norm(vectors, axis=1).tolist()
    elif "spacings" in fields:
        try:
            steps = [plain_float(word) for word in fields["spacings"].split()][::-1]
        except ValueError:
            steps = []
        if len(steps) != 3:
            raise VolumeRefused("E-SPACING", path, f"spacings {fields['spacings']!r}")
    else:
        return None
    return steps[0], steps[1], steps[2]
