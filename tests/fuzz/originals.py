"""Sound inputs, made by other writers than ours: what is mutated, and what is known of it."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from tests.ubr_pretrain.dicom_writer import enhanced_dataset, slice_dataset
from tests.ubr_pretrain.stored_volumes import scan, stored_form, write_itk, write_nibabel

Files = dict[str, bytes]
SPACING = (5.0, 0.75, 0.5)
HU_OF_PNG = -32768


@dataclass(frozen=True)
class Original:
    """A sound input.

    Attributes:
        files: content by name.
        target: the name that is read; '' for the folder that holds them all.
        voxels: by file, where bytes lie that are voxels and nothing else.
        unchecked: by file, where compressed pixels lie that no checksum guards.
        slices: by file, which slices of the volume it holds (where a file holds some of them).
        stored_hu: the HU [z, y, x], as float64, that the voxel bytes of the files mean.
    """

    files: Files
    target: str
    voxels: Mapping[str, range] = field(default_factory=dict)
    unchecked: Mapping[str, range] = field(default_factory=dict)
    slices: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stored_hu: Callable[[Files], NDArray[np.float64]] | None = None


def one_file(suffix: str) -> list[Original]:
    """Return volumes in one file (or a header and its data) of every voxel type and axis order."""
    kinds = [
        ((0, 1, 2), (False, False, False), "<i2", (1, 0)),
        ((0, 1, 2), (True, False, False), "<i2", (1, 0)),
        ((0, 1, 2), (True, True, True), "<f4", (1, 0)),
        ((2, 1, 0), (False, True, False), "<i2", (1, 0)),
        ((1, 0, 2), (False, False, True), "<i4", (1, 0)),
        ((0, 1, 2), (True, False, True), "<u2", (2, -1024)),
        ((0, 1, 2), (True, False, True), ">i2", (1, 0)),
        ((0, 2, 1), (True, False, False), "<f8", (1, 0)),
    ]
    return [_one_file(suffix, n, *kind) for n, kind in enumerate(kinds)]


def _one_file(
    suffix: str,
    number: int,
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
    dtype: str,
    rescale: tuple[float, float],
) -> Original:
    hu, is_nifti = _textured((5, 7, 6), number), suffix.startswith("nii")
    spacing = (2.5, 0.75, 0.5) if order[0] else SPACING
    if not is_nifti:  # ITK writes the byte order of the machine and no rescale
        dtype, rescale = dtype.replace(">", "<"), (1, 0)
        dtype = "<i2" if dtype == "<u2" else dtype
    stored, axes_lps, steps = stored_form(hu, order, flips, spacing)
    raw = ((stored.astype(np.float64) - rescale[1]) / rescale[0]).round().astype(dtype)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"scan.{suffix.removesuffix('.gz') if is_nifti else suffix[:4]}"
        if is_nifti:
            content = _nifti(path, raw, axes_lps, steps, number, rescale)
            files = {path.name: content}
        else:
            path = path.with_suffix(f".{suffix.split('.')[0]}")
            write_itk(path, raw, axes_lps, steps, compress=suffix.endswith(".gz"))
            files = {file.name: file.read_bytes() for file in Path(name).iterdir()}
    main = next(iter(files)) if len(files) == 1 else f"scan.{suffix}"
    data = next((file for file in files if file != main), main)
    if is_nifti and suffix.endswith(".gz"):
        files = {f"{main}.gz": gzip.compress(files[main], mtime=0)}
        main += ".gz"
    if suffix.endswith(".gz"):
        return Original(files, main)
    first = len(files[data]) - raw.nbytes

    def stored_hu(changed: Files) -> NDArray[np.float64]:
        voxels = np.frombuffer(changed[data][first:], dtype).reshape(raw.shape).astype(np.float64)
        turned = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        return turned.transpose(np.argsort(order)) * rescale[0] + rescale[1]

    return Original(files, main, voxels={data: range(first, len(files[data]))}, stored_hu=stored_hu)


def _nifti(
    path: Path,
    raw: NDArray[np.generic],
    axes_lps: NDArray[np.float64],
    steps: Sequence[float],
    number: int,
    rescale: tuple[float, float],
) -> bytes:
    """Return a NIfTI-1 (every fourth a NIfTI-2) with one or both forms."""
    two = number % 4 == 3
    write_nibabel(
        path, raw, axes_lps, steps, image_class=nib.Nifti2Image if two else nib.Nifti1Image
    )
    image = nib.load(path, mmap=False)
    affine = image.affine
    image.set_qform(affine, code=0 if number % 3 == 2 else 1)
    image.set_sform(affine, code=0 if number % 3 == 1 else 1)
    header = image.header.as_byteswapped(">") if raw.dtype.byteorder == ">" else image.header
    header["vox_offset"] = start = 544 if two else 352
    header["scl_slope"], header["scl_inter"] = rescale
    return header.binaryblock.ljust(start, b"\0") + raw.tobytes()


def png_folder(*, with_table: bool) -> list[Original]:
    """Return folders of DeepLesion slices; a spacing is known from the table only."""
    hu, files = _textured((4, 8, 7), 3), {}
    folder = "Images_png/000001_01_01"
    for k, one in enumerate(hu):
        stored = (one.astype(np.int32) - HU_OF_PNG).astype(np.uint16)
        files[f"{folder}/{k + 20:03d}.png"] = cv2.imencode(".png", stored)[1].tobytes()
    if with_table:
        rows = "".join(f'000001_01_01_{n:03d}.png,1,"0.75, 0.75, 5"\n' for n in (20, 22))
        files["DL_info.csv"] = f"File_name,Patient_index,Spacing_mm_px_\n{rows}".encode()
    slices = {name: [k] for k, name in enumerate(files) if name.endswith("png")}
    return [Original(files, folder, slices=slices)]


SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-lossless": JPEGLosslessSV1,
    "j2k": JPEG2000Lossless,
}


def dicom_series(kind: str) -> list[Original]:
    """Return classic series of one transfer syntax."""
    originals = []
    for number, bits in enumerate((16, 12)):
        hu = _textured((4, 34, 32), number)
        files = {}
        for k, one in enumerate(hu):
            ds = slice_dataset(
                one, (-10.0, -20.0, 100.0 - 5 * k), (0.75, 0.5), number=k + 1,
                BitsStored=bits, HighBit=bits - 1, PixelRepresentation=number ^ 1,
            )  # fmt: skip
            files[f"{(k * 3) % 4}.dcm"] = encoded(ds, SYNTAXES[kind])
        originals.append(_dicom(kind, files, {f"{(k * 3) % 4}.dcm": [k] for k in range(4)}, hu))
    return originals


def dicom_enhanced() -> list[Original]:
    """Return Enhanced CTs, uncompressed and with RLE: all slices in one file."""
    hu = _textured((4, 34, 32), 5)
    originals = []
    for kind in ("explicit", "rle"):
        ds = enhanced_dataset(hu, (5.0, 0.75, 0.5))
        files = {"scan.dcm": encoded(ds, SYNTAXES[kind])}
        originals.append(_dicom(kind, files, {"scan.dcm": [3, 2, 1, 0]}, hu))
    return originals


def encoded(ds: FileDataset, syntax: UID) -> bytes:
    """Return a data set with uncompressed little-endian pixels, in another transfer syntax."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.dcm"
        if syntax in (RLELossless, JPEG2000Lossless):
            ds.compress(syntax, generate_instance_uid=False)
        elif syntax == JPEGLosslessSV1:
            _use_gdcm(ds, path)
        else:
            ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
        dcmwrite(
            path,
            ds,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
            enforce_file_format=True,
        )
        return path.read_bytes()


