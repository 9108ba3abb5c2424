"""How figures of the report look: one colour, line and marker an arm, and SVG that fits the page.

Text takes the page's font, nothing is an inline style (the page's policy allows none), and what
belongs to an arm carries its number, by which the page switches it off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any
from xml.etree import ElementTree

from jaxtyping import Float64
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from ubr_pretrain.web_page import visible

Dashes = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class ArmLook:
    """What an arm is told by: never by its colour alone.

    Attributes:
        index: its number on the page.
        colour: that of Okabe and Ito, or near it.
        dashes: of its lines.
        marker: of its points.
    """

    index: int
    colour: str
    dashes: Dashes = "-"
    marker: str = "o"

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of ``Axes.plot``."""
        return {"color": self.colour, "linestyle": self.dashes}

    @property
    def dasharray(self) -> str:
        """The dashes as SVG writes them, in multiples of the line's width; "" for a solid line."""
        return (
            "" if isinstance(self.dashes, str) else " ".join(f"{2.6 * d:g}" for d in self.dashes[1])
        )


_DOTTED: Dashes = (0, (1.0, 1.6))
_KNOWN: Mapping[str, tuple[str, Dashes, str]] = {
    "random": ("#6b7280", (0, (5.0, 2.0)), "s"),
    "ubr": ("#0072b2", "-", "o"),
    "imagenet": ("#d55e00", "-", "^"),
    "ubr+imagenet": ("#7b3f98", "-", "D"),
    "ubr-stats": ("#56b4e9", _DOTTED, "v"),
    "imagenet-stats": ("#e69f00", _DOTTED, "P"),
}
_EXTERNAL: Sequence[tuple[str, Dashes, str]] = (
    ("#009e73", (0, (6.0, 1.5, 1.0, 1.5)), "X"),
    ("#cc79a7", (0, (3.0, 1.5)), "*"),
    ("#333333", (0, (6.0, 1.5, 1.0, 1.5, 1.0, 1.5)), "h"),
)

Looks = Mapping[str, ArmLook]

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
    "text.color": INK,
    "figure.dpi": 72,  # that of SVG: what is measured before is where it is drawn
}

LONGEST_NAME = 20
"""Letters of an arm's name in a figure."""

LABEL_PT = 11.5
"""Distance of two labels, one above the other."""


@dataclass(frozen=True)
class Curve:
    """Rows of one arm over common x values, in per cent.

    Attributes:
        arm: the start.
        x: rising.
        rows: one a seed.
    """

    arm: str
    x: Float64[ndarray, " n"]
    rows: Float64[ndarray, "seeds n"]


@dataclass(frozen=True)
class Plot:
    """A figure, and what the page's script needs to read values off it.

    Attributes:
        svg: the ``<svg>`` element.
        reading: scale and values; None where there is nothing to read.
    """

    svg: Markup
    reading: Mapping[str, Any] | None = None


def arm_looks(arms: Sequence[str]) -> dict[str, ArmLook]:
    """Return the look of every arm, in the order of the page."""
    looks, others = {}, 0
    for index, arm in enumerate(arms):
        if arm in _KNOWN:
            looks[arm] = ArmLook(index, *_KNOWN[arm])
        else:
            looks[arm] = ArmLook(index, *_EXTERNAL[others % len(_EXTERNAL)])
            others += 1
    return looks


def arm_colour(arm: str) -> str:
    """Return the colour of an arm where the others are not known."""
    return arm_looks([arm])[arm].colour


def short(name: str) -> str:
    """Return a name that leaves room for the curves; the page has it whole."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def belongs_to(*looks: ArmLook) -> str:
    """Return the group id of what is shown while all these arms are."""
    return f"arms:{' '.join(map(str, sorted(look.index for look in looks)))}"


def new_figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; to be called in ``STYLE``."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots()


def label_ends(figure: Figure, axis: Axes, curves: Sequence[Curve], looks: Looks) -> None:
    """Name every curve at its right end, no label on another; the limits must be set."""
    figure.draw_without_rendering()
    ends = []
    for curve in curves:
        at = (float(curve.x[-1]), float(curve.rows.mean(axis=0)[-1]))
        ends.append((float(axis.transData.transform(at)[1]), at, curve.arm))
    ends.sort(key=lambda end: end[0])
    heights = _spread_out([end[0] for end in ends], LABEL_PT, axis.bbox.ymax)
    right = axis.bbox.xmax
    for height, (y, at, arm) in zip(heights, ends, strict=True):
        look = looks[arm]
        label = axis.annotate(
            short(arm),
            at,
            (right - float(axis.transData.transform(at)[0]) + 14, height - y),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=8.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "shrinkA": 1, "shrinkB": 0, "linewidth": 1, **look.line},
        )
        label.set_gid(belongs_to(look))
        if label.arrow_patch is not None:
            label.arrow_patch.set_gid(belongs_to(look))


def _spread_out(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Return rising heights moved apart to ``gap``, none above ``top`` if that can be."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    limit = top
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    return placed


def to_plot(
    figure: Figure, name: str, axis: Axes, series: Sequence[Mapping[str, Any]], x_words: str
) -> Plot:
    """Return a finished figure with the values along its curves.

    Args:
        figure: drawn.
        name: of the figure on the page.
        axis: that the curves are in.
        series: ``arm`` (its index), ``x``, ``mean``, ``low``, ``high`` of every curve.
        x_words: what x is, with "{}" for its value.
    """
    svg = to_svg(figure, name)
    if not series:
        return Plot(Markup(svg))
    height = figure.bbox.height
    box = axis.bbox
    reading = {
        "frame": [round(v, 2) for v in (box.xmin, height - box.ymax, box.xmax, height - box.ymin)],
        "x": list(axis.get_xlim()),
        "y": list(axis.get_ylim()),
        "log": axis.get_xscale() == "log",
        "words": x_words,
        "series": list(series),
    }
    return Plot(Markup(svg), reading)


def to_svg(figure: Figure, name: str) -> str:
    """Return the ``<svg>`` element; ids get the figure's name so that one page can hold many."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = text.getvalue()
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            _set(element, key.rpartition("}")[2], value, name, used)
    # mpl's own default, which its style sheet gave
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "stroke-linejoin": "round"}
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    return visible(ElementTree.tostring(root, encoding="unicode"))


def _set(element: ElementTree.Element, key: str, value: str, name: str, used: set[str]) -> None:
    """Set an attribute in the form that the page allows."""
    if key == "style":
        for declaration in value.split(";"):
            what, _, how = (part.strip() for part in declaration.partition(":"))
            if what and what != "font-family":
                element.set(what, how.removesuffix("px"))
    elif key == "id":
        if value.startswith("arms:"):
            element.set("data-arms", value.removeprefix("arms:"))
        elif value in used:
            element.set("id", f"{name}-{value}")
    elif key == "href" and value.startswith("#"):
        element.set("href", f"#{name}-{value[1:]}")
    elif key in ("d", "x", "y", "transform", "points"):
        element.set(key, re.sub(r"-?\d+\.\d{3,}", _two_decimals, " ".join(value.split())))
    else:
        element.set(key, value.replace("url(#", f"url(#{name}-"))


def _two_decimals(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
