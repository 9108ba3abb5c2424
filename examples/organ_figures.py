"""The table and the pictures of ``segment_organs.py``."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

COLOURS = {"random": "#8c8c8c", "shuffled": "#d98b2b", "ubr": "#1f6fb4"}
ORGAN_COLOURS = ("#e4572e", "#ffc914", "#76b041", "#17bebb", "#8a6fdf", "#d45087", "#2f4b7c")
NUM_DRAWS = 2000
"""Of the patients held out, for an interval."""


def summarise(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row per number of labelled patients and organ, and one for the mean of the organs.

    Columns: the mean Dice of every start with (lowest highest seed); ubr minus the others with the
    95 % interval over patients drawn anew, in pairs, seeds averaged.
    """
    organs = [*results["organs"], "mean"]
    num_held_out = len(results["trainings"][0]["dice"])
    draws = np.random.default_rng(0).integers(num_held_out, size=(NUM_DRAWS, num_held_out))
    rows = []
    for num_patients in dict.fromkeys(t["num_patients"] for t in results["trainings"]):
        scores = {
            start: _scores(results["trainings"], num_patients, start)
            for start in dict.fromkeys(t["start"] for t in results["trainings"])
        }
        for k, organ in enumerate(organs):
            row: dict[str, Any] = {"patients": num_patients, "organ": organ}
            for start, values in scores.items():
                seeds = np.nanmean(values[:, :, k], axis=1)
                row[start] = f"{seeds.mean():.3f} ({seeds.min():.3f} {seeds.max():.3f})"
            for other in [start for start in scores if start != "ubr"]:
                gain = np.nanmean(scores["ubr"] - scores[other], axis=0)[:, k]
                low, high = np.nanquantile(np.nanmean(gain[draws], axis=1), (0.025, 0.975))
                row[f"ubr - {other}"] = f"{np.nanmean(gain):+.3f} ({low:+.3f} {high:+.3f})"
            rows.append(row)
    return pd.DataFrame(rows)


def _scores(
    trainings: Sequence[Mapping[str, Any]], num_patients: int, start: str
) -> NDArray[np.float64]:
    """Return Dice [seed, patient, organ], the mean over the organs last."""
    values = np.array(
        [
            list(t["dice"].values())
            for t in trainings
            if (t["num_patients"], t["start"]) == (num_patients, start)
        ],
        float,
    )
    return np.concatenate([values, np.nanmean(values, axis=2, keepdims=True)], axis=2)


def draw_curves(trainings: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the Dice of the patients held out over the iterations, a line a training."""
    numbers = list(dict.fromkeys(t["num_patients"] for t in trainings))
    figure = Figure(figsize=(1 + 4 * len(numbers), 3.4), layout="constrained")
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)
    for panel, num_patients in zip(panels[0], numbers, strict=True):
        for start, colour in COLOURS.items():
            curves = [
                t["curve"]
                for t in trainings
                if (t["num_patients"], t["start"]) == (num_patients, start)
            ]
            steps = [point["iteration"] for point in curves[0]]
            heights = np.array([[point["dice"] for point in curve] for curve in curves])
            panel.plot(steps, heights.T, color=colour, linewidth=0.8, alpha=0.5)
            panel.plot(steps, heights.mean(0), color=colour, linewidth=2.2, label=start)
        panel.set(xlabel="iteration", ylim=(0, 1), title=f"{num_patients} labelled patients")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("Dice, mean of organs, held-out patients")
    panels[0][0].legend(title="encoder starts")
    figure.savefig(file, dpi=110)


def draw_slices(
    patients: Sequence[Any],
    found: Mapping[str, Sequence[NDArray[np.uint8]]],
    spec: Any,
    organs: Sequence[str],
    file: Path,
    num_rows: int = 3,
) -> None:
    """Draw a slice of the first patients held out that shows many organs, as each start saw it."""
    rows = range(min(num_rows, len(patients)))
    columns = ["CT", "truth", *found]
    size = (2.1 * len(columns), 2.1 * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    colours = ListedColormap(ORGAN_COLOURS)
    for row, column in product(rows, range(len(columns))):
        patient, panel = patients[row], panels[row][column]
        areas = [(patient.organs == 1 + k).sum((1, 2)) for k in range(len(organs))]
        index = int(np.log1p(areas).sum(0).argmax())  # small organs count
        window = {"vmin": spec.window.lower_hu, "vmax": spec.window.upper_hu}
        panel.imshow(patient.hu[index], "gray", **window)
        maps = {"truth": patient.organs} | {start: f[row] for start, f in found.items()}
        if columns[column] in maps:
            labels = maps[columns[column]][index]
            shown = np.ma.masked_equal(labels, 0) - 1
            panel.imshow(shown, colours, vmin=-0.5, vmax=len(ORGAN_COLOURS) - 0.5, alpha=0.75,
                         interpolation="nearest")  # fmt: skip
        panel.axis("off")
        if row == 0:
            panel.set_title(columns[column])
    handles = [Patch(color=c, label=o) for c, o in zip(ORGAN_COLOURS, organs, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(organs), frameon=False)
    figure.savefig(file, dpi=90)
