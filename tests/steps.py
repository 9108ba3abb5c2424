"""How many steps a piece of work takes: counted, not timed, so a busy machine is no fault.

A step is a line that Python executes in our packages or in ``pathlib``, every turn of a loop
counted, those of comprehensions too.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

OURS = tuple(
    f"{Path(__file__).resolve().parents[1] / name}/"
    for name in ("ubr_pretrain", "converters", "lesion_det")
)


def steps(work: Callable[[], object]) -> int:
    """Return the steps of a piece of work, those of threads that it starts included."""
    count = 0
    known: dict[str, bool] = {}

    def at_line(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return at_line

    def at_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in known:
            known[name] = name.startswith(OURS) or name.endswith(("/pathlib.py", "/fnmatch.py"))
        return at_line if known[name] else None

    before = sys.gettrace()
    threading.settrace(at_call)
    sys.settrace(at_call)
    try:
        work()
    finally:
        sys.settrace(before)
        threading.settrace(before)  # type: ignore[arg-type]
    return count


def growth(of: Callable[[int], Callable[[], object]], few: int = 40, times: int = 4) -> float:
    """Return how often the steps of ``few`` go into those of ``times * few``, over ``times``.

    1.0: an item costs the same however many there are; ``times``: each looks at all of the others.

    Args:
        of: makes so many items and returns the work on them.
        few: items.
        times: as many.
    """
    start, once, often = (steps(of(count)) for count in (few // 2, few, times * few))
    return (often - once) / (once - start) / (2 * (times - 1))
