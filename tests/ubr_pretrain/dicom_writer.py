"""CT slices as DICOM files, written with pydicom; any element can be changed or taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

SERIES_UID = "1.2.826.0.1.3680043.8.498.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
INTERCEPT = -1024
Change = Callable[[FileDataset], None]


def slice_dataset(
    hu: NDArray[np.int16],
    position_mm: Sequence[float],
    pixel_mm: Sequence[float] = (0.75, 0.75),
    orientation: Sequence[float] = AXIAL,
    number: int = 1,
    **elements: Any,
) -> FileDataset:
    """Return a classic CT slice. ``elements`` replaces elements by keyword; None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{SERIES_UID}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientName, ds.PatientID = "Doe^Jane", "MRN-4711"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{SERIES_UID}.0", SERIES_UID
    ds.InstanceNumber = number
    ds.ImagePositionPatient = [float(p) for p in position_mm]
    ds.ImageOrientationPatient = [float(c) for c in orientation]
    ds.PixelSpacing = [float(p) for p in pixel_mm]
    ds.SliceThickness = 5.0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = INTERCEPT, 1, "HU"
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.PixelData = (hu.astype(np.int32) - INTERCEPT).astype("<i2").tobytes()
    with disable_value_validation():
        for keyword, value in elements.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
    return ds


def save(ds: FileDataset, path: Path) -> Path:
    """Write a data set to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        ds.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    hu: NDArray[np.int16],
    spacing_mm_zyx: Sequence[float] = (5.0, 0.75, 0.75),
    *,
    top_mm: float = 100.0,
    names: Sequence[str] | None = None,
    change: dict[int, Change] | Change | None = None,
    **elements: Any,
) -> Path:
    """Write ``hu`` [z, y, x], superior -> inferior, one file a slice.

    Args:
        folder: where to.
        hu: the scan.
        spacing_mm_zyx: its spacing.
        top_mm: z of the first slice.
        names: of the files.
        change: applied to the data sets (all, or by slice index) before they are written.
        elements: as in `slice_dataset`.
    """
    dz, *pixel_mm = spacing_mm_zyx
    for k, one in enumerate(hu):
        position = (-10.0, -20.0, top_mm - k * dz)
        ds = slice_dataset(one, position, pixel_mm, number=k + 1, **elements)
        if callable(change):
            change(ds)
        elif change and k in change:
            change[k](ds)
        save(ds, folder / (names[k] if names else f"{k:03d}.dcm"))
    return folder


def put(**elements: Any) -> Change:
    """Return a change that sets elements; None removes one."""

    def change(ds: FileDataset) -> None:
        with disable_value_validation():
            for keyword, value in elements.items():
                if value is None:
                    delattr(ds, keyword)
                else:
                    setattr(ds, keyword, value)

    return change


def enhanced_dataset(
    hu: NDArray[np.int16], spacing_mm_zyx: Sequence[float], *, with_rescale: bool = True
) -> FileDataset:
    """Return an Enhanced CT: all slices in one file, frames stored inferior -> superior."""
    dz, *pixel_mm = spacing_mm_zyx
    ds = slice_dataset(hu[0], (0.0, 0.0, 0.0))
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
        "RescaleIntercept", "RescaleSlope", "RescaleType",
    ):  # fmt: skip
        delattr(ds, keyword)
    ds.NumberOfFrames = len(hu)
    ds.PixelData = (hu[::-1].astype(np.int32) - INTERCEPT).astype("<i2").tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = list(pixel_mm)
    shared.PlaneOrientationSequence = Items([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    ds.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for k in range(len(hu)):
        frame = Dataset()
        frame.PlanePositionSequence = Items([Dataset()])
        frame.PlanePositionSequence[0].ImagePositionPatient = [-10.0, -20.0, k * dz]
        if with_rescale:
            frame.PixelValueTransformationSequence = Items([Dataset()])
            rescale = frame.PixelValueTransformationSequence[0]
            rescale.RescaleIntercept, rescale.RescaleSlope = INTERCEPT, 1
            rescale.RescaleType = "HU"
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    return ds
