"""Readers that are not ours, each of which says what a file means: nibabel, ITK, GDCM, Pillow.

What they return is brought into the order of `ubr_pretrain.ct.Volume` by code of its own, so that
a fault of our orientation code is not its own judge.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

AIR_HU, MAX_HU = -1024.0, 3071
HALF = 0.51
"""Whole HU next to a value, and what float32 arithmetic of another reader adds."""

UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


class Abstains(ValueError):  # noqa: N818
    """A judge cannot read the input, or is known to read this kind of input wrongly."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a reader makes of an input, in the order of `Volume`.

    Attributes:
        hu: float64 [z, y, x].
        affine_lps: from (z, y, x, 1) to LPS mm; None where there is none.
        z_mm: distance of every slice below the first one.
        spacing_mm: z, y, x.
    """

    hu: NDArray[np.float64]
    affine_lps: NDArray[np.float64] | None
    z_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]


def differences(a: Seen, b: Seen) -> list[str]:
    """Say in which respects ``a`` (whole HU) is not what ``b`` says."""
    if a.hu.shape != b.hu.shape:
        return [f"size {a.hu.shape} and {b.hu.shape}"]
    found = []
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(a.hu - np.maximum(b.hu, AIR_HU)) <= HALF)
    if off.any():
        found.append(f"{off.sum()} voxels, first at {np.argwhere(off)[0].tolist()}")
    if not np.allclose(a.spacing_mm, b.spacing_mm, rtol=2e-3, atol=0):
        found.append(f"spacing {a.spacing_mm} and {b.spacing_mm}")
    if not np.allclose(a.z_mm, b.z_mm, rtol=2e-3, atol=0.02):
        found.append(f"positions {a.z_mm.round(3).tolist()} and {b.z_mm.round(3).tolist()}")
    if a.affine_lps is not None and b.affine_lps is not None:
        corners = np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]) * [*np.array(a.hu.shape) - 1, 1]
        off_mm = np.abs(corners @ (a.affine_lps - b.affine_lps).T).max()
        size_mm = np.abs(corners @ b.affine_lps.T).max()
        if not off_mm <= 0.02 + 1e-3 * size_mm:
            found.append(f"corners by {off_mm:.3f} mm")
    return found


def from_grid(data: NDArray[Any], affine_lps: NDArray[np.float64]) -> Seen:
    """Turn [i, j, k] voxels and their LPS affine to superior -> inferior, posterior, left."""
    if data.ndim != 3 or 0 in data.shape or not np.isfinite(affine_lps).all():
        raise Abstains(f"{data.shape} voxels, affine {affine_lps.tolist()}")
    steps = affine_lps[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not (lengths > 0).all():
        raise Abstains("a step of no length")
    cosines = np.abs(steps / lengths)
    # The assignment of stored axes to x, y, z that has the largest sum of cosines.
    best = max(
        ((i, j, k) for i in range(3) for j in range(3) for k in range(3) if len({i, j, k}) == 3),
        key=lambda axes: sum(cosines[world, axis] for world, axis in enumerate(axes)),
    )
    x, y, z = best
    turned, new = data.transpose(z, y, x).astype(np.float64), np.eye(4)
    origin, columns = affine_lps[:3, 3].copy(), []
    for place, (axis, world, sign) in enumerate(((z, 2, -1), (y, 1, 1), (x, 0, 1))):
        step = steps[:, axis]
        if step[world] * sign < 0:
            turned = np.flip(turned, place)
            origin += (data.shape[axis] - 1) * step
            step = -step
        columns.append(step)
    new[:3, :3], new[:3, 3] = np.array(columns).T, origin
    down, along_y, along_x = columns
    normal = np.cross(along_y, along_x)
    step_mm = abs(float(down @ normal)) / float(np.linalg.norm(normal))
    spacing = (step_mm, float(np.linalg.norm(along_y)), float(np.linalg.norm(along_x)))
    return Seen(turned, new, np.arange(len(turned)) * step_mm, spacing)


def nibabel_judge(folder: Path, target: str) -> Seen:
    """NIfTI as nibabel reads it, with its units."""
    path = folder / target
    image = nib.load(path, mmap=False)
    header = image.header
    unit = UNIT_MM.get(int(header["xyzt_units"]) & 7)
    if unit is None or not (int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0):
        raise Abstains("states no unit or no orientation")
    data = np.asanyarray(image.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim == 2:
        data = data[..., np.newaxis]
    return from_grid(data, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine @ _scaled(unit))


def _scaled(unit_mm: float) -> NDArray[np.float64]:
    if unit_mm != 1.0:
        raise Abstains("units other than mm move the origin too; left to ITK")
    return np.eye(4)


def itk_judge(folder: Path, target: str) -> Seen:
    """NIfTI, NRRD or MetaImage as ITK reads it; what became a DICOM file, as GDCM does."""
    content = (folder / target).read_bytes()
    if content[128:132] == b"DICM":
        return gdcm_judge(folder, target)
    size = re.search(rb"^CompressedDataSize = ([0-9]+)$", content, re.MULTILINE)
    length = len(content) - content.find(b"LOCAL\n") - len(b"LOCAL\n")
    if b"CompressedData = True" in content and (size is None or int(size[1]) != length):
        raise Abstains("ITK reads as many compressed bytes as a damaged line says, or none")
    image = sitk.ReadImage(str(folder / target))
    return _of_image(image)


def _of_image(image: sitk.Image) -> Seen:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise Abstains(f"{image.GetDimension()} dimensions")
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return from_grid(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine)


@dataclass(frozen=True)
class _Slice:
    hu: NDArray[np.float64]
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    pixel_mm: tuple[float, float]
    thickness_mm: float


def pydicom_judge(folder: Path, target: str) -> Seen:
    """DICOM by pydicom's own decoding, sorted by position along the common normal."""
    slices: list[_Slice] = []
    for path in _dicom_files(folder, target):
        ds = pydicom.dcmread(path)
        frames = np.asarray(ds.pixel_array)
        frames = frames if frames.ndim == 3 else frames[np.newaxis]
        for n, raw in enumerate(frames):
            groups = [ds]
            if "PerFrameFunctionalGroupsSequence" in ds:
                groups += [*ds.get("SharedFunctionalGroupsSequence", [])[:1]]
                groups += [ds.PerFrameFunctionalGroupsSequence[n]]
            if "LOCALIZER" in str(_find(groups, "ImageType", "")):
                continue
            slices.append(_slice(groups, raw))
    return _stacked(slices)


