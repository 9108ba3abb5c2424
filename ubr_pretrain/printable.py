"""Words from a file, fit for one line of a terminal, a log or a page."""

from __future__ import annotations

MAX_SHOWN = 500
"""Characters that are shown: a damaged file may hold thousands."""


def printable(text: str, most: int = MAX_SHOWN) -> str:
    """Return ``text`` with everything escaped that would break a line, and cut at ``most``."""
    cut = text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
