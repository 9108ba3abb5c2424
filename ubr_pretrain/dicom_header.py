"""The header pass over one DICOM file: plain values and the extent of the pixels, nothing decoded.

pydicom is asked for the elements below and stops at the pixel data. A classic file holds one frame;
an Enhanced one holds many, whose geometry and rescale come from its functional groups.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import Tag

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.dicom_pixels import pixel_fault
from ubr_pretrain.stored_file import StoredFile, describe

DEFLATED_SYNTAX = "1.2.840.10008.1.2.1.99"
PIXEL_GROUP = 0x7FE00000

MOMENTS = (
    ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    ("NominalPercentageOfCardiacPhase",),
    ("AcquisitionNumber", "FrameAcquisitionNumber"),
    ("AcquisitionDateTime", "FrameAcquisitionDateTime", "AcquisitionTime"),
)
"""What may tell the phases of one series apart: classic and Enhanced names, the surest first."""

KEYWORDS = [
    "SOPClassUID", "Modality", "ImageType", "PatientID", "PatientPosition", "StudyInstanceUID",
    "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "PixelRepresentation", "PixelPaddingValue", "LossyImageCompression",
    "BurnedInAnnotation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *(name for names in MOMENTS for name in names),
]  # fmt: skip

TAGS = [Tag(keyword) for keyword in KEYWORDS]

PARSE_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,  # sequences nested by the thousand
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on damaged files; all of them mean that the file cannot be understood."""


@dataclass(frozen=True, slots=True)
class DicomFrame:
    """One slice: where it lies and how its numbers become HU. What the file lacks is None.

    Attributes:
        path: the file.
        index: which frame of the file.
        image_type: such as ORIGINAL, PRIMARY, AXIAL.
        position_mm: LPS centre of the first pixel.
        orientation: unit vectors along a row and along a column.
        pixel_mm: row height, column width.
        thickness_mm: of the slice.
        slope: HU = slope * stored + intercept.
        intercept: as above.
        rescale_type: unit of the result, HU for a CT.
        moments: values of `MOMENTS`.
    """

    path: Path
    index: int
    image_type: tuple[str, ...]
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_mm: tuple[float, ...] | None
    thickness_mm: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    moments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """One file, as its header tells it.

    ``stamp`` is that of the `StoredFile`; ``pixel_fault`` is the (code, cause) why the pixels are
    not all there, or None.
    """

    path: Path
    stamp: tuple[int, int]
    series_uid: str
    study_uid: str
    patient_id: str
    sop_class: str
    modality: str
    patient_position: str
    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    has_modality_lut: bool
    padding: int | None
    lossy: bool
    burned_in: bool
    pixel_fault: tuple[str, str] | None
    frames: tuple[DicomFrame, ...]


def read_dicom_header(path: Path, max_bytes: int) -> DicomHeader:
    """Read what is needed to judge one file.

    Args:
        path: the file.
        max_bytes: ceiling of a deflated data set.

    Raises:
        VolumeRefused: E-MISSING, E-NOTFILE, E-EMPTY, E-NOTDICOM, E-HEADER, E-SIZE-LIMIT, E-TRUNC.
    """
    with StoredFile(path) as file:
        if file.format != "dicom" or file.gzipped:
            raise VolumeRefused("E-NOTDICOM", path, f"has no DICOM preamble: {describe(file.head)}")
        try:
            with warnings.catch_warnings(), disable_value_validation():
                warnings.simplefilter("ignore")  # odd values are judged by us, file by file
                dataset, source, syntax = _read_dataset(file, max_bytes)
                return _header(file, dataset, source, syntax)
        except PARSE_ERRORS as error:
            if isinstance(error, VolumeRefused):
                raise
            raise VolumeRefused(
                "E-HEADER", path, f"the DICOM header is damaged ({type(error).__name__}: {error})"
            ) from error


