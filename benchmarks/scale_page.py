"""The tables of ``docs/scale.md``: arithmetic on figures of one slice, and on assumptions.

The page holds the figures that its tables were computed from; a test computes them again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from gpu_chip import EFFICIENCY, PEAKS

SIDE_PX, SERIES_SLICES, STRIDE_MM = 512, 300, 10.0
RAW_BYTES = SIDE_PX**2 * 2
STORE_PX = 128
VIEWS = 3
"""Of a slice, which the scorer averages unless told otherwise."""

HEADER_BYTES = 10_000
OPENS_PER_S = 1_000.0
"""Of one client: about a millisecond from asking for a file on a share until its first bytes."""

COMPRESSION, COMPRESSED_READ = 2.0, 3.0
"""How much smaller a slice is without loss, and how much longer reading it takes."""

READ = "reading an uncompressed DICOM slice of 512 px"
SCORE = "score_volumes.py, all of it, a DICOM slice of 512 px"
STRIDE = "the same with --stride-mm 10, a slice of the 1 mm series"
TABLE = "results, Parquet, a slice"
JOURNAL = "results, the journal scores.jsonl, a slice"
STORE = "slice store of 128 px, a slice"
BUILD = "building the slice store, a slice"


@dataclass(frozen=True)
class Figures:
    """Of one slice: core milliseconds and bytes."""

    read_ms: float
    score_ms: float
    stride_ms: float
    table_bytes: float
    journal_bytes: float
    store_bytes: float
    build_ms: float


WHAT = dict(
    zip(
        (field.name for field in fields(Figures)),
        (READ, SCORE, STRIDE, TABLE, JOURNAL, STORE, BUILD),
        strict=True,
    )
)


@dataclass(frozen=True)
class Place:
    """Where an archive is scored.

    Attributes:
        name: for a reader.
        cores: that work.
        gb_per_s: from the archive to them.
        clients: that open files at a time.
    """

    name: str
    cores: int
    gb_per_s: float
    clients: int


PLACES = (
    Place("laptop, 4 cores, 1 Gbit/s", 4, 0.11, 1),
    Place("server, 32 cores, 10 Gbit/s", 32, 1.1, 1),
    Place("server, 32 cores, 10 Gbit/s, 8 shards at a time", 32, 1.1, 8),
    Place("10 nodes of 32 cores, archive at 10 GB/s", 320, 10.0, 10),
    Place("100 nodes of 32 cores, 8 shards each, archive at 20 GB/s", 3200, 20.0, 800),
)
ARCHIVES = (1_000, 10_000, 100_000, 1_000_000)
DEADLINES_S = {"within an hour": 3600.0, "a night": 12 * 3600.0, "a week": 7 * 86_400.0}


@dataclass(frozen=True)
class Reading:
    """How an archive is read: whole or with the stride, files compressed or not."""

    strided: bool
    compressed: bool = False

    @property
    def name(self) -> str:
        """For a reader."""
        return f"--stride-mm {STRIDE_MM:g}" if self.strided else "every slice"

    @property
    def share(self) -> float:
        """Of the slices, whose pixels are read."""
        return 1 / STRIDE_MM if self.strided else 1.0

    @property
    def opens(self) -> float:
        """Of files, a slice: for its header, and again for its pixels."""
        return 1 + self.share

    @property
    def moved_bytes(self) -> float:
        """A slice: its header, and its share of pixels."""
        return HEADER_BYTES + self.share * RAW_BYTES / (COMPRESSION if self.compressed else 1.0)

    def core_ms(self, figures: Figures) -> float:
        """Return the core milliseconds of a slice."""
        inflating = self.share * (COMPRESSED_READ - 1) * figures.read_ms * self.compressed
        return (figures.stride_ms if self.strided else figures.score_ms) + inflating

    def seconds(self, figures: Figures, place: Place) -> dict[str, float]:
        """Return what a slice takes of each part of a place, by the part's name."""
        return {
            "the cores": self.core_ms(figures) / 1e3 / place.cores,
            "the link": self.moved_bytes / 1e9 / place.gb_per_s,
            "opening files": self.opens / OPENS_PER_S / place.clients,
        }


