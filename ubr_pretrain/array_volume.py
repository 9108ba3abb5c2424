"""Scans that are in memory already: numpy arrays and SimpleITK images to a `Volume`.

Shapes:
    z, y, x: as in ``ct``; k, j, i: as a SimpleITK image is stored, slowest first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.doubts import with_doubts
from ubr_pretrain.hounsfield import raw_to_hu
from ubr_pretrain.orientation import StoredGrid, to_axial
from ubr_pretrain.reading_rules import SCORING_TILT_DEG, ReadingRules, check_spacing

if TYPE_CHECKING:
    import SimpleITK as sitk

ARRAY, IMAGE = Path("array"), Path("SimpleITK image")
"""What they are called in a refusal and in ``Volume.source``."""


def array_to_volume(hu: NDArray[Any], spacing_mm_zyx: tuple[float, float, float]) -> Volume:
    """Take an array of HU as a volume; an array knows no directions, so the order is the caller's.

    Args:
        hu: [z, y, x], whole or real numbers; slices superior -> inferior, rows anterior ->
            posterior, columns the patient's right -> left.
        spacing_mm_zyx: slice interval, row height, column width.

    Raises:
        VolumeRefused: E-DIM, E-FORMAT (no real numbers), E-NAN, E-NOHU, E-SPACING.
    """
    hu = np.asarray(hu)
    if hu.ndim != 3 or 0 in hu.shape:
        raise VolumeRefused("E-DIM", ARRAY, f"has shape {hu.shape}, not [z, y, x]")
    if hu.dtype.kind not in "iuf":
        raise VolumeRefused("E-FORMAT", ARRAY, f"holds {hu.dtype}, not real numbers")
    dz, dy, dx = (float(s) for s in spacing_mm_zyx)
    check_spacing(ARRAY, (dz, dy, dx))
    whole, notes = raw_to_hu(hu, 1.0, 0.0, ARRAY)
    return with_doubts(Volume(whole, (dz, dy, dx), source=str(ARRAY), notes=notes))


def sitk_to_volume(image: sitk.Image) -> Volume:
    """Take a SimpleITK image of HU as a volume, turned by its own direction.

    Raises:
        VolumeRefused: E-DIM (not three dimensions of one number a voxel), E-FORMAT, E-NAN, E-NOHU,
            and what ``to_axial`` refuses.
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeRefused(
            "E-DIM",
            IMAGE,
            f"has size {image.GetSize()} with {image.GetNumberOfComponentsPerPixel()} numbers a "
            "voxel, not one scan",
        )
    import SimpleITK as sitk

    stored = sitk.GetArrayViewFromImage(image)
    if stored.dtype.kind not in "iuf":
        raise VolumeRefused("E-FORMAT", IMAGE, f"holds {stored.dtype}, not real numbers")
    hu, notes = raw_to_hu(stored, 1.0, 0.0, IMAGE)
    dx, dy, dz = image.GetSpacing()
    axes_lps = np.reshape(image.GetDirection(), (3, 3)).T[::-1]
    affine_lps = np.eye(4)
    affine_lps[:3, :3] = axes_lps.T * (dz, dy, dx)
    affine_lps[:3, 3] = image.GetOrigin()
    grid = StoredGrid(axes_lps, (dz, dy, dx), affine_lps=affine_lps)
    rules = ReadingRules(max_tilt_deg=SCORING_TILT_DEG)
    return with_doubts(to_axial(hu, grid, rules, IMAGE, notes))
