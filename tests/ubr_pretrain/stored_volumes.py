"""Small scans and the files that hold them, written with SimpleITK, nibabel and by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import read_volume

SHAPE = (6, 5, 4)
SPACING = (5.0, 0.75, 0.5)

BODY_AXES_LPS = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=np.float64)

FLOAT_FIELDS = {
    "pixdim0": 76, "pixdim1": 80, "pixdim2": 84, "pixdim3": 88, "vox_offset": 108,
    "scl_slope": 112, "scl_inter": 116, "quatern_b": 256, "srow_x": 280, "srow_z2": 320,
}  # fmt: skip
SHORT_FIELDS = {
    "dim0": 40, "dim1": 42, "dim2": 44, "dim3": 46, "dim4": 48, "datatype": 70, "bitpix": 72,
    "qform_code": 252, "sform_code": 254,
}  # fmt: skip


def scan(shape: Sequence[int] = SHAPE, seed: int = 0) -> NDArray[np.int16]:
    """Return HU [z, y, x], superior -> inferior, in which every voxel differs from its mirror."""
    return np.random.default_rng(seed).integers(-1000, 1500, tuple(shape)).astype(np.int16)


def stored_form(
    hu: NDArray[np.int16], order: Sequence[int], flips: Sequence[bool], spacing: Sequence[float]
) -> tuple[NDArray[np.int16], NDArray[np.float64], list[float]]:
    """Store a scan in another axis order and direction.

    Returns:
        The array, the LPS unit vectors of its axes (rows), the spacing of its axes.
    """
    stored = hu.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    signs = np.where(flips, -1.0, 1.0)[:, np.newaxis]
    return stored, BODY_AXES_LPS[list(order)] * signs, [spacing[axis] for axis in order]


def write_itk(
    path: Path,
    stored: NDArray[np.generic],
    axes_lps: NDArray[np.float64] = BODY_AXES_LPS,
    spacing: Sequence[float] = SPACING,
    compress: bool = False,
) -> Path:
    """Write [k, j, i] with SimpleITK; ``axes_lps`` and ``spacing`` in the order k, j, i."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored))
    image.SetDirection(np.asarray(axes_lps)[::-1].T.ravel().tolist())
    image.SetSpacing([float(s) for s in spacing][::-1])
    image.SetOrigin((11.0, -7.0, 33.0))
    sitk.WriteImage(image, str(path), compress)
    return path


def write_nibabel(
    path: Path,
    stored: NDArray[np.generic],
    axes_lps: NDArray[np.float64] = BODY_AXES_LPS,
    spacing: Sequence[float] = SPACING,
    *,
    image_class: type = nib.Nifti1Image,
) -> Path:
    """Write [k, j, i] with nibabel, whose arrays run i, j, k and whose affine is RAS."""
    columns = (np.asarray(axes_lps) * [-1, -1, 1] * np.array(spacing)[:, np.newaxis])[::-1].T
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, (3.0, 4.0, 5.0)
    image = image_class(np.ascontiguousarray(stored.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def patched(path: Path, **fields: float) -> Path:
    """Overwrite fields of a plain little-endian .nii header by name."""
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        if name in FLOAT_FIELDS:
            struct.pack_into("<f", content, FLOAT_FIELDS[name], value)
        else:
            struct.pack_into("<h", content, SHORT_FIELDS[name], int(value))
    path.write_bytes(content)
    return path


def with_lines(path: Path, **lines: str | None) -> Path:
    """Replace (or, with None, remove) the header lines of a text header, by their first word.

    Underscores in a name stand for blanks: ``space_directions="..."``.
    """
    raw = path.read_bytes()
    ends = (b"\n\n", b"ElementDataFile = LOCAL\n")
    end = (
        min(raw.index(e) + len(e) for e in ends if e in raw)
        if path.suffix[1:] in ("nrrd", "mha")
        else len(raw)
    )
    kept = []
    for line in raw[:end].decode().splitlines():
        name = line.replace("=", ":").split(":")[0].strip()
        key = name.replace(" ", "_")
        if key in lines and lines[key] is None:
            continue
        equals = " = " if " = " in line else ": "
        kept.append(f"{name}{equals}{lines[key]}" if key in lines else line)
    path.write_bytes("\n".join(kept).encode() + b"\n" + raw[end:])
    return path


def refusal(path: Path, **choice: object) -> VolumeRefused:
    """Return why `read_volume` refuses a path, which it must."""
    with pytest.raises(VolumeRefused) as caught:
        read_volume(path, **choice)
    return caught.value


def refused(path: Path, code: str, *words: str, **choice: object) -> VolumeRefused:
    """Assert that a path is refused by a code, in one line that names it and says all words."""
    fault = refusal(path, **choice)
    assert fault.code == code, str(fault)
    assert path.name in str(fault)
    assert "\n" not in str(fault).replace(fault.path, "")
    for word in words:
        assert word in str(fault), str(fault)
    return fault


def nii(folder: Path, name: str = "scan.nii", **fields: float) -> Path:
    """Write a plain .nii with both forms set, then overwrite header fields."""
    image = nib.load(write_nibabel(folder / name, scan()), mmap=False)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    path = folder / name
    nib.save(image, path)
    return patched(path, **fields)
