"""The curves of the report, as inline SVG whose text takes the page's font."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure

from lesion_det.cells import Cell
from lesion_det.froc import FP_PER_IMAGE, FrocCurve
from lesion_det.significance import PairDifference

ARM_COLOURS: Mapping[str, str] = {
    "random": "#7b8494",
    "ubr": "#0f8b8d",
    "imagenet": "#d1812c",
    "ubr+imagenet": "#6d4aa3",
    "ubr-stats": "#7cc4c5",
    "imagenet-stats": "#ecc08f",
}
"""Also told apart by their lightness, and by a label at the end of each line."""

OTHER_COLOUR = "#333333"
INK, GRID = "#2b2f36", "#e3e6ea"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": "#9aa1ab",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def arm_colour(arm: str) -> str:
    """Return the colour of an arm in every figure."""
    return ARM_COLOURS.get(arm, OTHER_COLOUR)


def draw_learning_curves(finished: Mapping[str, Sequence[Cell]]) -> str:
    """Draw top-5 recall against iteration: every seed thin, their mean thick, their range shaded.

    Args:
        finished: the finished cells of every arm.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.7), layout="constrained")
        axis = figure.subplots()
        for arm, cells in finished.items():
            curves = [dict(cell.curve) for cell in cells]
            shared = sorted(set.intersection(*(set(curve) for curve in curves)) if curves else ())
            shown = [i for i in shared if all(curve[i] is not None for curve in curves)]
            if shown:
                rows = np.array([[100 * (c[i] or 0.0) for i in shown] for c in curves])
                _draw_band(axis, np.array(shown, np.float64), rows, arm)
        axis.set_xlabel("iteration")
        axis.set_ylabel("top-5 recall, validation (%)")
        axis.set_ylim(bottom=0)
        axis.margins(x=0.02)
        _legend(axis)
        return to_svg(figure, "learning")


def draw_recall_at_k(finished: Mapping[str, Sequence[Cell]], ceiling: float | None) -> str:
    """Draw recall against the number of detections counted on a slice."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 3.4), layout="constrained")
        axis = figure.subplots()
        for arm, cells in finished.items():
            tables = [cell.metrics.topk_recall for cell in cells if cell.metrics is not None]
            rows = [[t[k] for k in sorted(t)] for t in tables]
            if rows and None not in rows[0]:
                ks = np.array(sorted(tables[0]), np.float64)
                _draw_band(axis, ks, 100 * np.array(rows, np.float64), arm)
        axis.axvline(5, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        if ceiling is not None and ceiling < 1:
            axis.plot([5], [100 * ceiling], marker="_", color=INK, markersize=12)
        axis.set_xlabel("detections counted on a slice, k")
        axis.set_ylabel("recall (%)")
        axis.set_xticks([1, 5, 10, 15, 20])
        axis.set_ylim(0, 100)
        _legend(axis)
        return to_svg(figure, "topk")


def draw_froc(curves: Mapping[str, Sequence[FrocCurve]]) -> str:
    """Draw sensitivity against false positives per image, on a logarithmic axis."""
    rates = np.geomspace(FP_PER_IMAGE[0] / 4, FP_PER_IMAGE[-1], 120)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 3.4), layout="constrained")
        axis = figure.subplots()
        for arm, of_arm in curves.items():
            rows = [[curve.sensitivity_at(rate) for rate in rates] for curve in of_arm]
            if rows and None not in rows[0]:
                _draw_band(axis, rates, 100 * np.array(rows, np.float64), arm)
        axis.set_xscale("log", base=2)
        ticks = (0.125, 0.25, *FP_PER_IMAGE)
        axis.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
        axis.minorticks_off()
        axis.set_xlabel("false positives per image (upper bound)")
        axis.set_ylabel("sensitivity (%)")
        axis.set_ylim(0, 100)
        _legend(axis)
        return to_svg(figure, "froc")


def draw_differences(pairs: Sequence[PairDifference]) -> str:
    """Draw every pair's difference in points with its interval, and the seeds as dots."""
    shown = [pair for pair in pairs if pair.value is not None]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 0.9 + 0.45 * max(1, len(shown))), layout="constrained")
        axis = figure.subplots()
        for row, pair in enumerate(reversed(shown)):
            assert pair.value is not None
            colour = arm_colour(pair.a)
            if pair.low is not None and pair.high is not None:
                ends = [100 * pair.low, 100 * pair.high]
                axis.plot(ends, [row, row], color=colour, linewidth=3)
            axis.plot([100 * pair.value], [row], marker="D", markersize=7, color=colour)
            dots = [100 * value for value in pair.per_seed]
            axis.plot(dots, [row] * len(dots), "o", markersize=3.4, color=INK, markerfacecolor="w")
        axis.axvline(0, color=INK, linewidth=1)
        axis.update_datalim([(-1, 0), (1, 0)])  # at least a point to each side of zero
        axis.autoscale_view()
        axis.set_yticks(range(len(shown)), [f"{p.a} − {p.b}" for p in reversed(shown)])  # noqa: RUF001
        axis.set_ylim(-0.6, max(1, len(shown)) - 0.4)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("difference of top-5 recall (percentage points), 95 % interval")
        return to_svg(figure, "pairs")


def draw_ubr_training(records: Sequence[Mapping[str, Any]]) -> str:
    """Draw the order loss and the held-out rank correlation of a body-part regressor's training.

    Args:
        records: of its ``metrics.jsonl``.
    """
    train = [r for r in records if r.get("kind") == "train" and "order" in r]
    val = [r for r in records if r.get("kind") == "val" and "rank_r_median" in r]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = [r["iteration"] for r in train]
        order = np.array([r["order"] for r in train], np.float64)
        left.plot(steps, order, color=arm_colour("ubr"), alpha=0.25, linewidth=0.9)
        left.plot(steps, _running_mean(order), color=arm_colour("ubr"))
        left.set_xlabel("iteration")
        left.set_ylabel("order loss")
        left.set_ylim(bottom=0)
        at = [r["iteration"] for r in val]
        median = [r["rank_r_median"] for r in val]
        worst = [r.get("rank_r_worst", r["rank_r_median"]) for r in val]
        right.plot(at, median, color=arm_colour("ubr"), marker="o", markersize=3, label="median")
        right.plot(at, worst, color="#c44e52", marker="o", markersize=3, label="worst volume")
        right.set_xlabel("iteration")
        right.set_ylabel("rank correlation, held out")
        right.set_ylim(top=1.02)
        _legend(right)
        return to_svg(figure, "ubr")


def _running_mean(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return the mean over the last twentieth of the run, at least one value."""
    window = max(1, len(values) // 20)
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def _draw_band(
    axis: Any, x: Float64[np.ndarray, " n"], rows: Float64[np.ndarray, "seeds n"], arm: str
) -> None:
    colour = arm_colour(arm)
    mean = rows.mean(axis=0)
    if len(rows) > 1:
        axis.fill_between(x, rows.min(axis=0), rows.max(axis=0), color=colour, alpha=0.14, lw=0)
        for row in rows:
            axis.plot(x, row, color=colour, linewidth=0.7, alpha=0.6)
    single = {"marker": "o", "markersize": 5} if len(x) == 1 else {}
    axis.plot(x, mean, color=colour, label=arm, **single)


def _legend(axis: Any) -> None:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(loc="best", fontsize=8.5, labelcolor=INK)


def to_svg(figure: Figure, name: str) -> str:
    """Return the ``<svg>`` element; ids get the figure's name so that one page can hold many."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
