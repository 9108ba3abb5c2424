"""From the grid on which a scan is stored to axial slices, superior -> inferior.

Shapes:
    stored: [k, j, i], as it lies in the file, the slowest index first.
    z, y, x: inferior, posterior, left: the order of `Volume`.
    LPS: the patient's coordinates of DICOM and ITK, growing to the left, posterior, superior.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume, VolumeRefused, contiguous_runs
from ubr_pretrain.reading_rules import ReadingRules, check_spacing

BODY_AXES_LPS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Row a: where index a of a `Volume` grows to."""

DIRECTION_OF_LETTER = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}

MAX_RESLICED_MM = 3.0
"""A coronal or sagittal scan becomes axial slices where its own slices lie closer than this."""

MAX_SKEW_DEG = 0.5
"""Rows and columns of a CT slice are perpendicular; header rounding stays far below this."""

USUAL_PIXEL_MM = (0.3, 2.0)
NOTED_DEG = 1.0


@dataclass(frozen=True)
class StoredGrid:
    """Where ``stored[k, j, i]`` lies in the patient.

    Attributes:
        axes_lps: float64 [3, 3]; row a is the unit vector in which index a grows.
        spacing_mm: interval along each index (k, j, i).
        positions_mm: float64 [k], increasing: where uneven slices lie along their common normal;
            None for the even spacing of a file format.
        affine_lps: float64 [4, 4], from (k, j, i, 1) to LPS millimetres; as in `Volume`.
    """

    axes_lps: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    positions_mm: NDArray[np.float64] | None = None
    affine_lps: NDArray[np.float64] | None = None


def axes_of_letters(letters: str) -> NDArray[np.float64]:
    """Return the [k, j, i] axes of a grid whose x, y, z index grow to ``letters`` (as ``LPS``)."""
    return np.array([DIRECTION_OF_LETTER[letter] for letter in reversed(letters)])


