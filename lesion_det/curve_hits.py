"""Which lesions a training found at each of its evaluations, kept in its ``metrics.jsonl``.

One bit a lesion, so that a claim about the course of a training can be tested by patients and
seeds like one about its end.

Shapes:
    L: lesions of the validation files, as ``lesion_ranks`` orders them.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from jaxtyping import Bool


def hits_to_text(hits: Bool[np.ndarray, " L"]) -> str:
    """Return the bits as base64; 4,889 lesions take 816 characters."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode("ascii")


def text_to_hits(text: str, num_lesions: int) -> Bool[np.ndarray, " L"]:
    """Return the bits of ``hits_to_text``.

    Raises:
        ValueError: not base64, or of another number of lesions.
    """
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as error:
        raise ValueError(f"hits {text[:20]!r}: not base64 ({error})") from error
    if len(data) != -(-num_lesions // 8):
        raise ValueError(f"hits of {8 * len(data)} lesions, expected {num_lesions}")
    return np.unpackbits(data, count=num_lesions).astype(np.bool_)
