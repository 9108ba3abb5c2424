"""Pictures of a training and of a scored volume.

Shapes:
    g: groups; m: slices of a group; S: pixels; z, y, x: as in ``ct``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int16
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from ubr_pretrain.ct import AIR_HU, InputSpec, Volume, Window
from ubr_pretrain.scoring import ScoreCurve
from ubr_pretrain.whole_file import write_atomically

BLUE, ORANGE, GREY = "#1f6fb4", "#d9691e", "#777777"

DRAWING = threading.Lock()
"""Matplotlib's settings and caches belong to one thread at a time."""


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure atomically, as the format that ``path`` ends in."""
    with write_atomically(path) as file, mpl.rc_context({"svg.hashsalt": "fixed"}):
        figure.savefig(file, format=path.suffix[1:], dpi=dpi, bbox_inches="tight")


def window_grey(hu: ndarray, window: Window) -> ndarray:
    """Return 0..1 grey values of a display window."""
    return np.clip((hu - window.lower_hu) / (window.upper_hu - window.lower_hu), 0, 1)


def draw_batch(
    hu: Float[Tensor, "g m S S"], drawable: Sequence[bool], spec: InputSpec, path: Path
) -> None:
    """Draw the first four groups of a batch, a row each, as the network sees them.

    Groups that are not ``drawable`` are air.
    """
    groups = hu[:4].cpu().numpy()
    groups[~np.array(drawable[:4])] = AIR_HU
    rows, m = groups.shape[:2]
    figure = Figure(figsize=(1.25 * m, 1.35 * rows))
    axes = figure.subplots(rows, m, squeeze=False)
    for row, group in zip(axes, groups, strict=True):
        for axis, image in zip(row, group, strict=True):
            axis.imshow(window_grey(image, spec.window), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 0.94, 0.02, 0.02)
    figure.suptitle("a row is a group of one volume, superior to inferior", fontsize=9)
    save_figure(figure, path)


def draw_training(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the losses and the held-out rank correlation against the iteration."""
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    figure = Figure(figsize=(10, 3.4))
    left, right = figure.subplots(1, 2)
    at = np.array([r["iteration"] for r in train])
    for name, colour in (("order", BLUE), ("distance", ORANGE)):
        values = np.array([r.get(name, np.nan) for r in train])
        left.plot(at, values, color=colour, alpha=0.25, linewidth=0.7)
        left.plot(at, _smooth(values), color=colour, label=f"{name} loss")
    left.set(xlabel="iteration", ylabel="loss", yscale="log")
    left.legend(frameon=False)
    if val:
        at = np.array([r["iteration"] for r in val])
        right.plot(at, [r["rank_r_median"] for r in val], "o-", color=BLUE, label="median volume")
        right.plot(at, [r["rank_r_worst"] for r in val], "o-", color=ORANGE, label="worst volume")
        right.legend(frameon=False, loc="lower right")
    right.set(xlabel="iteration", ylabel="rank correlation, held out", ylim=(-1.05, 1.05))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save_figure(figure, path)


def _smooth(values: ndarray, width: int = 25) -> ndarray:
    """Return the running mean over the last ``width`` values."""
    total = np.cumsum(np.insert(values.astype(float), 0, 0.0))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - width)
    return (total[last] - total[first]) / (last - first)


def draw_scores(volume: Volume, curve: ScoreCurve, path: Path, title: str) -> None:
    """Draw coronal and sagittal views with the score curve beside them, on one z axis.

    Args:
        volume: the scan, superior at the top.
        curve: its scores.
        path: the picture.
        title: above it; no identifier unless the caller means one.
    """
    with DRAWING:
        dz, dy, dx = volume.spacing_mm_zyx
        bottom = float(volume.z_mm[-1] + dz)
        coronal, sagittal = _middle_views(volume.hu)
        sizes_mm = (coronal.shape[1] * dx, sagittal.shape[1] * dy)
        figure, (left, middle, right) = _side_by_side(bottom, (*sizes_mm, max(300.0, 0.5 * bottom)))
        for axis, view, width, name in (
            (left, coronal, sizes_mm[0], "coronal"),
            (middle, sagittal, sizes_mm[1], "sagittal"),
        ):
            axis.imshow(
                window_grey(view, Window(lower_hu=-300, upper_hu=500)),
                cmap="gray",
                extent=(0, width, bottom, 0),
                aspect="auto",  # the axes have the shape of the body
                interpolation="bilinear",
            )
            axis.set(xticks=[], xlabel=name)
        left.set_ylabel("mm below the first slice")
        for axis in (middle, right):
            axis.tick_params(labelleft=False)
        right.plot(curve.scores, curve.z_mm, color=BLUE)
        if curve.slope_per_mm is not None:
            middle_score = curve.scores.mean() - curve.slope_per_mm * curve.z_mm.mean()
            right.plot(
                middle_score + curve.slope_per_mm * curve.z_mm,
                curve.z_mm,
                color=GREY,
                linestyle=":",
            )
        right.set(xlabel="score", ylim=(bottom, 0))
        right.grid(alpha=0.25)
        right.spines[["top", "right"]].set_visible(False)
        r = "undefined" if curve.r is None else f"{curve.r:.3f}"
        left.set_title(
            f"{title}   r = {r}   {curve.direction.replace('_', ' ')}", fontsize=10, loc="left"
        )
        save_figure(figure, path)


def _side_by_side(height_mm: float, widths_mm: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Return axes beside each other that share one scale in mm, so that heights can be compared."""
    gap_mm = 0.03 * height_mm
    inch_per_mm = min(5.0 / height_mm, 11.0 / (sum(widths_mm) + gap_mm * len(widths_mm)))
    total_mm = sum(widths_mm) + gap_mm * (len(widths_mm) - 1)
    figure = Figure(figsize=(total_mm * inch_per_mm, height_mm * inch_per_mm))
    axes: list[Axes] = []
    at_mm = 0.0
    for width_mm in widths_mm:
        axes.append(figure.add_axes((at_mm / total_mm, 0.0, width_mm / total_mm, 1.0)))
        axes[-1].set_ylim(height_mm, 0)
        at_mm += width_mm + gap_mm
    return figure, axes


def _middle_views(hu: Int16[ndarray, "z y x"]) -> tuple[ndarray, ndarray]:
    """Return the coronal and sagittal views through the middle of the body."""
    body = (hu > -300).sum(axis=0)
    if not body.any():
        return hu[:, hu.shape[1] // 2], hu[:, :, hu.shape[2] // 2]
    rows, columns = np.nonzero(body > 0.3 * body.max())
    return hu[:, int(np.median(rows))], hu[:, :, int(np.median(columns))]
