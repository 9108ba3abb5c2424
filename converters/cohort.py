"""The rules that hold between the rows of DeepLesion: one split a patient, one truth an image.

Reference:
    Counts: the official ``Train_Val_Test`` column; Yan et al., Journal of Medical Imaging 2018.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from converters.deeplesion import DeepLesionTable
from converters.lesions import Finding, KeySlice, Lesion, Split, finding


@dataclass(frozen=True)
class SplitCounts:
    """How much of one split there is."""

    rows: int
    images: int


OFFICIAL: Mapping[Split, SplitCounts] = {
    "train": SplitCounts(rows=22_919, images=22_496),
    "val": SplitCounts(rows=4_889, images=4_793),
    "test": SplitCounts(rows=4_927, images=4_831),
}
"""32,735 rows on 32,120 images."""

PUBLISHED = "published: 10,594 studies of 4,459 patients; others say 4,427"
"""Told, not asserted: the publications do not agree on the patients."""


def split_counts(table: DeepLesionTable) -> dict[Split, SplitCounts]:
    """Count rows and distinct images of the splits, unreadable rows included."""
    rows = Counter(split for split, _ in table.rows)
    images = Counter(split for split, _ in set(table.rows))
    return {split: SplitCounts(rows[split], images[split]) for split in OFFICIAL}


def official_differences(counts: Mapping[Split, SplitCounts]) -> list[str] | None:
    """Compare with the official counts.

    Returns:
        One line for every difference; None where the table is only a part of DeepLesion (or
        another data set of its form): fewer rows than official, and no split with more.
    """
    official_rows = sum(official.rows for official in OFFICIAL.values())
    too_many = any(counts[split].rows > official.rows for split, official in OFFICIAL.items())
    if sum(count.rows for count in counts.values()) < official_rows and not too_many:
        return None
    return [
        f"{split} has {counts[split].rows:,} rows on {counts[split].images:,} images, "
        f"official {official.rows:,} on {official.images:,}"
        for split, official in OFFICIAL.items()
        if counts[split] != official
    ]


def studies_and_patients(lesions: Iterable[Lesion]) -> str:
    """Return one line for a full table: its studies and patients, and the published ones."""
    studies = {lesion.key_slice.order[:2] for lesion in lesions}
    patients = {patient for patient, _ in studies}
    return f"all: {len(studies):,} studies of {len(patients):,} patients ({PUBLISHED})"


def patients_in_two_splits(lesions: Iterable[Lesion]) -> dict[int, list[Split]]:
    """Return the patients whose lesions are in more than one split, with these splits."""
    splits: defaultdict[int, set[Split]] = defaultdict(set)
    for lesion in lesions:
        splits[lesion.key_slice.patient_index].add(lesion.key_slice.split)
    return {patient: sorted(found) for patient, found in sorted(splits.items()) if len(found) > 1}


def by_image(lesions: Iterable[Lesion]) -> dict[str, list[Lesion]]:
    """Group lesions by the file of their key slice, in the order of first appearance."""
    images: defaultdict[str, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        images[lesion.key_slice.file_name].append(lesion)
    return dict(images)


def merge_rows(lesions: Sequence[Lesion]) -> tuple[list[Lesion], list[Finding], list[Finding]]:
    """Put the rows of every image together: repeated ones go, contradicting ones are refused.

    Rows that disagree only in what no box depends on (window, gender, age) are told of, and take
    the first row's word.

    Returns:
        The lesions that remain, images in the order of patient, study, series and slice, each
        image's lesions by their boxes (so that the order of the table does not matter); then the
        refused rows; then what is to be told of the others.
    """
    merged: list[Lesion] = []
    refused: list[Finding] = []
    noticed: list[Finding] = []
    for rows in sorted(by_image(lesions).values(), key=lambda rows: rows[0].key_slice.order):
        lines = ", ".join(str(row.line) for row in rows)
        columns = _disagreements([row.key_slice for row in rows])
        text = f"lines {lines} are of one image but disagree in {', '.join(columns)}"
        if not _HARMLESS.issuperset(columns):
            refused += [finding("E-CONFLICT", row, text) for row in rows]
            continue
        if columns:
            noticed.append(finding("W-CONFLICT", rows[0], text))
            rows = [replace(row, key_slice=rows[0].key_slice) for row in rows]
        first_with: dict[tuple[float, ...], Lesion] = {}
        for row in rows:
            first = first_with.setdefault(row.box_xyxy, row)
            if first is not row:
                text = f"repeats line {first.line} (same image, same box)"
                noticed.append(finding("W-DUPLICATE", row, text))
        merged += sorted(first_with.values(), key=lambda row: row.box_xyxy)
    return merged, refused, noticed


_HARMLESS = frozenset({"window_hu", "patient_gender", "patient_age"})


def _disagreements(slices: Sequence[KeySlice]) -> list[str]:
    return [
        name
        for name in KeySlice.__dataclass_fields__
        if len({getattr(key_slice, name) for key_slice in slices}) > 1
    ]


def settle_noisy(
    lesions: Sequence[Lesion], noisy: Literal["keep", "drop"]
) -> tuple[list[Lesion], list[Finding]]:
    """Keep the lesions that the table calls possibly noisy, or drop and list them."""
    if noisy == "keep":
        return list(lesions), []
    kept = [lesion for lesion in lesions if not lesion.possibly_noisy]
    dropped = [lesion for lesion in lesions if lesion.possibly_noisy]
    return kept, [finding("W-NOISY", lesion, "possibly noisy, dropped") for lesion in dropped]
