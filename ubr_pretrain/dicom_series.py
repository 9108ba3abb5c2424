"""One DICOM series, sorted by geometry, to a `Volume`.

Shapes:
    k: slices along their common normal, whatever the names and numbers of the files.
    j, i: rows, columns as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import AIR_HU, MAX_HU, Volume, VolumeRefused, contiguous_runs
from ubr_pretrain.dicom_elements import MOMENTS
from ubr_pretrain.dicom_header import DicomHeader
from ubr_pretrain.dicom_pixels import decode, read_plain
from ubr_pretrain.dicom_slices import CtSlice, ct_slices
from ubr_pretrain.hounsfield import HuScale
from ubr_pretrain.orientation import StoredGrid, room_for, to_axial
from ubr_pretrain.reading_rules import SPACING_HINT, ReadingRules
from ubr_pretrain.slice_watch import SliceWatch, announcer
from ubr_pretrain.sparse_volume import plan_stored
from ubr_pretrain.stored_file import stamp
from ubr_pretrain.volume_header import affine_of

SAME_PLACE_MM = 0.01
SHOWN_GAPS = 5

OFF_GRID_MM = 0.1
"""A slice that lies further from an even grid is not where one matrix would put it."""


def read_series(
    headers: Sequence[DicomHeader],
    rules: ReadingRules,
    path: Path,
    phase: int | None = None,
    watch: SliceWatch | None = None,
) -> Volume:
    """Read the files of one series.

    Args:
        headers: of all of them, in any order.
        rules: limits of the reader.
        path: what the series is called in a refusal of the whole.
        phase: which phase, from 1, where the series holds several over the same slices.
        watch: is told of slices as they come.

    Raises:
        VolumeRefused: the codes of `ct_slices`, and E-4D, E-DUP, E-GAP, E-CODEC, E-NOHU, E-TILT,
            E-OBLIQUE, E-NONAXIAL, E-SIZE-LIMIT.
    """
    slices, notes = ct_slices(headers, path)
    num_bytes = len(slices) * slices[0].header.rows * slices[0].header.columns * 2
    if num_bytes > rules.max_bytes:
        raise VolumeRefused(
            "E-SIZE-LIMIT", path, f"{num_bytes} bytes of HU, limit {rules.max_bytes}"
        )
    phases, told_by = split_phases(slices)
    if phase is None and len(phases) > 1:
        raise VolumeRefused(
            "E-4D", path, f"holds {len(phases)} phases, told apart by {told_by}", "choose a phase"
        )
    if phase is not None and not 1 <= phase <= len(phases):
        raise VolumeRefused("E-4D", path, f"holds {len(phases)} phases, no phase {phase}")
    slices, repeats = _without_repeats(phases[(phase or 1) - 1], path)
    grid, sideways = _grid(slices, rules, path), _sideways(slices)
    if plan := plan_stored(grid, len(slices), rules.stride_mm, path):
        slices = [slices[k] for k in plan.stored_index(grid)]
        grid = plan.grid(grid)
    hu, clipped = _hu(slices, grid, watch)
    volume = to_axial(hu, grid, rules, path, (*notes, *repeats, *clipped, *sideways))
    return volume if plan is None else plan.sparse(volume)


def split_phases(slices: Sequence[CtSlice]) -> tuple[list[list[CtSlice]], str]:
    """Split slices that share places into phases, by the first of `MOMENTS` that does it.

    A moment does it where no phase has two slices at one place. Slices that no moment tells apart
    stay together (they may be copies).

    Returns:
        The phases in the order of the moment, each sorted along the normal; the moment's name.
    """
    together = _in_order(slices)
    if not _share_places(together):
        return [together], ""
    for number, (name, *_) in enumerate(MOMENTS):
        words = {s.moments[number] for s in slices}
        phases = [
            _in_order([s for s in slices if s.moments[number] == word])
            for word in sorted(words, key=lambda word: (word.zfill(16), word))
        ]
        if len(phases) > 1 and not any(len(p) < 2 or _share_places(p) for p in phases):
            return phases, name
    return [together], ""


def _along_mm(slices: Sequence[CtSlice]) -> NDArray[np.float64]:
    """Return where slices lie along their common normal.

    The normal is taken from one slice, chosen by its place and not by its file: a direction that
    jitters in the fifth digit from slice to slice must not act on positions 500 mm from the origin.
    """
    first = min(slices, key=lambda s: tuple(s.position_mm))
    normal = np.cross(first.row_lps, first.column_lps)
    return np.array([s.position_mm for s in slices]) @ normal


def _in_order(slices: Sequence[CtSlice]) -> list[CtSlice]:
    along_mm = _along_mm(slices)
    order = sorted(
        range(len(slices)), key=lambda n: (along_mm[n], str(slices[n].path), slices[n].index)
    )
    return [slices[n] for n in order]


def _share_places(ordered: Sequence[CtSlice]) -> bool:
    return bool(np.any(np.diff(_along_mm(ordered)) < SAME_PLACE_MM))


def _without_repeats(ordered: Sequence[CtSlice], path: Path) -> tuple[list[CtSlice], list[str]]:
    """Drop slices that repeat another pixel for pixel; refuse a different one at the same place."""
    along_mm = _along_mm(ordered)
    kept, dropped, rivals = [0], 0, []
    for n in range(1, len(ordered)):
        if along_mm[n] - along_mm[kept[-1]] >= SAME_PLACE_MM:
            kept.append(n)
        elif (off_mm := _apart_mm(ordered[n], ordered[kept[-1]])) > max(ordered[n].pixel_mm):
            first = ordered[kept[-1]].path.name
            cause = f"and {first} lie at one height, but {off_mm:.1f} mm apart"
            raise VolumeRefused("E-GEOM", ordered[n].path, cause)
        elif np.array_equal(_pixels(ordered[n]), _pixels(ordered[kept[-1]])):
            dropped += 1
        else:
            rivals.append((ordered[kept[-1]], ordered[n]))
    if rivals and len(rivals) % len(kept) == 0:
        raise VolumeRefused(
            "E-4D",
            path,
            f"holds {1 + len(rivals) // len(kept)} different pictures of each of {len(kept)} "
            "slices, and no time or acquisition number tells them apart",
        )
    if rivals:
        one, other = rivals[0]
        raise VolumeRefused(
            "E-DUP",
            other.path,
            f"and {one.path.name} show different pictures at {one.position_mm.tolist()}",
        )
    notes = [f"{dropped} repeated slices dropped"] if dropped else []
    return [ordered[n] for n in kept], notes


def _apart_mm(one: CtSlice, other: CtSlice) -> float:
    return float(np.linalg.norm(one.position_mm - other.position_mm))


def _grid(ordered: Sequence[CtSlice], rules: ReadingRules, path: Path) -> StoredGrid:
    """Return the geometry of slices in order; refuse gaps unless the rules allow them."""
    first, last = ordered[0], ordered[-1]
    along_mm = _along_mm(ordered)
    if len(ordered) > 1:
        step_mm = float(np.median(np.diff(along_mm)))
        slice_axis = last.position_mm - first.position_mm
        step = slice_axis / (len(ordered) - 1)
    else:
        step_mm = _single_step_mm(first, rules)
        slice_axis = np.cross(first.row_lps, first.column_lps)
        step = slice_axis * step_mm
    runs = contiguous_runs(along_mm, step_mm)
    if len(runs) > 1 and not rules.allow_gaps:
        gaps = [
            f"{along_mm[b.start] - along_mm[b.start - 1]:.2f} mm at z = "
            f"{ordered[b.start - 1].position_mm[2]:.2f}"
            for b in runs[1:]
        ]
        more = f" and {len(gaps) - SHOWN_GAPS} more" if len(gaps) > SHOWN_GAPS else ""
        raise VolumeRefused(
            "E-GAP",
            path,
            f"slices are {step_mm:.2f} mm apart, but {', '.join(gaps[:SHOWN_GAPS])}{more}",
            "in Python, read_volume(..., allow_gaps=True) keeps the true positions",
        )
    return StoredGrid(
        axes_lps=np.array(
            [slice_axis / np.linalg.norm(slice_axis), first.column_lps, first.row_lps]
        ),
        spacing_mm=(step_mm, *first.pixel_mm),
        positions_mm=along_mm,
        affine_lps=_affine_lps(ordered, step),
    )


def _affine_lps(
    ordered: Sequence[CtSlice], step: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the affine of the k, j, i indices; None where slices lie off an even grid."""
    first = ordered[0]
    places = np.array([s.position_mm for s in ordered])
    off_mm = np.linalg.norm(
        first.position_mm + np.arange(len(places))[:, np.newaxis] * step - places, axis=1
    )
    if off_mm.max() > OFF_GRID_MM:
        return None
    row_mm, column_mm = first.pixel_mm
    steps = np.array([step, first.column_lps * row_mm, first.row_lps * column_mm])
    return affine_of(first.path, steps, first.position_mm)


