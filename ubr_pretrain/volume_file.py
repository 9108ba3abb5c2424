"""One CT volume in one file: NIfTI, NRRD or MetaImage, told apart by content, not by name.

The voxels are decoded here with numpy, not by SimpleITK: the header has been parsed and the stream
has been read to its checksum by then, so a second reader would cost the same time again, and could
take another view of a damaged header than the one that was checked.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.hounsfield import raw_to_hu
from ubr_pretrain.metaimage_header import read_metaimage_header
from ubr_pretrain.nifti_header import read_nifti_header
from ubr_pretrain.nrrd_header import read_nrrd_header
from ubr_pretrain.orientation import StoredGrid, axes_of_letters, body_order, to_axial
from ubr_pretrain.reading_rules import ReadingRules
from ubr_pretrain.stored_file import StoredFile, describe
from ubr_pretrain.volume_header import VolumeHeader

HEADER_READERS = {
    "nifti": read_nifti_header,
    "nrrd": read_nrrd_header,
    "metaimage": read_metaimage_header,
}


def read_volume_file(path: Path, rules: ReadingRules) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file.

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
        voxels = file.fill(header.num_bytes, rules.max_bytes).view(header.dtype)
    hu, notes = raw_to_hu(voxels.reshape(header.shape), header.slope, header.intercept, path)
    return to_axial(hu, grid, rules, path, (*header.notes, *notes))


def _grid(header: VolumeHeader, path: Path, rules: ReadingRules) -> StoredGrid:
    """Complete the header with what the caller stated; guess nothing."""
    axes = header.axes_lps
    if axes is None:
        if rules.orientation is None:
            raise VolumeRefused(
                "E-GEOM",
                path,
                "states no orientation, so head and feet cannot be told apart",
                "give orientation, e.g. LPS, if it is known",
            )
        axes = axes_of_letters(rules.orientation)
    spacing_mm = header.spacing_mm
    if spacing_mm is None:
        if rules.spacing_mm_zyx is None:
            raise VolumeRefused("E-SPACING", path, "states no spacing", "give spacing_mm_zyx")
        order = body_order(axes)
        by_axis = {order[b]: rules.spacing_mm_zyx[b] for b in range(3)}
        spacing_mm = (by_axis[0], by_axis[1], by_axis[2])
    return StoredGrid(axes_lps=axes, spacing_mm=spacing_mm, affine_lps=header.affine_lps)