READINGS = tuple(Reading(strided, packed) for strided in (False, True) for packed in (False, True))


def assumptions(_: Figures) -> str:
    """Return what is taken for granted, as a list."""
    slices = ARCHIVES[-1] * SERIES_SLICES
    return "\n".join(
        (
            f"1. A series has {SERIES_SLICES} slices of {SIDE_PX} x {SIDE_PX} pixels, 16 bit, "
            f"1 mm apart, a DICOM file each: {SERIES_SLICES * RAW_BYTES / 1e6:.0f} MB of raw "
            f"pixels. {ARCHIVES[-1]:,} of them: {slices:,} files.",
            f"2. Lossless compression makes pixels {COMPRESSION:g} times smaller, and reading a "
            f"slice takes {COMPRESSED_READ:g} times as long as the first figure above. Neither "
            "was measured on an archive; some coders (JPEG 2000) are slower.",
            f"3. A header has {HEADER_BYTES / 1e3:g} KB and is read of every file, with a stride "
            "too: by it a series is found. Then the files whose pixels are wanted are opened "
            "again.",
            f"4. One client opens {OPENS_PER_S:,.0f} files a second of a share. A machine is one "
            "client, or as many as it works on shards at a time, as far as the file server "
            "answers them side by side.",
        )
    )


