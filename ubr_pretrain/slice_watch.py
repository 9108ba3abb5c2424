"""Slices of a scan that are told of while the rest is still being read.

Whoever is told may begin with them, but must not believe them: the file may yet be refused.

Shapes:
    z, y, x: as in ``ct``; k: slices as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.orientation import BODY_AXES_LPS, StoredGrid, body_order


class SliceWatch(Protocol):
    """Who is told of slices."""

    def begin(self, hu: NDArray[np.int16], pixel_mm_yx: tuple[float, float]) -> None:
        """Take note of the room [z, y, x] that will be filled, all of it unread."""

    def arrived(self, first: int, end: int) -> None:
        """Take note that slices ``first`` to ``end`` (exclusive) are in their place."""


def announcer(
    watch: SliceWatch | None, stored: NDArray[np.int16], grid: StoredGrid
) -> Callable[[int, int], None]:
    """Return what a reader calls with the first and the end of stored slices that it has read.

    Args:
        watch: is told of them as axial slices; None, and scans whose stored slices are not axial:
            nobody is told.
        stored: [k, j, i] of ``room_for``.
        grid: where they lie.
    """
    order = body_order(grid.axes_lps) if np.isfinite(grid.axes_lps).all() else (-1, -1, -1)
    if watch is None or order[0] != 0:
        return lambda _first, _end: None
    forward = [bool(grid.axes_lps[order[b]] @ BODY_AXES_LPS[b] > 0) for b in range(3)]
    axial = stored.transpose(order)[tuple(slice(None, None, 1 if f else -1) for f in forward)]
    watch.begin(axial, (grid.spacing_mm[order[1]], grid.spacing_mm[order[2]]))

    def tell(first: int, end: int) -> None:
        if forward[0]:
            watch.arrived(first, end)
        else:
            watch.arrived(len(axial) - end, len(axial) - first)

    return tell
