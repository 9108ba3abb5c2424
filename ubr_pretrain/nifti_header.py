"""The header of a NIfTI-1 or NIfTI-2 file, with every value checked that a decoder would guess.

Reference:
    The NIfTI-1 and NIfTI-2 header definitions, https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.orientation import angle_deg
from ubr_pretrain.reading_rules import check_spacing
from ubr_pretrain.volume_header import VolumeHeader, affine_of, shape_of, unit_rows

NIFTI_1 = np.dtype(
    {
        "names": [
            "sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope",
            "scl_inter", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow",
            "magic",
        ],
        "formats": [
            "i4", ("i2", 8), "i2", "i2", ("f4", 8), "f4", "f4",
            "f4", "u1", "i2", "i2", ("f4", 3), ("f4", 3), ("f4", (3, 4)), "S4",
        ],
        "offsets": [0, 40, 70, 72, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280, 344],
        "itemsize": 348,
    }
)  # fmt: skip

NIFTI_2 = np.dtype(
    {
        "names": [
            "sizeof_hdr", "magic", "datatype", "bitpix", "dim", "pixdim", "vox_offset",
            "scl_slope", "scl_inter", "qform_code", "sform_code", "quatern", "qoffset", "srow",
            "xyzt_units",
        ],
        "formats": [
            "i4", "S8", "i2", "i2", ("i8", 8), ("f8", 8), "i8",
            "f8", "f8", "i4", "i4", ("f8", 3), ("f8", 3), ("f8", (3, 4)), "i4",
        ],
        "offsets": [0, 4, 12, 14, 16, 104, 168, 176, 184, 344, 348, 352, 376, 400, 500],
        "itemsize": 540,
    }
)  # fmt: skip

VOXEL_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
COLOUR_TYPES = {128: "RGB", 2304: "RGBA"}
ByteOrder = Literal["<", ">"]
BYTE_ORDERS: tuple[ByteOrder, ...] = ("<", ">")
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])

MAGIC = (b"n+1", b"n+2", b"n+2\0\r\n\x1a\n")
"""One file; the second as some programs write it, without the end that shows text conversion."""

HALF_TURN_ROUNDING = 3 * float(np.finfo(np.float32).eps)
"""1 - (b^2 + c^2 + d^2) below this is what float32 leaves of a half turn, not a small angle."""

MAX_FORM_ANGLE_DEG = 1.0
MAX_FORM_STRETCH = 0.002
MAX_FORM_SHIFT_MM = 1.0

LEAST_SLOPE = 1e-6
"""Below it every voxel is one HU, and readers disagree whether it counts as none; with a slope of
0 they disagree whether the intercept counts."""

FORM_CODES = range(6)


def read_nifti_header(stream: BinaryIO, path: Path) -> VolumeHeader:
    """Parse and check the header; ``stream`` is left behind it.

    Raises:
        VolumeRefused: E-TRUNC, E-HEADER, E-FORMAT, E-DIM, E-4D, E-RGB, E-RESCALE, E-SPACING,
            E-GEOM.
    """
    raw = stream.read(NIFTI_1.itemsize)
    for layout in (NIFTI_1, NIFTI_2):
        for order in BYTE_ORDERS:
            stated = np.frombuffer(raw[:4].ljust(4), dtype=f"{order}i4")[0]
            if stated == layout.itemsize:
                raw += stream.read(layout.itemsize - len(raw))
                return _checked(raw, layout.newbyteorder(order), order, path)
    if len(raw) < NIFTI_1.itemsize:
        raise VolumeRefused("E-TRUNC", path, f"ends within the header, after {len(raw)} bytes")
    raise VolumeRefused("E-HEADER", path, "the header's length is neither 348 nor 540")


def _checked(raw: bytes, layout: np.dtype[Any], order: ByteOrder, path: Path) -> VolumeHeader:
    if len(raw) < layout.itemsize:
        raise VolumeRefused("E-TRUNC", path, f"ends within the header, after {len(raw)} bytes")
    header = np.frombuffer(raw, dtype=layout)[0]
    if not bytes(header["magic"]).startswith(b"n+"):
        raise VolumeRefused(
            "E-FORMAT", path, "is one half of a .hdr/.img pair", "store it as one .nii file"
        )
    if bytes(header["magic"]) not in MAGIC:
        raise VolumeRefused("E-HEADER", path, f"magic {bytes(header['magic'])!r} is no NIfTI's")
    num_dims = int(header["dim"][0])
    if not 1 <= num_dims <= 7:
        raise VolumeRefused("E-HEADER", path, f"dim[0] is {num_dims}, must be 1..7")
    shape = shape_of(path, tuple(int(n) for n in header["dim"][1 : num_dims + 1]), least=2)
    dtype = _voxel_type(header, order, path)
    spacing_mm = _spacing_mm(header, path)
    slope, intercept, notes = _rescale(header, path)
    axes_lps, affine_lps = _placement(header, spacing_mm, path)
    return VolumeHeader(
        shape=shape,
        dtype=dtype,
        axes_lps=axes_lps,
        spacing_mm=(spacing_mm[2], spacing_mm[1], spacing_mm[0]),
        slope=slope,
        intercept=intercept,
        skip_bytes=_offset(header, path) - layout.itemsize,
        notes=notes,
        affine_lps=affine_lps,
    )


def _voxel_type(header: Any, order: ByteOrder, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in COLOUR_TYPES:
        raise VolumeRefused("E-RGB", path, f"holds {COLOUR_TYPES[code]} colours, not HU")
    if code not in VOXEL_TYPES:
        raise VolumeRefused("E-HEADER", path, f"datatype {code} is no real voxel type")
    dtype = np.dtype(f"{order}{VOXEL_TYPES[code]}")
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise VolumeRefused(
            "E-HEADER", path, f"bitpix {int(header['bitpix'])} contradicts datatype {code}"
        )
    return dtype


def _offset(header: Any, path: Path) -> int:
    offset = float(header["vox_offset"])
    lowest = int(header["sizeof_hdr"])
    if not (math.isfinite(offset) and offset == int(offset) and offset >= lowest):
        raise VolumeRefused(
            "E-HEADER", path, f"vox_offset {offset:g} must be a whole number >= {lowest}"
        )
    return int(offset)


def _rescale(header: Any, path: Path) -> tuple[float, float, tuple[str, ...]]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 and intercept == 0.0:  # the standard's way to say "not scaled"
        return 1.0, 0.0, ()
    if math.isnan(slope) and (math.isnan(intercept) or intercept == 0.0):  # nibabel's way
        return 1.0, 0.0, (f"scl_slope {slope:g}, scl_inter {intercept:g} ignored",)
    if not (math.isfinite(intercept) and LEAST_SLOPE <= abs(slope) < math.inf):
        raise VolumeRefused("E-RESCALE", path, f"scl_slope {slope:g}, scl_inter {intercept:g}")
    return slope, intercept, ()


def _spacing_mm(header: Any, path: Path) -> tuple[float, float, float]:
    units = int(header["xyzt_units"]) & 7
    if units not in UNITS_MM:
        raise VolumeRefused("E-HEADER", path, f"spatial unit code {units} is unknown")
    x, y, z = (float(size) * UNITS_MM[units] for size in header["pixdim"][1:4])
    check_spacing(path, (x, y, z))
    return x, y, z


def _placement(
    header: Any, spacing_mm: tuple[float, float, float], path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | tuple[None, None]:
    """Return the k, j, i axes and the affine; where both forms are given, they must agree."""
    units_mm = UNITS_MM[int(header["xyzt_units"]) & 7]
    with np.errstate(over="ignore", invalid="ignore"):  # judged by unit_rows and affine_of
        srow_mm = header["srow"].astype(np.float64) * units_mm
        qoffset_mm = header["qoffset"].astype(np.float64) * units_mm
    origins_mm = {"qform": qoffset_mm, "sform": srow_mm[:, 3]}
    forms: dict[str, NDArray[np.float64]] = {}
    for name in origins_mm:
        if int(header[f"{name}_code"]) not in FORM_CODES:
            raise VolumeRefused("E-HEADER", path, f"{name}_code is {header[f'{name}_code']}")
    if int(header["qform_code"]) > 0:
        forms["qform"] = _qform_columns(header, path) * np.array(spacing_mm)
    if int(header["sform_code"]) > 0:
        forms["sform"] = srow_mm[:, :3]
    axes = affine = None
    for name, columns in forms.items():
        axes = unit_rows(path, columns.T * RAS_TO_LPS)[::-1].copy()
        affine = affine_of(path, (columns.T * RAS_TO_LPS)[::-1], origins_mm[name] * RAS_TO_LPS)
        steps_mm = np.linalg.norm(columns, axis=0)
        if np.any(np.abs(steps_mm / spacing_mm - 1.0) > MAX_FORM_STRETCH):
            raise VolumeRefused(
                "E-GEOM",
                path,
                f"{name} has steps of {steps_mm.round(4).tolist()} mm, pixdim of "
                f"{list(spacing_mm)} mm",
            )
    if len(forms) == 2 and _disagree(forms["qform"], forms["sform"]):
        shown = (f"{name} {columns.round(4).tolist()}" for name, columns in forms.items())
        raise VolumeRefused("E-GEOM", path, f"{' and '.join(shown)} disagree", "remove one")
    if len(forms) == 2 and np.abs(qoffset_mm - srow_mm[:, 3]).max() > MAX_FORM_SHIFT_MM:
        shown = (f"{name} begins at {mm.round(2).tolist()} mm" for name, mm in origins_mm.items())
        raise VolumeRefused("E-GEOM", path, f"{' and '.join(shown)}", "remove one")
    return (None, None) if axes is None or affine is None else (axes, affine)


def _qform_columns(header: Any, path: Path) -> NDArray[np.float64]:
    """Return the rotation of the quaternion (a, b, c, d), its third column signed by pixdim[0]."""
    b, c, d = (float(q) for q in header["quatern"])
    square = 1.0 - (b * b + c * c + d * d)
    if not (math.isfinite(square) and square > -1e-3):
        raise VolumeRefused("E-GEOM", path, f"quaternion ({b:g}, {c:g}, {d:g}) is no rotation")
    a = math.sqrt(square) if square > HALF_TURN_ROUNDING else 0.0
    b, c, d = (q / math.hypot(a, b, c, d) for q in (b, c, d))
    a = math.sqrt(max(1.0 - (b * b + c * c + d * d), 0.0))
    sign = float(header["pixdim"][0])
    if not 0.0 <= sign < math.inf and sign != -1.0:  # readers disagree on what it means
        raise VolumeRefused("E-GEOM", path, f"pixdim[0] is {sign:g}, must be -1 or 1")
    handedness = -1.0 if sign < 0 else 1.0
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return rotation * np.array([1.0, 1.0, handedness])


def _disagree(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two sets of columns differ in direction, head and tail included."""
    return any(
        float(a[:, n] @ b[:, n]) <= 0 or angle_deg(a[:, n], b[:, n]) > MAX_FORM_ANGLE_DEG
        for n in range(3)
    )
