"""The images of a training: what is learned from, validated on along the way, tested at the end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_det.batches import LABELS
from lesion_det.det_config import DATA_PATHS, DetConfig
from lesion_det.ground_truth import (
    GroundTruth,
    GroundTruthRefused,
    ImageRecord,
    read_ground_truth,
)
from lesion_det.image_names import one_name
from lesion_det.slices import require_files, source_files
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.runtime import generator

SAMPLED_INPUTS = 16
"""Inputs of whose slices every byte is hashed; of the others, names and sizes."""

DATA_HASHES = frozenset({"train_sha256", "val_sha256", "test_sha256", "images_sha256"})
"""What checkpoints of earlier versions do not say."""


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
            and judged, or an image that is, under whatever patient (unless ``allow_leakage``);
            key slices that are missing on disk.
    """
    training = _read_all(config.train_files)
    judged = _read_all(config.val_files)
    tested = _read_all(config.test)
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
    if not config.allow_leakage:
        held_out_files = zip((*config.val_files, *config.test), judged + tested, strict=True)
        _require_apart(zip(config.train_files, training, strict=True), held_out_files)
    require_files(config.images, [*learned, *held_out])
    return splits


def _read_all(files: Sequence[Path]) -> tuple[GroundTruth, ...]:
    """Read the files of one role; an image counts once, whatever its name is spelt like.

    Raises:
        GroundTruthRefused: a file is refused, or lists an image that another one lists.
    """
    truths = tuple(read_ground_truth(path) for path in files)
    listed: dict[str, Path] = {}
    for path, truth in zip(files, truths, strict=True):
        for image in truth.images:
            first = listed.setdefault(one_name(image.file_name), path)
            if first is not path:
                raise GroundTruthRefused(
                    f"{path}: file_name {image.file_name} occurs more than once: also in {first}"
                )
    return truths


def _require_apart(
    learned: Iterable[tuple[Path, GroundTruth]], held_out: Iterable[tuple[Path, GroundTruth]]
) -> None:
    """Refuse an image that is both learned from and judged on, whosever it is said to be."""
    listed = {
        one_name(image.file_name): (path, image)
        for path, truth in learned
        for image in truth.images
        if image.num_lesions
    }
    for path, truth in held_out:
        for image in truth.images:
            if (found := listed.get(one_name(image.file_name))) is not None:
                raise GroundTruthRefused(
                    f"{image.file_name} is both trained on ({found[0]}, patient "
                    f"{found[1].patient_index}) and evaluated on ({path}, patient "
                    f"{image.patient_index}); split by patient, or pass --allow_leakage true to "
                    "check that a training overfits"
                )


def data_sha256(config: DetConfig, splits: Splits) -> dict[str, str]:
    """Return hashes of what is learned from and judged on, wherever it lies.

    "train", "val" and "test" are of the COCO files, in their order; "images" is of the names and
    sizes of all slices that inputs are made of, neighbours included, and of the bytes of some.

    Args:
        config: where the data lie.
        splits: what ``read_splits`` made of them.

    Raises:
        ValueError: as ``source_files``.
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
    files = {
        image.file_name: source_files(config.images, image, config.input)
        for image in [*splits.learned, *splits.held_out]
    }
    names = sorted(files)
    sizes = [
        f"{name} {file.name} {file.stat().st_size}\n" for name in names for file in files[name]
    ]
    sampled = names[:: math.ceil(len(names) / SAMPLED_INPUTS)]
    text = "".join([*sizes, *(file_sha256(file) for name in sampled for file in files[name])])
    return hashes | {"images": hashlib.sha256(text.encode()).hexdigest()}


def require_same_audit(
    checkpoint: Path, before: Mapping[str, str], now: Mapping[str, str], moved: Sequence[str]
) -> None:
    """Refuse to go on from a checkpoint with other data or from another start.

    Args:
        checkpoint: the file.
        before: hashes that it holds.
        now: of the same names.
        moved: lines of ``RunFolder.moved``. Where no data moved, an earlier version's checkpoint
            need not say what they were.

    Raises:
        ValueError: naming the first hash that is another one or absent.
    """
    data_moved = [line for line in moved if line.partition(":")[0] in DATA_PATHS]
    for name, digest in now.items():
        if before.get(name, digest) != digest:
            raise ValueError(f"{checkpoint}: {name} changed since it was written")
        if name in before:
            continue
        if name not in DATA_HASHES:
            raise ValueError(f"{checkpoint}: lacks its {name}; start anew with --overwrite")
        if data_moved:
            raise ValueError(
                f"{checkpoint}: lacks its {name}, so nothing tells whether what moved is the same "
                f"({data_moved[0]}); name the former place, or start anew with --overwrite"
            )


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
