"""JSON objects that say each thing once: of a key given twice, readers keep the last in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def distinct_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of its pairs, as ``json.loads(..., object_pairs_hook=distinct_keys)``.

    Raises:
        ValueError: naming the first key that occurs more than once.
    """
    entry = dict(pairs)
    if len(entry) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in entry if names.count(name) > 1)
        raise ValueError(f"key {twice[:80]!r} occurs more than once in one object")
    return entry


def require_distinct_keys(data: bytes) -> None:
    """Refuse a valid JSON text in which an object, at any depth, has one key twice.

    Raises:
        ValueError: as ``distinct_keys``.
    """

    def nothing_kept(pairs: Sequence[tuple[str, Any]]) -> None:
        distinct_keys(pairs)

    # Numbers stay text: they are read elsewhere, and may have more digits than int() accepts.
    json.loads(data, object_pairs_hook=nothing_kept, parse_int=str, parse_float=str)
