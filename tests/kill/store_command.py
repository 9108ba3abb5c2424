"""A slice store by itself, as a command: DATA STORE."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Build the store of a folder of scans."""
    from ubr_pretrain.ct import InputSpec
    from ubr_pretrain.slice_store import build_slice_store
    from ubr_pretrain.volumes import find_volumes

    data, store = map(Path, argv)
    spec = InputSpec(size_px=32, fov_mm=512.0)
    build_slice_store(store, find_volumes([data]), spec, min_slices=4, threads=2, say=print)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
