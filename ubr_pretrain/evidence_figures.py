"""Figures 2, 3a, 3b and 4 of the paper, from this run's numbers.

Shapes:
    n: tested slices; z: slices of a volume; y, x: pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from ubr_pretrain.ct import Window
from ubr_pretrain.evidence_examples import ShownCurve, ShownSlice
from ubr_pretrain.figures import save_figure, window_grey
from ubr_pretrain.group_sweep import SweepPoint
from ubr_pretrain.whole_file import write_atomically
from ubr_pretrain.zones import ZONES, ZoneThresholds

ZONE_COLOURS = ("#2f6db3", "#d1812c", "#5b8f3a")
CURVE_COLOURS = ("#b3262d", "#6d4aa3", "#0f8b8d", "#b8860b", "#333333")
INK, SOFT = "#2b2f36", "#8b93a0"
DISPLAY = Window(lower_hu=-175, upper_hu=275)
PICTURE_DPI = 160
CELL_GAP = 0.06
"""Between slices of Fig. 2, as a share of a slice's side."""

STYLE = {
    "font.size": 9,
    "axes.edgecolor": "#9aa1ab",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


def write_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write every figure as PNG and as PDF (their layouts leave no margin to cut off)."""
    for name, figure in figures.items():
        for kind in ("png", "pdf"):
            with write_atomically(folder / f"{name}.{kind}") as file:
                figure.savefig(file, format=kind, dpi=PICTURE_DPI)


@mpl.rc_context(STYLE)
def draw_slices(rows: Sequence[tuple[str, Sequence[ShownSlice]]]) -> Figure:
    """Draw Fig. 2: random test slices of like scores, a row each."""
    columns = max(len(shown) for _, shown in rows)
    width, height = 1 + CELL_GAP, 1.0 + 2.5 * CELL_GAP
    figure = Figure(figsize=(1.6 * (columns * width + 0.2), 1.6 * len(rows) * height))
    axis = figure.add_axes((0.2 / (columns * width + 0.2), 0, 1, 1))  # one for all: many are slow
    for line, (words, shown) in enumerate(rows):
        bottom = (len(rows) - 1 - line) * height
        axis.text(-0.05, bottom + 0.5, words, rotation=90, ha="right", va="center")
        for column, one in enumerate(shown):
            left = column * width
            _image(axis, one, (left, bottom))
            axis.text(left, bottom + 1.03, one.words, fontsize=8)
    axis.set(xlim=(0, columns * width + 0.2), ylim=(0, len(rows) * height))
    return figure


@mpl.rc_context(STYLE)
def draw_histogram(
    scores: Float[ndarray, " n"],
    zones: Int[ndarray, " n"],
    thresholds: ZoneThresholds,
    by_distance: Sequence[Mapping[str, Any]],
) -> Figure:
    """Draw Fig. 3a and where the errors lie.

    Args:
        scores: of the tested slices.
        zones: their classes.
        thresholds: the two borders.
        by_distance: accuracy in bins of the distance to the nearest border.
    """
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    bins = np.linspace(scores.min(), scores.max(), 60).tolist()
    for zone, (name, colour) in enumerate(zip(ZONES, ZONE_COLOURS, strict=True)):
        left.hist(scores[zones == zone], bins, color=colour, alpha=0.6, label=name)
    for border in (thresholds.chest_abdomen, thresholds.abdomen_pelvis):
        left.axvline(border, color=INK, linewidth=1, linestyle="--")
    left.set(xlabel="score", ylabel="test slices")
    left.legend()
    names, values, counts = [], [], []
    for part in by_distance:
        high = part["to_mm"]
        names.append(f"> {part['from_mm']:g}" if high is None else f"{part['from_mm']:g}-{high:g}")
        values.append(part["accuracy"])
        counts.append(part["num_slices"])
    heights = [0.0 if value is None else 100 * value for value in values]
    bars = right.bar(range(len(names)), heights, color=ZONE_COLOURS[0], alpha=0.85)
    labels = [
        "" if v is None else f"{100 * v:.1f}\nn = {c}" for v, c in zip(values, counts, strict=True)
    ]
    right.bar_label(bars, labels, fontsize=7, padding=2)
    right.set_xticks(range(len(names)), names)
    right.set(xlabel="mm to the nearest border of zones", ylabel="accuracy (%)", ylim=(0, 118))
    right.set_yticks([0, 25, 50, 75, 100])
    return figure


def draw_zones(
    scores: Float[ndarray, " n"],
    zones: Int[ndarray, " n"],
    thresholds: ZoneThresholds,
    by_distance: Sequence[Mapping[str, Any]],
    path: Path,
) -> None:
    """Write ``draw_histogram`` to a file."""
    save_figure(draw_histogram(scores, zones, thresholds, by_distance), path)


@mpl.rc_context(STYLE)
def draw_sweep(points: Sequence[SweepPoint]) -> Figure:
    """Draw Fig. 3b: mean over seeds as a line, every seed as a dot."""
    figure = Figure(figsize=(5.6, 3.5), layout="constrained")
    axis = figure.subplots()
    ms = sorted({point.m for point in points})
    places = {m: i for i, m in enumerate(ms)}
    styles = ((True, ZONE_COLOURS[0], "o", -0.05), (False, ZONE_COLOURS[1], "s", 0.05))
    for distance, colour, marker, aside in styles:
        chosen = sorted((p for p in points if p.distance is distance), key=lambda p: p.m)
        at = np.array([places[p.m] + aside for p in chosen])
        name = f"{'with' if distance else 'without'} the distance loss"
        axis.plot(at, [100 * p.accuracy for p in chosen], color=colour, label=name)
        for x, point in zip(at, chosen, strict=True):
            dots = [100 * accuracy for accuracy in point.accuracy_of_seeds]
            axis.plot([x] * len(dots), dots, marker, color=colour, markersize=4, alpha=0.6)
    axis.set_xticks(range(len(ms)), [f"{m}\n(g = {96 // m})" for m in ms])
    axis.set(xlabel="slices of a group, m", ylabel="accuracy (%)")
    axis.grid(axis="y", color="#e3e6ea")
    axis.legend(loc="best")
    return figure


@mpl.rc_context(STYLE)
def draw_curves(
    normal: Sequence[ShownCurve], abnormal: Sequence[ShownCurve], thresholds: ZoneThresholds
) -> Figure:
    """Draw Fig. 4: normal curves, abnormal ones, and the slice that makes each so."""
    rows = 2 if abnormal else 1
    columns = max(1, len(abnormal))
    figure = Figure(figsize=(9.6, 3.6 + 2.3 * (rows - 1)), layout="constrained")
    parts = figure.subfigures(rows, 1, height_ratios=(3.6, 2.3)[:rows], squeeze=False)[:, 0]
    left, right = parts[0].subplots(1, 2, sharey=True)
    for axis, title in ((left, "normal"), (right, "abnormal")):
        axis.set(title=title, xlabel="mm below the first slice")
        for border in (thresholds.chest_abdomen, thresholds.abdomen_pelvis):
            axis.axhline(border, color=SOFT, linewidth=0.9, linestyle="--")
    left.set_ylabel("score")
    shades = np.linspace(0.35, 0.95, max(1, len(normal)))
    for curve, shade in zip(normal, shades, strict=False):
        left.plot(curve.z_mm, curve.scores, color=mpl.colormaps["Blues"](shade), linewidth=1.3)
    if not normal:
        left.text(0.5, 0.5, "none reaches r = 0.99", ha="center", transform=left.transAxes)
    for curve, colour in zip(abnormal, CURVE_COLOURS, strict=False):
        r = "undefined" if curve.r is None else f"{curve.r:.3f}"
        right.plot(
            curve.z_mm, curve.scores, color=colour, linewidth=1.3, label=f"{curve.words}, r = {r}"
        )
        assert curve.odd_index is not None
        at = curve.odd_index
        right.plot(curve.z_mm[at], curve.scores[at], "o", color=colour, markeredgecolor="white")
    if abnormal:
        right.legend(fontsize=7.5, loc="best", handlelength=1.2)
        axes = parts[1].subplots(1, columns, squeeze=False)[0]
        for axis, curve, colour in zip(axes, abnormal, CURVE_COLOURS, strict=False):
            assert curve.odd_slice is not None
            _image(axis, curve.odd_slice)
            axis.set_title(f"{curve.words}\n{curve.reason}", fontsize=7.5, color=colour)
    else:
        right.text(0.5, 0.5, "none has r below 0.99", ha="center", transform=right.transAxes)
    return figure


def _image(axis: Axes, one: ShownSlice, corner: tuple[float, float] = (0.0, 0.0)) -> None:
    """Draw a slice into a square of side 1, undistorted."""
    height_mm, width_mm = (n * p for n, p in zip(one.hu.shape, one.pixel_mm_yx, strict=True))
    side_mm = max(height_mm, width_mm)
    left, bottom = corner
    axis.imshow(
        window_grey(one.hu, DISPLAY),
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(left, left + width_mm / side_mm, bottom, bottom + height_mm / side_mm),
        interpolation="bilinear",
    )
    axis.set_axis_off()
