"""CT volumes in: `read_volume` for one path, `find_volumes` for many.

DICOM series (folders, trees, single files), NIfTI, NRRD, MHA/MHD, and DeepLesion folders of 16-bit
PNG slices all come out as one `Volume`: int16 HU [z, y, x], superior -> inferior, anterior ->
posterior, the patient's right -> left, by geometry and never by file order. What cannot be read
without the risk of a wrong result raises `VolumeRefused` with a code, the file and the cause.

    >>> volume = read_volume("scan.nii.gz")                      # doctest: +SKIP
    >>> for entry in find_volumes(["archive", "more/ct.mha"]):   # doctest: +SKIP
    ...     volume = entry.read(max_tilt_deg=SCORING_TILT_DEG)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ubr_pretrain.cohort import Cohort, find_volumes
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.hounsfield import looks_like_hu
from ubr_pretrain.reading_rules import SCORING_TILT_DEG, ReadingRules
from ubr_pretrain.volume_entry import VolumeEntry

__all__ = [
    "SCORING_TILT_DEG",
    "Cohort",
    "ReadingRules",
    "VolumeEntry",
    "find_volumes",
    "looks_like_hu",
    "read_volume",
]

MAX_OFFERED = 20


def read_volume(
    path: Path | str, *, series_uid: str | None = None, phase: int | None = None, **rules: Any
) -> Volume:
    """Read the one volume at ``path``.

    Args:
        path: a file, a DICOM folder or tree, or a folder of numbered PNG slices.
        series_uid: which DICOM series, where there are several.
        phase: which phase (from 1), where a series holds several over the same slices.
        rules: fields of `ReadingRules`: spacing_mm_zyx, orientation, allow_gaps, max_oblique_deg,
            max_tilt_deg, max_bytes, stride_mm; and ``watch`` of `VolumeEntry.read`.

    Raises:
        VolumeRefused: E-NODATA (nothing here), E-SERIES (several volumes, none chosen), E-4D
            (several phases), and every code of the readers.
    """
    path = Path(path)
    cohort = find_volumes([path])
    if not cohort and cohort.passed_over:
        raise cohort.passed_over[0]
    if not cohort:
        skipped = ", ".join(f"{count} {why}" for why, count in cohort.skipped.items())
        raise VolumeRefused("E-NODATA", path, f"holds no CT volume ({skipped or 'it is empty'})")
    chosen = [
        entry
        for entry in cohort
        if series_uid in (None, entry.series_uid) and phase in (None, entry.phase)
    ]
    if len(chosen) == 1 or (chosen and all(entry.refusal for entry in chosen)):
        return chosen[0].read(**rules)
    offered = ", ".join(_offer(entry) for entry in cohort[:MAX_OFFERED])
    offered += f" and {len(cohort) - MAX_OFFERED} more" if len(cohort) > MAX_OFFERED else ""
    if len({entry.series_uid or entry.path for entry in chosen}) == 1:
        raise VolumeRefused("E-4D", path, f"holds several phases: {offered}", "choose a phase")
    raise VolumeRefused(
        "E-SERIES",
        path,
        f"holds {len(cohort)} volumes, {len(chosen)} chosen: {offered}",
        "choose one by series_uid" if any(e.series_uid for e in cohort) else "name one",
    )


def _offer(entry: VolumeEntry) -> str:
    if entry.series_uid is None:
        return entry.path.name
    phase = f", phase {entry.phase}" if entry.phase else ""
    return f"{entry.series_uid} ({len(entry.headers)} DICOM files{phase})"
