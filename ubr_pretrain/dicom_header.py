"""The header pass over one DICOM file: plain values and the extent of the pixels, nothing decoded.

pydicom is asked for the elements below and stops at the pixel data. A classic file holds one frame;
an Enhanced one holds many, whose geometry and rescale come from its functional groups.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import ImplicitVRLittleEndian

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.dicom_elements import (
    MOMENTS,
    TAGS,
    Elements,
    OddElement,
    joint,
    numbers_of,
    plain_word,
    values_of,
    words_of,
)
from ubr_pretrain.dicom_parsing import AFTER_META, BoundedStream, UpToPixels
from ubr_pretrain.dicom_pixels import PLAIN_SYNTAXES, PlainPixels, pixel_fault, plain_pixels
from ubr_pretrain.stored_file import StoredFile, describe

DEFLATED_SYNTAX = "1.2.840.10008.1.2.1.99"
META_KINDS = (b"AE", b"SH", b"UI", b"UL")
"""Value representations of the file meta group that have a short length; OB has a long one."""

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

    ``stamp`` is that of the `StoredFile`; ``lossy`` is what LossyImageCompression states;
    ``pixel_fault`` is the (code, cause) why the pixels are not all there, or None; ``plain_pixels``
    says where they lie in a file that does not compress them.
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
    plain_pixels: PlainPixels | None
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
            file.stream = cast(BinaryIO, BoundedStream(file))
            with warnings.catch_warnings(), disable_value_validation():
                warnings.simplefilter("ignore")  # odd values are judged by us, file by file
                dataset, source, syntax = _read_dataset(file, max_bytes)
                return _header(file, dataset, source, syntax)
        except PARSE_ERRORS as error:
            if isinstance(error, VolumeRefused):
                raise
            # What pydicom says may quote the file, and with it the patient.
            what = str(error) if isinstance(error, OddElement) else type(error).__name__
            raise VolumeRefused("E-HEADER", path, f"the DICOM header is damaged ({what})") from None


def _read_dataset(file: StoredFile, max_bytes: int) -> tuple[Any, BinaryIO, str]:
    """Return the data set without pixels, a stream that stands at the pixels, and the syntax."""
    if plain := _plain_syntax(file.head):  # the common case, without a data set of its own for it
        syntax, start = plain
        file.stream.seek(start)
        implicit = syntax == ImplicitVRLittleEndian
        dataset = read_dataset(
            file.stream, implicit, True, stop_when=UpToPixels(), specific_tags=TAGS
        )
        return dataset, file.stream, syntax
    file.stream.seek(132)
    meta = read_dataset(file.stream, False, True, stop_when=lambda tag, *_: tag >= AFTER_META)
    file.stream.seek(0)
    syntax = plain_word("TransferSyntaxUID", meta.get("TransferSyntaxUID"))
    if not syntax:
        raise VolumeRefused("E-NOTDICOM", file.path, "states no transfer syntax")
    if syntax != DEFLATED_SYNTAX:
        dataset = read_partial(file.stream, UpToPixels(), specific_tags=TAGS)
        return dataset, file.stream, syntax
    start = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    file.stream.seek(start)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = io.BytesIO(engine.decompress(file.stream.read(), max_bytes))
    if engine.unconsumed_tail:
        raise VolumeRefused("E-SIZE-LIMIT", file.path, f"inflates to more than {max_bytes} bytes")
    if not engine.eof:
        raise VolumeRefused("E-TRUNC", file.path, "the deflated data set ends before its end mark")
    dataset = read_dataset(inflated, False, True, stop_when=UpToPixels(), specific_tags=TAGS)
    return dataset, inflated, syntax


def _plain_syntax(head: bytes) -> tuple[str, int] | None:
    """Return an uncompressed syntax that the file meta group names, and where the group ends.

    None where ``head`` does not hold the group, element by element to the end that it states, with
    a data set behind it: pydicom then finds out.
    """
    if head[132:140] != b"\x02\x00\x00\x00UL\x04\x00" or len(head) < 144:
        return None
    place, syntax = 144, ""
    end = place + struct.unpack("<I", head[140:144])[0]
    while place < end <= len(head) - 12:
        group, element, kind, size = struct.unpack("<HH2sH", head[place : place + 8])
        if group != 2:
            return None
        place += 8
        if kind == b"OB":
            (size,) = struct.unpack("<I", head[place : place + 4])
            place += 4
        elif kind not in META_KINDS:
            return None
        if element == 0x0010:
            syntax = head[place : place + size].rstrip(b"\0").decode("latin-1")
        place += size
    follows = head[end : end + 2]
    if place != end or syntax not in PLAIN_SYNTAXES or follows in (b"", b"\0\0", b"\2\0"):
        return None
    return syntax, end


def _header(file: StoredFile, dataset: Any, source: BinaryIO, syntax: str) -> DicomHeader:
    top = Elements(dataset)
    num_frames = int(top.get("NumberOfFrames") or 1)
    rows, columns = int(top.get("Rows") or 0), int(top.get("Columns") or 0)
    stated = top.get("SamplesPerPixel")
    samples = 1 if stated is None else int(stated)
    bits = int(top.get("BitsAllocated") or 0)
    begins_at = source.tell()
    # A count of frames is believed once their bytes are known to be there.
    fault = pixel_fault(source, syntax, rows * columns * samples * bits // 8, num_frames)
    stored, sign = (_whole(top.get(name)) for name in ("BitsStored", "PixelRepresentation"))
    high = _whole(top.get("HighBit"))
    if stored is not None and high is not None and high + 1 != stored:
        fault = fault or ("E-HEADER", f"HighBit {high} does not belong to BitsStored {stored}")
    num_groups = len(top.get("PerFrameFunctionalGroupsSequence") or ())
    if num_groups not in (0, num_frames):
        fault = fault or ("E-HEADER", f"describes {num_groups} frames and holds {num_frames}")
    plain = plain_pixels(syntax, begins_at, bits, stored, sign)
    return DicomHeader(
        path=file.path,
        stamp=file.stamp,
        series_uid=top.word("SeriesInstanceUID"),
        study_uid=str(top.get("StudyInstanceUID") or ""),
        patient_id=str(top.get("PatientID") or ""),
        sop_class=str(top.get("SOPClassUID") or ""),
        modality=top.word("Modality"),
        patient_position=top.word("PatientPosition"),
        transfer_syntax=syntax,
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=top.word("PhotometricInterpretation"),
        has_modality_lut=bool(top.get("ModalityLUTSequence")),
        padding=_whole(top.get("PixelPaddingValue")),
        lossy=str(top.get("LossyImageCompression") or "") == "01",
        burned_in=str(top.get("BurnedInAnnotation") or "") == "YES",
        pixel_fault=fault,
        plain_pixels=plain,
        frames=tuple(_frame(file.path, top, n) for n in range(1 if fault else num_frames)),
    )


def _whole(value: Any) -> int | None:
    """Return one whole number; None where there is none, or several."""
    return value if isinstance(value, int) else None


def _number(layers: list[Any], keyword: str) -> float | None:
    """Return one number; None where there is none."""
    numbers = numbers_of(layers, keyword)
    if numbers is None:
        return None
    if len(numbers) != 1:
        raise OddElement(f"{keyword} holds {len(numbers)} numbers")
    return numbers[0]


def _frame(path: Path, top: Elements, index: int) -> DicomFrame:
    layers = _layers(top, index)
    return DicomFrame(
        path=path,
        index=index,
        image_type=words_of(layers, "FrameType") or words_of(layers, "ImageType"),
        position_mm=numbers_of(layers, "ImagePositionPatient"),
        orientation=numbers_of(layers, "ImageOrientationPatient"),
        pixel_mm=numbers_of(layers, "PixelSpacing"),
        thickness_mm=_number(layers, "SliceThickness"),
        slope=_number(layers, "RescaleSlope"),
        intercept=_number(layers, "RescaleIntercept"),
        rescale_type=" ".join(
            plain_word("RescaleType", word).strip().upper()
            for word in values_of(layers, "RescaleType")
        ),
        moments=joint(
            tuple(
                next((word for name in names for word in words_of(layers, name)), "")
                for names in MOMENTS
            )
        ),
    )


_OF_A_FRAME = (
    "PlanePositionSequence", "PlanePositionVolumeSequence", "PlaneOrientationSequence",
    "PlaneOrientationVolumeSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
    "FrameTypeSequence", "FrameContentSequence", "TemporalPositionSequence",
    "CardiacSynchronizationSequence", "ConvertedAttributesSequence",
)  # fmt: skip
"""How the functional groups are called in which a frame's place, pixels and moment stand.

Others (referenced images, the position of the table) may hold elements of the same names.
"""


def _layers(top: Elements, index: int) -> list[Any]:
    """Return the data sets that speak for a frame, the nearest first.

    In an Enhanced file these are the items of its functional groups, its own before the shared
    ones; a rescale that stands there only is missed by pydicom's own modality LUT.
    """
    own = top.get("PerFrameFunctionalGroupsSequence") or []
    shared = top.get("SharedFunctionalGroupsSequence") or []
    items = [*own[index : index + 1], *shared[:1]]
    groups = [
        e.value[0]
        for item in items
        for e in item
        if e.VR == "SQ" and e.value and e.keyword.endswith(_OF_A_FRAME)
    ]
    return [*groups, top]
