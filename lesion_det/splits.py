"""The images of a training: what is learned from, validated on along the way, tested at the end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_det.batches import LABELS
from lesion_det.det_config import DetConfig
from lesion_det.ground_truth import GroundTruth, ImageRecord, read_ground_truth
from lesion_det.slices import require_files
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.runtime import generator

SAMPLED_SLICES = 16
"""Key slices of which every byte is hashed; of the others, name and size."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Images with lesions to learn from, and the files to validate and to test on.

    Attributes:
        learned: of all training patients, whatever the fraction of labels.
        judged: the files to validate on.
        tested: the files to test on.
    """

    learned: tuple[ImageRecord, ...]
    judged: tuple[GroundTruth, ...]
    tested: tuple[GroundTruth, ...]

    @property
    def num_judged(self) -> int:
        """Number of images to validate on."""
        return sum(len(truth.images) for truth in self.judged)

    @property
    def held_out(self) -> list[ImageRecord]:
        """Images to validate and to test on."""
        return [image for truth in self.judged + self.tested for image in truth.images]


def read_splits(config: DetConfig) -> Splits:
    """Read the COCO files of a training.

    Raises:
        ValueError: a file is refused; nothing to learn from; patients that are both learned from
            and judged (unless ``allow_leakage``); key slices that are missing on disk.
    """
    training = [read_ground_truth(path) for path in config.train_files]
    judged = tuple(read_ground_truth(path) for path in config.val_files)
    tested = tuple(read_ground_truth(path) for path in config.test)
    learned = tuple(image for truth in training for image in truth.images if image.num_lesions)
    if not learned:
        raise ValueError(f"{config.train_files[0]}: no image has a lesion to learn from")
    splits = Splits(learned, judged, tested)
    held_out = splits.held_out
    shared = {i.patient_index for i in learned} & {i.patient_index for i in held_out}
    if shared and not config.allow_leakage:
        raise ValueError(
            f"{len(shared)} patients are both trained on and evaluated on (patient {min(shared)}); "
            "split by patient, or pass --allow_leakage true to check that a training overfits"
        )
    require_files(config.images, [*learned, *held_out])
    return splits


def data_sha256(config: DetConfig, splits: Splits) -> dict[str, str]:
    """Return hashes of what is learned from and judged on, wherever it lies.

    "train", "val" and "test" are of the COCO files, in their order; "images" is of the names and
    sizes of all key slices and of the bytes of some.

    Args:
        config: where the data lie.
        splits: what ``read_splits`` made of them.
    """
    roles: Mapping[str, Sequence[Path]] = {
        "train": config.train_files,
        "val": config.val_files,
        "test": config.test,
    }
    hashes = {
        role: hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()
        for role, files in roles.items()
    }
    names = sorted({image.file_name for image in [*splits.learned, *splits.held_out]})
    sizes = [f"{name} {(config.images / name).stat().st_size}\n" for name in names]
    sampled = [config.images / name for name in names[:: math.ceil(len(names) / SAMPLED_SLICES)]]
    text = "".join([*sizes, *map(file_sha256, sampled)])
    return hashes | {"images": hashlib.sha256(text.encode()).hexdigest()}


def labelled_images(
    learned: Sequence[ImageRecord], fraction: float, seed: int
) -> tuple[ImageRecord, ...]:
    """Return the images of a fraction of the patients, at least one, in the order given.

    The patients are the first ones of one permutation a seed, so that those of a smaller fraction
    are among those of a larger one; every arm of a seed gets the same.
    """
    patients = sorted({image.patient_index for image in learned})
    count = math.ceil(fraction * len(patients))
    drawn = generator(seed, LABELS).permutation(patients)[:count]
    chosen = set(drawn.tolist())
    return tuple(image for image in learned if image.patient_index in chosen)