def body_order(axes_lps: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return which stored axis lies nearest to z, y and x of the body, each used once."""
    nearness = np.abs(axes_lps @ BODY_AXES_LPS.T)  # [stored axis, body axis]
    orders = itertools.permutations(range(3))
    z, y, x = max(orders, key=lambda order: sum(nearness[order[b], b] for b in range(3)))
    return z, y, x


def to_axial(
    stored: NDArray[np.int16],
    grid: StoredGrid,
    rules: ReadingRules,
    path: Path,
    notes: tuple[str, ...] = (),
) -> Volume:
    """Turn stored voxels into a `Volume`, by geometry alone; nothing is resampled.

    The slice direction may leave the head-feet axis by ``rules.max_oblique_deg`` and the slice
    normal by ``rules.max_tilt_deg``; a rotation inside the slice plane (decubitus) is turned back
    by whole quarter turns and noted. Distances are measured along the slice normal.

    Raises:
        VolumeRefused: E-GEOM, E-SPACING, E-TILT, E-OBLIQUE, E-NONAXIAL, E-GAP.
    """
    check_spacing(path, grid.spacing_mm)
    if not np.isfinite(grid.axes_lps).all():
        raise VolumeRefused("E-GEOM", path, "the direction of the axes is not finite")
    order, forward = body_order(grid.axes_lps), _forward(grid.axes_lps)
    tilt_deg = _check_angles(grid.axes_lps[list(order)], rules, path)
    hu = np.ascontiguousarray(stored.transpose(order)[_flips(forward)])
    dz, dy, dx = (grid.spacing_mm[axis] for axis in order)
    along = grid.positions_mm
    if along is not None and order[0] == 0:
        z_mm = along - along[0] if forward[0] else along[-1] - along[::-1]
    elif along is not None and len(contiguous_runs(along, grid.spacing_mm[0])) > 1:
        raise VolumeRefused("E-GAP", path, "uneven slices across the body cannot become axial ones")
    else:
        dz *= math.cos(math.radians(tilt_deg))
        z_mm = np.arange(len(hu)) * dz
    _check_axial(hu.shape, (dz, dy, dx), path)
    notes = (*notes, *_notes(grid, order, tilt_deg, (dy, dx)))
    affine_lps = None
    if grid.affine_lps is not None:
        affine_lps = grid.affine_lps @ _axial_to_stored(order, forward, stored.shape)
    return Volume(hu, (dz, dy, dx), z_mm, str(path), notes, affine_lps)


def room_for(stored_shape: tuple[int, int, int], grid: StoredGrid) -> NDArray[np.int16]:
    """Return empty room for stored voxels [k, j, i] which `to_axial` turns without a copy."""
    if not np.isfinite(grid.axes_lps).all():  # refused by to_axial
        return np.empty(stored_shape, dtype=np.int16)
    order, flips = body_order(grid.axes_lps), _flips(_forward(grid.axes_lps))
    axial = np.empty([stored_shape[axis] for axis in order], dtype=np.int16)
    return axial[flips].transpose(np.argsort(order))


def _forward(axes_lps: NDArray[np.float64]) -> list[bool]:
    """Return whether the stored index grows as the body index does, for z, y and x."""
    order = body_order(axes_lps)
    return [bool(axes_lps[order[b]] @ BODY_AXES_LPS[b] > 0) for b in range(3)]


def _flips(forward: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, 1 if keep else -1) for keep in forward)


def _axial_to_stored(
    order: tuple[int, int, int], forward: Sequence[bool], stored_shape: Sequence[int]
) -> NDArray[np.float64]:
    """Return the matrix [4, 4] from (z, y, x, 1) to (k, j, i, 1)."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for body_axis, (axis, keep) in enumerate(zip(order, forward, strict=True)):
        matrix[axis, body_axis] = 1.0 if keep else -1.0
        matrix[axis, 3] = 0.0 if keep else stored_shape[axis] - 1.0
    return matrix


def angle_deg(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the angle between two lines, 0..90 degrees (exact near 0, unlike an arc cosine)."""
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), abs(float(a @ b))))


def _check_angles(axes_zyx: NDArray[np.float64], rules: ReadingRules, path: Path) -> float:
    """Refuse what is skewed, tilted or oblique beyond the rules; return the tilt in degrees."""
    z_axis, y_axis, x_axis = axes_zyx
    skew_deg = 90.0 - angle_deg(y_axis, x_axis)
    if skew_deg > MAX_SKEW_DEG:
        raise VolumeRefused(
            "E-GEOM", path, f"rows and columns are {skew_deg:.1f} degrees off a right angle"
        )
    tilt_deg = angle_deg(z_axis, np.cross(y_axis, x_axis))
    if tilt_deg > rules.max_tilt_deg:
        raise VolumeRefused(
            "E-TILT",
            path,
            f"slices are tilted by {tilt_deg:.1f} degrees, limit {rules.max_tilt_deg:g}",
            "in Python, read_volume(..., max_tilt_deg=...) takes up to 45 degrees",
        )
    oblique_deg = angle_deg(z_axis, BODY_AXES_LPS[0])
    if oblique_deg > rules.max_oblique_deg:
        raise VolumeRefused(
            "E-OBLIQUE",
            path,
            f"slices run {oblique_deg:.1f} degrees off the body axis, limit "
            f"{rules.max_oblique_deg:g}",
            "resample; in Python, read_volume(..., max_oblique_deg=...) takes up to 45 degrees",
        )
    return tilt_deg


def _check_axial(
    shape: tuple[int, ...], spacing_mm_zyx: tuple[float, float, float], path: Path
) -> None:
    """Refuse a coronal or sagittal acquisition with thick slices, or a single such slice.

    The slice axis of an acquisition is its coarsest one, however the file orders its axes.
    """
    dz, *in_plane = spacing_mm_zyx
    name = ("coronal", "sagittal")[int(np.argmax(in_plane))]
    if max(in_plane) >= MAX_RESLICED_MM and max(in_plane) > 1.05 * max(dz, min(in_plane)):
        raise VolumeRefused(
            "E-NONAXIAL",
            path,
            f"{name} slices {max(in_plane):g} mm apart, axial ones would need "
            f"< {MAX_RESLICED_MM:g} mm",
            "use the axial series of the study",
        )
    if min(shape[1:]) < 2:
        raise VolumeRefused("E-NONAXIAL", path, f"a single {name} slice holds no axial picture")


def _notes(
    grid: StoredGrid,
    order: tuple[int, int, int],
    tilt_deg: float,
    pixel_mm: tuple[float, float],
) -> Iterator[str]:
    letters = "".join(
        min(DIRECTION_OF_LETTER, key=lambda c: -float(grid.axes_lps[a] @ DIRECTION_OF_LETTER[c]))
        for a in range(3)
    )
    if letters not in ("SPL", "IPL"):  # either order of axial slices is everyday
        yield f"reoriented: stored slices, rows, columns grow to {', '.join(letters)}"
    if tilt_deg > NOTED_DEG:
        yield f"tilted by {tilt_deg:.1f} degrees; distances are along the slice normal"
    if (oblique_deg := angle_deg(grid.axes_lps[order[0]], BODY_AXES_LPS[0])) > NOTED_DEG:
        yield f"slices run {oblique_deg:.1f} degrees off the body axis"
    if (turned_deg := angle_deg(grid.axes_lps[order[2]], BODY_AXES_LPS[2])) > NOTED_DEG:
        yield f"rows run {turned_deg:.1f} degrees off the left-right axis"
    low, high = USUAL_PIXEL_MM
    if not all(low <= side <= high for side in pixel_mm) or max(pixel_mm) > 1.05 * min(pixel_mm):
        yield f"unusual pixels: {pixel_mm[0]:g} x {pixel_mm[1]:g} mm"
