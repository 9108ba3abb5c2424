"""The comparison as files to show: one self-contained HTML page, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from lesion_det.comparison import ArmResult, Comparison, Spread
from lesion_det.froc import froc
from lesion_det.gallery import Picture, choose_pictures
from lesion_det.ground_truth import GroundTruth
from lesion_det.predictions import Predictions
from lesion_det.report_figures import (
    arm_colour,
    draw_differences,
    draw_froc,
    draw_learning_curves,
    draw_recall_at_k,
)
from lesion_det.ubr_chapter import UbrChapter
from ubr_pretrain.checkpoint import write_atomically

ARM_WORDS: Mapping[str, str] = {
    "random": "trunk drawn at random",
    "ubr": "trunk of a body-part regressor that was trained from scratch",
    "imagenet": "trunk trained on ImageNet",
    "ubr+imagenet": "ImageNet, then trained as a body-part regressor, then the detector",
    "ubr-stats": "control: every layer redrawn with the UBR trunk's mean and sd",
    "imagenet-stats": "control: every layer redrawn with the ImageNet trunk's mean and sd",
}

NONE = "—"
"""Printed where a number is undefined."""

MAIN_COLUMNS = ("top-5 recall", "FROC mean", "AP50", "AP")
RECALL_COLUMNS = ("top-5 recall", "per slice", "IoU >= 0.5", "+1 pixel")
FROC_COLUMNS = tuple(f"FROC @ {rate}" for rate in ("0.5", "1", "2", "4", "8", "16"))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the page draws beside the numbers.

    Attributes:
        ground_truth: of the validation images.
        answers: the predictions of every finished cell, by arm.
        images: the folder ``Images_png``.
        ubr: the first chapter; None leaves it out.
    """

    ground_truth: GroundTruth
    answers: Mapping[str, tuple[Predictions, ...]]
    images: Path
    ubr: UbrChapter | None = None


def write_report(
    out: Path, comparison: Comparison, evidence: Evidence, rng: np.random.Generator
) -> Path:
    """Write ``report.html``, ``comparison.json``, ``cells.csv`` and ``table.md`` into ``out``.

    Args:
        out: the folder of the comparison.
        comparison: the numbers.
        evidence: for the figures and the gallery.
        rng: chooses the slices that are shown.

    Returns:
        The HTML page.
    """
    texts = {
        "comparison.json": comparison.model_dump_json(indent=2) + "\n",
        "cells.csv": cells_csv(comparison),
        "table.md": markdown_table(comparison),
        "report.html": render_html(comparison, evidence, rng),
    }
    for name, text in texts.items():
        with write_atomically(out / name, "w") as file:
            file.write(text)
    return out / "report.html"


def render_html(comparison: Comparison, evidence: Evidence, rng: np.random.Generator) -> str:
    """Return the page; whatever comes from names or files is escaped."""
    finished = {arm.arm: arm.finished for arm in comparison.arms if arm.finished}
    curves = {
        arm: [froc(evidence.ground_truth, predictions) for predictions in answers]
        for arm, answers in evidence.answers.items()
    }
    first = {arm: answers[0] for arm, answers in evidence.answers.items()}
    pictures: list[Picture] = []
    problems: list[str] = []
    if first:
        pictures, problems = choose_pictures(evidence.ground_truth, first, evidence.images, rng)
    metrics = [c.metrics for cells in finished.values() for c in cells if c.metrics is not None]
    figures = {
        "learning": draw_learning_curves(finished),
        "topk": draw_recall_at_k(finished, metrics[0].top5_recall_ceiling if metrics else None),
        "froc": draw_froc(curves),
        "pairs": draw_differences(comparison.pairs) if comparison.pairs else "",
    }
    environment = Environment(
        loader=PackageLoader("lesion_det", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "spread": spread_text,
        "p": p_text,
        "colour": arm_colour,
    }
    return environment.get_template("report.html.j2").render(
        c=comparison,
        compared=[arm for arm in comparison.arms if arm.finished],
        tried=[arm for arm in comparison.arms if arm.cells],
        not_run=[arm for arm in comparison.arms if arm.not_run],
        metrics=metrics[0] if metrics else None,
        # The SVG is ours, its labels were escaped by the drawing; everything else is escaped here.
        figures={name: Markup(svg) for name, svg in figures.items()},
        ubr=evidence.ubr,
        ubr_svg=Markup(evidence.ubr.training_svg) if evidence.ubr else "",
        pictures=pictures,
        problems=problems,
        arm_words=ARM_WORDS,
        recall_columns=RECALL_COLUMNS,
        froc_columns=FROC_COLUMNS,
    )


def markdown_table(comparison: Comparison) -> str:
    """Return the main table: mean and sd over seeds, pooled interval, and who is missing."""
    lines = [
        "| start | seeds | " + " | ".join(MAIN_COLUMNS) + " | 95 % interval of top-5 recall |",
        "|---|---|" + "---|" * (len(MAIN_COLUMNS) + 1),
    ]
    for arm in comparison.arms:
        name = arm.arm.replace("|", "\\|")
        if arm.not_run:
            blank = " | ".join([NONE] * len(MAIN_COLUMNS))
            lines.append(f"| {name} | not run | {blank} | {arm.not_run.replace('|', '/')} |")
            continue
        cells = [spread_text(arm.spreads.get(column)) for column in MAIN_COLUMNS]
        seeds = f"{len(arm.finished)} of {len(arm.cells)}"
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} | {interval_text(arm)} |")
    return "\n".join(lines) + "\n"


def cells_csv(comparison: Comparison) -> str:
    """Return one row a cell, finished or not; a cell that looks like a formula gets an apostrophe.

    Numbers are fractions of 1, empty where they are undefined.
    """
    names = next(
        (list(c.metrics.scalars()) for a in comparison.arms for c in a.cells if c.metrics), []
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "status", "reason", *names])
    for arm in comparison.arms:
        if arm.not_run:
            writer.writerow([_harmless(arm.arm), "", "not run", _harmless(arm.not_run)])
        for cell in arm.cells:
            values = cell.metrics.scalars() if cell.metrics else {}
            numbers = ["" if values.get(n) is None else f"{values[n]:.6g}" for n in names]
            writer.writerow(
                [_harmless(cell.arm), cell.seed, cell.status, _harmless(cell.reason), *numbers]
            )
    return text.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def percent(value: float | None) -> str:
    """Return 0.745 as ``74.5 %``."""
    return NONE if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """Return 0.012 as ``+1.2``."""
    return NONE if value is None else f"{100 * value:+.1f}".replace("-", "−")  # noqa: RUF001


def spread_text(spread: Spread | None) -> str:
    """Return mean and standard deviation over seeds in per cent."""
    if spread is None or spread.mean is None:
        return NONE
    sd = "" if spread.sd is None else f" ± {100 * spread.sd:.1f}"
    return f"{100 * spread.mean:.1f}{sd}"


def p_text(p: float | None) -> str:
    """Return a p value with two digits."""
    return NONE if p is None else ("< 0.001" if p < 0.001 else f"{p:.2g}")


def interval_text(arm: ArmResult) -> str:
    """Return the pooled 95 % interval in per cent, or why there is none."""
    pooled = arm.pooled
    if pooled.low is None or pooled.high is None:
        return pooled.note or "undefined"
    return f"{100 * pooled.low:.1f} to {100 * pooled.high:.1f}"