def _find(groups: Sequence[Any], keyword: str, default: Any = None) -> Any:
    """Return the element of the innermost group that has it."""
    for group in reversed(groups):
        if keyword in group and group[keyword].value not in (None, ""):
            return group[keyword].value
        for element in group if group is not groups[0] else ():
            if element.VR == "SQ" and element.value and keyword in element.value[0]:
                return element.value[0][keyword].value
    if default is None:
        raise Abstains(f"no {keyword}")
    return default


def _slice(groups: Sequence[Any], raw: NDArray[Any]) -> _Slice:
    slope = float(_find(groups, "RescaleSlope"))
    intercept = float(_find(groups, "RescaleIntercept"))
    hu = raw * slope + intercept
    padding = groups[0].get("PixelPaddingValue")
    if isinstance(padding, int) and padding * slope + intercept > MAX_HU:
        hu = np.where(raw == padding, AIR_HU, hu)
    cosines = np.array([float(c) for c in _find(groups, "ImageOrientationPatient")])
    row, column = cosines[:3], cosines[3:]
    position = np.array([float(p) for p in _find(groups, "ImagePositionPatient")])
    height, width = (float(p) for p in _find(groups, "PixelSpacing"))
    unit_row, unit_column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    thickness = float(_find(groups, "SliceThickness", 1.0))
    return _Slice(hu, position, unit_row, unit_column, (height, width), thickness)


