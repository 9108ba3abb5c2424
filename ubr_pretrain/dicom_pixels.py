"""The pixels of one DICOM file: are all the declared bytes there, and what do they decode to.

pydicom decodes (with pylibjpeg for compressed files) and is exact or raises. There is no second
decoder behind it: one that accepts a stream that the first refused (GDCM does, with JPEG and with
broken headers) returns a picture that nobody has checked. Pixels that are not compressed are taken
from the file as they are, which needs no second parse of its header.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ubr_pretrain.ct import VolumeRefused

PIXEL_DATA = (0x7FE0, 0x0010)
ITEM, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
PIXEL_KINDS = (b"OB", b"OW", b"UN")
UNDEFINED_LENGTH = 0xFFFFFFFF
LONG_KINDS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
TAIL_BYTES = 1 << 12
"""Of zeros that are looked at behind the pixels: some programs pad a file with them."""

TAIL_FAULT = ("E-FORMAT", "goes on after its pixels with bytes that are no element")

PLAIN_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)

DECODE_ERRORS = (
    AttributeError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)
"""What pydicom and its decoders raise on damaged pixels."""

_filters = threading.Lock()
"""Held while warnings are silenced: their filters are shared by all threads."""


@dataclass(frozen=True, slots=True)
class PlainPixels:
    """Where 16-bit pixels lie in a file that stores them as they are.

    Attributes:
        offset: of the first, in bytes.
        is_signed: whether the highest of the bits that are used is a sign.
        unused_bits: the highest bits of each, whose content is undefined.
    """

    offset: int
    is_signed: bool
    unused_bits: int


@lru_cache(maxsize=4096)  # the files of a series share it
def plain_pixels(
    syntax: str, begins_at: int, allocated: int, stored: int | None, representation: int | None
) -> PlainPixels | None:
    """Return where the pixels of a file lie; None where pydicom is to decode them.

    Args:
        syntax: transfer syntax UID.
        begins_at: offset of the pixel data element.
        allocated: BitsAllocated.
        stored: BitsStored.
        representation: PixelRepresentation.
    """
    if syntax not in PLAIN_SYNTAXES or allocated != 16 or representation not in (0, 1):
        return None
    if stored is None or not 1 <= stored <= 16:
        return None
    offset = begins_at + (8 if syntax == ImplicitVRLittleEndian else 12)
    return PlainPixels(offset, representation == 1, 16 - stored)


def pixel_fault(
    source: BinaryIO, syntax: str, frame_bytes: int, num_frames: int
) -> tuple[str, str] | None:
    """Compare the bytes that the header declares with those that are there.

    Args:
        source: stands at the pixel data element, or at its end where there is none.
        syntax: transfer syntax UID.
        frame_bytes: bytes of one decoded frame.
        num_frames: as declared.

    Returns:
        (code, cause), or None where every byte is present.
    """
    if num_frames < 1 or frame_bytes < 1:
        return "E-NOPIXELS", f"declares {num_frames} frames of {frame_bytes} bytes"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    head = source.read(8)
    if len(head) < 8:
        return "E-NOPIXELS", "ends before any pixel data"
    tag = struct.unpack(f"{order}HH", head[:4])
    if tag != PIXEL_DATA:
        return (
            "E-NOPIXELS",
            f"has no integer pixel data (element {tag[0]:04x},{tag[1]:04x} instead)",
        )
    is_implicit, states_kind = syntax == ImplicitVRLittleEndian, head[4:6] in PIXEL_KINDS
    if is_implicit == states_kind:  # read as stated, the pixels would be shifted
        word = "states" if states_kind else "lacks"
        return "E-HEADER", f"{word} the kind of its pixel data, against its transfer syntax"
    long_length = head[4:] if is_implicit else source.read(4)
    if len(long_length) < 4:
        return "E-TRUNC", "ends within the pixel data element"
    (declared,) = struct.unpack(f"{order}I", long_length)
    start = source.tell()
    left = source.seek(0, 2) - start
    if declared == UNDEFINED_LENGTH:
        source.seek(start)
        return _fragment_fault(source, left, num_frames)
    expected = frame_bytes * num_frames
    if left < expected or declared < expected:
        return "E-TRUNC", f"declares {expected} bytes of pixels, holds {min(left, declared)}"
    if declared >= expected + frame_bytes:
        return "E-HEADER", f"states {declared} bytes of pixels, its header accounts for {expected}"
    source.seek(start + declared)
    return _tail_fault(source, left - declared, order, is_implicit=is_implicit)


def _tail_fault(
    source: BinaryIO, left: int, order: str, *, is_implicit: bool
) -> tuple[str, str] | None:
    """Say whether what follows the pixels is neither elements, in order, nor padding with zeros."""
    before: tuple[int, ...] = PIXEL_DATA
    while left > 0:
        head = source.read(min(left, 12))
        if not head.strip(b"\0"):
            rest = source.read(TAIL_BYTES)
            return None if not rest.strip(b"\0") else TAIL_FAULT
        tag = struct.unpack(f"{order}HH", head[:4].ljust(4, b"\0"))
        size = _element_bytes(head, order, is_implicit=is_implicit)
        if tag <= before or size is None:
            return TAIL_FAULT
        if size > UNDEFINED_LENGTH:  # a sequence that ends with a mark: digital signatures
            return None
        if size > left:
            return TAIL_FAULT
        before, left = tag, left - size
        source.seek(size - len(head), 1)
    return None


def _element_bytes(head: bytes, order: str, *, is_implicit: bool) -> int | None:
    """Return how long the element is that begins with ``head``; None where none does."""
    if len(head) < 8:
        return None
    if is_implicit:
        return 8 + int(struct.unpack(f"{order}I", head[4:8])[0])
    if not (head[4:6].isalpha() and head[4:6].isupper()):
        return None
    if head[4:6] in LONG_KINDS and len(head) == 12:
        return 12 + int(struct.unpack(f"{order}I", head[8:12])[0])
    return 8 + int(struct.unpack(f"{order}H", head[6:8])[0])


def _fragment_fault(source: BinaryIO, left: int, num_frames: int) -> tuple[str, str] | None:
    """Walk the fragments of compressed pixel data to their end mark, reading none."""
    num_fragments = -1  # the first item is the offset table
    while True:
        head = source.read(8)
        left -= len(head)
        if len(head) < 8:
            return "E-TRUNC", "the compressed pixels end before their end mark"
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == SEQUENCE_END:
            break
        if (group, element) != ITEM or length == UNDEFINED_LENGTH:
            return "E-FORMAT", "the compressed pixels are not a sequence of fragments"
        left -= length
        if left < 0:
            return "E-TRUNC", f"the compressed pixels lack {-left} bytes"
        source.seek(length, 1)
        num_fragments += 1
    if num_fragments < num_frames:
        return "E-TRUNC", f"declares {num_frames} frames, holds {num_fragments} fragments"
    return _tail_fault(source, left, "<", is_implicit=False)


def check_codec(path: Path, syntax: str) -> None:
    """Refuse a transfer syntax that is not decoded here.

    Raises:
        VolumeRefused: E-CODEC.
    """
    if not _is_decoded(syntax):
        raise VolumeRefused(
            "E-CODEC",
            path,
            f"transfer syntax {syntax} ({_uid(syntax).name}) is not decoded",
            "convert it to uncompressed DICOM",
        )


@lru_cache(maxsize=64)
def _is_decoded(syntax: str) -> bool:
    try:
        with _silent():  # a damaged UID is refused, not warned of
            return bool(get_decoder(_uid(syntax)).is_available)
    except NotImplementedError:
        return False


@contextmanager
def _silent() -> Iterator[None]:
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_plain(path: Path, plain: PlainPixels, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Read all frames of a file that does not compress them, as stored.

    Args:
        path: the file.
        plain: where they lie.
        shape: [frame, row, column], as declared.

    Raises:
        VolumeRefused: E-TRUNC (the file became shorter).
        OSError: the file cannot be read any more.
    """
    pixels = np.fromfile(
        path, "<i2" if plain.is_signed else "<u2", int(np.prod(shape)), offset=plain.offset
    )
    if pixels.size != np.prod(shape):
        raise VolumeRefused("E-TRUNC", path, f"declares {shape} pixels, holds {pixels.size}")
    if plain.unused_bits:
        pixels <<= plain.unused_bits
        pixels >>= plain.unused_bits
    return pixels.reshape(shape)


def decode(path: Path, syntax: str, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Decode all frames of a file, as stored.

    Args:
        path: the file.
        syntax: its transfer syntax UID.
        shape: [frame, row, column], as declared.

    Raises:
        VolumeRefused: E-CODEC (damaged or unsupported compression).
        OSError: the file cannot be read any more.
    """
    try:
        with _silent():  # padding bytes and the like, checked before
            deflated = syntax == DeflatedExplicitVRLittleEndian
            raw = pixel_array(pydicom.dcmread(path) if deflated else path, raw=True)
    except DECODE_ERRORS as error:
        raise VolumeRefused(
            "E-CODEC",
            path,
            f"pixels ({_uid(syntax).name}) cannot be decoded: {_first_line(error)}",
            "copy it again, or convert it to uncompressed DICOM",
        ) from error
    if raw.size != np.prod(shape):
        raise VolumeRefused("E-CODEC", path, f"decodes to {raw.shape}, declares {shape}")
    return raw.reshape(shape)


def _uid(syntax: str) -> UID:
    return UID(syntax, validation_mode=IGNORE)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
