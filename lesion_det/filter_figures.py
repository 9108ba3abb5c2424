"""Pictures of what a training changed in a trunk: drift by layer and arm, and conv1's filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from lesion_det.filter_drift import ArmDrift, LayerDrift
from lesion_det.report_figures import STYLE, Looks, arm_looks, belongs_to, short, to_svg

MEASURES: Mapping[str, str] = {
    "cosine": "cosine of the filters",
    "relative_l2": "relative L2",
    "cka": "CKA of the activations",
}
UNDEFINED: Mapping[str, str] = {
    "cosine": "",
    "relative_l2": "undefined: folded batch norms rescaled every filter",
    "cka": "undefined: the layer is dead",
}
DETECTION = "start -> detector"

COLUMNS = 16
"""Filters beside each other in a grid."""

PIXELS_IN_BETWEEN = 1


def draw_drift(rows: Sequence[LayerDrift], looks: Looks | None = None) -> str:
    """Draw every measure by layer, one column for what pretraining changed, one for detection.

    Args:
        rows: of all arms; the way from the first to the last stage is left to the table.
        looks: of the arms on the page; None tells apart those that are here.
    """
    looks = looks or arm_looks(list(dict.fromkeys(row.arm for row in rows)))
    steps = {
        "pretraining": [row for row in rows if row.step.endswith("-> ubr")],
        "detection": [row for row in rows if row.step == DETECTION],
    }
    shown = {name: of_step for name, of_step in steps.items() if of_step}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 6.6), layout="constrained")
        axes = figure.subplots(len(MEASURES), max(1, len(shown)), squeeze=False)
        for line, (measure, words) in zip(axes, MEASURES.items(), strict=True):
            values = [v for row in rows if (v := getattr(row, measure)) is not None]
            for axis, (name, of_step) in zip(line, shown.items(), strict=False):
                _draw_measure(axis, of_step, measure, looks)
                axis.set_title(name, loc="left", fontsize=9)
                if values:  # at least a hundredth is shown, so that nothing is made of nothing
                    edge = max(0.05 * (max(values) - min(values)), 0.005)
                    axis.set_ylim(min(values) - edge, max(values) + edge)
            line[0].set_ylabel(words)
        if shown:
            figure.legend(*_lines(axes[0]), loc="outside lower center", ncols=4, fontsize=8)
        return to_svg(figure, "drift")


def _lines(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Return lines and names of the columns."""
    pairs = [axis.get_legend_handles_labels() for axis in axes]
    return [line for lines, _ in pairs for line in lines], [name for _, n in pairs for name in n]


def _draw_measure(axis: Any, rows: Sequence[LayerDrift], measure: str, looks: Looks) -> None:
    layers = list(dict.fromkeys(row.layer for row in rows))
    for arm, step in dict.fromkeys((row.arm, row.step) for row in rows):
        values = {row.layer: getattr(row, measure) for row in rows if row.arm == arm}
        y = np.array([values[layer] for layer in layers], np.float64)  # None becomes NaN
        label = short(arm) if step == DETECTION else f"{short(arm)}: {step}"
        look = looks[arm]
        style = {**look.line, "marker": look.marker, "markersize": 3.6, "gid": belongs_to(look)}
        axis.plot(range(len(layers)), y, label=label.replace("->", "→"), **style)
    axis.set_xticks(range(len(layers)), [layer.removeprefix("conv") for layer in layers])
    axis.set_xlim(-0.5, len(layers) - 0.5)
    if all(getattr(row, measure) is None for row in rows):
        axis.text(0.5, 0.5, UNDEFINED[measure], ha="center", fontsize=8, transform=axis.transAxes)


def draw_first_filters(drifts: Sequence[ArmDrift]) -> str:
    """Draw conv1_1 before and after every step, one row an arm, its stages at one scale.

    Of trunks that began with ImageNet's photographs the three input channels are red, green and
    blue; the others are shown as the mean over the three.
    """
    shown = [drift for drift in drifts if drift.first_filters]
    columns = max((len(drift.first_filters) for drift in shown), default=1)
    filters_high = max((-(-_number(drift) // COLUMNS) for drift in shown), default=1)
    with mpl.rc_context(STYLE):
        height = 0.35 + 9.2 / columns * filters_high / COLUMNS
        figure = Figure(figsize=(9.2, height * max(1, len(shown))), layout="constrained")
        axes = figure.subplots(max(1, len(shown)), columns, squeeze=False)
        for axis in axes.ravel():
            axis.set_axis_off()
        for drift, line in zip(shown, axes, strict=False):
            coloured = drift.arm in ("imagenet", "ubr+imagenet")
            bank = {name: _pictures(t, coloured) for name, t in drift.first_filters.items()}
            limit = max(float(np.abs(filters).max()) for filters in bank.values()) or 1.0
            for axis, (stage, filters) in zip(
                line[columns - len(bank) :], bank.items(), strict=True
            ):
                grid = filter_grid(0.5 + 0.5 * filters / limit)
                axis.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="none")
                axis.set_title(f"{short(drift.arm)}: {stage}, ± {limit:.2g}", fontsize=8)
        return to_svg(figure, "filters")


def _number(drift: ArmDrift) -> int:
    return max(len(filters) for filters in drift.first_filters.values())


def _pictures(filters: Tensor, coloured: bool) -> Float[ndarray, "F k k c"]:
    values = filters.detach().permute(0, 2, 3, 1).numpy()
    return values if coloured else values.mean(axis=3, keepdims=True)


def filter_grid(filters: Float[ndarray, "F k k c"]) -> Float[ndarray, "Y X c"]:
    """Return filters (0..1) side by side, white lines in between and around."""
    number, side, _, channels = filters.shape
    pitch = side + PIXELS_IN_BETWEEN
    rows = -(-number // COLUMNS)
    grid = np.ones(
        (rows * pitch + PIXELS_IN_BETWEEN, COLUMNS * pitch + PIXELS_IN_BETWEEN, channels)
    )
    for index, one in enumerate(filters):
        y, x = (PIXELS_IN_BETWEEN + pitch * place for place in divmod(index, COLUMNS))
        grid[y : y + side, x : x + side] = one
    return grid
