"""The PNG tree as a whole: what does not belong, which patients are missing, which runs are whole.

Reference:
    The official download: 56 zip files of about equal size in the order of the patients.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from converters.cohort import OFFICIAL
from converters.lesions import UNKNOWN_SPLIT, Finding, KeySlice, Lesion
from converters.png_folder import PngFolder

NUM_ZIPS = 56
NEIGHBOURS = (1, 2, 4)
"""Slices on each side that detectors read: three, five and nine slices in all."""


def audit_tree(lesions: Sequence[Lesion], folder: PngFolder) -> list[Finding]:
    """Return what lies in the folder but should not, and the patients of whom nothing does.

    Args:
        lesions: of the table, all that could be read.
        folder: the PNGs.
    """
    series_of_table = {lesion.key_slice.series for lesion in lesions}
    findings = [_told("W-STRAY", name, _what(folder, name)) for name in folder.strays()]
    for series in folder.series:
        if series not in series_of_table:
            text = f"{len(folder.slices(series))} slices of a series that the table lacks"
            findings.append(_told("W-NOSERIES", series, text))
        beside = folder.beside.get(series, {})
        for name in folder.in_folder(series) if beside else []:
            stem = name.removesuffix(".png")
            if stem.isascii() and stem.isdigit() and int(stem) in beside:
                findings.append(_told("W-TWICE", f"{series}/{name}", f"also {beside[int(stem)]}"))
    return [*findings, *_absent_patients(lesions, folder)]


def coverage(slices: Iterable[KeySlice], folder: PngFolder) -> Mapping[str, Counter[str]]:
    """Count by split how whole the runs around the key slices are.

    Args:
        slices: key slices that have a PNG.
        folder: the PNGs.
    """
    tallies: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for key_slice in slices:
        there, split = folder.slices(key_slice.series), key_slice.split
        first, last = key_slice.slice_range
        wanted = range(first, last + 1)
        present = sum(number in there for number in wanted)
        tallies["slices of all Slice_range"][split] += len(wanted)
        tallies["  that have a PNG"][split] += present
        tallies["images with the whole Slice_range"][split] += present == len(wanted)
        for reach in NEIGHBOURS:
            around = range(key_slice.key_slice_index - reach, key_slice.key_slice_index + reach + 1)
            label = f"images with {reach} slice{'s' * (reach > 1)} on each side"
            tallies[label][split] += all(number in there for number in around)
    return tallies


def _absent_patients(lesions: Sequence[Lesion], folder: PngFolder) -> list[Finding]:
    """Return the runs of consecutive patients of whom there is no file."""
    images: defaultdict[int, set[KeySlice]] = defaultdict(set)
    for lesion in lesions:
        images[lesion.key_slice.patient_index].add(lesion.key_slice)
    present = {int(series.split("_")[0]) for series in folder.series if folder.slices(series)}
    runs: list[list[int]] = []
    previous_absent = False
    for patient in sorted(images):
        absent = patient not in present
        if absent and previous_absent:
            runs[-1].append(patient)
        elif absent:
            runs.append([patient])
        previous_absent = absent
    all_images = sum(counts.images for counts in OFFICIAL.values())
    findings = []
    for run in runs:
        count = sum(len(images[patient]) for patient in run)
        text = f"{len(run):,} patient(s), {count:,} key slices, no file"
        zips = NUM_ZIPS * count / all_images
        if zips >= 0.5:
            text += f"; about {zips:.0f} of the {NUM_ZIPS} zips"
        findings.append(_told("W-NOPATIENT", f"patients {run[0]:06d} to {run[-1]:06d}", text))
    return findings


def _what(folder: PngFolder, name: str) -> str:
    path = folder.root / name
    if not path.is_dir():
        return "a zip to be unpacked" if path.suffix == ".zip" else "a file"
    inside = PngFolder(path).series
    return (
        f"a folder with {len(inside)} series in it: is it the --images?" if inside else "a folder"
    )


def _told(code: str, name: str, text: str) -> Finding:
    return Finding(code, 0, name, UNKNOWN_SPLIT, text)
