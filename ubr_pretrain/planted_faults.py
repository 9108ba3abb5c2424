"""Faults planted into a faultless scan, with the code and the slices that should be found.

    planted = plant(volume, "block_reversed", rng)

Shapes:
    z, y, x: as in ``ct``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.anomalies import Code
from ubr_pretrain.ct import AIR_HU, MAX_HU, Volume

NEW = -1
"""Source of a slice whose voxels are not those of any faultless slice."""

BLOCK_SHARES = (0.15, 0.35)
"""Length of a planted block, as a share of the scan."""

SHORTEST_BLOCK_MM = 40.0
"""A block of this length is a good part of an organ; shorter ones harm little."""

SHORT_MM = 30.0
METAL_MM = 8.0
MISPLACED_FROM_MM = 150.0


@dataclass(frozen=True, eq=False)
class PlantedFault:
    """A faulty scan and what is true of it.

    Attributes:
        name: a key of ``FAULTS``.
        code: what should be found.
        volume: the faulty scan.
        first_slice: first slice that the fault concerns.
        last_slice: last one, inclusive.
        source: [z] the slice of the faultless scan that every slice is, or ``NEW``.
    """

    name: str
    code: Code
    volume: Volume
    first_slice: int
    last_slice: int
    source: NDArray[np.int64]


def plant(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    """Return the scan with one fault.

    Args:
        volume: faultless, at one constant interval.
        name: a key of ``FAULTS``.
        rng: source of randomness.

    Raises:
        ValueError: an unknown fault, or a scan too short to hold it.
    """
    if name not in FAULTS:
        raise ValueError(f"fault {name!r} is not one of {', '.join(FAULTS)}")
    return FAULTS[name](volume, name, rng)


def _reversed(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    del rng
    order = np.arange(volume.num_slices)[::-1]
    return _reordered(volume, name, "REVERSED", order, 0, volume.num_slices - 1)


def _block_reversed(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    first, end = _block(volume, rng)
    order = np.arange(volume.num_slices)
    order[first:end] = order[first:end][::-1]
    return _reordered(volume, name, "NON_MONOTONE", order, first, end - 1)


def _blocks_swapped(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    first, end = _block(volume, rng, blocks=2)
    middle = (first + end) // 2
    order = np.arange(volume.num_slices)
    order[first:end] = np.r_[order[middle:end], order[first:middle]]
    return _reordered(volume, name, "NON_MONOTONE", order, first, end - 1)


def _block_repeated(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    first, end = _block(volume, rng)
    order = np.insert(np.arange(volume.num_slices), end, np.arange(first, end))
    return _reordered(volume, name, "NON_MONOTONE", order, first, 2 * end - first - 1)


def _block_missing(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    first, end = _block(volume, rng)
    order = np.delete(np.arange(volume.num_slices), slice(first, end))
    return _reordered(volume, name, "GAP", order, first - 1, first)


def _header_gap(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    planted = _block_missing(volume, name, rng)
    z_mm = volume.z_mm[planted.source]
    return replace(planted, volume=replace(planted.volume, z_mm=z_mm - z_mm[0]))


def _wrong_spacing(factor: float) -> Callable[[Volume, str, np.random.Generator], PlantedFault]:
    def planted(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
        del rng
        step_mm, row_mm, column_mm = volume.spacing_mm_zyx
        spacing_mm = (factor * step_mm, row_mm, column_mm)
        wrong = Volume(volume.hu, spacing_mm, factor * volume.z_mm, volume.source)
        source = np.arange(volume.num_slices)
        return PlantedFault(name, "SPACING_MISMATCH", wrong, 0, volume.num_slices - 1, source)

    return planted


def _too_short(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    count = max(2, int(SHORT_MM / volume.spacing_mm_zyx[0]))
    if count >= volume.num_slices:
        raise ValueError(f"{volume.source}: shorter than {SHORT_MM} mm already")
    first = int(rng.integers(volume.num_slices - count))
    order = np.arange(first, first + count)
    return _reordered(volume, name, "TOO_SHORT", order, 0, count - 1)


def _noise(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    hu = rng.normal(0, 60, volume.hu.shape).round().astype(np.int16)
    return _foreign(replace(volume, hu=hu), name)


def _wrong_axis(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    """Slices run from the patient's right to the left."""
    del rng
    step_mm, row_mm, column_mm = volume.spacing_mm_zyx
    every = max(1, round(step_mm / column_mm))
    return _foreign(
        Volume(
            np.ascontiguousarray(volume.hu.transpose(2, 1, 0)[::every]),
            (every * column_mm, row_mm, step_mm),
            source=volume.source,
        ),
        name,
    )


