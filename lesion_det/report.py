"""The comparison as files to show: one self-contained HTML page, JSON, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from lesion_det.breakdown import KIND_WORDS
from lesion_det.claims import CLAIMS
from lesion_det.comparison import Comparison
from lesion_det.curve_figures import (
    draw_froc,
    draw_label_efficiency,
    draw_learning_curves,
    draw_recall_at_k,
)
from lesion_det.difference_figures import (
    draw_along,
    draw_differences,
    draw_groups,
    pair_name,
    readable,
)
from lesion_det.filter_drift import ArmDrift
from lesion_det.filter_figures import draw_drift, draw_first_filters
from lesion_det.froc import froc
from lesion_det.gallery import KIND_WORDS as PICTURE_WORDS
from lesion_det.gallery import Picture, choose_pictures
from lesion_det.ground_truth import GroundTruth
from lesion_det.predictions import Predictions
from lesion_det.report_figures import Looks, Plot, arm_looks
from lesion_det.report_tables import (
    MAIN_COLUMNS,
    cells_csv,
    differences_csv,
    groups_csv,
    markdown_table,
    recalls_csv,
)
from lesion_det.report_words import (
    ARM_WORDS,
    OTHER_ARM,
    answer,
    bounds,
    number,
    p_text,
    percent,
    point_bounds,
    points,
    progress,
    spread_text,
    with_minus,
)
from lesion_det.topk_recall import recall_ceiling
from lesion_det.ubr_chapter import UbrChapter
from ubr_pretrain.web_page import page_environment, read_inline
from ubr_pretrain.whole_file import write_atomically

RECALL_COLUMNS = ("top-5 recall", "per slice", "IoU >= 0.5", "+1 pixel")
FROC_COLUMNS = tuple(f"FROC @ {rate}" for rate in ("0.5", "1", "2", "4", "8", "16"))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the page draws beside the numbers.

    Attributes:
        ground_truth: of the validation images.
        answers: the predictions of every finished cell, by arm.
        images: the folder ``Images_png``.
        drift: what the trainings changed in the filters.
        ubr: the chapter on the regressor; None leaves it out.
    """

    ground_truth: GroundTruth
    answers: Mapping[str, tuple[Predictions, ...]]
    images: Path
    drift: tuple[ArmDrift, ...] = ()
    ubr: UbrChapter | None = None


def write_report(
    out: Path, comparison: Comparison, evidence: Evidence, rng: np.random.Generator
) -> Path:
    """Write the page, ``comparison.json``, ``table.md`` and four CSV files into ``out``.

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
        "recalls.csv": recalls_csv(comparison),
        "differences.csv": differences_csv(comparison),
        "groups.csv": groups_csv(comparison),
        "table.md": markdown_table(comparison),
        "report.html": render_html(comparison, evidence, rng),
    }
    for name, text in texts.items():
        with write_atomically(out / name, "w") as file:
            file.write(text)
    return out / "report.html"


def render_html(comparison: Comparison, evidence: Evidence, rng: np.random.Generator) -> str:
    """Return the page; whatever comes from names or files is escaped."""
    looks = arm_looks([arm.arm for arm in comparison.arms])
    plots = _draw_curves(comparison, evidence, looks)
    first = {arm: of_seeds[0] for arm, of_seeds in evidence.answers.items()}
    pictures: list[Picture] = []
    problems: list[str] = []
    if first:
        pictures, problems = choose_pictures(evidence.ground_truth, first, evidence.images, rng)
    colours = "".join(f".arm-{look.index} {{ --arm: {look.colour}; }}\n" for look in looks.values())
    environment = page_environment("lesion_det")
    environment.filters |= {
        "percent": percent,
        "number": number,
        "points": points,
        "spread": spread_text,
        "p": p_text,
        "bounds": bounds,
        "point_bounds": point_bounds,
        "pair": pair_name,
        "readable": readable,
        "minus": with_minus,
    }
    return environment.get_template("report.html.j2").render(
        c=comparison,
        looks=looks,
        answer=answer(comparison),
        progress=progress(comparison),
        compared=[arm for arm in comparison.arms if arm.finished],
        tried=[arm for arm in comparison.arms if arm.cells],
        figures={name: plot.svg for name, plot in plots.items()}
        | _draw_estimates(comparison, evidence, looks),
        readings={name: plot.reading for name, plot in plots.items() if plot.reading},
        ceiling=recall_ceiling(evidence.ground_truth, 5),
        drifts=evidence.drift,
        ubr=evidence.ubr,
        ubr_svg=Markup(evidence.ubr.training_svg) if evidence.ubr else "",
        pictures=pictures,
        picture_words=PICTURE_WORDS,
        problems=problems,
        scores=_range_of_scores(pictures),
        arm_words=ARM_WORDS,
        other_arm=OTHER_ARM,
        kind_words=KIND_WORDS,
        main_columns=MAIN_COLUMNS,
        recall_columns=RECALL_COLUMNS,
        froc_columns=FROC_COLUMNS,
        style=read_inline("lesion_det", "report.css") + Markup(colours),
        script=read_inline("lesion_det", "report.js"),
    )


def _draw_curves(comparison: Comparison, evidence: Evidence, looks: Looks) -> dict[str, Plot]:
    """Return the figures that values can be read off."""
    finished = {arm.arm: arm.finished for arm in comparison.arms if arm.finished}
    early = [point.iteration for point in comparison.curve_points if point.early]
    ceiling = {k: recall_ceiling(evidence.ground_truth, k) for k in range(1, 21)}
    reachable = {k: share for k, share in ceiling.items() if share is not None}
    curves = {
        arm: [froc(evidence.ground_truth, predictions) for predictions in of_seeds]
        for arm, of_seeds in evidence.answers.items()
    }
    plots = {}
    if finished:
        plots["learning"] = draw_learning_curves(finished, looks, early)
        plots["topk"] = draw_recall_at_k(finished, looks, reachable)
        plots["froc"] = draw_froc(curves, looks)
    if comparison.label_efficiency:
        plots["labels"] = draw_label_efficiency(comparison.label_efficiency, looks)
    return plots


def _draw_estimates(comparison: Comparison, evidence: Evidence, looks: Looks) -> dict[str, Markup]:
    """Return the figures of estimates with intervals, and those of the filters."""
    figures = {}
    if comparison.pairs:
        figures["pairs"] = draw_differences(comparison.pairs, looks)
    if comparison.curve_points:
        compared = {frozenset((p.a, p.b)): (p.a, p.b) for p in comparison.pairs}
        claimed = [(a, b) for a, b, _ in CLAIMS if frozenset((a, b)) in compared]
        shown = claimed or list(compared.values())
        figures["along"] = draw_along(comparison.curve_points, shown, looks)
    for kind in KIND_WORDS:
        groups = [group for group in comparison.breakdown if group.kind == kind]
        if groups:
            figures[f"by_{kind}"] = draw_groups(groups, looks, f"by-{kind}")
    if comparison.drift:
        figures["drift"] = Markup(draw_drift(comparison.drift, looks))
    if any(drift.first_filters for drift in evidence.drift):
        figures["filters"] = Markup(draw_first_filters(evidence.drift))
    return figures


def _range_of_scores(pictures: list[Picture]) -> dict[str, Any]:
    """Return the ends of the slider that hides weak detections."""
    scores = [
        box.score
        for picture in pictures
        for panel in picture.panels
        for box in panel.detections
        if box.score is not None
    ]
    low, high = min([0.0, *scores]), max([1.0, *scores])
    return {"low": low, "high": high, "step": (high - low) / 100}
