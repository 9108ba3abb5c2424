"""Mutations that know nothing of a format but where its header ends."""

from __future__ import annotations

import struct
from random import Random

BOUNDARY_INTS = (
    0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 64, 127, 128, 255, 256, 348, 511, 512, 540, 4096, 32767,
    32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63,
    2**64 - 1, 10**18, 10**30,
)  # fmt: skip
BOUNDARY_WORDS = (
    "", " ", "0", "-0", "1", "-1", "2", "3", "0.0", "-0.5", "1e-300", "1e300", "1e999", "-1e999",
    "nan", "NaN", "inf", "-inf", "Infinity", "0x10", "1_000", "1,5", "1.5", "٣", "²", "½", "NULL",
    "null", "None", "true", "1e5", "1E+05", "+1", "00001", "1.", ".5", "1 2", "1;2", "=1+1",
    "999999999999", "-2147483648", "4294967296", "9" * 400, "../../etc/passwd", "/etc/passwd",
    "C:\\x", "a\0b", "\ud7ff", "\u202e", "%s%n", "A" * 5000, "[]", "{}", '"', "'", "\n", "\r", ",",
)  # fmt: skip
BOUNDARY_FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, 1e-38, 1e-6, 1e6, 1e38, float("inf"), float("-inf"),
    float("nan"), 0.9999999, 1.0000001, 50.0, 50.1, 1024.0, -1024.0, 32767.0, 32768.0, 352.5,
)  # fmt: skip


def mutate_bytes(rng: Random, content: bytes, header: int, other: bytes) -> tuple[bytes, str]:
    """Change ``content`` once; say how.

    Args:
        rng: the only source of chance.
        content: not empty.
        header: bytes that three of five changes fall into.
        other: another input, to splice with.
    """
    size = len(content)
    if not size:
        return other[: rng.randrange(64)], "filled with the head of another"
    at = rng.randrange(min(max(header, 1), size)) if rng.random() < 0.6 else rng.randrange(size)
    many = min(size - at, rng.choice((1, 1, 2, 3, 4, 8, 64, 1000)))
    match rng.randrange(14):
        case 0 | 1 | 2:
            bit = rng.randrange(8)
            changed = bytes([content[at] ^ 1 << bit])
            return content[:at] + changed + content[at + 1 :], f"bit {bit} of byte {at} flipped"
        case 3 | 4:
            value = rng.choice((0, 1, 9, 10, 13, 32, 48, 57, 127, 128, 255, rng.randrange(256)))
            return content[:at] + bytes([value]) + content[at + 1 :], f"byte {at} = {value}"
        case 5:
            order, kind = rng.choice("<>"), rng.choice("hHiIqQ")
            width = struct.calcsize(kind)
            number = rng.choice(BOUNDARY_INTS) % (1 << (8 * width - (kind in "hiq")))
            put = struct.pack(f"{order}{kind}", number)
            return (content[:at] + put + content[at + width :])[:size], f"{number} put at {at}"
        case 6:
            put = struct.pack(rng.choice(("<f", ">f", "<d")), rng.choice(BOUNDARY_FLOATS))
            return (content[:at] + put + content[at + len(put) :])[:size], f"float put at {at}"
        case 7 | 8:
            cut = rng.choice((at, rng.randrange(size), size - 1, size - rng.randrange(1, 9)))
            return content[: max(0, cut)], f"cut to {max(0, cut)} of {size} bytes"
        case 9:
            return content[:at] + content[at + many :], f"{many} bytes removed at {at}"
        case 10:
            put = rng.choice((bytes(many), rng.randbytes(many), content[at : at + many], b"\n"))
            return content[:at] + put + content[at:], f"{len(put)} bytes inserted at {at}"
        case 11:
            put = rng.choice((bytes(many), b"\xff" * many, rng.randbytes(many)))
            return content[:at] + put + content[at + many :], f"{many} bytes overwritten at {at}"
        case 12:
            there = rng.randrange(len(other)) if other else 0
            there = rng.choice((there, min(at, len(other))))
            return content[:at] + other[there:], f"from {at} on another input, from {there} on"
        case _:
            tail = rng.choice((b"\0", b"\n", b"\0" * 512, other, content))
            return content + tail, f"{len(tail)} bytes appended"