def _metal(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    """A fan of streaks from one point hides a few slices."""
    count = max(1, round(METAL_MM / volume.spacing_mm_zyx[0]))
    first = int(rng.integers(1, volume.num_slices - count))
    height, width = volume.hu.shape[1:]
    y, x = np.mgrid[:height, :width]
    y = y - height * rng.uniform(0.35, 0.65)
    x = x - width * rng.uniform(0.35, 0.65)
    fan = np.sin(16 * np.arctan2(y, x) + rng.uniform(0, 6)) * np.exp(-np.hypot(y, x) / width * 3)
    hu = volume.hu.copy()
    hidden = slice(first, first + count)
    hu[hidden] = np.clip(hu[hidden] + 2000 * fan, AIR_HU, MAX_HU).round().astype(np.int16)
    source = np.arange(volume.num_slices)
    source[hidden] = NEW
    last = first + count - 1
    return PlantedFault(name, "NONLINEAR", replace(volume, hu=hu), first, last, source)


def _misplaced(volume: Volume, name: str, rng: np.random.Generator) -> PlantedFault:
    """One slice is that of a far place."""
    num, step_mm = volume.num_slices, volume.spacing_mm_zyx[0]
    apart = int(MISPLACED_FROM_MM / step_mm)
    if num < apart + 3:
        raise ValueError(f"{volume.source}: no slices {MISPLACED_FROM_MM} mm apart")
    there = int(rng.integers(1, num - 1))
    far = np.flatnonzero(np.abs(np.arange(num) - there) >= apart)
    if len(far) == 0:
        there, far = 1, np.arange(1 + apart, num)
    order = np.arange(num)
    order[there] = rng.choice(far)
    return _reordered(volume, name, "NONLINEAR", order, there, there)


def _foreign(volume: Volume, name: str) -> PlantedFault:
    last = volume.num_slices - 1
    return PlantedFault(name, "OUT_OF_RANGE", volume, 0, last, np.full(last + 1, NEW))


def _reordered(
    volume: Volume, name: str, code: Code, order: NDArray[np.int64], first: int, last: int
) -> PlantedFault:
    """Return the slices in another order, the positions closed up to one interval."""
    hu = np.ascontiguousarray(volume.hu[order])
    faulty = Volume(hu, volume.spacing_mm_zyx, source=volume.source)
    return PlantedFault(name, code, faulty, first, last, order)


def _block(volume: Volume, rng: np.random.Generator, blocks: int = 1) -> tuple[int, int]:
    """Draw first and end of a stretch of ``blocks`` blocks, a margin away from either end."""
    num, step_mm = volume.num_slices, volume.spacing_mm_zyx[0]
    length = max(rng.uniform(*BLOCK_SHARES) * num, SHORTEST_BLOCK_MM / step_mm, 3)
    count = blocks * int(np.ceil(length))
    margin = max(3, round(0.1 * num))
    if count + 2 * margin > num:
        raise ValueError(f"{volume.source}: {num} slices cannot hold a fault of {count}")
    first = int(rng.integers(margin, num - margin - count + 1))
    return first, first + count


FAULTS: dict[str, Callable[[Volume, str, np.random.Generator], PlantedFault]] = {
    "reversed": _reversed,
    "block_reversed": _block_reversed,
    "blocks_swapped": _blocks_swapped,
    "block_repeated": _block_repeated,
    "block_missing": _block_missing,
    "header_gap": _header_gap,
    "spacing_x0.5": _wrong_spacing(0.5),
    "spacing_x0.7": _wrong_spacing(0.7),
    "spacing_x1.5": _wrong_spacing(1.5),
    "spacing_x2": _wrong_spacing(2.0),
    "too_short": _too_short,
    "noise": _noise,
    "wrong_axis": _wrong_axis,
    "metal": _metal,
    "misplaced_slice": _misplaced,
}
"""What can go wrong with a scan, by name."""
