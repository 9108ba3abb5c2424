"""NRRD and MetaImage by the plainest reading of their definitions, in whatever order lines come.

ITK refuses some orders of lines, and takes lengths of compressed voxels from a line that nobody
needs; where it abstains or is known to be wrong, this judge speaks.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.fuzz.judges import Abstains, Seen, from_grid, table_spacing

NRRD_TYPES = {"short": "i2", "int": "i4", "ushort": "u2", "uint": "u4", "float": "f4",
              "double": "f8", "uchar": "u1", "signed char": "i1", "unsigned char": "u1",
              "unsigned short": "u2", "unsigned int": "u4", "block": ""}  # fmt: skip
METAIMAGE_TYPES = {
    "MET_SHORT": "i2", "MET_INT": "i4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8", "MET_USHORT": "u2",
    "MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_UINT": "u4",
}  # fmt: skip
SIGNS = {"left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "ras": (-1, -1, 1),
         "right-anterior-superior": (-1, -1, 1), "left-anterior-superior": (1, -1, 1),
         "las": (1, -1, 1)}  # fmt: skip


def plain_judge(folder: Path, target: str) -> Seen:
    """Read a text header line by line, then the bytes that it speaks of."""
    content = (folder / target).read_bytes()
    return (_nrrd if content.startswith(b"NRRD") else _metaimage)(folder, content)


def _nrrd(folder: Path, content: bytes) -> Seen:
    head, _, data = content.partition(b"\n\n")
    lines = re.split(r"\r?\n", head.decode("utf-8", "replace"))[1:]
    fields = {
        name.lower().replace(" ", ""): value.strip()
        for line in lines
        if not line.startswith("#")
        for name, colon, value in [line.partition(": ")]
        if colon
    }
    if "datafile" in fields:
        data = (folder / fields["datafile"]).read_bytes()
    if fields["encoding"].lower() in ("gzip", "gz"):
        data = gzip.decompress(data)
    sides = [int(word) for word in fields["sizes"].split()]
    order = {"big": ">", "little": "<"}.get(fields.get("endian", "").lower(), "<")
    dtype = np.dtype(order + NRRD_TYPES[fields["type"].lower()])
    signs = np.array(SIGNS[fields["space"].lower()])
    vectors = _vectors(fields["spacedirections"]) * signs
    origin = _vectors(fields.get("spaceorigin", "(0,0,0)"))[0] * signs
    return _grid(data, dtype, sides, vectors, origin)


def _vectors(text: str) -> NDArray[np.float64]:
    return np.array(
        [[float(x) for x in word.split(",")] for word in re.findall(r"\(([^)]*)\)", text)]
    )


def _metaimage(folder: Path, content: bytes) -> Seen:
    match = re.search(rb"^\s*ElementDataFile\s*=[^\n]*\n?", content, re.MULTILINE)
    if match is None:
        raise Abstains("no ElementDataFile")
    fields = {
        name.strip(): value.strip()
        for line in content[: match.end()].decode("utf-8", "replace").split("\n")
        for name, equals, value in [line.partition("=")]
        if equals
    }
    data, name = content[match.end() :], fields["ElementDataFile"]
    if name.upper() != "LOCAL":
        data = (folder / name).read_bytes()
    if fields.get("CompressedData", "False").lower() in ("true", "t", "1", "yes", "y"):
        data = zlib.decompress(data)
    big = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    order = ">" if big.lower() in ("true", "t", "1", "yes", "y") else "<"
    dtype = np.dtype(order + METAIMAGE_TYPES[fields["ElementType"]])
    sides = [int(float(word)) for word in fields["DimSize"].split()]
    axes = next(fields[n] for n in ("TransformMatrix", "Rotation", "Orientation") if n in fields)
    places = [fields[n] for n in ("Offset", "Position", "Origin") if n in fields]
    vectors = np.array([float(x) for x in axes.split()]).reshape(3, 3)
    spacing = np.array([float(x) for x in fields["ElementSpacing"].split()])
    origin = np.array([float(x) for x in (places or ["0 0 0"])[0].split()])
    return _grid(data, dtype, sides, vectors * spacing[:, np.newaxis], origin)


def _grid(
    data: bytes,
    dtype: np.dtype[np.generic],
    sides: list[int],
    vectors: NDArray[np.float64],
    origin: NDArray[np.float64],
) -> Seen:
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    voxels = np.frombuffer(data, dtype).reshape(sides[::-1]).transpose()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = vectors.T, origin
    return from_grid(voxels, affine)


def plain_png_judge(folder: Path, target: str) -> Seen:
    """16-bit grey pictures without interlace, their rows unfiltered as the definition says."""
    pictures, numbers = [], []
    for file in sorted((folder / target).iterdir()):
        if match := re.fullmatch(r"([0-9]+)\.png", file.name, re.IGNORECASE):
            numbers.append(int(match[1]))
            pictures.append(_picture(file.read_bytes()))
    order = np.argsort(numbers)
    spacing = table_spacing(folder, Path(target).name)
    z_mm = (np.array(numbers)[order] - min(numbers)) * spacing[0]
    return Seen(np.stack([pictures[n] for n in order]), None, z_mm, spacing)


def _picture(content: bytes) -> NDArray[np.float64]:
    place, body = 8, b""
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            body += content[place + 8 : place + 8 + length]
        place += 12 + length
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    if (depth, colour, interlace) != (16, 0, 0):
        raise Abstains("not 16-bit grey in rows")
    inflated = zlib.decompressobj().decompress(body)
    rows = np.frombuffer(inflated[: height * (2 * width + 1)], "u1").reshape(height, -1)
    above = np.zeros(2 * width, int)
    done = []
    for kind, *coded in rows.astype(int).tolist():
        row = np.zeros(2 * width, int)
        for n, value in enumerate(coded):
            left, corner = (row[n - 2], above[n - 2]) if n > 1 else (0, 0)
            row[n] = (value + _predicted(kind, int(left), int(above[n]), int(corner))) % 256
        done.append(row)
        above = row
    whole = np.array(done).reshape(height, width, 2)
    return whole[..., 0] * 256.0 + whole[..., 1] - 32768


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda near: abs(guess - near))
    if kind > 4:
        raise Abstains(f"filter {kind}")
    return (0, left, up, (left + up) // 2)[kind]
