"""A cache of a few small inputs, and what it must give."""

from pathlib import Path

import cv2
import numpy as np

from lesion_det.det_config import InputConfig
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import prepare_image
from tests.lesion_det.toy_slices import ToyDeepLesion, write_png, write_toy_deeplesion


def write_noisy_slices(root: Path) -> ToyDeepLesion:
    """Write five patients, no two slices alike."""
    toy = write_toy_deeplesion(root, {"train": 5}, size=(70, 90))
    rng = np.random.default_rng(0)
    for path in sorted(toy.images.rglob("*.png")):
        hu = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32) - 32768
        write_png(path, (hu + rng.integers(-30, 30, hu.shape)).astype(np.int16))
    return toy


def built(toy: ToyDeepLesion, cache: Path, config: InputConfig | None = None) -> PreparedImages:
    prepared = PreparedImages(toy.images, config or InputConfig(), cache)
    prepared.build(toy.records())
    return prepared


def require_as_decoded(prepared: PreparedImages, toy: ToyDeepLesion) -> None:
    for record in toy.records():
        wanted = prepare_image(toy.images, record, prepared.config)
        assert prepared[record].frame == wanted.frame
        np.testing.assert_array_equal(prepared[record].hu, wanted.hu)


def files_of(cache: Path) -> tuple[Path, Path]:
    return cache / "inputs.int16", cache / "index.jsonl"
