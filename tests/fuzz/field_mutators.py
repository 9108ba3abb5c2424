"""Mutations that know the fields of a format: NIfTI, text headers, gzip around them, PNG chunks."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.fuzz.byte_mutators import (
    BOUNDARY_FLOATS,
    BOUNDARY_INTS,
    BOUNDARY_WORDS,
    mutate_bytes,
)

Change = Callable[[Random, bytes], tuple[bytes, str]]

NIFTI_1 = {
    "sizeof_hdr": (0, "i"), **{f"dim{n}": (40 + 2 * n, "h") for n in range(8)},
    "intent": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h"), "slice_start": (74, "h"),
    **{f"pixdim{n}": (76 + 4 * n, "f") for n in range(8)}, "vox_offset": (108, "f"),
    "scl_slope": (112, "f"), "scl_inter": (116, "f"), "slice_end": (120, "h"),
    "xyzt_units": (123, "B"), "toffset": (136, "f"), "qform_code": (252, "h"),
    "sform_code": (254, "h"), **{f"quatern{n}": (256 + 4 * n, "f") for n in range(3)},
    **{f"qoffset{n}": (268 + 4 * n, "f") for n in range(3)},
    **{f"srow{n}": (280 + 4 * n, "f") for n in range(12)}, "magic": (344, "i"),
    "extension": (348, "i"),
}  # fmt: skip
NIFTI_2 = {
    "sizeof_hdr": (0, "i"), "datatype": (12, "h"), "bitpix": (14, "h"),
    **{f"dim{n}": (16 + 8 * n, "q") for n in range(8)},
    **{f"pixdim{n}": (104 + 8 * n, "d") for n in range(8)}, "vox_offset": (168, "q"),
    "scl_slope": (176, "d"), "scl_inter": (184, "d"), "qform_code": (344, "i"),
    "sform_code": (348, "i"), **{f"quatern{n}": (352 + 8 * n, "d") for n in range(3)},
    **{f"qoffset{n}": (376 + 8 * n, "d") for n in range(3)},
    **{f"srow{n}": (400 + 8 * n, "d") for n in range(12)}, "xyzt_units": (500, "i"),
    "extension": (540, "i"),
}  # fmt: skip
NIFTI_TYPES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)


def nifti_field(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Set one field of the header to a value that it might have, or nearly the one it has."""
    order = ">" if content[:4] in (b"\0\0\1\x5c", b"\0\0\2\x1c") else "<"
    fields = NIFTI_2 if struct.unpack_from(f"{order}i", content.ljust(4))[0] == 540 else NIFTI_1
    name = rng.choice(list(fields))
    at, kind = fields[name]
    if len(content) < at + struct.calcsize(kind):
        return mutate_bytes(rng, content, 348, b"")
    (before,) = struct.unpack_from(f"{order}{kind}", content, at)
    if kind in "fd":
        near = (-before, before * 2, before / 2, before * 1.02, before * 1.005, before + 0.3)
        value = rng.choice((*near, *BOUNDARY_FLOATS))
    else:
        near = (before + 1, before - 1, -before, before * 2, 3, 4, 5, *NIFTI_TYPES)
        value = rng.choice((*near, *BOUNDARY_INTS)) % (1 << (8 * struct.calcsize(kind) - 1))
    try:
        put = struct.pack(f"{order}{kind}", value)
    except OverflowError:
        put = struct.pack(f"{order}{kind}", float("inf"))
    return content[:at] + put + content[at + len(put) :], f"{name} {before} -> {value}"


