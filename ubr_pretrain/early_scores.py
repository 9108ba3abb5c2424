"""Scores of slices that were given while the scan was still being read.

Shapes:
    z, y, x: as in ``ct``; n: slices at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.network_backend import ScoreNetwork

PartScores = NDArray[np.float64]
ScorePart = Callable[[NDArray[np.int16], tuple[float, float], slice], PartScores]


@dataclass
class _Scan:
    """One scan that is being read.

    Attributes:
        hu: the room that is filled.
        pixel_mm_yx: row height and column width.
        missing: slices that are not read yet, for every part.
        futures: of the parts that are.
    """

    hu: NDArray[np.int16]
    pixel_mm_yx: tuple[float, float]
    parts: list[slice]
    missing: list[int]
    futures: dict[int, Future[PartScores]]

    def is_of(self, hu: NDArray[np.int16], pixel_mm_yx: tuple[float, float]) -> bool:
        """Whether a volume is this scan: its voxels lie in this very room."""
        ours, theirs = self.hu.__array_interface__, hu.__array_interface__
        same = all(ours[name] == theirs[name] for name in ("data", "shape"))
        same = same and self.hu.strides == hu.strides
        return same and self.pixel_mm_yx == pixel_mm_yx and not any(self.missing)


class EarlyScores:
    """The scan that a reader is at; its slices are scored by the network's threads as they come.

    It is a ``SliceWatch``. One scan at a time: the next one ends what is known of the last.

    Args:
        network: whose threads score.
        score_part: of a scan's voxels, its pixel size and the slices that are meant: their scores
            [views, n].
    """

    def __init__(self, network: ScoreNetwork, score_part: ScorePart) -> None:
        self._network, self._score_part = network, score_part
        self._scan: _Scan | None = None
        self._lock = threading.Lock()

    def begin(self, hu: NDArray[np.int16], pixel_mm_yx: tuple[float, float]) -> None:
        """Take note of the room [z, y, x] that will be filled."""
        parts = list(self._network.parts(len(hu)))
        missing = [part.stop - part.start for part in parts]
        self._drop(_Scan(hu, pixel_mm_yx, parts, missing, {}))

    def arrived(self, first: int, end: int) -> None:
        """Score the parts that are complete with slices ``first`` to ``end`` (exclusive)."""
        scan = self._scan
        if scan is None:
            return
        for number, part in enumerate(scan.parts):
            here = min(end, part.stop) - max(first, part.start)
            if here <= 0:
                continue
            scan.missing[number] -= here
            if not scan.missing[number]:
                scan.futures[number] = self._network.submit(
                    self._score_part, scan.hu, scan.pixel_mm_yx, part
                )

    def scores(
        self, hu: NDArray[np.int16], pixel_mm_yx: tuple[float, float]
    ) -> Iterator[PartScores]:
        """Return the scores of a volume, part by part: early ones where they were given."""
        with self._lock:  # it may be the next scan, which another thread is reading
            scan = self._scan
            is_this = scan is not None and scan.is_of(hu, pixel_mm_yx)
            self._scan = None if is_this else scan
        if scan is not None and is_this:
            futures = [scan.futures[number] for number in range(len(scan.parts))]
        else:
            parts = self._network.parts(len(hu))
            futures = [self._network.submit(self._score_part, hu, pixel_mm_yx, p) for p in parts]
        return (future.result() for future in futures)

    def _drop(self, following: _Scan | None) -> None:
        with self._lock:
            scan, self._scan = self._scan, following
        if scan is not None:
            for future in scan.futures.values():
                future.cancel()
