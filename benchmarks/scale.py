"""What a hospital archive costs: figures of one slice, measured here, and arithmetic on them.

    python benchmarks/scale.py                                  # the rows alone
    python benchmarks/scale.py --results benchmarks/results.json --page docs/scale.md

The second takes the rows from what ``bench.py`` wrote and renews what ``scale_page.py`` computes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import measured_on
from scale_page import (
    BUILD,
    JOURNAL,
    RAW_BYTES,
    READ,
    SCORE,
    STORE,
    STORE_PX,
    STRIDE,
    STRIDE_MM,
    TABLE,
    WHAT,
    Figures,
    renewed,
)
from table import Row, to_markdown


def rows() -> list[Row]:
    """Return the figures against what they can be compared with, in core time of one thread."""
    import torch
    from store import NUM_FILES, read, write_series

    from ubr_pretrain.ct import InputSpec
    from ubr_pretrain.score_volumes import main as score_volumes
    from ubr_pretrain.slice_store import build_slice_store
    from ubr_pretrain.volumes import find_volumes

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "archive"
        data.mkdir()
        for number in range(2):
            write_series(data / f"series{number}", number)
        slices = 2 * NUM_FILES
        entries = find_volumes([data])

        def scored(out: str, *more: str) -> None:
            flags = ["--out", str(folder / out), "--format", "parquet", "--pictures", "false"]
            assert score_volumes([str(data), *flags, *more]) == 0

        def ms(work: Callable[[], object]) -> float:
            return 1e3 * core_seconds(work) / slices

        scored("warm")
        read_ms = ms(lambda: [entry.read() for entry in entries])
        theirs_ms = ms(lambda: [read(one) for one in sorted(data.iterdir())])
        score_ms = ms(lambda: scored("whole"))
        stride_ms = ms(lambda: scored("strided", "--stride-mm", f"{STRIDE_MM:g}"))
        tables = sum(file.stat().st_size for file in (folder / "whole").rglob("*.parquet"))
        journal = (folder / "whole" / "scores.jsonl").stat().st_size
        spec = InputSpec(size_px=STORE_PX)
        build_ms = ms(lambda: build_slice_store(folder / "store", entries, spec, min_slices=1))
        stored = sum(file.stat().st_size for file in (folder / "store").rglob("*.npy"))
    return [
        Row(READ, read_ms, theirs_ms, "core ms", "SimpleITK"),
        Row(SCORE, score_ms, read_ms, "core ms", "reading alone"),
        Row(STRIDE, stride_ms, score_ms, "core ms", "every slice", 0.25),
        Row(TABLE, tables / slices, RAW_BYTES, "bytes", "its voxels"),
        Row(JOURNAL, journal / slices, tables / slices, "bytes", "Parquet"),
        Row(STORE, stored / slices, RAW_BYTES, "bytes", "its voxels"),
        Row(BUILD, build_ms, read_ms, "core ms", "reading alone"),
    ]


def core_seconds(work: Callable[[], object]) -> float:
    """Return what ``work`` took of all cores, processes that it started included."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rows, or renew the page from recorded ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="results.json of bench.py")
    parser.add_argument("--page", type=Path, help="the page to renew, with --results")
    arguments = parser.parse_args(argv)
    if not (arguments.results and arguments.page):
        print(to_markdown(rows()))
        return 0
    record = json.loads(arguments.results.read_text("utf-8"))
    found = {row["what"]: row["ours"] for row in record["rows"]["scale"]}
    figures = Figures(**{name: found[what] for name, what in WHAT.items()})
    page = renewed(arguments.page.read_text("utf-8"), figures, f"Measured {measured_on(record)}")
    arguments.page.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
