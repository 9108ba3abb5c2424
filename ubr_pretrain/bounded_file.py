"""Files that are read whole: a ceiling for each kind, known before a byte of it is in memory."""

from __future__ import annotations

import os
from pathlib import Path

MAX_TABLE_BYTES = 1 << 28
"""Of a CSV. DeepLesion's whole table has 8 MB; one that is larger than this is something else."""

MAX_COCO_BYTES = 1 << 30
"""Of boxes as JSON. The whole of DeepLesion is 15 MB, and a run's detections on it 50 MB."""

MAX_NOTE_BYTES = 1 << 24
"""Of a JSON that describes one file or one run."""


def require_at_most(path: Path, max_bytes: int) -> None:
    """Refuse a file that is larger than its kind can be; one that is absent is its reader's.

    Raises:
        ValueError: naming the file, its size and the limit.
    """
    if os.path.isfile(path) and (size := path.stat().st_size) > max_bytes:  # noqa: PTH113
        raise ValueError(f"{path}: E-SIZE-LIMIT  {size:,} bytes, at most {max_bytes:,} are read")
