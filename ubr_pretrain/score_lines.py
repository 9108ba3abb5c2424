"""What scoring prints: a line a volume or slice, and how far an archive has come.

Records are those of the journal, so a volume that was scored by an earlier run prints alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

VOLUME_HEADING = (
    f"{'volume':<24} {'slices':>6} {'step':>8}  {'direction':<20} {'r':>6}  "
    f"{'body part':<22} {'coordinate':>13}  anomalies (slices)"
)
IMAGE_HEADING = f"{'image':<32} {'score':>8} {'+-':>6}  {'coordinate':>10} {'+-':>5}  zone"
SECONDS_BETWEEN_LINES = 30.0
"""Where no terminal shows a bar."""

KINDS = (("volumes", "volumes"), ("images", "slices"))
"""Of records, and what one of them is called."""

Item = TypeVar("Item")


def count_words(scored: Mapping[Any, int], refused: Mapping[Any, int]) -> str:
    """Return how many volumes and slices were scored, and how many of either were refused.

    Args:
        scored: by kind.
        refused: likewise.
    """
    total = {kind: scored.get(kind, 0) + refused.get(kind, 0) for kind, _ in KINDS}
    told = [
        f"{scored.get(kind, 0)} {word}"
        for kind, word in KINDS
        if total[kind] or (kind == "volumes" and not any(total.values()))
    ]
    return f"{' and '.join(told)} scored, {sum(refused.values())} refused"


def volume_line(record: Mapping[str, Any]) -> str:
    """Return one line: what a scan shows, or why it was refused."""
    name = f"{record['volume']:<24}"
    if "code" in record:
        return f"{name} refused: {record['code']}  {record['cause']}"
    step = f"{record['spacing_mm_zyx'][0]:.2f} mm"
    direction = record["direction"].replace("_", " ")
    r = "-" if record["r"] is None else f"{record['r']:.3f}"
    part = record["body_part"]
    body_part = "-" if part is None else f"{part['body_part_examined']} {part['confidence']:.0%}"
    coordinate = record["slices"]["coordinate"]
    span = "-" if coordinate is None else f"{coordinate[0]:.0f} to {coordinate[-1]:.0f}"
    odd = ", ".join(
        f"{a['code']} ({a['first_slice']}-{a['last_slice']})" for a in record["anomalies"]
    )
    return (
        f"{name} {record['num_slices']:>6} {step:>8}  {direction:<20} {r:>6}  "
        f"{body_part:<22} {span:>13}  {odd or '-'}"
    )


def volume_details(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the line had no room for: every anomaly in words, and the notes of the reader."""
    for odd in record.get("anomalies", ()):
        where = f"slices {odd['first_slice']}-{odd['last_slice']}"
        yield f"  {odd['code']} in {where}: {odd['message']}"
    for note in record.get("notes", ()):
        yield f"  note: {note}"


def image_line(record: Mapping[str, Any]) -> str:
    """Return one line: where a slice lies, or why it was refused."""
    name = f"{record['image']:<32}"
    if "code" in record:
        return f"{name} refused: {record['code']}  {record['cause']}"
    score_sd, coordinate = _number(record["score_sd"], 3), _number(record["coordinate"], 1)
    spread = _number(record["coordinate_sd"], 1)
    return (
        f"{name} {record['score']:>8.3f} {score_sd:>6}  {coordinate:>10} {spread:>5}  "
        f"{record['zone'] or '-'}"
    )


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def in_progress(items: Iterable[Item], count: int | None, what: str) -> Iterator[Item]:
    """Yield the items one by one under a bar on a terminal, else with a line now and then.

    The bar and the lines go to standard error, results to standard output.

    Args:
        items: of the stream.
        count: how many there will be; None: nobody knows yet.
        what: they are.
    """
    if not sys.stderr.isatty() or (count is not None and count < 2):
        yield from _with_lines(items, count, what)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # what is printed to a terminal goes above the bar; what is printed to a file stays in the file
    with Progress(
        *columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), transient=True
    ) as bar:
        yield from bar.track(items, total=count)


def _with_lines(items: Iterable[Item], count: int | None, what: str) -> Iterator[Item]:
    start = last = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if number and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            line = f"{what}: {number}, {number / (now - start):.3g} a second"
            if count is not None:
                left_min = (now - start) / number * (count - number) / 60
                line = f"{what}: {number} of {count}, about {left_min:.0f} min left"
            print(line, file=sys.stderr, flush=True)
        yield item
