"""Numbers as files of every program write them; Python alone reads more than those."""

from __future__ import annotations


def plain_float(word: str) -> float:
    """Return the number that a word of a file is.

    Raises:
        ValueError: no number, or one that only Python takes for one: 1_000, other scripts' digits.
    """
    return float(_plain(word))


def plain_int(word: str) -> int:
    """Return the whole number that a word of a file is.

    Raises:
        ValueError: as for `plain_float`.
    """
    return int(_plain(word))


def _plain(word: str) -> str:
    if "_" in word or not word.isascii():
        raise ValueError(f"{word!r} is no number")
    return word