def _read_dataset(file: StoredFile, max_bytes: int) -> tuple[Any, BinaryIO, str]:
    """Return the data set without pixels, a stream that stands at the pixels, and the syntax."""
    meta = read_file_meta_info(file.path)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if not syntax:
        raise VolumeRefused("E-NOTDICOM", file.path, "states no transfer syntax")
    if syntax != DEFLATED_SYNTAX:
        dataset = pydicom.dcmread(file.stream, stop_before_pixels=True, specific_tags=TAGS)
        return dataset, file.stream, syntax
    start = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    file.stream.seek(start)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = io.BytesIO(engine.decompress(file.stream.read(), max_bytes))
    if engine.unconsumed_tail:
        raise VolumeRefused("E-SIZE-LIMIT", file.path, f"inflates to more than {max_bytes} bytes")
    dataset = read_dataset(
        inflated, False, True, stop_when=lambda tag, *_: tag >= PIXEL_GROUP, specific_tags=TAGS
    )
    return dataset, inflated, syntax


def _header(file: StoredFile, dataset: Any, source: BinaryIO, syntax: str) -> DicomHeader:
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.get("BitsAllocated") or 0)
    # A count of frames is believed once their bytes are known to be there.
    fault = pixel_fault(source, syntax, rows * columns * samples * bits // 8, num_frames)
    padding = dataset.get("PixelPaddingValue")
    return DicomHeader(
        path=file.path,
        stamp=file.stamp,
        series_uid=str(dataset.get("SeriesInstanceUID") or ""),
        study_uid=str(dataset.get("StudyInstanceUID") or ""),
        patient_id=str(dataset.get("PatientID") or ""),
        sop_class=str(dataset.get("SOPClassUID") or ""),
        modality=str(dataset.get("Modality") or ""),
        patient_position=str(dataset.get("PatientPosition") or ""),
        transfer_syntax=syntax,
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        has_modality_lut=bool(dataset.get("ModalityLUTSequence")),
        padding=padding if isinstance(padding, int) else None,
        lossy=str(dataset.get("LossyImageCompression") or "") == "01",
        burned_in=str(dataset.get("BurnedInAnnotation") or "") == "YES",
        pixel_fault=fault,
        frames=tuple(_frame(file.path, dataset, n) for n in range(1 if fault else num_frames)),
    )


def _frame(path: Path, dataset: Any, index: int) -> DicomFrame:
    layers = _layers(dataset, index)
    thickness_mm = _numbers(layers, "SliceThickness")
    slope, intercept = _numbers(layers, "RescaleSlope"), _numbers(layers, "RescaleIntercept")
    return DicomFrame(
        path=path,
        index=index,
        image_type=_words(layers, "FrameType") or _words(layers, "ImageType"),
        position_mm=_numbers(layers, "ImagePositionPatient"),
        orientation=_numbers(layers, "ImageOrientationPatient"),
        pixel_mm=_numbers(layers, "PixelSpacing"),
        thickness_mm=thickness_mm[0] if thickness_mm else None,
        slope=slope[0] if slope else None,
        intercept=intercept[0] if intercept else None,
        rescale_type=" ".join(_words(layers, "RescaleType")),
        moments=tuple(
            next((word for name in names for word in _words(layers, name)), "") for names in MOMENTS
        ),
    )


def _layers(dataset: Any, index: int) -> list[Any]:
    """Return the data sets that speak for a frame, the nearest first.

    In an Enhanced file these are the items of its functional groups, its own before the shared
    ones; a rescale that stands there only is missed by pydicom's own modality LUT.
    """
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    items = [*own[index : index + 1], *shared[:1]]
    groups = [e.value[0] for item in items for e in item if e.VR == "SQ" and e.value]
    return [*groups, dataset]


def _values(layers: Sequence[Any], keyword: str) -> list[Any]:
    for layer in layers:
        value = layer.get(keyword)
        if value is not None and value != "":
            several = isinstance(value, Sequence) and not isinstance(value, str)
            return list(value) if several else [value]
    return []


def _numbers(layers: Sequence[Any], keyword: str) -> tuple[float, ...] | None:
    return tuple(float(value) for value in _values(layers, keyword)) or None


def _words(layers: Sequence[Any], keyword: str) -> tuple[str, ...]:
    return tuple(str(value).strip().upper() for value in _values(layers, keyword))
