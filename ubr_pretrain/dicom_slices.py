"""The axial CT slices of a DICOM series, each with every value that it needs, in spatial order.

What a series reader would guess (a missing position, a slope of 0, an inverted scale) is refused
here, by file; scout views are the one thing that is dropped, with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from ubr_pretrain.ct import BURNED_IN, VolumeRefused
from ubr_pretrain.dicom_header import DicomFrame, DicomHeader
from ubr_pretrain.dicom_pixels import check_codec
from ubr_pretrain.reading_rules import MAX_SIDE_PX, check_spacing

SAME_DIRECTION = 1e-3
"""Largest difference of a direction cosine between two slices of one series (0.06 degrees)."""

SAME_PIXEL = 1e-3
"""Largest relative difference of the pixel spacing between two slices of one series."""

MAX_PLACE_MM = 1e5
"""No scanner is further from its own origin than 100 m; a damaged exponent is."""

MAX_UNIT_ERROR = 0.01
"""How far stored direction cosines may be off unit length and a right angle."""

LOSSY_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
"""Compressions that always lose, whatever LossyImageCompression says; JPEG 2000 need not."""

Place = TypeVar("Place", bound=Hashable)
Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, eq=False)
class CtSlice:
    """One checked slice.

    Attributes:
        header: of its file.
        index: which frame of the file.
        position_mm: LPS centre of the first pixel.
        row_lps: unit vector in which the column index grows.
        column_lps: unit vector in which the row index grows.
        pixel_mm: row height, column width.
        thickness_mm: where stated.
        slope: HU = slope * stored + intercept.
        intercept: as above.
        moments: what may tell it from a slice at the same place (`dicom_elements.MOMENTS`).
    """

    header: DicomHeader
    index: int
    position_mm: NDArray[np.float64]
    row_lps: NDArray[np.float64]
    column_lps: NDArray[np.float64]
    pixel_mm: tuple[float, float]
    thickness_mm: float | None
    slope: float
    intercept: float
    moments: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path


def ct_slices(headers: Sequence[DicomHeader], path: Path) -> tuple[list[CtSlice], tuple[str, ...]]:
    """Return the slices of one series and notes on it.

    Args:
        headers: every file of the series.
        path: what the series is called in a refusal of the whole.

    Raises:
        VolumeRefused: E-MODALITY, E-LOCALIZER, E-NOPIXELS, E-TRUNC, E-RGB, E-MONO1, E-CODEC,
            E-SIZE-LIMIT, E-NOHU, E-RESCALE, E-GEOM, E-SPACING, E-SIZE, E-ORIENT, E-HEADER,
            E-PATIENT.
    """
    for header in headers:
        if header.modality != "CT":
            raise VolumeRefused(
                "E-MODALITY", header.path, f"modality {header.modality or 'missing'}, not CT"
            )
    kept = [(h, f) for h in headers for f in h.frames if "LOCALIZER" not in f.image_type]
    num_scouts = sum(len(header.frames) for header in headers) - len(kept)
    if not kept:
        raise VolumeRefused("E-LOCALIZER", path, f"{num_scouts} localizer views and no slice")
    used = list({header.path: header for header, _ in kept}.values())
    for header in used:
        _check_file(header)
    slices = [_checked(header, frame) for header, frame in kept]
    _check_alike(slices)
    positions = {header.patient_position for header in used} - {"HFS", ""}
    return slices, (
        *([f"{num_scouts} localizer views dropped"] if num_scouts else []),
        *(["pixels were compressed with loss"] if any(_lost(h) for h in used) else []),
        *([BURNED_IN] if any(h.burned_in for h in used) else []),
        *(f"patient position {position}" for position in sorted(positions)),
    )


def _lost(header: DicomHeader) -> bool:
    return header.lossy or header.transfer_syntax in LOSSY_SYNTAXES


def _check_file(header: DicomHeader) -> None:
    path = header.path
    is_grey = header.photometric in ("MONOCHROME1", "MONOCHROME2")
    if is_grey and header.samples != 1:  # damage; who passes coloured pictures over must see it
        cause = f"states {header.samples} samples a pixel of {header.photometric}"
        raise VolumeRefused("E-HEADER", path, cause)
    if not is_grey:
        raise VolumeRefused(
            "E-RGB", path, f"holds {header.samples} x {header.photometric or 'unknown'} pixels"
        )
    if header.photometric == "MONOCHROME1":
        raise VolumeRefused("E-MONO1", path, "is MONOCHROME1: an inverted picture, not HU")
    check_codec(path, header.transfer_syntax)
    if header.pixel_fault is not None:
        raise VolumeRefused(header.pixel_fault[0], path, header.pixel_fault[1])
    if max(header.rows, header.columns) > MAX_SIDE_PX:
        raise VolumeRefused(
            "E-SIZE-LIMIT", path, f"{header.rows} x {header.columns} pixels, limit {MAX_SIDE_PX}"
        )
    if header.has_modality_lut:
        raise VolumeRefused("E-RESCALE", path, "maps its numbers by a Modality LUT, not to HU")


def _checked(header: DicomHeader, frame: DicomFrame) -> CtSlice:
    path = header.path
    if frame.slope is None or frame.intercept is None:
        raise VolumeRefused("E-NOHU", path, "states no rescale slope and intercept")
    if frame.slope == 0 or not np.isfinite((frame.slope, frame.intercept)).all():
        raise VolumeRefused(
            "E-RESCALE", path, f"rescale slope {frame.slope:g}, intercept {frame.intercept:g}"
        )
    if frame.rescale_type not in ("", "HU", "US"):
        raise VolumeRefused("E-NOHU", path, f"its rescaled numbers are {frame.rescale_type}")
    position = _vector("ImagePositionPatient", frame.position_mm, 3, path)
    cosines = _vector("ImageOrientationPatient", frame.orientation, 6, path)
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > MAX_UNIT_ERROR or abs(float(row @ column)) > MAX_UNIT_ERROR:
        raise VolumeRefused(
            "E-GEOM", path, f"ImageOrientationPatient {cosines.tolist()} is no rotation"
        )
    if frame.pixel_mm is None or len(frame.pixel_mm) != 2:
        raise VolumeRefused("E-SPACING", path, "states no PixelSpacing")
    check_spacing(path, frame.pixel_mm)
    return CtSlice(
        header=header,
        index=frame.index,
        position_mm=position,
        row_lps=row / lengths[0],
        column_lps=column / lengths[1],
        pixel_mm=(frame.pixel_mm[0], frame.pixel_mm[1]),
        thickness_mm=frame.thickness_mm,
        slope=frame.slope,
        intercept=frame.intercept,
        moments=frame.moments,
    )


def _vector(
    name: str, numbers: tuple[float, ...] | None, count: int, path: Path
) -> NDArray[np.float64]:
    if numbers is None:
        raise VolumeRefused("E-GEOM", path, f"states no {name}")
    vector = np.array(numbers, dtype=np.float64)
    if len(vector) != count or not (np.abs(vector) <= MAX_PLACE_MM).all():
        raise VolumeRefused("E-GEOM", path, f"{name} {list(numbers)} is not {count} numbers")
    return vector


def _check_alike(slices: Sequence[CtSlice]) -> None:
    """Name the first file that departs from what most slices of the series agree on."""
    patients = {s.path: s.header.patient_id for s in slices if s.header.patient_id}
    if patients and (stranger := _odd_one_out(patients)):
        raise VolumeRefused("E-PATIENT", stranger[0], "names another patient than its series")
    sizes = {s.path: (s.header.rows, s.header.columns) for s in slices}
    if odd := _odd_one_out(sizes):
        raise VolumeRefused("E-SIZE", odd[0], f"rows, columns {odd[1]}, its series has {odd[2]}")
    rescales = {(s.path, s.index): (s.slope, s.intercept) for s in slices}
    if other := _odd_one_out(rescales):
        (path, frame), one, usual = other
        where = f"frame {frame + 1}: " if len({s.path for s in slices}) < len(slices) else ""
        raise VolumeRefused(
            "E-RESCALE", path, f"{where}slope, intercept {one}, its series has {usual}"
        )
    row, column = (
        np.median([getattr(s, name) for s in slices], axis=0) for name in ("row_lps", "column_lps")
    )
    pixel_mm = np.median([s.pixel_mm for s in slices], axis=0)
    for s in slices:
        if max(np.abs(s.row_lps - row).max(), np.abs(s.column_lps - column).max()) > SAME_DIRECTION:
            raise VolumeRefused(
                "E-ORIENT",
                s.path,
                f"orientation {_rounded(s.row_lps, s.column_lps)}, its series has "
                f"{_rounded(row, column)}",
            )
        if np.abs(s.pixel_mm / pixel_mm - 1.0).max() > SAME_PIXEL:
            raise VolumeRefused(
                "E-SPACING",
                s.path,
                f"pixels {s.pixel_mm} mm, its series has {tuple(pixel_mm.tolist())}",
            )


def _rounded(*vectors: NDArray[np.float64]) -> list[float]:
    return [round(float(number), 4) for vector in vectors for number in vector]


def _odd_one_out(values: Mapping[Place, Value]) -> tuple[Place, Value, Value] | None:
    (usual, _), *others = Counter(values.values()).most_common()
    return next(((p, v, usual) for p, v in values.items() if v != usual), None) if others else None
