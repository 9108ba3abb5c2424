"""Files of half a million small entries are read without a search for garbage among them.

Python's collector looks at all living containers again and again while their number grows, which
was more than half of the time; what a reader makes is kept until it returns.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_left() -> Iterator[None]:
    """Leave cyclic garbage alone for a while; as a decorator, while the function runs."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
