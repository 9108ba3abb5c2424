"""Data that cost next to nothing to make: bodies of three ellipses, as NIfTI or as DeepLesion.

Written without SimpleITK, for machines that lack it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

STORED_ZERO_HU = 32768
"""DeepLesion's PNGs hold HU + 32768."""

FIELD_MM = 400.0


def body(
    num_slices: int, side_px: int, rng: np.random.Generator, noise_hu: float = 12.0
) -> NDArray[np.int16]:
    """Return HU [z, y, x]: soft tissue with two lungs that grow smaller downwards, noise all over.

    Args:
        num_slices: z.
        side_px: y and x.
        rng: of the noise and of the body's size.
        noise_hu: its standard deviation.
    """
    y, x = (np.mgrid[:side_px, :side_px] / side_px - 0.5).astype(np.float32) * 2
    wide, deep = rng.uniform(0.7, 0.9), rng.uniform(0.5, 0.65)
    slices = []
    for place in np.linspace(0, 1, num_slices):
        hu = np.where((x / wide) ** 2 + (y / deep) ** 2 < 1, 40.0, -1000.0)
        lung = 0.35 * (1 - place)
        for side in (-1, 1):
            inside = ((x - side * 0.35) / (lung + 0.01)) ** 2 + (y / (1.2 * lung + 0.01)) ** 2 < 1
            hu[inside] = -800
        slices.append(hu)
    hu = np.stack(slices) + rng.normal(0, noise_hu, (num_slices, side_px, side_px))
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def write_ct(folder: Path, num_volumes: int, num_slices: int, side_px: int) -> Path:
    """Write CT volumes as uncompressed NIfTI, slices 5 mm apart; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(num_volumes):
        hu = body(num_slices, side_px, np.random.default_rng(seed))
        write_nifti(hu, (5.0, FIELD_MM / side_px, FIELD_MM / side_px), folder / f"{seed:05d}.nii")
    return folder


def write_nifti(
    hu: NDArray[np.int16], spacing_mm_zyx: tuple[float, float, float], path: Path
) -> None:
    """Write a volume, superior to inferior in memory, in the order in which NIfTI counts."""
    z_mm, y_mm, x_mm = spacing_mm_zyx
    depth, height, width = hu.shape
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, width, height, depth, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, 1, x_mm, y_mm, z_mm, 0, 0, 0, 0)
    struct.pack_into("<ff", header, 108, 352, 1)  # where the voxels begin; slope
    struct.pack_into("<B", header, 123, 2)  # millimetres
    struct.pack_into("<hh", header, 252, 0, 1)  # the rows below say where a voxel lies
    for row, values in enumerate(((-x_mm, 0, 0, 0), (0, -y_mm, 0, 0), (0, 0, z_mm, 0))):
        struct.pack_into("<4f", header, 280 + 16 * row, *values)
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + hu[::-1].astype("<i2").tobytes())


def write_lesions(
    folder: Path, num_images: int, side_px: int, num_validation: int = 1
) -> tuple[Path, Path]:
    """Write key slices with their neighbours, to learn from and to validate; return (coco, images).

    One lesion a slice; every slice another patient; 0.8 mm a pixel, as the detector wants them.
    """
    images = folder / "Images_png"
    splits: dict[str, list[int]] = {
        "train": list(range(1, num_images + 1)),
        "val": list(range(num_images + 1, num_images + num_validation + 1)),
    }
    (folder / "coco").mkdir(parents=True)
    for split, patients in splits.items():
        entries, annotations = [], []
        for number, patient in enumerate(patients, start=1):
            rng = np.random.default_rng(patient)
            left, top = (rng.uniform(0.35, 0.55, 2) * side_px).tolist()
            wide, high = (rng.uniform(0.04, 0.12, 2) * side_px).tolist()
            hu = body(3, side_px, rng)
            hu[:, int(top) : int(top + high), int(left) : int(left + wide)] += 90
            series = images / f"{patient:06d}_01_01"
            series.mkdir(parents=True)
            for place, one in enumerate(hu, start=1):
                stored = (one.astype(np.int32) + STORED_ZERO_HU).astype(np.uint16)
                assert cv2.imwrite(str(series / f"{place:03d}.png"), stored)
            entries.append(
                {
                    "id": number,
                    "file_name": f"{series.name}/002.png",
                    "height": side_px,
                    "width": side_px,
                    "patient_index": patient,
                    "study_index": 1,
                    "series_id": 1,
                    "key_slice_index": 2,
                    "slice_range": [1, 3],
                    "spacing_mm_zyx": [2.0, 0.8, 0.8],
                }
            )
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [left, top, wide, high],
                    "area": wide * high,
                    "iscrowd": 0,
                    "lesion_type": -1,
                    "diameters_px": [wide, high],
                    "possibly_noisy": False,
                }
            )
        coco = {
            "images": entries,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "lesion"}],
        }
        (folder / "coco" / f"{split}.json").write_text(json.dumps(coco), encoding="utf-8")
    return folder / "coco", images
