"""Curves of the report: along the training, over k, over false positives, over the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes

from lesion_det.cells import Cell
from lesion_det.froc import FP_PER_IMAGE, FrocCurve
from lesion_det.label_efficiency import LabelPoint
from lesion_det.report_figures import (
    INK,
    STYLE,
    Curve,
    Looks,
    Plot,
    arm_colour,
    belongs_to,
    label_ends,
    new_figure,
    to_plot,
    to_svg,
)


def draw_learning_curves(
    finished: Mapping[str, Sequence[Cell]], looks: Looks, early: Sequence[int] = ()
) -> Plot:
    """Draw top-5 recall against iteration: every seed thin, their mean thick, their range shaded.

    Args:
        finished: the finished cells of every arm.
        looks: of the arms.
        early: iterations to mark, where the early claims are judged.
    """
    curves = []
    for arm, cells in finished.items():
        of_seeds = [dict(cell.curve) for cell in cells]
        shared = sorted(set.intersection(*(set(curve) for curve in of_seeds)) if of_seeds else ())
        shown = [i for i in shared if all(curve[i] is not None for curve in of_seeds)]
        if shown:
            rows = np.array([[100 * (c[i] or 0.0) for i in shown] for c in of_seeds])
            curves.append(Curve(arm, np.array(shown, np.float64), rows))
    with mpl.rc_context(STYLE):
        figure, axis = new_figure(9.2, 3.9)
        for iteration in early:
            axis.axvline(iteration, color="#9aa1ab", linewidth=0.9, linestyle=(0, (2, 3)))
        series = [_draw_band(axis, curve, looks) for curve in curves]
        axis.set_xlabel("iteration")
        axis.set_ylabel("top-5 recall, validation (%)")
        axis.set_ylim(0, max(10.0, axis.get_ylim()[1]))
        axis.margins(x=0.02)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        label_ends(figure, axis, curves, looks)
        return to_plot(figure, "learning", axis, series, "iteration {}")


def draw_recall_at_k(
    finished: Mapping[str, Sequence[Cell]], looks: Looks, ceiling: Mapping[int, float] | None = None
) -> Plot:
    """Draw recall against the number of detections counted on a slice.

    Args:
        finished: the finished cells of every arm.
        looks: of the arms.
        ceiling: what k detections a slice can reach, where they can miss some.
    """
    curves = []
    for arm, cells in finished.items():
        tables = [cell.metrics.topk_recall for cell in cells if cell.metrics is not None]
        rows = [[t[k] for k in sorted(t)] for t in tables]
        if rows and None not in rows[0]:
            ks = np.array(sorted(tables[0]), np.float64)
            curves.append(Curve(arm, ks, 100 * np.array(rows, np.float64)))
    with mpl.rc_context(STYLE):
        figure, axis = new_figure(4.6, 3.5)
        series = [_draw_band(axis, curve, looks) for curve in curves]
        axis.axvline(5, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        if ceiling is not None and min(ceiling.values()) < 1:
            axis.step(
                list(ceiling),
                [100 * v for v in ceiling.values()],
                where="mid",
                color="#9aa1ab",
                lw=1,
            )
            axis.annotate("ceiling", (max(ceiling), 97), ha="right", va="top", fontsize=8)
        axis.set_xlabel("detections counted on a slice, k")
        axis.set_ylabel("recall (%)")
        axis.set_xticks([1, 5, 10, 15, 20])
        axis.set_ylim(0, 102)
        label_ends(figure, axis, curves, looks)
        return to_plot(figure, "topk", axis, series, "k = {}")


def draw_froc(froc_curves: Mapping[str, Sequence[FrocCurve]], looks: Looks) -> Plot:
    """Draw sensitivity against false positives per image, on a logarithmic axis."""
    rates = 2.0 ** (np.arange(-36, 49) / 12)  # 1/8 to 16; the points of the table are among them
    curves = []
    for arm, of_arm in froc_curves.items():
        rows = [[curve.sensitivity_at(rate) for rate in rates] for curve in of_arm]
        if rows and None not in rows[0]:
            curves.append(Curve(arm, rates, 100 * np.array(rows, np.float64)))
    with mpl.rc_context(STYLE):
        figure, axis = new_figure(4.6, 3.5)
        axis.set_xscale("log", base=2)
        series = [_draw_band(axis, curve, looks) for curve in curves]
        ticks = (0.125, 0.25, *FP_PER_IMAGE)
        axis.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
        axis.minorticks_off()
        axis.set_xlim(rates[0], rates[-1])
        axis.set_xlabel("false positives per image (upper bound)")
        axis.set_ylabel("sensitivity (%)")
        axis.set_ylim(0, 102)
        label_ends(figure, axis, curves, looks)
        return to_plot(figure, "froc", axis, series, "{} false positives per image")


def draw_label_efficiency(points: Sequence[LabelPoint], looks: Looks) -> Plot:
    """Draw recall against the share of the labels, logarithmic; intervals shaded, seeds as dots."""
    by_arm: dict[str, list[LabelPoint]] = {}
    for point in sorted(points, key=lambda point: point.fraction):
        if point.recall.value is not None:
            by_arm.setdefault(point.arm, []).append(point)
    curves, series = [], []
    with mpl.rc_context(STYLE):
        figure, axis = new_figure(9.2, 3.7)
        axis.set_xscale("log")
        for arm, of_arm in by_arm.items():
            look = looks[arm]
            x = np.array([100 * point.fraction for point in of_arm])
            mean = [100 * (point.recall.value or 0.0) for point in of_arm]
            low = [_percent(point.recall.low, y) for point, y in zip(of_arm, mean, strict=True)]
            high = [_percent(point.recall.high, y) for point, y in zip(of_arm, mean, strict=True)]
            gid = belongs_to(look)
            axis.fill_between(x, low, high, color=look.colour, alpha=0.12, lw=0, gid=gid)
            axis.plot(x, mean, gid=gid, marker=look.marker, markersize=4.5, **look.line)
            for at, point in zip(x, of_arm, strict=True):
                dots = [100 * recall for recall in point.per_seed]
                axis.plot(
                    [at] * len(dots), dots, "o", markersize=2.8, color=look.colour,
                    markerfacecolor="w", markeredgewidth=0.8, gid=gid,
                )  # fmt: skip
            curves.append(Curve(arm, x, np.array([mean], np.float64)))
            series.append(_series(look.index, x, np.array(mean), np.array(low), np.array(high)))
        ticks = sorted({100 * point.fraction for point in points})
        axis.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("training patients whose labels were learned from (logarithmic)")
        axis.set_ylabel("top-5 recall (%)")
        axis.set_ylim(0, max(10.0, axis.get_ylim()[1]))
        label_ends(figure, axis, curves, looks)
        return to_plot(figure, "labels", axis, series, "{} % of the labels")


def draw_ubr_training(records: Sequence[Mapping[str, Any]]) -> str:
    """Draw the order loss and the held-out rank correlation of a body-part regressor's training.

    Args:
        records: of its ``metrics.jsonl``.
    """
    train = [r for r in records if r.get("kind") == "train" and "order" in r]
    val = [r for r in records if r.get("kind") == "val" and "rank_r_median" in r]
    with mpl.rc_context(STYLE):
        figure = mpl.figure.Figure(figsize=(9.2, 3.0), layout="constrained")
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
        right.plot(at, worst, "--", color=INK, marker="s", markersize=3, label="worst volume")
        right.set_xlabel("iteration")
        right.set_ylabel("rank correlation, held out")
        right.set_ylim(top=1.02)
        if val:
            right.legend(loc="best", fontsize=8.5)
        return to_svg(figure, "ubr")


def _running_mean(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return the mean over the last twentieth of the run, at least one value."""
    window = max(1, len(values) // 20)
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def _draw_band(axis: Axes, curve: Curve, looks: Looks) -> dict[str, Any]:
    """Draw the seeds of an arm, their mean and their range; return the values."""
    look = looks[curve.arm]
    gid = belongs_to(look)
    mean, low, high = (getattr(curve.rows, how)(axis=0) for how in ("mean", "min", "max"))
    if len(curve.rows) > 1:
        axis.fill_between(curve.x, low, high, color=look.colour, alpha=0.14, lw=0, gid=gid)
        for row in curve.rows:
            axis.plot(curve.x, row, color=look.colour, linewidth=0.7, alpha=0.55, gid=gid)
    single: dict[str, Any] = {"marker": look.marker, "markersize": 5} if len(curve.x) == 1 else {}
    axis.plot(curve.x, mean, gid=gid, **look.line, **single)
    return _series(look.index, curve.x, mean, low, high)


def _series(
    index: int,
    x: Float64[np.ndarray, " n"],
    mean: Float64[np.ndarray, " n"],
    low: Float64[np.ndarray, " n"],
    high: Float64[np.ndarray, " n"],
) -> dict[str, Any]:
    rounded = {"mean": mean, "low": low, "high": high}
    return {
        "arm": index,
        "x": [float(f"{value:.6g}") for value in x],
        **{name: np.round(values, 2).tolist() for name, values in rounded.items()},
    }


def _percent(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else 100 * value
