"""Mutations of the elements of a DICOM file, by a walk over its bytes without a DICOM library."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from random import Random

from tests.fuzz.byte_mutators import BOUNDARY_INTS, BOUNDARY_WORDS, mutate_bytes

LONG_KINDS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UT", b"UN", b"UC", b"UR", b"OV")
KINDS = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"OB",
    b"OW", b"PN", b"SH", b"SL", b"SQ", b"SS", b"ST", b"TM", b"UI", b"UL", b"UN", b"US", b"UT",
    b"\0\0", b"ZZ",
)  # fmt: skip
UNDEFINED = 0xFFFFFFFF
ASKED_FOR = (
    (0x0008, 0x0005), (0x0008, 0x0008), (0x0008, 0x0016), (0x0008, 0x0060), (0x0010, 0x0020),
    (0x0018, 0x0050), (0x0018, 0x5100), (0x0020, 0x000D), (0x0020, 0x000E), (0x0020, 0x0012),
    (0x0020, 0x0032), (0x0020, 0x0037), (0x0020, 0x0100), (0x0028, 0x0002), (0x0028, 0x0004),
    (0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0030), (0x0028, 0x0100),
    (0x0028, 0x0101), (0x0028, 0x0102), (0x0028, 0x0103), (0x0028, 0x0120), (0x0028, 0x0301),
    (0x0028, 0x1052), (0x0028, 0x1053), (0x0028, 0x1054), (0x0028, 0x2110), (0x0028, 0x3000),
    (0x0002, 0x0000), (0x0002, 0x0010), (0x5200, 0x9229), (0x5200, 0x9230), (0x7FE0, 0x0010),
    (0x7FE0, 0x0008), (0x0008, 0x0032), (0x0028, 0x0106), (0x0028, 0x1050),
)  # fmt: skip
"""Elements that a reader of CT looks at: added, they must be well told from noise."""

WORDS = (
    *BOUNDARY_WORDS, "ISO_IR 192", "\\", "\\\\", "1\\0\\0\\0\\1\\0", "0.75\\0.75", "0.5", "CT",
    "MR", "ORIGINAL\\PRIMARY\\LOCALIZER", "DERIVED\\SECONDARY", "MONOCHROME1", "RGB", "HU", "OD",
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90", "1.2.3",
    "-10\\-20\\95", "0\\0\\0", "1\\0\\0\\0\\-1\\0", "0\\1\\0\\1\\0\\0", "01", "YES", "-1024", "1",
)  # fmt: skip


@dataclass(frozen=True)
class Element:
    """One element of the top level, as it lies in the file."""

    tag: tuple[int, int]
    kind: bytes
    value: bytes
    undefined: bool = False


def walk(content: bytes, *, implicit: bool, order: str) -> list[Element] | None:
    """Return the elements; None where the bytes are no data set."""
    elements, place = [], 0
    while place + 8 <= len(content):
        group, number = struct.unpack_from(f"{order}HH", content, place)
        kind = b"" if implicit else content[place + 4 : place + 6]
        if implicit:
            (length,) = struct.unpack_from(f"{order}I", content, place + 4)
            start = place + 8
        elif kind in LONG_KINDS:
            if place + 12 > len(content):
                return None
            (length,) = struct.unpack_from(f"{order}I", content, place + 8)
            start = place + 12
        else:
            (length,) = struct.unpack_from(f"{order}H", content, place + 6)
            start = place + 8
        if length == UNDEFINED:
            end = content.rfind(b"\xfe\xff\xdd\xe0")
            length = (end if end > start else len(content)) + 8 - start
            elements.append(Element((group, number), kind, content[start : start + length], True))
        else:
            elements.append(Element((group, number), kind, content[start : start + length]))
        place = start + length
    return elements or None


def packed(element: Element, *, implicit: bool, order: str, length: int | None = None) -> bytes:
    """Return the bytes of an element, with another length where one is given."""
    size = UNDEFINED if element.undefined else len(element.value)
    size = size if length is None else length
    tag = struct.pack(f"{order}HH", *element.tag)
    if implicit:
        return tag + struct.pack(f"{order}I", size & UNDEFINED) + element.value
    if element.kind in LONG_KINDS:
        return tag + element.kind + struct.pack(f"{order}HI", 0, size & UNDEFINED) + element.value
    return tag + element.kind + struct.pack(f"{order}H", size & 0xFFFF) + element.value


def dicom_elements(syntax: str, rng: Random, content: bytes) -> tuple[bytes, str]:
    """Change one element of a file of a transfer syntax, the file meta group included."""
    meta_end = 144 + struct.unpack_from("<I", content, 140)[0]
    in_meta = rng.random() < 0.15
    implicit, order = syntax == "implicit" and not in_meta, "<"
    if syntax == "big-endian" and not in_meta:
        order = ">"
    part = content[132:meta_end] if in_meta else content[meta_end:]
    if syntax == "deflated" and not in_meta:
        part = zlib.decompress(part, -15)
    elements = walk(part, implicit=implicit, order=order)
    if elements is None:
        return mutate_bytes(rng, content, meta_end, content)
    how, raw = _changed(rng, elements, implicit=implicit, order=order)
    if in_meta:
        if rng.random() < 0.5 and raw[:4] == b"\2\0\0\0":  # the group's length is right again
            raw = raw[:8] + struct.pack("<I", max(0, len(raw) - 12)) + raw[12:]
        return content[:132] + raw + content[meta_end:], how
    if syntax == "deflated":
        packer = zlib.compressobj(wbits=-15)
        raw = packer.compress(raw) + packer.flush()
    return content[:meta_end] + raw, how


def _changed(
    rng: Random, elements: list[Element], *, implicit: bool, order: str
) -> tuple[str, bytes]:
    n = rng.randrange(len(elements))
    chosen, length = elements[n], None
    name = f"({chosen.tag[0]:04x},{chosen.tag[1]:04x})"
    match rng.randrange(12):
        case 0:
            elements.pop(n)
            how = f"{name} removed"
        case 1:
            place = rng.choice((n, n + 1, rng.randrange(len(elements) + 1)))
            again = chosen if rng.random() < 0.3 else _other_value(rng, chosen, order)
            elements.insert(place, again)
            how = f"{name} given twice, as {again.value[:30]!r}"
        case 2 if not implicit:
            kind = rng.choice(KINDS)
            elements[n] = replace(chosen, kind=kind)
            how = f"{name} VR {kind!r}"
        case 3:
            length = rng.choice((*BOUNDARY_INTS, len(chosen.value) + 1, len(chosen.value) - 2,
                                 len(chosen.value) + 8))  # fmt: skip
            how = f"{name} length {length}"
        case 4:
            tag = rng.choice(ASKED_FOR)
            fresh = Element(tag, rng.choice(KINDS), _even(rng.choice(WORDS).encode("utf-8")))
            elements.insert(rng.choice((n, _sorted_place(elements, tag))), fresh)
            how = f"({tag[0]:04x},{tag[1]:04x}) added as {fresh.kind!r} {fresh.value[:30]!r}"
        case 5:
            m = rng.randrange(len(elements))
            elements[n], elements[m] = elements[m], chosen
            how = f"{name} and element {m} exchanged"
        case 6:
            tag = rng.choice((*ASKED_FOR, (0x0009, 0x0010), (0xFFFE, 0xE00D), (0, 0)))
            elements[n] = replace(chosen, tag=tag)
            how = f"{name} becomes ({tag[0]:04x},{tag[1]:04x})"
        case 7:
            depth = rng.choice((1, 3, 50, 1500))
            elements.insert(n, Element((0x0009, 0x1001), b"SQ", _nested(depth, order), True))
            how = f"a sequence nested {depth} deep before {name}"
        case _:
            elements[n] = _other_value(rng, chosen, order)
            how = f"{name} {chosen.value[:30]!r} -> {elements[n].value[:30]!r}"
    parts = [
        packed(e, implicit=implicit, order=order, length=length if e is chosen else None)
        for e in elements
    ]
    return how, b"".join(parts)


def _other_value(rng: Random, element: Element, order: str) -> Element:
    value = element.value
    if rng.random() < 0.3 and value:
        value, _ = mutate_bytes(rng, value, len(value), value)
        return replace(element, value=value if rng.random() < 0.5 else _even(value))
    if element.kind in (b"US", b"SS", b"UL", b"SL") or (len(value) in (2, 4) and b"." not in value):
        (before,) = struct.unpack(f"{order}H", value[:2].ljust(2, b"\0"))
        number = rng.choice((before + 1, before - 1, before * 2, before // 2, *BOUNDARY_INTS))
        width = 2 if element.kind in (b"US", b"SS", b"") else 4
        put = (number % (1 << 8 * width)).to_bytes(width, "little" if order == "<" else "big")
        return replace(element, value=put)
    if b"\\" in value and rng.random() < 0.6:
        words = value.split(b"\\")
        n = rng.randrange(len(words))
        words[n] = rng.choice(
            (rng.choice(BOUNDARY_WORDS).encode(), b"-" + words[n], words[n] + b"1")
        )
        return replace(element, value=_even(b"\\".join(words)))
    return replace(element, value=_even(rng.choice(WORDS).encode("utf-8")))


def _even(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def _sorted_place(elements: list[Element], tag: tuple[int, int]) -> int:
    return next((n for n, e in enumerate(elements) if e.tag >= tag), len(elements))


def _nested(depth: int, order: str) -> bytes:
    """Return the items of a sequence that holds itself ``depth`` times."""
    item = struct.pack(f"{order}HHI", 0xFFFE, 0xE000, UNDEFINED)
    head = (
        struct.pack(f"{order}HH", 0x0009, 0x1001) + b"SQ" + struct.pack(f"{order}HI", 0, UNDEFINED)
    )
    ends = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0) + struct.pack(
        f"{order}HHI", 0xFFFE, 0xE0DD, 0
    )
    return item + (head + item) * depth + ends * depth + ends
