"""A cohort of synthetic volumes on disk: NIfTI in any direction, and the tables of what is true.

Layout: ``*.nii.gz``, ``manifest.csv`` (volume, subject, how it is stored), ``slice_classes.csv``,
``landmarks.csv`` and ``slice_coordinates.csv``; slices are counted from 0, superior to inferior,
whatever the direction in which a file holds them. Where labels are asked for, a second folder holds
a file of the same name for every volume, a tissue a voxel, and ``tissues.json`` with their numbers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume
from ubr_pretrain.nifti_file import write_image
from ubr_pretrain.phantom import (
    ABNORMALITIES,
    REGIONS,
    Abnormality,
    Phantom,
    Region,
    sample_phantom,
)
from ubr_pretrain.phantom_tissues import Tissue
from ubr_pretrain.whole_file import write_atomically

ABNORMAL_REGIONS: dict[Abnormality, tuple[Region, ...]] = {
    "ascites": ("abdomen", "trunk"),
    "effusion": ("chest", "trunk"),
    "metal": ("pelvis", "trunk", "head_neck"),
    "reversed": ("trunk", "whole"),
    "missing_slices": ("trunk", "whole"),
}
"""Scans that show an abnormality."""

UNCERTAINTY_SLICES = 0.5
"""A landmark is exact; the slice that shows it is the nearest on one side."""

STORED_DIRECTIONS = ((1, 1, -1), (1, 1, 1), (-1, -1, 1), (-1, 1, -1))
"""Signs of the axes x, y, z in LPS as which volumes are stored in turn: readers are exercised."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "manifest": (
        "volume", "subject", "licence", "region", "size", "spacing_mm", "direction", "n_slices",
        "z_extent_mm", "abnormality",
    ),
    "slice_classes": ("volume", "index_sup_to_inf", "class"),
    "slice_coordinates": ("volume", "index_sup_to_inf", "coordinate_mm"),
    "landmarks": (
        "volume", "n_slices", "slice_spacing_mm", "landmark", "index_sup_to_inf",
        "uncertainty_slices",
    ),
}  # fmt: skip

Row = dict[str, Any]


def write_cohort(
    out: Path,
    num_subjects: int,
    seed: int,
    size_px: int = 128,
    num_abnormal: int = 0,
    region: Region | None = None,
    step_mm: float | None = None,
    max_slices: int | None = 240,
    labels: Path | None = None,
) -> Iterator[tuple[str, Phantom]]:
    """Write one volume per subject, yielding its name and content once it is on disk.

    The tables are written last, when the iterator ends.

    Args:
        out: empty or absent folder.
        num_subjects: how many.
        seed: the same seed gives the same voxels; a subject does not depend on their number.
        size_px: side of the slices.
        num_abnormal: the last so many subjects are abnormal, each kind in turn.
        region: what is scanned; drawn where absent.
        step_mm: slice interval; drawn where absent.
        max_slices: per volume, kept by a coarser interval.
        labels: folder for the tissue of every voxel; None: not written.

    Raises:
        ValueError: an impossible number, region, size or interval, before anything is written.
        OSError: something cannot be written.
    """
    if num_subjects < 1 or not 0 <= num_abnormal <= num_subjects:
        raise ValueError(
            f"subjects {num_subjects}, abnormal {num_abnormal}: at least one, and no more abnormal"
        )
    if region is not None and region not in REGIONS:
        raise ValueError(f"region {region!r} is not one of {', '.join(REGIONS)}")
    if size_px < 16 or (step_mm is not None and not step_mm > 0):
        raise ValueError(f"size_px {size_px} must be at least 16, and step {step_mm} mm > 0")
    if max_slices is not None and max_slices < 2:
        raise ValueError(f"max_slices {max_slices} must be at least 2")

    def written() -> Iterator[tuple[str, Phantom]]:
        tables: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        for number in range(num_subjects):
            rng = np.random.default_rng((seed, number))
            abnormal = number - (num_subjects - num_abnormal)
            kind = ABNORMALITIES[abnormal % len(ABNORMALITIES)] if abnormal >= 0 else None
            where = region
            if where is None and kind is not None:
                where = ABNORMAL_REGIONS[kind][int(rng.integers(len(ABNORMAL_REGIONS[kind])))]
            phantom = sample_phantom(rng, size_px, where, kind, (), step_mm, max_slices)
            name = f"phantom_{seed}_{number:04d}"
            signs = STORED_DIRECTIONS[number % len(STORED_DIRECTIONS)]
            write_nifti(phantom.volume, out / f"{name}.nii.gz", signs)
            if labels is not None:
                write_labels(phantom, labels / f"{name}.nii.gz", signs)
            _tabulate(tables, name, phantom, signs, kind or "")
            yield name, phantom
        for table, rows in tables.items():
            _write_table(out / f"{table}.csv", COLUMNS[table], rows)
        if labels is not None:
            with write_atomically(labels / "tissues.json", "w") as file:
                numbers = {tissue.name.lower(): int(tissue) for tissue in Tissue}
                json.dump(numbers, file, indent=1, allow_nan=False)

    return written()


