"""A volume of which one slice per so many millimetres is read.

Shapes:
    n: slices that the source has; z: those that are read; y, x: as in ``ct``.
    k: slices as they are stored, in either order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from ubr_pretrain.ct import Volume, contiguous_runs
from ubr_pretrain.orientation import BODY_AXES_LPS, StoredGrid, angle_deg, body_order
from ubr_pretrain.reading_rules import check_spacing

ROUNDING = 1e-6
"""Positions of DICOM files are rounded: ten slices of 1.0000001 mm are 10 mm."""


@dataclass(frozen=True, eq=False)
class SparseVolume(Volume):
    """Some slices of a scan, and where all of them lie.

    ``hu``, ``z_mm`` and ``num_slices`` are those of the slices that were read;
    ``spacing_mm_zyx[0]`` is their interval.

    Attributes:
        every_z_mm: position of every slice that the source has, below the first.
        read_index: which of them were read, increasing; the first and the last of every run
            without a gap are among them.
        step_mm: interval of neighbouring slices of the source.
    """

    every_z_mm: Float[ndarray, " n"] = field(default_factory=lambda: np.empty(0))
    read_index: Int[ndarray, " z"] = field(default_factory=lambda: np.empty(0, np.int64))
    step_mm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.array_equal(self.every_z_mm[self.read_index], self.z_mm):
            raise ValueError(f"{self.source}: the slices that were read lie elsewhere")


def slices_to_read(
    z_mm: Float[ndarray, " n"], step_mm: float, stride_mm: float
) -> Int[ndarray, " z"]:
    """Return which slices are read: one per ``stride_mm``, spread evenly over every run.

    The first and the last slice of a run without a gap are always among them; neighbours lie no
    further apart than ``stride_mm``, unless all slices do.

    Args:
        z_mm: position of every slice, increasing.
        step_mm: their interval.
        stride_mm: largest distance of slices that are read.
    """
    stride = max(1, math.floor(stride_mm / step_mm + ROUNDING))
    chosen = [
        np.floor(np.linspace(run.start, run.stop - 1, -(-(len(run) - 1) // stride) + 1) + 0.5)
        for run in contiguous_runs(z_mm, step_mm)
    ]
    return np.concatenate(chosen).astype(np.int64)


@dataclass(frozen=True)
class SparsePlan:
    """Which slices of a scan are read, and where all of them lie.

    Attributes:
        every_z_mm: position of every slice, the first at 0.
        step_mm: their interval.
        read_index: those that are read.
    """

    every_z_mm: Float[ndarray, " n"]
    step_mm: float
    read_index: Int[ndarray, " z"]

    @property
    def reads_all(self) -> bool:
        """Whether no slice is left out."""
        return len(self.read_index) == len(self.every_z_mm)

    def stored_index(self, grid: StoredGrid) -> Int[ndarray, " k"]:
        """Return which slices to read of a grid whose stored slices are axial, increasing."""
        if _is_forward(grid):
            return self.read_index
        return len(self.every_z_mm) - 1 - self.read_index[::-1]

    def grid(self, grid: StoredGrid) -> StoredGrid:
        """Return the grid of the slices that are read, by which ``to_axial`` turns them."""
        place_mm = self.every_z_mm[self.read_index]
        return replace(
            grid,
            spacing_mm=(self.step_mm, *grid.spacing_mm[1:]),
            positions_mm=place_mm if _is_forward(grid) else place_mm[-1] - place_mm[::-1],
            affine_lps=None,
        )

    def sparse(self, volume: Volume) -> SparseVolume:
        """Return the volume of the slices that were read as the part of a scan that it is."""
        z_mm = self.every_z_mm[self.read_index]
        steps_mm = [
            np.diff(z_mm[np.isin(self.read_index, run)])
            for run in contiguous_runs(self.every_z_mm, self.step_mm)
        ]
        apart_mm = float(np.median(np.concatenate(steps_mm)))
        note = (
            f"{len(z_mm)} of {len(self.every_z_mm)} slices were read; the scores of the others are "
            "interpolated, their pixels were neither decoded nor checked"
        )
        stored: dict[str, Any] = {f.name: getattr(volume, f.name) for f in fields(Volume)} | {
            "spacing_mm_zyx": (apart_mm, *volume.spacing_mm_zyx[1:]),
            "z_mm": z_mm,
            "notes": (*volume.notes, note),
            "affine_lps": None,
        }
        return SparseVolume(
            **stored,
            every_z_mm=self.every_z_mm,
            read_index=self.read_index,
            step_mm=self.step_mm,
        )


def plan_reading(
    every_z_mm: Float[ndarray, " n"], step_mm: float, stride_mm: float | None
) -> SparsePlan | None:
    """Return which slices of a scan are read; None: all of them.

    Args:
        every_z_mm: positions, the first at 0.
        step_mm: their interval.
        stride_mm: of ``ReadingRules``.
    """
    if stride_mm is None:
        return None
    plan = SparsePlan(every_z_mm, step_mm, slices_to_read(every_z_mm, step_mm, stride_mm))
    return None if plan.reads_all else plan


def plan_stored(
    grid: StoredGrid, num_stored: int, stride_mm: float | None, path: Path
) -> SparsePlan | None:
    """Return which slices of a stored scan are read before it is; None: all of them.

    A scan whose stored slices are not axial shows a part of every axial slice in each: all of it
    is read, and thinned afterwards (``thinned``).

    Raises:
        VolumeRefused: E-SPACING.
    """
    if stride_mm is None or not np.isfinite(grid.axes_lps).all():  # the latter to_axial refuses
        return None
    check_spacing(path, grid.spacing_mm)
    order = body_order(grid.axes_lps)
    if order[0] != 0:
        return None
    along_mm = grid.positions_mm
    if along_mm is not None:
        z_mm = along_mm - along_mm[0] if _is_forward(grid) else along_mm[-1] - along_mm[::-1]
        return plan_reading(z_mm, grid.spacing_mm[0], stride_mm)
    z_axis, y_axis, x_axis = grid.axes_lps[list(order)]
    tilt_deg = angle_deg(z_axis, np.cross(y_axis, x_axis))
    step_mm = grid.spacing_mm[0] * math.cos(math.radians(tilt_deg))
    return plan_reading(np.arange(num_stored, dtype=np.float64) * step_mm, step_mm, stride_mm)


def thinned(volume: Volume, stride_mm: float | None) -> Volume:
    """Return the slices of a volume that was read whole which stand for all of them."""
    if isinstance(volume, SparseVolume):
        return volume
    plan = plan_reading(volume.z_mm, volume.spacing_mm_zyx[0], stride_mm)
    if plan is None:
        return volume
    z_mm = volume.z_mm[plan.read_index]
    return plan.sparse(replace(volume, hu=volume.hu[plan.read_index], z_mm=z_mm))


def _is_forward(grid: StoredGrid) -> bool:
    """Whether stored slices go from superior to inferior."""
    return bool(grid.axes_lps[0] @ BODY_AXES_LPS[0] > 0)
