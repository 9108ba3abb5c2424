"""Estimates with their intervals: pairs of arms at the end and along the training, groups."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lesion_det.breakdown import GroupOfArms
from lesion_det.claims import swapped
from lesion_det.learning_curve import CurvePoint
from lesion_det.report_figures import INK, STYLE, Looks, belongs_to, new_figure, short, to_svg
from lesion_det.significance import PairDifference

MINUS = "\N{MINUS SIGN}"

MAX_PANELS = 6
"""Pairs shown along the training; the table has them all."""


def draw_differences(pairs: Sequence[PairDifference], looks: Looks) -> Markup:
    """Draw every pair's difference in points with its interval, and the seeds as rings."""
    shown = [pair for pair in pairs if pair.value is not None]
    with mpl.rc_context(STYLE):
        figure, axis = new_figure(9.2, 0.95 + 0.3 * max(1, len(shown)))
        for row, pair in enumerate(reversed(shown)):
            assert pair.value is not None
            gid = belongs_to(looks[pair.a], looks[pair.b])
            if pair.low is not None and pair.high is not None:
                ends = [100 * pair.low, 100 * pair.high]
                resolved = pair.p_holm is not None and pair.p_holm < 0.05
                width = 3.2 if resolved else 1.4
                axis.plot(ends, [row, row], color=INK, linewidth=width, gid=gid)
            axis.plot([100 * pair.value], [row], marker="D", markersize=6.5, color=INK, gid=gid)
            rings = [100 * value for value in pair.per_seed]
            axis.plot(
                rings, [row] * len(rings), "o", markersize=3.6, color=INK, markerfacecolor="w",
                markeredgewidth=0.9, gid=gid,
            )  # fmt: skip
        axis.axvline(0, color=INK, linewidth=1)
        axis.update_datalim([(-1, 0), (1, 0)])  # at least a point to each side of zero
        axis.autoscale_view()
        axis.set_yticks(
            range(len(shown)), [f"{short(p.a)} {MINUS} {short(p.b)}" for p in reversed(shown)]
        )
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(-0.6, max(1, len(shown)) - 0.4)
        axis.grid(visible=False, axis="y")
        _signed(axis)
        axis.set_xlabel("difference of top-5 recall (percentage points), 95 % interval")
        return Markup(to_svg(figure, "pairs"))


def draw_along(
    points: Sequence[CurvePoint], pairs: Sequence[tuple[str, str]], looks: Looks
) -> Markup:
    """Draw the differences of some pairs along the training, each with its interval.

    Args:
        points: of the curve, rising.
        pairs: (minuend, subtrahend) of arms.
        looks: of the arms.
    """
    shown = list(pairs)[:MAX_PANELS]
    columns = min(3, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 0.3 + 2.5 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axis in axes.ravel()[len(shown) :]:
            axis.set_axis_off()
        for axis, (a, b) in zip(axes.ravel(), shown, strict=False):
            gid = belongs_to(looks[a], looks[b])
            found = [(p.iteration, p.early, of_pair(p.pairs, a, b)) for p in points]
            for iteration, early, pair in found:
                if pair is None or pair.value is None:
                    continue
                colour = INK if early else "#7b8494"
                if pair.low is not None and pair.high is not None:
                    ends = [100 * pair.low, 100 * pair.high]
                    width = 2.4 if early else 1.1
                    axis.plot([iteration] * 2, ends, color=colour, linewidth=width, gid=gid)
                axis.plot(
                    [iteration], [100 * pair.value], "D" if early else "o", gid=gid,
                    markersize=5 if early else 3, color=colour,
                )  # fmt: skip
            axis.axhline(0, color=INK, linewidth=0.9)
            axis.set_title(f"{short(a)} {MINUS} {short(b)}", loc="left", fontsize=9)
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.margins(x=0.06)
            if points:  # at least a point to each side of zero
                axis.update_datalim([(points[0].iteration, -1), (points[0].iteration, 1)])
                axis.autoscale_view()
        for axis in axes[:, 0]:
            axis.set_ylabel("points")
            axis.yaxis.set_major_formatter(_signed_text)
        for axis in axes[-1]:
            axis.set_xlabel("iteration")
        return Markup(to_svg(figure, "along"))


def draw_groups(groups: Sequence[GroupOfArms], looks: Looks, name: str) -> Markup:
    """Draw the recall of every arm in every group, with intervals and counts.

    Args:
        groups: of one kind.
        looks: of the arms.
        name: of the figure.
    """
    arms = list(dict.fromkeys(arm for group in groups for arm in group.recall))
    with mpl.rc_context(STYLE):
        pitch = max(0.5, 0.1 + 0.15 * len(arms))  # a line of print an arm
        figure, axis = new_figure(9.2, 0.6 + pitch * len(groups))
        step = 0.8 / max(1, len(arms))
        for row, group in enumerate(reversed(groups)):
            for place, arm in enumerate(arms):
                recall, look = group.recall[arm], looks[arm]
                if recall.value is None:
                    continue
                y, gid = row + 0.4 - step * (place + 0.5), belongs_to(look)
                if recall.low is not None and recall.high is not None:
                    axis.plot(
                        [100 * recall.low, 100 * recall.high], [y, y], gid=gid,
                        linewidth=1.6, **look.line,
                    )  # fmt: skip
                axis.plot(
                    [100 * recall.value], [y], marker=look.marker, markersize=5, gid=gid,
                    color=look.colour,
                )  # fmt: skip
                if row == len(groups) - 1:
                    axis.annotate(
                        short(arm), (1, y), xycoords=("axes fraction", "data"), xytext=(6, 0),
                        textcoords="offset points", va="center", fontsize=8, gid=gid,
                        annotation_clip=False,
                    )  # fmt: skip
        for row in range(1, len(groups)):
            axis.axhline(row - 0.5, color="#c9cfd6", linewidth=0.8)
        axis.set_yticks(
            range(len(groups)),
            [
                f"{readable(g.name)}\n{g.num_lesions:,} in {g.num_patients:,}"
                for g in reversed(groups)
            ],
        )
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False, axis="y")
        axis.set_xlim(0, 101)
        axis.set_ylim(-0.5, len(groups) - 0.5)
        axis.set_xlabel("top-5 recall (%), 95 % interval; lesions in patients")
        return Markup(to_svg(figure, name))


def of_pair(pairs: Sequence[PairDifference], a: str, b: str) -> PairDifference | None:
    """Return a minus b, whichever way round it was compared; None where it was not."""
    for pair in pairs:
        if (pair.a, pair.b) == (a, b):
            return pair
        if (pair.a, pair.b) == (b, a):
            return swapped(pair)
    return None


def pair_name(pair: PairDifference) -> str:
    """Return "ubr - random" with a minus sign."""
    return f"{pair.a} {MINUS} {pair.b}"


def readable(name: str) -> str:
    """Return the name of a group with the signs of print."""
    return name.replace("<=", "≤").replace("-", "\N{EN DASH}")


def _signed(axis: Axes) -> None:
    axis.xaxis.set_major_formatter(_signed_text)


def _signed_text(value: float, _: float) -> str:
    return f"{value:+g}".replace("-", MINUS) if abs(value) > 1e-9 else "0"
