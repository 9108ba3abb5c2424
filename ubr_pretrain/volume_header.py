"""What the header of a NIfTI, NRRD or MetaImage file says, before one voxel is decoded.

Shapes:
    k, j, i: the stored indices, slowest first (numpy's order; the reverse of the file's own).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused

MAX_SIDE = 2**31 - 1
"""A larger dimension is a damaged header: no program can index such a side."""


@dataclass(frozen=True)
class VolumeHeader:
    """The stored grid and where its voxels are.

    Attributes:
        shape: [k, j, i].
        dtype: of a stored voxel, byte order included.
        axes_lps: float64 [3, 3], row a the unit vector of index a; None where the file says none.
        spacing_mm: along k, j, i; None where the file says none.
        slope: HU = slope * stored + intercept.
        intercept: as above.
        skip_bytes: bytes between the header, as far as it was read, and the first voxel.
        zipped: the voxels are a gzip or zlib stream of their own.
        data_file: where the voxels are, if not in the file itself.
        notes: what a reader should know.
        affine_lps: float64 [4, 4], from (k, j, i, 1) to LPS millimetres; None where the file says
            no direction. A position that a format leaves out is 0, as its definition has it.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    axes_lps: NDArray[np.float64] | None
    spacing_mm: tuple[float, float, float] | None
    slope: float = 1.0
    intercept: float = 0.0
    skip_bytes: int = 0
    zipped: bool = False
    data_file: Path | None = None
    notes: tuple[str, ...] = ()
    affine_lps: NDArray[np.float64] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.dtype.itemsize


def shape_of(path: Path, sides_xyz: tuple[int, ...], least: int = 3) -> tuple[int, int, int]:
    """Return [k, j, i] for at least ``least`` sides as a file lists them, fastest first.

    Raises:
        VolumeRefused: E-HEADER (a side that is not 1..MAX_SIDE), E-DIM, E-4D.
    """
    if not all(1 <= side <= MAX_SIDE for side in sides_xyz):
        raise VolumeRefused(
            "E-HEADER", path, f"dimensions {_times(sides_xyz)}: every one must be > 0"
        )
    if len(sides_xyz) < least:
        raise VolumeRefused("E-DIM", path, f"dimensions {_times(sides_xyz)}: not a volume")
    if any(side > 1 for side in sides_xyz[3:]):
        raise VolumeRefused(
            "E-4D", path, f"dimensions {_times(sides_xyz)}: more than one volume", "split it first"
        )
    x, y, z = (*sides_xyz, 1)[:3]
    return z, y, x


MAX_NAME_BYTES = 255
"""Of a file, on every common file system."""


def neighbour(path: Path, name: str) -> Path:
    """Return the data file that a header names, which must lie beside it.

    Raises:
        VolumeRefused: E-UNSAFE: a header from elsewhere could otherwise name any file of this
            machine and have it read as voxels.
    """
    data_file = path.parent / name
    if (
        Path(name).name != name
        or "\0" in name
        or len(os.fsencode(name)) > MAX_NAME_BYTES
        or name in (".", "..", "LIST")
        or "%" in name
        or data_file.resolve().parent != path.parent.resolve()
    ):
        raise VolumeRefused(
            "E-UNSAFE",
            path,
            f"names the data file {name!r}",
            "the data must be one file in the same folder",
        )
    return data_file


def unit_rows(path: Path, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale direction vectors to length 1.

    Raises:
        VolumeRefused: E-GEOM: a vector is zero, NaN or infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise VolumeRefused(
            "E-GEOM", path, f"direction vectors {vectors.tolist()} are no directions"
        )
    return vectors / lengths[:, np.newaxis]


def affine_of(
    path: Path, steps_mm: NDArray[np.float64], origin_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the affine [4, 4] whose index a grows by row a of ``steps_mm`` [3, 3].

    Raises:
        VolumeRefused: E-GEOM: the origin is not three finite numbers.
    """
    if origin_mm.shape != (3,) or not np.isfinite(origin_mm).all():
        raise VolumeRefused("E-GEOM", path, f"origin {origin_mm.tolist()} is not three numbers")
    affine = np.eye(4)
    affine[:3, :3] = steps_mm.T
    affine[:3, 3] = origin_mm
    return affine


def _times(sides: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in sides)
