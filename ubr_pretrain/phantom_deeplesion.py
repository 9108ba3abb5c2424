"""A synthetic DeepLesion: the official table and 16-bit slices, with the quirks of the real one.

Layout: ``DL_info.csv`` with the 18 official columns, ``Images_png/PPPPPP_SS_RR/NNN.png`` with
HU = value - 32768.

Quirks kept: boxes are floats that count pixels from 1; several rows for one image; rows in no
order; lesion type -1 in the training split; a few noisy rows; empty ages; folders that hold
several disjoint ranges of slices; patient numbers with holes; a split by patient.

Reference:
    Yan et al., "DeepLesion", J. Med. Imaging 5(3), 2018; https://nihcc.app.box.com/v/DeepLesion.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ubr_pretrain.phantom import Phantom, Region, sample_phantom
from ubr_pretrain.phantom_lesions import LESION_MM, Lesion, LesionKind
from ubr_pretrain.phantom_pictures import write_png
from ubr_pretrain.phantom_subject import Subject, sample_subject
from ubr_pretrain.phantom_tissues import Tissue
from ubr_pretrain.whole_file import write_atomically

COLUMNS = (
    "File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index",
    "Measurement_coordinates", "Bounding_boxes", "Lesion_diameters_Pixel_",
    "Normalized_lesion_location", "Coarse_lesion_type", "Possibly_noisy", "Slice_range",
    "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender", "Patient_age",
    "Train_Val_Test",
)  # fmt: skip

Row = dict[str, str | int]

HU_OFFSET = 32768
CONTEXT_MM = 30.0
"""DeepLesion keeps the slices up to this far from a key slice."""

SLICE_STEPS_MM = (1.0, 2.0, 2.5, 5.0)
STEP_SHARES = (0.1, 0.15, 0.15, 0.6)
KINDS: dict[Region, tuple[LesionKind, ...]] = {
    "chest": (LesionKind.LUNG, LesionKind.MEDIASTINUM, LesionKind.BONE, LesionKind.SOFT_TISSUE),
    "abdomen": (LesionKind.LIVER, LesionKind.KIDNEY, LesionKind.ABDOMEN, LesionKind.SOFT_TISSUE),
    "pelvis": (LesionKind.PELVIS, LesionKind.BONE, LesionKind.SOFT_TISSUE),
    "trunk": tuple(LesionKind),
}
"""What is found in a scan of each region."""

REGION_SHARES = (0.35, 0.3, 0.1, 0.25)
SPLIT_SHARES = (0.7, 0.15, 0.15)
TRAIN, VAL, TEST = 1, 2, 3
UNKNOWN_TYPE = -1
NOISY_SHARE = 0.02
MISSING_AGE_SHARE = 0.05
SOFT_TISSUE_WINDOW = "-175, 275"
LUNG_WINDOW = "-1500, 500"

HEAD_Z, Z_PER_MM = 0.16, 0.0008
"""Normalized_lesion_location's third value against the reference body: chest .49, pelvis .79."""


@dataclass(frozen=True)
class Series:
    """One scan of one study of one patient."""

    patient: int
    study: int
    series: int
    split: int
    subject: Subject

    @property
    def folder(self) -> str:
        """Name of its folder of slices."""
        return f"{self.patient:06d}_{self.study:02d}_{self.series:02d}"


def write_deeplesion(
    out: Path,
    num_patients: int,
    seed: int,
    size_px: int = 512,
    lesion_mm: float = LESION_MM,
    kinds: Sequence[LesionKind] = tuple(LesionKind),
) -> Iterator[Path]:
    """Write a synthetic DeepLesion, yielding the folder of every series when its slices are there.

    The table is written last, when the iterator ends.

    Args:
        out: empty or absent folder.
        num_patients: at least three, so that no split is empty.
        seed: the same seed gives the same bytes.
        size_px: side of the pictures; 512 in the real one.
        lesion_mm: median long diameter of the lesions, where there is room.
        kinds: of lesions, at least one.

    Raises:
        ValueError: fewer than three patients, pictures below 64 pixels, lesions of no size or kind.
    """
    if num_patients < 3:
        raise ValueError(f"{num_patients} patients: each of the three splits needs one")
    if size_px < 64:
        raise ValueError(f"size_px {size_px}: lesions need pictures of at least 64 pixels")
    if not lesion_mm > 0 or not kinds:
        raise ValueError(f"lesion_mm {lesion_mm} must be > 0, and a kind of lesion be named")
    return _written_series(out, num_patients, seed, size_px, lesion_mm, kinds)


def _written_series(
    out: Path,
    num_patients: int,
    seed: int,
    size_px: int,
    lesion_mm: float,
    kinds: Sequence[LesionKind],
) -> Iterator[Path]:
    rng = np.random.default_rng((seed, 18))
    rows: list[Row] = []
    for series in _sample_series(num_patients, rng):
        phantom = _scan_with_lesions(series.subject, size_px, lesion_mm, kinds, rng)
        ranges = [_slice_range(lesion, phantom) for lesion in phantom.lesions]
        folder = out / "Images_png" / series.folder
        for index in sorted({i for first, last in ranges for i in range(first, last + 1)}):
            picture = (phantom.volume.hu[index].astype(np.int32) + HU_OFFSET).astype(np.uint16)
            write_png(folder / f"{index + 1:03d}.png", picture)
        for lesion, (first, last) in zip(phantom.lesions, ranges, strict=True):
            rows.append(_row(series, phantom, lesion, (first + 1, last + 1)))
        yield folder
    for index in _a_few(len(rows), NOISY_SHARE, rng):
        rows[index]["Possibly_noisy"] = 1
    series_keys = sorted({_series_key(row) for row in rows})
    ageless = {series_keys[i] for i in _a_few(len(series_keys), MISSING_AGE_SHARE, rng)}
    for row in rows:
        row["Patient_age"] = "" if _series_key(row) in ageless else row["Patient_age"]
    shuffled = [rows[i] for i in rng.permutation(len(rows)).tolist()]
    with write_atomically(out / "DL_info.csv", "w") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(shuffled)


