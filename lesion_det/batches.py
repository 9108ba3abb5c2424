"""Which images an iteration learns from: a pure function of (seed, iteration), for every arm.

Shapes:
    n: lesions of one image; h, w: rows and columns of its input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy.typing import NDArray
from torch import Tensor

from lesion_det.boxes import Boxes, Frame, clip_boxes, flip_boxes, require_trainable
from lesion_det.det_config import DetConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import PreparedImage
from ubr_pretrain.config import MAX_SEED
from ubr_pretrain.runtime import generator
from ubr_pretrain.work_ahead import worked_ahead

ORDER, FLIPS, SAMPLING, LABELS, JITTER = range(5)
"""Streams of random numbers of one seed."""


@dataclass(frozen=True)
class Example:
    """One image as the detector learns from it.

    Attributes:
        name: its file, for messages.
        hu: [3, h, w].
        boxes_xyxy: lesions in pixels of the input.
        seed: chooses the anchors and proposals that are learned from.
        mirrored: whether it is flipped left to right.
    """

    name: str
    hu: Int16[Tensor, "3 h w"]
    boxes_xyxy: Float[Tensor, "n 4"]
    seed: int
    mirrored: bool = False


class BatchSource:
    """Draws the batches of a training.

    Args:
        records: images to train on; each has lesions.
        prepared: their inputs.
        config: its ``batch``, ``seed``, ``flip`` and ``scale_jitter``.
    """

    def __init__(
        self, records: Sequence[ImageRecord], prepared: PreparedImages, config: DetConfig
    ) -> None:
        self.records, self.prepared = records, prepared
        self.batch, self.seed = config.batch, config.seed
        self.flip, self.scale_jitter = config.flip, config.scale_jitter

    def indices(self, iteration: int) -> list[int]:
        """Return the images of an iteration (counted from 1): permutations, one after another."""
        first = (iteration - 1) * self.batch
        places = [divmod(place, len(self.records)) for place in range(first, first + self.batch)]
        return [int(_permutation(len(self.records), self.seed, epoch)[i]) for epoch, i in places]

    def names(self, iteration: int) -> str:
        """Return the images of an iteration, for messages."""
        return ", ".join(self.records[i].file_name for i in self.indices(iteration))

    def order_sha256(self, iterations: int) -> str:
        """Return one hash of the names that the iterations learn from, in order."""
        digest = hashlib.sha256()
        for iteration in range(1, iterations + 1):
            for index in self.indices(iteration):
                digest.update(self.records[index].file_name.encode())
        return digest.hexdigest()

    def require_trainable(self) -> None:
        """Refuse, before the first iteration, what ``example`` would refuse at a later one.

        Raises:
            ValueError: a lesion lies in the border that is clipped.
        """
        for record in self.records:
            if frame := self.prepared.known_frame(record):
                trainable_boxes(record, frame)

    def example(self, iteration: int, place: int) -> Example:
        """Return the image at one place of an iteration's batch.

        Raises:
            ValueError: a slice cannot be read, or a lesion lies in the border that is clipped.
        """
        record = self.records[self.indices(iteration)[place]]
        prepared = self.prepared[record]
        if self.scale_jitter:
            prepared = zoomed(prepared, self.zoom(iteration, place))
        hu, boxes = prepared.hu, trainable_boxes(record, prepared.frame)
        mirrored = self.flip and generator(self.seed, FLIPS, iteration, place).random() < 0.5
        if mirrored:
            hu, boxes = np.ascontiguousarray(hu[:, :, ::-1]), flip_boxes(boxes, hu.shape[2])
        seed = int(generator(self.seed, SAMPLING, iteration, place).integers(MAX_SEED))
        return Example(
            record.file_name,
            torch.from_numpy(hu),
            torch.from_numpy(boxes.astype(np.float32)),
            seed,
            mirrored,
        )

    def zoom(self, iteration: int, place: int) -> float:
        """Return by how much an image is resized, between 1 / (1 + jitter) and 1 + jitter."""
        exponent = generator(self.seed, JITTER, iteration, place).uniform(-1, 1)
        return float((1 + self.scale_jitter) ** exponent)

    def batches(
        self, iterations: range, places: range, workers: int, *, pinned: bool = False
    ) -> Iterator[tuple[int, list[Example]]]:
        """Return every iteration with its examples at ``places``, prepared ahead by threads.

        Args:
            iterations: counted from 1.
            places: of each batch.
            workers: threads; 0: prepared in turn.
            pinned: in memory that a GPU copies from without the host's help.
        """

        def make(iteration: int) -> tuple[int, list[Example]]:
            examples = [self.example(iteration, place) for place in places]
            return iteration, [_pinned(e) for e in examples] if pinned else examples

        return worked_ahead(make, iterations, workers)


def _pinned(example: Example) -> Example:
    return replace(example, hu=example.hu.pin_memory(), boxes_xyxy=example.boxes_xyxy.pin_memory())


def trainable_boxes(record: ImageRecord, frame: Frame) -> Boxes:
    """Return the lesions of an image in pixels of its input, cut to it.

    Raises:
        ValueError: a lesion lies in the border that is clipped.
    """
    boxes = clip_boxes(frame.to_input(record.boxes_xyxy), frame.width_px, frame.height_px)
    require_trainable(boxes, frame.width_px, frame.height_px, record.file_name)
    return boxes


def zoomed(prepared: PreparedImage, factor: float) -> PreparedImage:
    """Return an input resized by ``factor``, to whole pixels; its frame takes the boxes along."""
    width, height = (
        max(1, round(side * factor)) for side in (prepared.frame.width_px, prepared.frame.height_px)
    )
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    hu = [cv2.resize(c.astype(np.float32), (width, height), interpolation=how) for c in prepared.hu]
    frame = replace(prepared.frame, width_px=width, height_px=height)
    return PreparedImage(np.rint(np.stack(hu)).astype(np.int16), frame)


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return generator(seed, ORDER, epoch).permutation(count)