HEADER_LINES = (
    "space: right-anterior-superior", "space: LPS", "space: scanner-xyz", "space dimension: 3",
    "endian: big", "endian: little", "encoding: ascii", "encoding: hex", "encoding: bzip2",
    "encoding: gzip", "encoding: raw", "byte skip: 4", "byteskip: -1", "line skip: 1",
    "data file: LIST", "data file: x%03d.raw 1 5 1", "datafile: ../x.raw", "dimension: 4",
    'space units: "cm" "cm" "cm"', "kinds: domain domain domain", "kinds: vector domain domain",
    "measurement frame: (0,1,0) (1,0,0) (0,0,1)", "sizes: 6 7 5", "spacings: 1 1 1",
    "thicknesses: 9 9 9", "axis mins: 0 0 0", "centerings: node node node", "old min: 0",
    "old max: 100", "type: block", "block size: 2", "content: x", "key:=value", "# comment",
    "sample units: cm", "space origin: (0,0,0)", "space directions: none (1,0,0) (0,1,0) (0,0,1)",
    "BinaryData = False", "BinaryDataByteOrderMSB = True", "ElementByteOrderMSB = True",
    "CompressedData = True", "CompressedData = False", "CompressedDataSize = 5",
    "HeaderSize = -1", "HeaderSize = 10", "ElementNumberOfChannels = 2", "Comment = x",
    "ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = -1024",
    "ElementSpacing = 1 1 1", "ElementSize = 2 2 2", "Offset = 1 2 3", "Position = 1 2 3",
    "Origin = 5 5 5", "Rotation = 0 1 0 1 0 0 0 0 1", "Orientation = 1 0 0 0 1 0 0 0 -1",
    "CenterOfRotation = 5 5 5", "AnatomicalOrientation = LPI", "DistanceUnits = cm",
    "ElementType = MET_LONG", "ElementType = MET_USHORT", "ElementMin = 0", "ElementMax = 1",
    "ObjectSubType = x", "TransformType = Rigid", "NDims = 2", "Modality = MET_MOD_MR",
    "ElementDataFile = LIST", "ElementDataFile = x.raw", "ElementDataFile = LOCAL",
)  # fmt: skip


