"""A volume of which one slice per so many millimetres was read.

Shapes:
    n: slices that the source has; z: those that were read; y, x: as in ``ct``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from ubr_pretrain.ct import Volume, contiguous_runs

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

    @cached_property
    def every_run(self) -> tuple[range, ...]:
        """Index ranges of all slices at one constant step: no gap lies inside a run."""
        return contiguous_runs(self.every_z_mm, self.step_mm)


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


def to_sparse(
    volume: Volume,
    every_z_mm: Float[ndarray, " n"],
    read_index: Int[ndarray, " z"],
    step_mm: float,
) -> Volume:
    """Return a volume as the part of a scan that was read; one that was read whole as it is.

    Args:
        volume: of the slices that were read.
        every_z_mm: position of every slice of the scan, the first at 0.
        read_index: those that were read.
        step_mm: interval of the scan's slices.
    """
    if len(read_index) == len(every_z_mm):
        return volume
    z_mm = every_z_mm[read_index]
    within = [np.diff(z_mm[np.isin(read_index, run)]) for run in contiguous_runs(every_z_mm, step_mm)]
    note = (
        f"{len(read_index)} of {len(every_z_mm)} slices were read, the scores of the others are "
        "interpolated: their pixels were neither decoded nor checked"
    )
    stored: dict[str, Any] = {f.name: getattr(volume, f.name) for f in fields(Volume)} | {
        "spacing_mm_zyx": (float(np.median(np.concatenate(within))), *volume.spacing_mm_zyx[1:]),
        "z_mm": z_mm,
        "notes": (*volume.notes, note),
        "affine_lps": None,
    }
    return SparseVolume(**stored, every_z_mm=every_z_mm, read_index=read_index, step_mm=step_mm)
