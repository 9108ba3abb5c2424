"""Which images an iteration learns from: a pure function of (seed, iteration), for every arm.

Shapes:
    n: lesions of one image; h, w: rows and columns of its input.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy.typing import NDArray
from torch import Tensor

from lesion_det.boxes import clip_boxes, flip_boxes, require_trainable
from lesion_det.ground_truth import ImageRecord
from lesion_det.slices import PreparedImages
from ubr_pretrain.runtime import generator

ORDER, FLIPS, SAMPLING, LABELS, JITTER = range(5)
"""Streams of random numbers of one seed."""

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Example:
    """One image as the detector learns from it.

    Attributes:
        name: its file, for messages.
        hu: [3, h, w].
        boxes_xyxy: lesions in pixels of the input.
        seed: chooses the anchors and proposals that are learned from.
    """

    name: str
    hu: Int16[Tensor, "3 h w"]
    boxes_xyxy: Float[Tensor, "n 4"]
    seed: int


class BatchSource:
    """Draws the batches of a training.

    Args:
        records: images to train on; each has lesions.
        prepared: their inputs.
        batch: images of an iteration.
        seed: of order, flips and sampling.
        flip: mirror every second image.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        prepared: PreparedImages,
        batch: int,
        seed: int,
        *,
        flip: bool,
    ) -> None:
        self.records, self.prepared = records, prepared
        self.batch, self.seed, self.flip = batch, seed, flip

    def indices(self, iteration: int) -> list[int]:
        """Return the images of an iteration (counted from 1): permutations, one after another."""
        first = (iteration - 1) * self.batch
        places = [divmod(place, len(self.records)) for place in range(first, first + self.batch)]
        return [int(_permutation(len(self.records), self.seed, epoch)[i]) for epoch, i in places]

    def order_sha256(self, iterations: int) -> str:
        """Return one hash of the names that the iterations learn from, in order."""
        digest = hashlib.sha256()
        for iteration in range(1, iterations + 1):
            for index in self.indices(iteration):
                digest.update(self.records[index].file_name.encode())
        return digest.hexdigest()

    def example(self, iteration: int, place: int) -> Example:
        """Return the image at one place of an iteration's batch.

        Raises:
            ValueError: a slice cannot be read, or a lesion lies in the border that is clipped.
        """
        record = self.records[self.indices(iteration)[place]]
        prepared = self.prepared[record]
        hu, width, height = prepared.hu, prepared.frame.width_px, prepared.frame.height_px
        boxes = clip_boxes(prepared.frame.to_input(record.boxes_xyxy), width, height)
        require_trainable(boxes, width, height, record.file_name)
        if self.flip and generator(self.seed, FLIPS, iteration, place).random() < 0.5:
            hu, boxes = np.ascontiguousarray(hu[:, :, ::-1]), flip_boxes(boxes, width)
        seed = int(generator(self.seed, SAMPLING, iteration, place).integers(MAX_SEED))
        return Example(
            record.file_name,
            torch.from_numpy(hu),
            torch.from_numpy(boxes.astype(np.float32)),
            seed,
        )

    def batches(
        self, iterations: range, places: range, workers: int
    ) -> Iterator[tuple[int, list[Example]]]:
        """Yield every iteration with its examples at ``places``, prepared ahead by threads."""

        def make(iteration: int) -> tuple[int, list[Example]]:
            return iteration, [self.example(iteration, place) for place in places]

        if workers == 0:
            yield from map(make, iterations)
            return
        with ThreadPoolExecutor(workers) as pool:
            coming: deque[Future[tuple[int, list[Example]]]] = deque()
            for iteration in iterations:
                coming.append(pool.submit(make, iteration))
                if len(coming) > 2 * workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return generator(seed, ORDER, epoch).permutation(count)
