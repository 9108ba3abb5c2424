"""A DeepLesion of a few small slices on disk: an ellipse of a body with one bright lesion each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lesion_det.ground_truth import ImageRecord, read_ground_truth

AIR_HU, BODY_HU, LESION_HU = -1000, 40, 220
STORED_ZERO_HU = 32768
KEY = 10


@dataclass(frozen=True)
class ToyDeepLesion:
    images: Path
    coco: Path

    def records(self, split: str = "train") -> tuple[ImageRecord, ...]:
        return read_ground_truth(self.coco / f"{split}.json").images


def write_png(path: Path, hu: NDArray[np.int16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (hu.astype(np.int32) + STORED_ZERO_HU).astype(np.uint16))


def body_slice(height: int, width: int, lesion_xyxy: Sequence[int]) -> NDArray[np.int16]:
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((y / height - 0.5) / 0.4) ** 2 + ((x / width - 0.5) / 0.4) ** 2 < 1
    hu = np.where(inside, BODY_HU, AIR_HU).astype(np.int16)
    x1, y1, x2, y2 = lesion_xyxy
    hu[y1:y2, x1:x2] = LESION_HU
    return hu


def write_toy_deeplesion(
    root: Path,
    splits: Mapping[str, int] | None = None,
    size: tuple[int, int] = (80, 80),
    seed: int = 0,
) -> ToyDeepLesion:
    """Write patients (one image, one lesion of 10 to 18 px each) for every split."""
    rng = np.random.default_rng(seed)
    images, coco = root / "Images_png", root / "coco"
    coco.mkdir(parents=True)
    height, width = size
    patient = 0
    for split, count in (splits or {"train": 4, "val": 2}).items():
        entries, annotations = [], []
        for number in range(1, count + 1):
            patient += 1
            w, h = rng.integers(10, 19, 2).tolist()
            x = int(rng.integers(int(0.3 * width), int(0.65 * width) - w + 8))
            y = int(rng.integers(int(0.3 * height), int(0.65 * height) - h + 8))
            folder = f"{patient:06d}_01_01"
            for index in (KEY - 1, KEY, KEY + 1):
                path = images / folder / f"{index:03d}.png"
                write_png(path, body_slice(height, width, (x, y, x + w, y + h)))
            entries.append(
                {
                    "id": number,
                    "file_name": f"{folder}/{KEY:03d}.png",
                    "height": height,
                    "width": width,
                    "patient_index": patient,
                    "study_index": 1,
                    "series_id": 1,
                    "key_slice_index": KEY,
                    "slice_range": [KEY - 1, KEY + 1],
                    "spacing_mm_zyx": [5.0, 0.8, 0.8],
                }
            )
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(w * h),
                    "iscrowd": 0,
                    "lesion_type": -1,
                    "diameters_px": [float(max(w, h)), float(min(w, h))],
                    "possibly_noisy": False,
                }
            )
        text = json.dumps(
            {
                "images": entries,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "lesion"}],
            }
        )
        (coco / f"{split}.json").write_text(text, encoding="utf-8")
    return ToyDeepLesion(images, coco)
