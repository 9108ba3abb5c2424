"""One CT volume in one file: NIfTI, NRRD or MetaImage, told apart by content, not by name.

The voxels are decoded here with numpy, not by SimpleITK: the header has been parsed and the stream
has been read to its checksum by then, so a second reader would cost the same time again, and could
take another view of a damaged header than the one that was checked.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.hounsfield import HuScale
from ubr_pretrain.metaimage_header import read_metaimage_header
from ubr_pretrain.nifti_header import read_nifti_header
from ubr_pretrain.nrrd_header import read_nrrd_header
from ubr_pretrain.orientation import StoredGrid, axes_of_letters, body_order, room_for, to_axial
from ubr_pretrain.reading_rules import SPACING_HINT, ReadingRules
from ubr_pretrain.slice_watch import SliceWatch, announcer
from ubr_pretrain.sparse_volume import plan_stored
from ubr_pretrain.stored_file import StoredFile, describe
from ubr_pretrain.volume_header import VolumeHeader

BLOCK_BYTES = 1 << 19
"""What is inflated and converted at once; it stays in the processor's cache."""

HEADER_READERS = {
    "nifti": read_nifti_header,
    "nrrd": read_nrrd_header,
    "metaimage": read_metaimage_header,
}


def data_file_of(path: Path) -> Path | None:
    """Return the file beside a header in which the voxels lie; None where they follow it.

    Raises:
        VolumeRefused: E-UNSAFE and every code of a header.
    """
    with StoredFile(path) as file:
        if file.format not in HEADER_READERS:
            return None
        return HEADER_READERS[file.format](file.stream, path).data_file


def read_volume_file(path: Path, rules: ReadingRules, watch: SliceWatch | None = None) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file.

    Args:
        path: the file.
        rules: limits of the reader.
        watch: is told of slices as they come.

    Raises:
        VolumeRefused: any code of a file format, of the geometry and of the HU scale.
    """
    with ExitStack() as open_files:
        file = open_files.enter_context(StoredFile(path))
        if file.format not in HEADER_READERS:
            raise VolumeRefused(
                "E-FORMAT", path, f"is no NIfTI, NRRD, MetaImage or DICOM: {describe(file.head)}"
            )
        header = HEADER_READERS[file.format](file.stream, path)
        grid = _grid(header, path, rules)
        if header.data_file is not None:
            file = open_files.enter_context(StoredFile(header.data_file, ungzip=False))
        file.skip(header.skip_bytes)
        if header.zipped:
            file.inflate_rest()
        num_stored, *slice_shape = header.shape
        slice_bytes = header.dtype.itemsize * math.prod(slice_shape)
        at_once, chosen = max(1, BLOCK_BYTES // slice_bytes), None
        if plan := plan_stored(grid, num_stored, rules.stride_mm, path):
            at_once, chosen = 1, plan.stored_index(grid).tolist()
            num_stored, grid = len(chosen), plan.grid(grid)
        blocks = file.blocks(header.num_bytes, at_once * slice_bytes, rules.max_bytes, chosen)
        stored = room_for((num_stored, slice_shape[0], slice_shape[1]), grid)
        scale, tell = HuScale(header.slope, header.intercept), announcer(watch, stored, grid)
        for number, block in enumerate(blocks):
            part = block.view(header.dtype).reshape(-1, *slice_shape)
            first = number * at_once
            scale.convert(part, stored[first : first + len(part)])
            tell(first, first + len(part))
    notes = scale.notes(path)  # once the whole file is known to be sound
    volume = to_axial(stored, grid, rules, path, (*header.notes, *notes))
    return volume if plan is None else plan.sparse(volume)


def _grid(header: VolumeHeader, path: Path, rules: ReadingRules) -> StoredGrid:
    """Complete the header with what the caller stated; guess nothing."""
    axes = header.axes_lps
    if axes is None:
        if rules.orientation is None:
            raise VolumeRefused(
                "E-GEOM",
                path,
                "states no orientation, so head and feet cannot be told apart",
                'if it is known, in Python: read_volume(..., orientation="LPS")',
            )
        axes = axes_of_letters(rules.orientation)
    spacing_mm = header.spacing_mm
    if spacing_mm is None:
        if rules.spacing_mm_zyx is None:
            raise VolumeRefused("E-SPACING", path, "states no spacing", SPACING_HINT)
        order = body_order(axes)
        by_axis = {order[b]: rules.spacing_mm_zyx[b] for b in range(3)}
        spacing_mm = (by_axis[0], by_axis[1], by_axis[2])
    return StoredGrid(axes_lps=axes, spacing_mm=spacing_mm, affine_lps=header.affine_lps)
