"""The comparison as Markdown (per cent) and as CSV (fractions of 1, as in the JSON)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from lesion_det.breakdown import KIND_WORDS
from lesion_det.claims import ClaimVerdict
from lesion_det.comparison import Comparison
from lesion_det.report_words import NONE, bounds, points, progress, spread_text
from lesion_det.significance import Interval, PairDifference
from ubr_pretrain.spreadsheet import harmless

MAIN_COLUMNS = ("top-5 recall", "FROC mean", "AP50", "AP")

UNIT = "fraction of 1"
"""Of every recall, sensitivity, precision and difference in the CSV files."""


def markdown_table(comparison: Comparison) -> str:
    """Return the main table and the verdicts: mean and sd over seeds, intervals, who is missing."""
    lines = [
        "| start | seeds | " + " | ".join(MAIN_COLUMNS) + " | 95 % interval of top-5 recall |",
        "|---|---|" + "---|" * (len(MAIN_COLUMNS) + 1),
    ]
    for arm in comparison.arms:
        name = _plain(arm.arm)
        if arm.not_run:
            blank = " | ".join([NONE] * len(MAIN_COLUMNS))
            lines.append(f"| {name} | not run | {blank} | {_plain(arm.not_run)} |")
            continue
        cells = [spread_text(arm.spreads.get(column)) for column in MAIN_COLUMNS]
        seeds = f"{len(arm.finished)} of {len(arm.cells)}"
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} | {_plain(bounds(arm.pooled))} |")
    lines += ["", "In per cent; mean ± standard deviation over seeds. Differences are in points."]
    if state := progress(comparison):
        lines += ["", f"{state[0].upper()}{state[1:]}."]
    early = [claim for point in comparison.curve_points for claim in point.claims]
    if comparison.claims or comparison.untested:
        lines += ["", "| claim | verdict | difference | why |", "|---|---|---|---|"]
        lines += [_verdict_line(claim) for claim in (*comparison.claims, *early)]
        for words, reason in comparison.untested.items():
            lines.append(f"| {_plain(words)} | not tested | {NONE} | {_plain(reason)} |")
    if comparison.power is not None:
        lines += ["", f"What this design can see: {comparison.power.words}."]
    return "\n".join(lines) + "\n"


def _verdict_line(claim: ClaimVerdict) -> str:
    difference = points(claim.difference)
    return f"| {_plain(claim.claim)} | {claim.verdict} | {difference} | {_plain(claim.reason)} |"


def _plain(text: str) -> str:
    """Return text that neither ends a column nor is markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def cells_csv(comparison: Comparison) -> str:
    """Return one row a cell, finished or not; numbers are empty where they are undefined."""
    names = next((list(c.metrics.scalars()) for c in comparison.cells if c.metrics), [])
    header = ["arm", "seed", "label_fraction", "status", "reason", "seconds", "unit", *names]
    rows: list[list[object]] = [
        [arm.arm, "", "", "not run", arm.not_run, "", UNIT, *[""] * len(names)]
        for arm in comparison.arms
        if arm.not_run
    ]
    for cell in comparison.cells:
        values = cell.metrics.scalars() if cell.metrics else {}
        rows.append(
            [cell.arm, cell.seed, cell.fraction, cell.status, cell.reason, cell.seconds, UNIT]
            + [values.get(name) for name in names]
        )
    return _csv(header, rows)


def differences_csv(comparison: Comparison) -> str:
    """Return every difference of two arms: at the end, along the training, with fewer labels."""
    header = ["where", "iteration", "label_fraction", "a", "b", "difference", "low_95", "high_95"]
    header += ["p", "p_holm", "tests_in_family", "seeds", "per_seed", "unit", "note"]
    return _csv(header, _difference_rows(comparison))


def _difference_rows(comparison: Comparison) -> Iterator[list[object]]:
    whole = max((cell.fraction for arm in comparison.arms for cell in arm.cells), default=1.0)
    for pair in comparison.pairs:
        yield ["end", "", whole, *_of_pair(pair)]
    for point in comparison.curve_points:
        where = "early" if point.early else "along the training"
        for pair in point.pairs:
            yield [where, point.iteration, whole, *_of_pair(pair)]
    for label in comparison.label_pairs:
        yield ["fewer labels", "", label.fraction, *_of_pair(label.pair)]


def _of_pair(pair: PairDifference) -> list[object]:
    estimate = [pair.a, pair.b, pair.value, pair.low, pair.high, pair.p, pair.p_holm, pair.family]
    per_seed = ", ".join(f"{value:.6g}" for value in pair.per_seed)
    return [*estimate, str(list(pair.seeds)), f"[{per_seed}]", UNIT, pair.note]


def recalls_csv(comparison: Comparison) -> str:
    """Return top-5 recall of every cell along its training."""
    header = ["arm", "seed", "label_fraction", "iteration", "top5_recall", "unit"]
    return _csv(
        header,
        [
            [cell.arm, cell.seed, cell.fraction, iteration, recall, UNIT]
            for cell in comparison.cells
            for iteration, recall in cell.curve
        ],
    )


def groups_csv(comparison: Comparison) -> str:
    """Return top-5 recall by fraction of the labels, type, size and slice interval."""
    header = ["grouped_by", "group", "arm", "lesions", "patients", "top5_recall"]
    header += ["low_95", "high_95", "unit", "note"]
    rows: list[list[object]] = []
    for point in comparison.label_efficiency:
        of_point = ["label fraction", point.fraction, point.arm, "", point.num_patients]
        rows.append([*of_point, *_of_interval(point.recall)])
    for group in comparison.breakdown:
        for arm, recall in group.recall.items():
            of_group = [KIND_WORDS[group.kind], group.name, arm]
            counts = [group.num_lesions, group.num_patients]
            rows.append([*of_group, *counts, *_of_interval(recall)])
    return _csv(header, rows)


def _of_interval(interval: Interval) -> list[object]:
    return [interval.value, interval.low, interval.high, UNIT, interval.note]


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]] | Iterator[list[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: object) -> str:
    """Return a number with six digits; a text that looks like a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(harmless(value))