def text_header(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Edit one line of an NRRD or MetaImage header."""
    end = content.find(b"\n\n") + 1 if content.startswith(b"NRRD") else -1
    if end <= 0:
        place = content.find(b"ElementDataFile")
        end = content.find(b"\n", place) + 1 if place >= 0 else len(content)
    lines = content[:end].split(b"\n")
    n = rng.randrange(max(1, len(lines) - 1))
    line = lines[n]
    match rng.randrange(10):
        case 0:
            lines.pop(n)
            how = f"line {line!r} removed"
        case 1:
            lines.insert(rng.randrange(1, len(lines)), line)
            how = f"line {line!r} doubled"
        case 2:
            m = rng.randrange(len(lines))
            lines[n], lines[m] = lines[m], line
            how = f"lines {n} and {m} exchanged"
        case 3 | 4:
            new = rng.choice(HEADER_LINES).encode()
            lines.insert(rng.randrange(1, len(lines)), new)
            how = f"line {new!r} added"
        case 5:
            new = rng.choice((line.upper(), line.lower(), line + b" ", b" " + line, line + b"\r"))
            lines[n] = new
            how = f"line {line!r} -> {new!r}"
        case 6:
            new = rng.choice(HEADER_LINES).encode()
            name = new.replace(b"=", b":").split(b":")[0].strip()
            known = [m for m, old in enumerate(lines) if old.startswith(name)]
            lines[known[0] if known else n] = new
            how = f"line {new!r} put"
        case _:
            new = _other_word(rng, line)
            lines[n] = new
            how = f"line {line!r} -> {new!r}"
    return b"\n".join(lines) + content[end:], how


def _other_word(rng: Random, line: bytes) -> bytes:
    """Return a header line with one of its words another."""
    words = line.split(b" ")
    n = rng.randrange(len(words))
    word = words[n].decode("latin-1")
    bare = word.strip("(),")
    numbers = bare.split(",")
    m = rng.randrange(len(numbers))
    with suppress(ValueError):
        value = float(numbers[m])
        near = (-value, value * 2, value + 1, value - 1, value * 1.0001, value * 10, 0, 1)
        fresh = rng.choice((*(f"{x:g}" for x in near), *BOUNDARY_WORDS))
        numbers[m] = fresh
        words[n] = word.replace(bare, ",".join(numbers), 1).encode("utf-8", "surrogatepass")
        return b" ".join(words)
    words[n] = rng.choice(BOUNDARY_WORDS).encode("utf-8", "surrogatepass")
    return b" ".join(words)


def gzip_layer(inner: Change) -> Change:
    """Return a change below gzip, or of the stream itself."""

    def change(rng: Random, content: bytes) -> tuple[bytes, str]:
        plain = gzip.decompress(content)
        match rng.randrange(8):
            case 0:
                return content + gzip.compress(b"", mtime=0), "an empty gzip member appended"
            case 1:
                tail = rng.randbytes(rng.randrange(1, 40))
                return content + gzip.compress(tail, mtime=0), f"{len(tail)} bytes in a new member"
            case 2:
                at = rng.randrange(len(plain))
                parts = gzip.compress(plain[:at], mtime=0), gzip.compress(plain[at:], mtime=0)
                return b"".join(parts), f"two members, split at {at}"
            case 3:
                keep = rng.randrange(1, 9)
                return content[:-keep], f"the last {keep} bytes of the gzip trailer lost"
            case 4:
                changed, how = mutate_bytes(rng, content, len(content), content)
                return changed, f"gzip stream: {how}"
        changed, how = inner(rng, plain)
        return gzip.compress(changed, rng.choice((1, 6, 9)), mtime=0), f"below gzip: {how}"

    return change


PNG_HEAD = 8
PNG_KINDS = (b"tRNS", b"gAMA", b"sBIT", b"bKGD", b"PLTE", b"acTL", b"fcTL", b"iCCP", b"tEXt",
             b"zTXt", b"IDAT", b"IEND", b"abCD", b"eXIf")  # fmt: skip


def png_chunks(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Change the chunks of a PNG; every checksum is right again."""
    chunks = _chunks(content)
    n = rng.randrange(len(chunks))
    kind, body = chunks[n]
    match rng.randrange(9):
        case 0 | 1 | 2:
            at = rng.randrange(5, 13)
            value = rng.choice((0, 1, 2, 3, 4, 6, 7, 8, 9, 15, 16, 17, 32, 255))
            old = chunks[0][1]
            chunks[0] = (chunks[0][0], old[:at] + bytes([value]) + old[at + 1 :])
            how = f"IHDR byte {at} = {value}"
        case 3:
            chunks.pop(n)
            how = f"chunk {kind!r} removed"
        case 4:
            chunks.insert(rng.randrange(len(chunks) + 1), (kind, body))
            how = f"chunk {kind!r} doubled"
        case 5:
            new = rng.choice(PNG_KINDS)
            fill = rng.choice((b"", b"\0\1", b"\0\0\0\1\0\0\0\0", rng.randbytes(rng.randrange(30))))
            chunks.insert(rng.randrange(1, len(chunks)), (new, fill))
            how = f"chunk {new!r} of {len(fill)} bytes added"
        case 6:
            body, how = mutate_bytes(rng, body or b"\0", len(body), content)
            chunks[n] = (kind, body)
            how = f"chunk {kind!r}: {how}"
        case 7:
            at = rng.randrange(len(body) + 1)
            chunks[n : n + 1] = [(kind, body[:at]), (kind, body[at:])]
            how = f"chunk {kind!r} split at {at}"
        case _:
            rows = zlib.decompress(b"".join(b for k, b in chunks if k == b"IDAT"))
            rows, how = mutate_bytes(rng, rows, len(rows), rows)
            chunks = [c for c in chunks if c[0] != b"IDAT"]
            chunks.insert(1, (b"IDAT", zlib.compress(rows)))
            how = f"rows of the picture: {how}"
    return content[:PNG_HEAD] + b"".join(_packed(*chunk) for chunk in chunks), how


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    place, chunks = PNG_HEAD, []
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _packed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