def _use_gdcm(ds: FileDataset, path: Path) -> None:
    """Put the code stream of ITK's JPEG encoder in the place of the pixels."""
    raw = np.frombuffer(ds.PixelData, "<u2").reshape(1, ds.Rows, ds.Columns)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(raw))
    written = pydicom.dcmread(path)
    ds.PixelData = written.PixelData
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID


def _dicom(
    kind: str, files: Files, slices: Mapping[str, Sequence[int]], hu: NDArray[np.int16]
) -> Original:
    target = "" if len(files) > 1 else next(iter(files))
    if kind == "deflated":
        return Original(files, target, slices=slices)
    where = {name: _pixel_bytes(content, kind) for name, content in files.items()}
    if kind in ("rle", "jpeg-lossless", "j2k"):
        return Original(files, target, unchecked=where, slices=slices)
    signed = {n: pydicom.dcmread(BytesIO(c)).PixelRepresentation == 1 for n, c in files.items()}
    bits = pydicom.dcmread(BytesIO(next(iter(files.values())))).BitsStored
    order = ">" if kind == "big-endian" else "<"

    def stored_hu(changed: Files) -> NDArray[np.float64]:
        result = np.empty(hu.shape)
        for name, numbers in slices.items():
            part = changed[name][where[name].start : where[name].stop]
            raw = np.frombuffer(part, f"{order}u2").astype(np.int64) % (1 << bits)
            if signed[name]:
                raw = np.where(raw >= 1 << (bits - 1), raw - (1 << bits), raw)
            for place, one in zip(numbers, raw.reshape(-1, *hu.shape[1:]), strict=True):
                result[place] = one - 1024.0
        return result

    return Original(files, target, voxels=where, slices=slices, stored_hu=stored_hu)


def _pixel_bytes(content: bytes, kind: str) -> range:
    """Return where the value of the pixel data lies, which is the last element of the file."""
    tag = b"\x7f\xe0\x00\x10" if kind == "big-endian" else b"\xe0\x7f\x10\x00"
    return range(content.rindex(tag) + (8 if kind == "implicit" else 12), len(content))


def _textured(shape: tuple[int, int, int], seed: int) -> NDArray[np.int16]:
    """Return HU that differ from voxel to voxel within a body, in constant air."""
    hu = scan(shape, seed)
    hu[:, 0, :], hu[:, -1, :] = -1000, -1000
    return hu


VOLUMES: dict[str, Callable[[], list[Original]]] = {
    **{
        suffix: lambda suffix=suffix: one_file(suffix)
        for suffix in ("nii", "nii.gz", "nrrd", "nrrd.gz", "nhdr", "mha", "mha.gz", "mhd")
    },
    **{f"dicom-{kind}": lambda kind=kind: dicom_series(kind) for kind in SYNTAXES},
    "dicom-enhanced": dicom_enhanced,
    "png": lambda: png_folder(with_table=False),
    "png-table": lambda: png_folder(with_table=True),
}
"""By format: makes the originals."""
