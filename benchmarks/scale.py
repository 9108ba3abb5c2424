"""What a hospital archive costs: figures of one slice, measured here, and arithmetic on them.

    python benchmarks/scale.py                                  # the rows alone
    python benchmarks/scale.py --results benchmarks/results.json --page docs/scale.md

The second takes the rows from what ``bench.py`` wrote and renews the tables of the page. The page
holds the figures that its tables were computed from; a test computes them again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from table import Row, to_markdown

SIDE_PX, SERIES_SLICES, STRIDE_MM = 512, 300, 10.0
RAW_BYTES = SIDE_PX**2 * 2
STORE_PX = 128

READ = "reading an uncompressed DICOM slice of 512 px"
SCORE = "score_volumes.py, all of it, a DICOM slice of 512 px"
STRIDE = "the same with --stride-mm 10, a slice of the 1 mm series"
TABLE = "results, Parquet, a slice"
STORE = "slice store of 128 px, a slice"
BUILD = "building the slice store, a slice"


@dataclass(frozen=True)
class Figures:
    """Of one slice: core milliseconds and bytes."""

    read_ms: float
    score_ms: float
    stride_ms: float
    table_bytes: float
    store_bytes: float
    build_ms: float


WHAT = dict(
    zip((f.name for f in fields(Figures)), (READ, SCORE, STRIDE, TABLE, STORE, BUILD), strict=True)
)


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
        spec = InputSpec(size_px=STORE_PX)
        build_ms = ms(lambda: build_slice_store(folder / "store", entries, spec, min_slices=1))
        stored = sum(file.stat().st_size for file in (folder / "store").rglob("*.npy"))
    return [
        Row(READ, read_ms, theirs_ms, "core ms", "SimpleITK"),
        Row(SCORE, score_ms, read_ms, "core ms", "reading alone"),
        Row(STRIDE, stride_ms, score_ms, "core ms", "every slice", 0.25),
        Row(TABLE, tables / slices, RAW_BYTES, "bytes", "its voxels"),
        Row(STORE, stored / slices, RAW_BYTES, "bytes", "its voxels"),
        Row(BUILD, build_ms, read_ms, "core ms", "reading alone"),
    ]


def core_seconds(work: Callable[[], object]) -> float:
    """Return what ``work`` took of all cores, processes that it started included."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


COMPRESSION = 2.0
"""Assumed of lossless compression; a CT slice goes down to 40 to 55 %."""


@dataclass(frozen=True)
class Place:
    """Where an archive is scored.

    Attributes:
        name: for a reader.
        cores: that work.
        gb_per_s: from the archive to them.
    """

    name: str
    cores: int
    gb_per_s: float


PLACES = (
    Place("laptop, 4 cores, 1 Gbit/s", 4, 0.11),
    Place("server, 32 cores, 10 Gbit/s", 32, 1.1),
    Place("10 nodes of 32 cores, archive at 10 GB/s", 320, 10.0),
    Place("100 nodes of 32 cores, archive at 20 GB/s", 3200, 20.0),
)
ARCHIVES = (1_000, 10_000, 100_000, 1_000_000)


def costs(figures: Figures) -> str:
    """Return what archives of every size cost, whoever computes."""
    lines = [
        "| series | slices | raw, TB | compressed, TB | core-hours | with --stride-mm 10 "
        "| TB read then, raw | results, GB | slice store, TB | building it, core-hours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for series in ARCHIVES:
        slices = series * SERIES_SLICES
        raw_tb = slices * RAW_BYTES / 1e12
        lines.append(
            f"| {series:,} | {slices:,} | {raw_tb:.3g} | {raw_tb / COMPRESSION:.3g} "
            f"| {hours(slices, figures.score_ms)} | {hours(slices, figures.stride_ms)} "
            f"| {raw_tb / STRIDE_MM:.3g} | {slices * figures.table_bytes / 1e9:.3g} "
            f"| {slices * figures.store_bytes / 1e12:.3g} | {hours(slices, figures.build_ms)} |"
        )
    return "\n".join(lines)


def hours(slices: int, each_ms: float) -> str:
    """Return core-hours for a reader."""
    return (
        f"{slices * each_ms / 3.6e6:,.3g}"
        if slices * each_ms < 3.6e9
        else f"{slices * each_ms / 3.6e6:,.0f}"
    )


def waits(figures: Figures) -> str:
    """Return how long every place takes for every archive, and what it waits for."""
    head = " | ".join(f"{series:,}" for series in ARCHIVES)
    lines = [
        f"| where | reading | {head} | waits for |",
        "|---|---|" + "---|" * (len(ARCHIVES) + 1),
    ]
    for place in PLACES:
        for name, each_ms, part in (
            ("every slice", figures.score_ms, 1.0),
            ("--stride-mm 10", figures.stride_ms, 1 / STRIDE_MM),
        ):
            core_s = each_ms / 1e3 / place.cores
            link_s = RAW_BYTES * part / 1e9 / place.gb_per_s
            cells = [clock(series * SERIES_SLICES * max(core_s, link_s)) for series in ARCHIVES]
            slower, faster = max(core_s, link_s), min(core_s, link_s)
            waits_for = f"{'cores' if core_s > link_s else 'the link'} ({slower / faster:.1f} x)"
            lines.append(f"| {place.name} | {name} | {' | '.join(cells)} | {waits_for} |")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Return a duration for a reader."""
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def shown(figures: Figures) -> str:
    """Return the figures as the table of the page from which ``read_figures`` reads them."""
    lines = ["| figure | value |", "|---|---|"]
    for name, what in WHAT.items():
        unit = "bytes" if name.endswith("bytes") else "core ms"
        lines.append(f"| {what} | {getattr(figures, name):.4g} {unit} |")
    return "\n".join(lines)


def read_figures(page: str) -> Figures:
    """Return the figures that a page states."""
    found = dict(re.findall(r"^\| (.+?) \| ([\d.e+]+) (?:bytes|core ms) \|$", page, re.MULTILINE))
    return Figures(**{name: float(found[what]) for name, what in WHAT.items()})


BLOCKS: dict[str, Callable[[Figures], str]] = {"figures": shown, "costs": costs, "waits": waits}


def renewed(page: str, figures: Figures) -> str:
    """Return a page whose blocks are computed from ``figures``."""
    figures = read_figures(shown(figures))  # as many digits as a reader sees
    for name, text in BLOCKS.items():
        begin, end = f"<!-- scale.py: {name} -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        assert rest, f"{name}: no such block"
        page = f"{before}{begin}{text(figures)}\n{end}{rest.partition(end)[2]}"
    return page


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
    recorded = json.loads(arguments.results.read_text("utf-8"))["rows"]["scale"]
    found = {row["what"]: row["ours"] for row in recorded}
    figures = Figures(**{name: found[what] for name, what in WHAT.items()})
    page = renewed(arguments.page.read_text("utf-8"), figures)
    arguments.page.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