def costs(figures: Figures) -> str:
    """Return what archives of every size cost, whoever computes."""
    head = (
        *("series", "files", "opens", "opens, stride", "TB", "TB, compressed", "TB, stride"),
        *("core-hours", "core-hours, compressed", "core-hours, stride", "core-hours, both"),
        *("Parquet, GB", "journal, GB", "slice store, TB", "building it, core-hours"),
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    whole, packed, strided, both = READINGS
    for series in ARCHIVES:
        n = series * SERIES_SLICES
        numbers = (
            *(series, n, n * whole.opens, n * strided.opens),
            *(n * reading.moved_bytes / 1e12 for reading in (whole, packed, strided)),
            *(n * one.core_ms(figures) / 3.6e6 for one in (whole, packed, strided, both)),
            *(n * figures.table_bytes / 1e9, n * figures.journal_bytes / 1e9),
            *(n * figures.store_bytes / 1e12, n * figures.build_ms / 3.6e6),
        )
        lines.append(f"| {' | '.join(map(short, numbers))} |")
    return "\n".join(lines)


def waits(figures: Figures) -> str:
    """Return how long every place takes for every archive, and what it waits for."""
    parts = f"cores, {ARCHIVES[0]:,} | link, {ARCHIVES[0]:,} | opens, {ARCHIVES[0]:,}"
    head = " | ".join(f"**{series:,}**" for series in ARCHIVES)
    lines = [
        f"| where | reading | files | {parts} | {head} | waits for |",
        "|" + "---|" * (len(ARCHIVES) + 7),
    ]
    for place in PLACES:
        for reading in READINGS:
            seconds = reading.seconds(figures, place)
            slowest, second = sorted(seconds, key=lambda part: -seconds[part])[:2]
            first = ARCHIVES[0] * SERIES_SLICES
            cells = [clock(first * each_s) for each_s in seconds.values()]
            cells += [clock(series * SERIES_SLICES * seconds[slowest]) for series in ARCHIVES]
            files = "compressed" if reading.compressed else "raw"
            lines.append(
                f"| {place.name} | {reading.name} | {files} | {' | '.join(cells)} "
                f"| {slowest} ({seconds[slowest] / seconds[second]:.1f} x {second}) |"
            )
    return "\n".join(lines)


def enough(figures: Figures) -> str:
    """Return the first place that scores an archive in time."""
    head = " | ".join(DEADLINES_S)
    lines = [f"| series | reading | {head} |", "|" + "---|" * (len(DEADLINES_S) + 2)]
    for series in ARCHIVES:
        for reading in (Reading(False), Reading(True)):
            cells = []
            for deadline_s in DEADLINES_S.values():
                fit = (
                    place.name
                    for place in PLACES
                    if series * SERIES_SLICES * max(reading.seconds(figures, place).values())
                    <= deadline_s
                )
                cells.append(next(fit, "none of these"))
            lines.append(f"| {series:,} | {reading.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


VGG_FLOP, VGG_PX = 30.9e9, 224
NETWORKS = {"the paper's": (1.0, 128), "the package's scorer": (0.25, 64)}
CHIP, CHIP_BYTES = "H200", 141e9


def gpu(figures: Figures) -> str:
    """Return what a GPU would take for the largest archive."""
    reached = PEAKS[CHIP].tf32 * EFFICIENCY["tf32"]
    slices = ARCHIVES[-1] * SERIES_SLICES
    head = (
        *("network", "width", "px", "GFLOP a slice and view", "GPU-hours, 1 view"),
        *(f"{VIEWS} views", "slices/s, 1 view", "their pixels, GB/s", "cores that only read them"),
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, (width, side_px) in NETWORKS.items():
        flop = VGG_FLOP * width**2 * (side_px / VGG_PX) ** 2
        hours, rate = slices * flop / reached / 3600, reached / flop
        needed = (rate * RAW_BYTES / 1e9, rate * figures.read_ms / 1e3)
        numbers = (flop / 1e9, hours, VIEWS * hours, rate, *needed)
        lines.append(
            f"| {name} | {width:g} | {side_px} | {' | '.join(short(n) for n in numbers)} |"
        )
    return "\n".join(lines)


def training(figures: Figures) -> str:
    """Return what the slice store means for a training of the paper's batch, g = 12, m = 8."""
    step, series = 12 * 8, SERIES_SLICES * figures.store_bytes
    found = {
        "slices drawn in a step": step,
        "slices drawn in the paper's 1,500 iterations": 1500 * step,
        "read in a step, MB, where nothing is in the page cache": step * figures.store_bytes / 1e6,
        "steps a second from a disk of 100,000 random reads a second": 1e5 / step,
        "steps a second from a hard disk of 200": 200 / step,
        f"series in half the memory of a GPU of {CHIP_BYTES / 1e9:.0f} GB": CHIP_BYTES / 2 / series,
        "store of 10,000 series, GB": 1e4 * series / 1e9,
    }
    return "\n".join(
        ["| what | value |", "|---|---|", *(f"| {k} | {short(v)} |" for k, v in found.items())]
    )


def short(number: float) -> str:
    """Return four digits, one more than figures have: an edit of those shows; or all above 999."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def clock(seconds: float) -> str:
    """Return a duration for a reader."""
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def shown(figures: Figures) -> str:
    """Return the figures as the table of the page from which ``read_figures`` reads them."""
    lines = ["| figure | value |", "|---|---|"]
    for name, what in WHAT.items():
        unit, value = "bytes" if name.endswith("bytes") else "core ms", getattr(figures, name)
        lines.append(
            f"| {what} | {value:.0f} {unit} |"
            if value >= 1000
            else f"| {what} | {value:.3g} {unit} |"
        )
    return "\n".join(lines)


def read_figures(page: str) -> Figures:
    """Return the figures that a page states."""
    found = dict(re.findall(r"^\| (.+?) \| ([\d.]+) (?:bytes|core ms) \|$", page, re.MULTILINE))
    return Figures(**{name: float(found[what]) for name, what in WHAT.items()})


MEASURED = "measured"
BLOCKS: Mapping[str, Callable[[Figures], str]] = {
    "figures": shown,
    "assumptions": assumptions,
    "costs": costs,
    "waits": waits,
    "enough": enough,
    "gpu": gpu,
    "training": training,
}


def renewed(page: str, figures: Figures, measured: str | None = None) -> str:
    """Return a page whose blocks are computed from ``figures``.

    Args:
        page: with all blocks, whatever they hold.
        figures: of one slice.
        measured: when, where and with what they were; None: as the page says.
    """
    figures = read_figures(shown(figures))  # as many digits as a reader sees
    texts = {name: text(figures) for name, text in BLOCKS.items()}
    if measured is not None:
        texts[MEASURED] = measured
    for name, text in texts.items():
        begin, end = f"<!-- scale.py: {name} -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        assert rest, f"{name}: no such block"
        page = f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}"
    return page