def gdcm_judge(folder: Path, target: str) -> Seen:
    """DICOM file by file through GDCM, sorted by position along the common normal."""
    slices: list[_Slice] = []
    for path in _dicom_files(folder, target):
        image = sitk.ReadImage(str(path))
        if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
            raise Abstains(f"{path.name} is no grey slice")
        if "LOCALIZER" in _tag(image, "0008|0008"):
            continue
        if image.HasMetaDataKey("0028|0120"):
            raise Abstains("padding is not GDCM's affair")
        if not _tag(image, "0008|0016").startswith("1.2.840.10008.5.1.4.1.1.2"):
            raise Abstains("GDCM takes the geometry of a CT object only")
        axes = np.array(image.GetDirection()).reshape(3, 3).T
        spacing, origin = np.array(image.GetSpacing()), np.array(image.GetOrigin())
        if image.GetDepth() == 1 and (thickness := _tag(image, "0018|0050").strip()):
            spacing[2] = float(thickness)
        for k, hu in enumerate(sitk.GetArrayFromImage(image).astype(np.float64)):
            position = origin + k * spacing[2] * axes[2]
            pixel_mm = (float(spacing[1]), float(spacing[0]))
            slices.append(_Slice(hu, position, axes[0], axes[1], pixel_mm, float(spacing[2])))
    return _stacked(slices)


def _tag(image: sitk.Image, key: str) -> str:
    return image.GetMetaData(key) if image.HasMetaDataKey(key) else ""


def _dicom_files(folder: Path, target: str) -> list[Path]:
    path = folder / target
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.read_bytes()[128:132] == b"DICM"]


def _stacked(slices: Sequence[_Slice]) -> Seen:
    """Stack slices from the superior to the inferior; copies of a slice are dropped."""
    if not slices:
        raise Abstains("no slice")
    normal = np.cross(slices[0].row, slices[0].column)
    if abs(normal[2]) < 0.9:
        raise Abstains("not axial")
    along = [float(s.position @ normal) for s in slices]
    order = sorted(range(len(slices)), key=lambda n: along[n], reverse=bool(normal[2] > 0))
    kept: list[int] = []
    for n in order:
        if kept and abs(along[n] - along[kept[-1]]) < 0.01:
            if not np.array_equal(slices[n].hu, slices[kept[-1]].hu):
                raise Abstains("two pictures at one place")
            continue
        kept.append(n)
    chosen = [slices[n] for n in kept]
    first = chosen[0]
    if any(s.hu.shape != first.hu.shape for s in chosen):
        raise Abstains("slices of several sizes")
    z_mm = np.abs(np.array([along[n] for n in kept]) - along[kept[0]])
    step_mm = float(np.median(np.diff(z_mm))) if len(chosen) > 1 else first.thickness_mm
    down = (chosen[-1].position - first.position) / max(1, len(chosen) - 1)
    data = np.stack([s.hu for s in chosen])
    affine = np.eye(4)
    if len(chosen) == 1:
        down = -normal * np.sign(normal[2]) * step_mm
    affine[:3, :3] = np.array(
        [down, first.column * first.pixel_mm[0], first.row * first.pixel_mm[1]]
    ).T
    affine[:3, 3] = first.position
    turned = from_grid(data.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])
    return Seen(turned.hu, turned.affine_lps, z_mm, (step_mm, *turned.spacing_mm[1:]))


def pillow_judge(folder: Path, target: str) -> Seen:
    """Numbered 16-bit pictures as Pillow reads them, their spacing from the table beside them."""
    spacing = table_spacing(folder, Path(target).name)
    numbered = {
        int(m[1]): file
        for file in (folder / target).iterdir()
        if (m := re.fullmatch(r"([0-9]+)\.png", file.name, re.IGNORECASE))
    }
    pictures = []
    for number in sorted(numbered):
        with Image.open(numbered[number]) as picture:
            if picture.mode not in ("I;16", "I;16B", "I"):
                raise Abstains(f"mode {picture.mode}")
            pictures.append(np.asarray(picture).astype(np.float64) - 32768)
    z_mm = np.array([n - min(numbered) for n in sorted(numbered)]) * spacing[0]
    return Seen(np.stack(pictures), None, z_mm, spacing)


def table_spacing(folder: Path, series: str) -> tuple[float, float, float]:
    table = folder / "DL_info.csv"
    if not table.exists():
        return 5.0, 0.75, 0.75
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for row in csv.DictReader(file):
            if row["File_name"].startswith(f"{series}_"):
                x, y, z = (float(word) for word in row["Spacing_mm_px_"].split(","))
                return z, y, x
    raise Abstains("no row of the table")


Judge = Callable[[Path, str], Seen]