def _single_step_mm(single: CtSlice, rules: ReadingRules) -> float:
    if single.thickness_mm:
        return single.thickness_mm
    if rules.spacing_mm_zyx is not None:
        return rules.spacing_mm_zyx[0]
    raise VolumeRefused("E-SPACING", single.path, "is one slice without a thickness", SPACING_HINT)


def _sideways(ordered: Sequence[CtSlice]) -> list[str]:
    """Note slices that lie off the line from the first to the last by more than a pixel."""
    places = np.array([s.position_mm for s in ordered]) - ordered[0].position_mm
    along_mm = _along_mm(ordered)
    if len(ordered) < 3:
        return []
    share = (along_mm - along_mm[0]) / (along_mm[-1] - along_mm[0])
    off_mm = float(np.linalg.norm(places - np.outer(share, places[-1]), axis=1).max())
    too_far = off_mm > max(ordered[0].pixel_mm)
    return [f"slices are shifted sideways by up to {off_mm:.1f} mm"] if too_far else []


def _stored(header: DicomHeader) -> NDArray[np.generic]:
    """Decode a file that is still the one whose header was judged: [frame, j, i]."""
    if stamp(header.path.stat()) != header.stamp:
        raise VolumeRefused("E-MISSING", header.path, "changed while it was being read")
    shape = (len(header.frames), header.rows, header.columns)
    if header.plain_pixels is not None:
        return read_plain(header.path, header.plain_pixels, shape)
    return decode(header.path, header.transfer_syntax, shape)


def _pixels(s: CtSlice) -> NDArray[np.generic]:
    return _stored(s.header)[s.index]


def _hu(
    ordered: Sequence[CtSlice], grid: StoredGrid, watch: SliceWatch | None
) -> tuple[NDArray[np.int16], list[str]]:
    """Decode slices in order, file by file, to int16 HU [k, j, i]."""
    header = ordered[0].header
    hu = room_for((len(ordered), header.rows, header.columns), grid)
    tell = announcer(watch, hu, grid)
    notes: set[str] = set()
    by_file = sorted(range(len(ordered)), key=lambda k: str(ordered[k].path))
    for path, of_file in groupby(by_file, key=lambda k: ordered[k].path):
        places = list(of_file)
        header = ordered[places[0]].header
        stored = _stored(header)
        for k in places:
            slope, intercept = ordered[k].slope, ordered[k].intercept
            raw = stored[ordered[k].index]
            if header.padding is not None and header.padding * slope + intercept > MAX_HU:
                raw = np.where(raw == header.padding, (AIR_HU - intercept) / slope, raw)
            scale = HuScale(slope, intercept)
            scale.convert(raw, hu[k])
            notes.update(scale.notes(path))
            tell(k, k + 1)
    return hu, sorted(notes)
