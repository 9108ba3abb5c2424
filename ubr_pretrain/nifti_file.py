"""Volumes as NIfTI files, every voxel at its place in the patient.

The stored order is one and the same for every source: columns grow to the patient's left, rows to
posterior, slices to superior (``LPS`` in the words of DICOM and ITK, nibabel's affine then has
negative x and y). Voxels are those of `Volume.hu`: whole HU, int16, padding below -1024 clipped.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume, VolumeRefused

MAX_OFF_MM = 0.1
"""How far the nearest grid at right angles may miss a voxel: rounding of headers stays below."""


def write_volume(volume: Volume, path: Path) -> None:
    """Write a volume atomically, and prove that it reads back.

    Args:
        volume: with a place in the patient.
        path: ``.nii`` or ``.nii.gz``.

    Raises:
        VolumeRefused: E-GAP, E-GEOM, E-TILT, as in `stored_grid`.
        OSError: it cannot be written, or what was written is not what it should be.
    """
    origin_mm, direction, spacing_mm = stored_grid(volume)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.hu[::-1]))
    image.SetOrigin(origin_mm.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(spacing_mm.tolist())
    write_image(image, path)


def stored_grid(
    volume: Volume,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return origin [3], direction [3, 3] and spacing [3] of the file, in LPS and x, y, z.

    Raises:
        VolumeRefused: E-GAP: uneven steps between slices; E-GEOM: no place in the patient, or none
            that one matrix gives to all slices; E-TILT: rows, columns and slices not at right
            angles. NIfTI has no words for the first two, and its readers disagree on the third.
    """
    if len(volume.runs) > 1:
        raise VolumeRefused(
            "E-GAP", volume.source, "has gaps or uneven steps between slices: NIfTI cannot say so"
        )
    if volume.affine_lps is None:
        raise VolumeRefused(
            "E-GEOM",
            volume.source,
            "states no position of its slices, or slices off an even grid: NIfTI cannot place them",
        )
    last = volume.num_slices - 1
    steps = volume.affine_lps[:3, [2, 1, 0]] * [1, 1, -1]
    origin_mm = volume.affine_lps[:3, 3] + last * volume.affine_lps[:3, 0]
    spacing_mm = np.linalg.norm(steps, axis=0)
    left, _, right = np.linalg.svd(steps / spacing_mm)
    direction = left @ right  # the nearest grid at right angles
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.hu.shape)[::-1] - 1)
    off_mm = np.linalg.norm(corners @ (steps - direction * spacing_mm).T, axis=1).max()
    if off_mm > MAX_OFF_MM:
        raise VolumeRefused(
            "E-TILT",
            volume.source,
            f"rows, columns and slices are not at right angles (voxels would move by {off_mm:.1f} "
            "mm): NIfTI readers disagree on such grids",
        )
    return origin_mm, direction, spacing_mm


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image atomically, compressed, and prove that it reads back.

    Raises:
        OSError: it cannot be written, or what was written is not what it should be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{path.name}")
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        stored = sitk.ReadImage(str(temporary))
        same_voxels = np.array_equal(
            sitk.GetArrayViewFromImage(stored), sitk.GetArrayViewFromImage(image)
        )
        if not same_voxels or not np.allclose(_corners_mm(stored), _corners_mm(image), atol=0.01):
            raise OSError(errno.EIO, "what was written does not read back (disk full?)", str(path))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        words = f"what was written does not read back (disk full?): {said}"
        raise OSError(errno.EIO, words, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _corners_mm(image: sitk.Image) -> NDArray[np.float64]:
    ends = [n - 1 for n in image.GetSize()]
    return np.array(
        [
            image.TransformIndexToPhysicalPoint(
                [c * end for c, end in zip(corner, ends, strict=True)]
            )
            for corner in np.ndindex(2, 2, 2)
        ]
    )