def write_nifti(volume: Volume, path: Path, signs: tuple[int, int, int] = (1, 1, -1)) -> None:
    """Write a volume as NIfTI, atomically, and prove that it reads back.

    Slices are written one interval apart: gaps do not fit into NIfTI, and close up.

    Args:
        volume: superior to inferior.
        path: ``.nii`` or ``.nii.gz``.
        signs: direction of the stored axes x, y, z in LPS, +1 or -1 each.

    Raises:
        OSError: it cannot be written, or what was written is not what it should be.
    """
    write_image(_stored(volume.hu, volume.spacing_mm_zyx, signs), path)


def write_labels(phantom: Phantom, path: Path, signs: tuple[int, int, int] = (1, 1, -1)) -> None:
    """Write the tissue of every voxel as NIfTI, on the grid that ``write_nifti`` gives its volume.

    Lesions are not in it. Arguments and errors are those of ``write_nifti``.
    """
    write_image(_stored(phantom.tissues, phantom.volume.spacing_mm_zyx, signs), path)


def _stored(
    voxels: NDArray[Any], spacing_mm_zyx: tuple[float, float, float], signs: tuple[int, int, int]
) -> sitk.Image:
    flips = tuple(slice(None, None, step) for step in (-signs[2], signs[1], signs[0]))
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[flips]))
    spacing = spacing_mm_zyx[::-1]
    image.SetSpacing(spacing)
    image.SetDirection(np.diag(signs).astype(float).ravel().tolist())
    extent = [(n - 1) * s for n, s in zip(voxels.shape[::-1], spacing, strict=True)]
    image.SetOrigin([-sign * length / 2 for sign, length in zip(signs, extent, strict=True)])
    return image


def _tabulate(
    tables: dict[str, list[Row]],
    name: str,
    phantom: Phantom,
    signs: tuple[int, int, int],
    abnormality: str,
) -> None:
    volume = phantom.volume
    num, height, width = volume.hu.shape
    step_mm, row_mm, column_mm = volume.spacing_mm_zyx
    present = list(dict.fromkeys(phantom.classes))
    tables["manifest"].append(
        {
            "volume": name,
            "subject": name,
            "licence": "synthetic",
            "region": f"{present[0]} -> {present[-1]}",
            "size": f"{width}x{height}x{num}",
            "spacing_mm": f"{column_mm:.4g} {row_mm:.4g} {step_mm:.4g}",
            "direction": "{} 0 0 0 {} 0 0 0 {}".format(*signs),
            "n_slices": num,
            "z_extent_mm": f"{volume.z_mm[-1]:.1f}",
            "abnormality": abnormality,
        }
    )
    for index, (body_part, coordinate_mm) in enumerate(
        zip(phantom.classes, phantom.coordinate_mm.tolist(), strict=True)
    ):
        place = {"volume": name, "index_sup_to_inf": index}
        tables["slice_classes"].append(place | {"class": body_part})
        tables["slice_coordinates"].append(place | {"coordinate_mm": f"{coordinate_mm:.2f}"})
    for mark in phantom.landmarks:
        tables["landmarks"].append(
            {
                "volume": name,
                "n_slices": num,
                "slice_spacing_mm": f"{step_mm:.4g}",
                "landmark": mark.name,
                "index_sup_to_inf": mark.index,
                "uncertainty_slices": UNCERTAINTY_SLICES,
            }
        )


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with write_atomically(path, "w") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
