"""The PNG of every key slice: which there are, which are sound, and what lies around them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from converters.cohort import by_image
from converters.lesions import Finding, KeySlice, Lesion, finding
from converters.png_folder import Depth, PngFolder, PngRefused
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.work_ahead import worked_ahead

REACH_MM = 2.0
"""How far from the key slice a detector of three slices reads (Yan et al. 2018)."""


@dataclass
class ImageMatch:
    """The key slices beside the PNG folder.

    Attributes:
        file_names: of every sound PNG, relative to the folder.
        faulty: rows whose PNG breaks a rule.
        missing: rows whose image has no PNG.
        noticed: gaps around key slices, and neighbours that cannot be read.
    """

    file_names: dict[KeySlice, str]
    faulty: list[Finding]
    missing: list[Finding]
    noticed: list[Finding]


def match_images(lesions: Sequence[Lesion], folder: PngFolder, depth: Depth) -> ImageMatch:
    """Find and check the PNG of every key slice, several at a time, under a progress bar.

    Args:
        lesions: rows of one image together, as ``merge_rows`` returns them.
        folder: the PNGs.
        depth: how much of a PNG is read; with ``pixels`` the headers of the neighbours as well.
    """
    match = ImageMatch({}, [], [], [])
    found: list[tuple[list[Lesion], str]] = []
    for rows in by_image(lesions).values():
        key_slice = rows[0].key_slice
        name = folder.slices(key_slice.series).get(key_slice.key_slice_index)
        if name is None:
            match.missing.extend(finding("W-MISSING", row, "no such PNG") for row in rows)
        else:
            found.append((rows, name))

    def check(entry: tuple[list[Lesion], str]) -> tuple[PngRefused | None, str]:
        rows, name = entry
        refusal = _refusal(folder, name, rows[0].key_slice, depth)
        neighbour = _bad_neighbour(folder, rows[0].key_slice) if depth == "pixels" else ""
        return refusal, neighbour

    for (rows, name), (refusal, neighbour) in zip(found, _checked(check, found), strict=True):
        key_slice = rows[0].key_slice
        if refusal is not None:
            match.faulty.extend(finding(refusal.code, row, refusal.text) for row in rows)
            continue
        match.file_names[key_slice] = name
        slices, (first, last) = folder.slices(key_slice.series), key_slice.slice_range
        if absent := [number for number in range(first, last + 1) if number not in slices]:
            text = f"{len(absent)} of {last - first + 1} slices of Slice_range have no PNG"
            match.noticed.append(finding("W-GAP", rows[0], text))
        if neighbour:
            match.noticed.append(finding("W-NEIGHBOUR", rows[0], neighbour))
    return match


def _refusal(folder: PngFolder, name: str, key_slice: KeySlice, depth: Depth) -> PngRefused | None:
    try:
        folder.require_slice(name, key_slice, depth)
    except PngRefused as refusal:
        return refusal
    return None


def _bad_neighbour(folder: PngFolder, key_slice: KeySlice) -> str:
    """Return what is wrong with a slice that a detector reads beside the key slice, or ""."""
    slices, reach = (
        folder.slices(key_slice.series),
        math.ceil(REACH_MM / key_slice.spacing_mm_zyx[0]),
    )
    for step in (-1, 1):
        for number in range(1, reach + 1):
            name = slices.get(key_slice.key_slice_index + step * number)
            if name is None:
                break  # beyond a gap nothing is read
            if (refusal := _refusal(folder, name, key_slice, "headers")) is not None:
                return f"{name}: {refusal}"
    return ""


def _checked(
    check: Callable[[tuple[list[Lesion], str]], tuple[PngRefused | None, str]],
    found: Sequence[tuple[list[Lesion], str]],
) -> Iterator[tuple[PngRefused | None, str]]:
    """Yield the answers in order; files are read and decoded by threads."""
    if not found:
        return
    threads = min(16, 2 * (os.cpu_count() or 1))
    with (
        closing(worked_ahead(check, found, threads)) as answers,
        closing(ProgressLine(len(found), only_long=True)) as line,
    ):
        for number, answer in enumerate(answers, start=1):
            line.show(number, "PNGs checked")
            yield answer
