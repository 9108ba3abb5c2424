"""Someone else's COCO files against the official table and, where it is at hand, the PNG folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.defects import Defect
from converters.file_audit import audit_file
from converters.file_summary import FileSummary
from converters.foreign_coco import ForeignCoco, read_foreign_coco
from converters.lesions import DeepLesionRefused
from converters.official_table import BoxIndex, OfficialTable, read_official_table
from converters.png_folder import PngFolder, PngRefused
from converters.split_checks import SplitFile, check_splits, tell_split


@dataclass(frozen=True)
class Audit:
    """The result: what was compared, and every defect found."""

    table: str
    table_sha256: str
    num_rows: int
    num_unread: int
    images_checked: bool
    files: tuple[FileSummary, ...]
    defects: tuple[Defect, ...]


def audit_coco(
    json_paths: Sequence[Path],
    table_csv: Path,
    images: Path | None = None,
    splits: Sequence[str] | None = None,
) -> Audit:
    """Compare COCO files with ``DL_info.csv``.

    Args:
        json_paths: one file a split, or one of all.
        table_csv: the official table, or the part of it that the files should hold.
        images: the ``Images_png`` folder; None: no file is looked for.
        splits: of the files, in their order: train, val, test or all; None: told from the files.

    Raises:
        DeepLesionRefused: a file or the table cannot be read, the table has no readable row, or
            the splits are not as many as the files.
        NotADirectoryError: ``images`` is not a folder.
    """
    if splits is not None and len(splits) != len(json_paths):
        raise DeepLesionRefused(f"{len(splits)} splits for {len(json_paths)} files: one for each")
    folder = PngFolder(images) if images is not None else None
    official = read_official_table(table_csv)
    if not official.slices:
        raise DeepLesionRefused(f"{table_csv}: no row of {official.num_rows:,} can be read")
    index = BoxIndex([le for known in official.slices.values() for le in known.lesions])
    files: list[SplitFile] = []
    summaries: list[FileSummary] = []
    defects: list[Defect] = []
    for i, path in enumerate(json_paths):
        stated = splits[i] if splits is not None else None
        file = tell_split(read_foreign_coco(path), official, stated)
        summary, found = audit_file(file, official, index)
        files.append(file)
        summaries.append(summary)
        defects += found
    defects += check_splits(files, official, folder)
    if folder is not None:
        for file in files:
            defects += _check_pngs(file.coco, official, folder)
    return Audit(
        table=official.name,
        table_sha256=official.sha256,
        num_rows=official.num_rows,
        num_unread=len(official.unread),
        images_checked=folder is not None,
        files=tuple(summaries),
        defects=tuple(defects),
    )


def _check_pngs(coco: ForeignCoco, official: OfficialTable, folder: PngFolder) -> Iterator[Defect]:
    """Look for the PNG of every listed slice, read its header, and look for its neighbours."""
    first = {image.key: image for image in reversed(coco.images) if image.key in official.slices}
    for key, image in sorted(first.items(), key=lambda each: each[1].index):
        assert key is not None
        key_slice = official.slices[key].key_slice
        slices, name = folder.slices(key_slice.series), key_slice.table_name
        if key_slice.key_slice_index not in slices:
            yield Defect("E-MISSING", coco.name, image.where, name, "no such PNG", "a PNG")
            continue
        try:
            folder.require_slice(slices[key_slice.key_slice_index], key_slice)
        except PngRefused as refusal:
            yield Defect(refusal.code, coco.name, image.where, name, refusal.text, "a sound PNG")
        low, high = key_slice.slice_range
        if absent := [i for i in range(low, high + 1) if i not in slices]:
            found = f"{len(absent)} of {high - low + 1} slices have no PNG"
            expected = f"slices {low} to {high}"
            yield Defect("W-GAP", coco.name, image.where, name, found, expected)
