"""Pictures of how a scorer was measured.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ubr_pretrain.figures import GREY, save_figure
from ubr_pretrain.labelled_curves import LabelledCurve
from ubr_pretrain.landmark_errors import aligned_places

TYPE_COLOURS = mpl.color_sequences["tab10"]
COLOURS = mpl.color_sequences["tab20"]


def draw_aligned_curves(curves: Sequence[LabelledCurve], tested: Sequence[str], path: Path) -> None:
    """Draw all curves over one body axis, so that one sees where volumes disagree.

    Volumes are shifted, never stretched, until their landmarks agree best. Tested volumes are
    coloured, the others grey; a dot is a landmark.
    """
    places, offsets = aligned_places(curves)
    figure = Figure(figsize=(11, 6))
    axis = figure.subplots()
    shown = 0
    for curve in sorted(curves, key=lambda c: c.name in tested):
        if curve.name not in offsets:
            continue
        chosen = curve.name in tested
        colour = COLOURS[shown % len(COLOURS)] if chosen else GREY
        shown += chosen
        offset = offsets[curve.name]
        axis.plot(
            curve.z_mm - offset,
            curve.scores,
            color=colour,
            alpha=0.9 if chosen else 0.35,
            linewidth=1.3,
            label=curve.name if chosen and len(tested) <= 20 else None,
        )
        marked = list(curve.marks.values())
        axis.plot(
            curve.z_mm[marked] - offset, curve.smooth[marked], "o", color=colour, markersize=4
        )
    for name, place in places.items():
        axis.axvline(place, color=GREY, linewidth=0.6, linestyle=":")
        axis.annotate(
            name.replace("_", " "),
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            rotation=60,
            fontsize=8,
            va="bottom",
        )
    axis.set(xlabel="mm towards the feet, volumes shifted onto common landmarks", ylabel="score")
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    save_figure(figure, path)


def draw_parity(rows: pd.DataFrame, path: Path) -> None:
    """Draw our scores over the published ones, coloured by the type of the lesion.

    Args:
        rows: columns location, lesion_type, score_hu, score_grey and their deviations
            score_hu_sd, score_grey_sd (empty for one view).
        path: the picture.
    """
    figure = Figure(figsize=(11, 4.6))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    ways = ((left, "score_hu", "from HU"), (right, "score_grey", "from an 8-bit picture"))
    kinds = sorted(rows["lesion_type"].unique())
    for axis, column, title in ways:
        for kind, colour in zip(kinds, TYPE_COLOURS, strict=False):
            chosen = rows[rows["lesion_type"] == kind]
            sd = chosen[f"{column}_sd"]
            axis.errorbar(
                chosen["location"],
                chosen[column],
                yerr=None if sd.isna().any() else sd,
                fmt="o",
                markersize=4,
                elinewidth=0.6,
                color=colour,
                label=kind,
            )
        axis.set(title=title, xlabel="published body coordinate")
        axis.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("score")
    left.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    save_figure(figure, path)
