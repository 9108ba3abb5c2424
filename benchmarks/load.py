"""What many things cost each command: time per item, memory, open files, the first word.

    python benchmarks/load.py                              # full size: the better part of an hour
    python benchmarks/load.py --only train foreign --scale 0.1
    python benchmarks/load.py --out load                   # load.md and load.json besides

10,000 small volumes in one tree, a series of 3,000 slices, a folder with 100,000 foreign files, a
table of 100,000 rows, 100,000 images with detections, a comparison of 100 cells. Every command runs
in a process of its own with a hundredth, a tenth and all of them. What grows with n as c + a n^p
has p = 1 where an item costs the same however many there are: the three give p without c.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import load_inputs
from table import Row
from watched import Cost, watch

AIM = 1.25
"""For ms an item of all against those of a tenth, and for the memory."""

LEAST_S = 0.3
"""Core time of the items below which it is not told from that of the start."""

PARTS = (0.01, 0.1, 1.0)

Command = tuple[str, list[str], tuple[int, ...]]
"""What it does, what follows ``python -m``, and the exit codes that it may end with."""


@dataclass(frozen=True)
class Case:
    """Commands on many things.

    Attributes:
        what: there are many of.
        full: how many.
        prepare: makes so many in a folder, returns the commands in their order.
    """

    what: str
    full: int
    prepare: Callable[[Path, int], list[Command]]


@dataclass(frozen=True)
class Load:
    """What one command cost with a hundredth, a tenth and all of the items.

    Attributes:
        command: what it does.
        what: the items are.
        counts: of the items, rising.
        costs: of every count.
    """

    command: str
    what: str
    counts: tuple[int, ...]
    costs: tuple[Cost, ...]

    @property
    def ms_an_item(self) -> tuple[float, float] | None:
        """Core time of a further item up to a tenth, and beyond; None: lost in the start."""
        (few, tenth, every), seconds = self.counts, [cost.core_s for cost in self.costs]
        if seconds[2] - seconds[1] < LEAST_S:
            return None
        first = (seconds[1] - seconds[0]) / (tenth - few)
        return 1e3 * first, 1e3 * (seconds[2] - seconds[1]) / (every - tenth)

    @property
    def exponent(self) -> float | None:
        """Of the growth with the number of items; None where the first items cost nothing."""
        per_item = self.ms_an_item
        if per_item is None or self.costs[1].core_s - self.costs[0].core_s < LEAST_S / 3:
            return None
        few, tenth, every = self.counts
        ratio = per_item[1] * (every - tenth) / (per_item[0] * (tenth - few))
        return math.log(ratio) / math.log(every / tenth)


def score(folder: Path, count: int) -> list[Command]:
    data = load_inputs.write_volumes(folder / "data", count)
    flags = [str(data), *_scorer(folder), "--out", str(folder / "out")]
    command = ["ubr_pretrain.score_volumes", *flags]
    return [("score_volumes.py", command, (0,)), ("the same again", command, (0,))]


def shard(folder: Path, count: int) -> list[Command]:
    data = load_inputs.write_volumes(folder / "data", count)
    flags = [str(data), *_scorer(folder), "--out", str(folder / "out"), "--shard", "1/1"]
    command = ["ubr_pretrain.score_volumes", *flags]
    gather = ["ubr_pretrain.gather_scores", str(folder / "out")]
    return [
        ("score_volumes.py --shard", command, (0,)),
        ("the same again", command, (0,)),
        ("gather_scores.py", [*gather, "--format", "parquet", "csv", "json"], (0,)),
    ]


def series(folder: Path, count: int) -> list[Command]:
    data = load_inputs.write_dicom(folder / "series", count)
    regressor = str(load_inputs.write_regressor(folder / "ubr.safetensors"))
    flags = [str(data), "--checkpoint", regressor, "--views", "1", "--pages"]
    command = ["ubr_pretrain.score_volumes", *flags, "--out", str(folder / "out")]
    return [("score_volumes.py --pages", command, (0,)), ("the same again", command, (0,))]


def foreign(folder: Path, count: int) -> list[Command]:
    data = load_inputs.write_foreign(folder / "data", count)
    flags = [str(data), *_scorer(folder), "--out", str(folder / "out")]
    return [
        ("score_volumes.py", ["ubr_pretrain.score_volumes", *flags], (0,)),
        ("train_ubr.py", _training(data, folder / "run"), (0,)),
    ]


def train(folder: Path, count: int) -> list[Command]:
    data = load_inputs.write_volumes(folder / "data", count)
    more = ("--holdout_fraction", "0.1", "--store", str(folder / "store"))
    return [
        ("train_ubr.py", _training(data, folder / "run", *more), (0,)),
        ("another with its store", _training(data, folder / "run2", *more), (0,)),
    ]


def table(folder: Path, count: int) -> list[Command]:
    listed, images = load_inputs.write_lesion_table(folder, count)
    coco = folder / "coco"
    files = [str(coco / f"{split}.json") for split in ("train", "val", "test")]
    convert = ["converters.deeplesion_to_coco", str(listed), "--images", str(images)]
    audit = ["converters.audit_coco", *files, "--table", str(listed), "--images", str(images)]
    return [
        (
            "deeplesion_to_coco.py",
            [*convert, "--out", str(coco), "--allow-other-counts"],
            (0,),
        ),
        ("audit_coco.py", [*audit, "--out", str(folder / "audit")], (0,)),
    ]


def images(folder: Path, count: int) -> list[Command]:
    truth, results = load_inputs.write_detections(folder / "data", count)
    flags = ["--predictions", str(results), "--coco", str(truth), "--out", str(folder / "out")]
    return [("evaluate_det.py", ["lesion_det.evaluate_det", *flags], (0,))]


def cells(folder: Path, count: int) -> list[Command]:
    flags = load_inputs.write_comparison(folder, count)
    return [("compare_inits.py", ["lesion_det.compare_inits", *flags], (0,))]


CASES = {
    "score": Case("small volumes in one tree", 10_000, score),
    "shard": Case("small volumes in one tree", 10_000, shard),
    "series": Case("slices of one DICOM series", 3_000, series),
    "foreign": Case("foreign files in one folder", 100_000, foreign),
    "train": Case("small volumes in one tree", 10_000, train),
    "table": Case("rows of DL_info.csv, a PNG each", 100_000, table),
    "images": Case("images with 5 detections", 100_000, images),
    "cells": Case("finished cells", 200, cells),
}


def _scorer(folder: Path) -> list[str]:
    regressor = load_inputs.write_regressor(folder / "ubr.safetensors")
    return ["--checkpoint", str(regressor), "--views", "1", "--pictures", "false"]


def _training(data: Path, out: Path, *more: str) -> list[str]:
    flags = ["--data", str(data), "--out", str(out), "--preset", "demo", "--device", "cpu"]
    small = ["--width", "0.1", "--g", "4", "--m", "4", "--iterations", "20", "--eval_every", "20"]
    return ["ubr_pretrain.train_ubr", *flags, *small, *more]


def measure(case: Case, scale: float = 1.0) -> list[Load]:
    """Run the commands of a case with a hundredth, a tenth and all of the items."""
    counts = tuple(
        max(least, round(case.full * scale * part))
        for least, part in zip((2, 4, 8), PARTS, strict=True)
    )
    costs: dict[int, list[Cost]] = {}
    names: dict[int, str] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            for place, (what, command, codes) in enumerate(case.prepare(Path(name), count)):
                cost = watch(["-m", *command], may_end_with=codes)
                costs.setdefault(place, []).append(cost)
                names[place] = what
    return [
        Load(names[place], case.what, counts, tuple(of_command))
        for place, of_command in costs.items()
    ]


def to_page(loads: Sequence[Load]) -> str:
    """Return the loads as a table."""
    heads = ("command", "items", "ms an item", "of them at first", "n^p", "MB", "MB at n/10")
    heads += ("files open", "first line", "in all")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for load in loads:
        first, last = load.ms_an_item or (None, None)
        _, tenth, every = load.costs
        cells = (
            load.command,
            f"{load.counts[-1]:,} {load.what}",
            _number(last, ".3g"),
            _number(first, ".3g"),
            _number(load.exponent, ".2f"),
            f"{every.peak_mb:.0f}",
            f"{tenth.peak_mb:.0f}",
            str(every.open_files),
            f"{every.first_line_s:.1f} s",
            f"{every.seconds:.1f} s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def rows() -> list[Row]:
    """Return what an item costs among a tenth of all items, against a hundredth of them."""
    return [row for case in CASES.values() for row in to_rows(measure(case, 0.1))]


def to_rows(loads: Sequence[Load]) -> Iterator[Row]:
    """Yield the comparisons of the last items with the first."""
    for load in loads:
        what = f"{load.command}, {load.counts[-1]:,} {load.what}"
        against = f"up to {load.counts[1]:,}"
        if load.ms_an_item is not None:
            first, last = load.ms_an_item
            yield Row(f"a further one: {what}", last, first, "core ms", against, AIM)
        _, tenth, every = load.costs
        note = f"{every.open_files} files open at once; said something after "
        note += f"{every.first_line_s:.1f} of {every.seconds:.1f} s"
        yield Row(f"memory: {what}", every.peak_mb, tenth.peak_mb, "MB", against, None, note)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where a folder is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="of the full sizes")
    parser.add_argument("--out", type=Path, help="folder of load.md and load.json")
    a = parser.parse_args(argv)
    loads: list[Load] = []
    for name in a.only:
        loads += measure(CASES[name], a.scale)
        print(to_page(loads), flush=True)
        if a.out is not None:
            a.out.mkdir(parents=True, exist_ok=True)
            (a.out / "load.md").write_text(to_page(loads), encoding="utf-8")
            record = [
                {**asdict(load), "ms_an_item": load.ms_an_item, "exponent": load.exponent}
                for load in loads
            ]
            (a.out / "load.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