def _a_few(num: int, share: float, rng: np.random.Generator) -> list[int]:
    """Draw a share of ``num`` things, at least one."""
    return rng.choice(num, max(1, round(share * num)), replace=False).tolist()


def _series_key(row: Row) -> tuple[str | int, ...]:
    return row["Patient_index"], row["Study_index"], row["Series_ID"]


def _sample_series(num_patients: int, rng: np.random.Generator) -> Iterator[Series]:
    """Draw patients (with holes in their numbers), their split, studies and series."""
    splits = rng.choice((TRAIN, VAL, TEST), num_patients, p=SPLIT_SHARES)
    splits[rng.permutation(num_patients)[:3]] = (TRAIN, VAL, TEST)
    patient = 0
    for split in splits.tolist():
        patient += int(rng.integers(1, 4))
        subject = sample_subject(rng)
        for study in range(1, int(rng.integers(1, 3)) + 1):
            yield Series(patient, study, int(rng.integers(1, 3)), split, subject)


def _scan_with_lesions(
    subject: Subject,
    size_px: int,
    lesion_mm: float,
    kinds: Sequence[LesionKind],
    rng: np.random.Generator,
) -> Phantom:
    """Scan a subject, where it can have one of ``kinds``, until there is room for a lesion."""
    found = [[kind for kind in KINDS[region] if kind in kinds] for region in KINDS]
    shares = np.array(REGION_SHARES) * [bool(of_region) for of_region in found]
    shares /= shares.sum()
    while True:
        index = int(rng.choice(len(KINDS), p=shares))
        region = list(KINDS)[index]
        drawn = rng.choice(found[index], int(rng.integers(1, 4)), replace=True)
        wanted = [LesionKind(kind) for kind in drawn.tolist()]
        phantom = sample_phantom(
            rng,
            size_px,
            region,
            lesion_kinds=wanted,
            step_mm=float(rng.choice(SLICE_STEPS_MM, p=STEP_SHARES)),
            subject=subject,
            lesion_mm=lesion_mm,
        )
        if phantom.lesions:
            return phantom


def _slice_range(lesion: Lesion, phantom: Phantom) -> tuple[int, int]:
    reach = math.ceil(CONTEXT_MM / phantom.volume.spacing_mm_zyx[0])
    last = phantom.volume.num_slices - 1
    return max(0, lesion.key_index - reach), min(last, lesion.key_index + reach)


def _row(
    series: Series,
    phantom: Phantom,
    lesion: Lesion,
    slice_range: tuple[int, int],
) -> Row:
    step_mm, pixel_mm, _ = phantom.volume.spacing_mm_zyx
    size_px = phantom.volume.hu.shape[1]
    key = lesion.key_index + 1
    in_slice = {other.kind for other in phantom.lesions if other.key_index == lesion.key_index}
    return {
        "File_name": f"{series.folder}_{key:03d}.png",
        "Patient_index": series.patient,
        "Study_index": series.study,
        "Series_ID": series.series,
        "Key_slice_index": key,
        "Measurement_coordinates": _numbers((lesion.measurement_xy + 1).ravel()),
        "Bounding_boxes": _numbers(lesion.box_xyxy + 1),
        "Lesion_diameters_Pixel_": _numbers([2 * radius for radius in lesion.radii_px]),
        "Normalized_lesion_location": _numbers(_location(phantom, lesion)),
        "Coarse_lesion_type": UNKNOWN_TYPE if series.split == TRAIN else int(lesion.kind),
        "Possibly_noisy": 0,
        "Slice_range": f"{slice_range[0]}, {slice_range[1]}",
        "Spacing_mm_px_": _numbers([pixel_mm, pixel_mm, step_mm]),
        "Image_size": f"{size_px}, {size_px}",
        "DICOM_windows": LUNG_WINDOW if in_slice == {LesionKind.LUNG} else SOFT_TISSUE_WINDOW,
        "Patient_gender": "F" if series.subject.female else "M",
        "Patient_age": series.subject.age + series.study - 1,
        "Train_Val_Test": series.split,
    }


def _location(phantom: Phantom, lesion: Lesion) -> list[float]:
    """Return the place of a lesion, 0..1: x and y within the skin, z along the body."""
    body = phantom.tissues[lesion.key_index] > Tissue.COUCH_FOAM
    columns, rows = np.flatnonzero(body.any(0)), np.flatnonzero(body.any(1))
    x = (lesion.centre_xy[0] - columns[0]) / max(1, columns[-1] - columns[0])
    y = (lesion.centre_xy[1] - rows[0]) / max(1, rows[-1] - rows[0])
    z = HEAD_Z + Z_PER_MM * float(phantom.coordinate_mm[lesion.key_index])
    return [min(1.0, max(0.0, value)) for value in (float(x), float(y), z)]


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
