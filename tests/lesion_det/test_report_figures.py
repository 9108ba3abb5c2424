"""Figures of the report: well-formed, without styles, and read where they are drawn."""

import re
from xml.etree import ElementTree

import pytest

from lesion_det.curve_figures import (
    draw_froc,
    draw_label_efficiency,
    draw_learning_curves,
    draw_recall_at_k,
)
from lesion_det.difference_figures import draw_along, draw_differences, draw_groups
from lesion_det.froc import froc
from lesion_det.report_figures import arm_looks
from tests.lesion_det.toy_report import tiny_record, tiny_truth

EVIL = '"><script>alert(1)</script>{{7*7}}$a$&'


@pytest.mark.parametrize("text", ["random", EVIL, "a" * 300])
def test_every_figure_is_well_formed_svg_without_styles(comparison, text: str) -> None:
    record = tiny_record(text)
    truth, answers = tiny_truth()
    finished, looks = {text: record.arms[0].finished}, arm_looks([text])
    toy_looks = arm_looks([arm.arm for arm in comparison.arms])
    for svg in (
        draw_learning_curves(finished, looks, (5,)).svg,
        draw_recall_at_k(finished, looks, {1: 0.9, 20: 1.0}).svg,
        draw_froc({text: [froc(truth, answers)]}, looks).svg,
        draw_differences(record.pairs, looks),
        draw_learning_curves({}, looks).svg,
        draw_along(comparison.curve_points, [("ubr", "random")], toy_looks),
        draw_groups(comparison.breakdown[:2], toy_looks, "groups"),
        draw_label_efficiency(comparison.label_efficiency, toy_looks).svg,
    ):
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert "style" not in {name for element in root.iter() for name in element.attrib}


def test_values_that_the_page_reads_lie_where_the_curve_is_drawn(comparison) -> None:
    finished = {arm.arm: arm.finished for arm in comparison.arms if arm.finished}
    plot = draw_learning_curves(finished, arm_looks(list(finished)))
    assert plot.reading is not None
    left, top, right, bottom = plot.reading["frame"]
    (x0, x1), (y0, y1) = plot.reading["x"], plot.reading["y"]
    series = plot.reading["series"][1]
    drawn = {
        tuple(float(v) for v in pair)
        for path in re.findall(r' d="([^"]+)"', plot.svg)
        for pair in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)
    }
    for x, y in zip(series["x"], series["mean"], strict=True):
        at = left + (x - x0) / (x1 - x0) * (right - left)
        height = bottom - (y - y0) / (y1 - y0) * (bottom - top)
        assert min(abs(at - a) + abs(height - b) for a, b in drawn) < 0.1
