"""The elements of a DICOM data set that are looked at, as values that equal files share.

The files of a series agree on nearly all of them. What two files store in the same bytes is
converted once and is one object: headers take half the time to read and half the memory to keep.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag

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
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "LossyImageCompression", "BurnedInAnnotation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *(name for names in MOMENTS for name in names),
]  # fmt: skip

TAG_OF = {keyword: Tag(keyword) for keyword in KEYWORDS}
TAGS = [*TAG_OF.values()]
CHARACTER_SET = Tag("SpecificCharacterSet")

DECIMALS = {
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "RescaleSlope", "RescaleIntercept",
}  # fmt: skip
"""Numbers that are written as text."""

OF_ONE_FILE = {"ImagePositionPatient", "PixelPaddingValue"}
"""Not remembered: no two slices share it; its bytes mean what PixelRepresentation says."""

MAX_WORD = 64
"""The longest word of DICOM that is shown: a UID, or the unit of a rescaled number."""

MAX_CONVERTED = 20_000
"""Values that are remembered: the files of one series, and of one scanner, agree on nearly all."""


class OddElement(ValueError):  # noqa: N818  (said of an element, in a refusal)
    """An element that cannot be what it should; its text tells nothing of the content."""


def plain_word(keyword: str, word: object) -> str:
    """Return a word that may be shown; "" for None.

    Raises:
        OddElement: a wrong length has made other elements, the patient's name among them, part of
            it; their tags are no text.
    """
    if word is None:
        return ""
    if isinstance(word, str) and word.isprintable() and len(word) <= MAX_WORD:
        return str(word)
    raise OddElement(f"{keyword} is no plain text of at most {MAX_WORD} characters")


class Elements:
    """The wanted elements of a data set; equal bytes are converted once, and share their value.

    A list of numbers comes as a tuple of floats, anything else as pydicom gives it.
    """

    _converted: ClassVar[dict[tuple[object, ...], Any]] = {}

    def __init__(self, dataset: Any) -> None:
        self._dataset, self._stored = dataset, dict(dataset.items())
        characters = self._stored.get(CHARACTER_SET)
        self._characters = repr(getattr(characters, "value", None))

    def get(self, keyword: str) -> Any:
        """Return the value of an element, None where it is not there."""
        stored = self._stored.get(TAG_OF.get(keyword))
        if stored is None:
            return None
        raw = isinstance(stored, RawDataElement) and isinstance(stored.value, bytes)
        if raw and keyword in DECIMALS and b"\0" in stored.value.rstrip(b"\0 "):
            raise OddElement(f"{keyword} has a zero byte within a number")  # where GDCM ends it
        if not raw or keyword.endswith("Sequence") or keyword in OF_ONE_FILE:
            return self._dataset.get(keyword)
        key = (keyword, stored.VR, stored.value, stored.is_little_endian, self._characters)
        if (known := self._converted.get(key)) is not None:
            return known
        if len(self._converted) >= MAX_CONVERTED:
            self._converted.clear()
        value = self._dataset.get(keyword)
        if isinstance(value, str):
            value = sys.intern(str(value))
        elif isinstance(value, MultiValue) and all(isinstance(one, float) for one in value):
            value = tuple(float(one) for one in value)
        self._converted[key] = value
        return value

    def word(self, keyword: str) -> str:
        """Return an element that may be shown; "" where it is not there.

        Raises:
            OddElement: it is no plain text.
        """
        return plain_word(keyword, self.get(keyword))


def values_of(layers: Sequence[Any], keyword: str) -> tuple[Any, ...]:
    """Return what the first of ``layers`` that has the element says; () where none has it."""
    for layer in layers:
        value = layer.get(keyword)
        if isinstance(value, tuple):
            return value
        if value is not None and value != "":
            several = isinstance(value, Sequence) and not isinstance(value, str)
            return tuple(value) if several else (value,)
    return ()


def numbers_of(layers: Sequence[Any], keyword: str) -> tuple[float, ...] | None:
    """Return the element as floats; None where no layer has it."""
    values = values_of(layers, keyword)
    if all(type(value) is float for value in values):
        return values or None
    return tuple(float(value) for value in values)


def words_of(layers: Sequence[Any], keyword: str) -> tuple[str, ...]:
    """Return the element as upper-case words."""
    return joint(tuple(str(value) for value in values_of(layers, keyword)))


@lru_cache(maxsize=MAX_CONVERTED)
def joint(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return upper-case words: one object for all files that say the same."""
    return tuple(word.strip().upper() for word in words)
