"""The report is one file that escapes what it is given, and its numbers are those of the record."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_det.cells import Cell
from lesion_det.comparison import ArmResult, AuditRow, Comparison, Spread
from lesion_det.curve_figures import (
    draw_froc,
    draw_label_efficiency,
    draw_learning_curves,
    draw_recall_at_k,
)
from lesion_det.det_config import DetConfig
from lesion_det.difference_figures import draw_along, draw_differences, draw_groups, of_pair
from lesion_det.froc import froc
from lesion_det.gallery import SHOWN
from lesion_det.metrics import measure
from lesion_det.recipe import nearest_preset
from lesion_det.report import Evidence, render_html, write_report
from lesion_det.report_figures import arm_looks
from lesion_det.report_tables import cells_csv, differences_csv, markdown_table, recalls_csv
from lesion_det.report_words import answer, point_bounds, points, with_minus
from lesion_det.significance import Interval, PairDifference
from tests.lesion_det.toy_report import toy_report
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions
from ubr_pretrain.web_page import csp_hash

LESION = (10.0, 20.0, 40.0, 60.0)
EVIL = '"><script>alert(1)</script>{{7*7}}$a$&'


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def truth_and_answers():
    truth = toy_ground_truth([[LESION], [LESION], []])
    return truth, toy_predictions([[(0.9, LESION)], [], [(0.3, LESION)]])


@pytest.fixture(scope="module")
def metrics():
    return measure(*truth_and_answers(), rng())


def toy_record(metrics, text: str = "random") -> Comparison:
    """Return a comparison of one finished arm in which every free text is ``text``."""
    cell = Cell(
        arm=text, seed=0, status="finished", curve=((5, 0.2), (10, 0.5)), metrics=metrics, seconds=3
    )
    failed = Cell(arm=text, seed=1, status="failed", reason=text)
    arm = ArmResult(
        arm=text,
        cells=(cell, failed),
        pooled=Interval(value=0.5, low=0.25, high=0.75, note=text),
        spreads={name: Spread(mean=value, sd=0.01) for name, value in metrics.scalars().items()},
        weights=({"tensor": text, "shape": "3", "l2_norm": "1", "loaded": "True", "source": text},),
    )
    pair = PairDifference(
        a=text, b=text, seeds=(0,), per_seed=(0.1,), value=0.1, low=0, high=0.2, p=0.2, note=text
    )
    return Comparison(
        title=text,
        data={text: text},
        recipe={text: text},
        settings=text,
        audit=(AuditRow(what=text, values={text: text, "b": "c"}, equal=False),),
        arms=(arm, ArmResult(arm="imagenet", not_run=text)),
        pairs=(pair,),
        claims=(),
        untested={text: text},
        versions={text: text},
    )


def evidence(text: str = "random", **more: object) -> Evidence:
    truth, answers = truth_and_answers()
    return Evidence(truth, {text: (answers,)}, Path("nowhere"), **more)


@pytest.fixture(scope="module")
def record(metrics) -> Comparison:
    return toy_record(metrics)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Evidence, Path]:
    """A grid of three starts, three seeds and two fractions of the labels, and its report."""
    folder = tmp_path_factory.mktemp("grid")
    comparison, of_page = toy_report(folder / "data", num_val=16)
    write_report(folder, comparison, of_page, rng())
    return comparison, of_page, folder


class Page(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.forbidden: list[str] = []
        self.ids: list[str] = []
        self.policy = ""
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "action"):
                self.loaded.append(value or "")
            if name.startswith("on") or name == "style":
                self.forbidden.append(name)
            if name == "id":
                self.ids.append(value or "")
            if tag == "meta" and name == "content" and "default-src" in (value or ""):
                self.policy = value or ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.texts.setdefault(self._open, []).append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def test_S04_names_and_reasons_are_text_and_never_markup(metrics) -> None:
    page = Page(html := render_html(toy_record(metrics, EVIL), evidence(EVIL), rng()))
    assert page.tags.count("script") == 2
    assert page.forbidden == []
    assert "&lt;script&gt;" in html
    assert "{{7*7}}" in html
    assert "alert(1)</script>" not in html


def test_page_loads_nothing_from_anywhere_and_its_policy_names_its_own_script(written) -> None:
    html = (written[2] / "report.html").read_text("utf-8")
    page = Page(html)
    assert all(link.startswith(("data:image/", "#")) for link in page.loaded)
    assert not {"link", "iframe", "object", "form", "base"} & set(page.tags)
    assert "@import" not in html
    assert "url(http" not in html
    assert page.forbidden == []
    assert len(page.ids) == len(set(page.ids))
    (style,), (data, script) = page.texts["style"], page.texts["script"]
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src '{csp_hash(style)}'; "
        f"script-src '{csp_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    assert json.loads(data)["arms"] == ["random", "ubr", "imagenet", "ubr+imagenet"]


def test_page_says_what_must_be_said_in_the_order_of_a_reader(written) -> None:
    comparison, _, folder = written
    html = (folder / "report.html").read_text("utf-8")
    headings = re.findall(r'<h2 id="(\w+)">', html)
    assert headings == [
        "claims", "final", "curves", "pairs", "groups", "detections", "labels", "filters",
        "slices", "manifest", "care",
    ]  # fmt: skip
    for words in (
        "17 of 18 trainings finished, 1 failed",
        "iteration 7: loss not finite",
        "not annotated",
        "Not a medical device",
        "not run",
        "not tested",
        "Holm",
        "the defaults, except iterations 10000 (there 60000)",
        "differs, as declared",
        "7 of 7",
        "90 % of its own best",
    ):
        assert words in html, words
    for sentence in answer(comparison):
        assert sentence.split("(")[0] in html
    assert "nan" not in re.sub(r"data:image/[^\"]+", "", html).lower().replace("imagenet", "")


def test_answer_gives_the_difference_and_what_could_have_been_seen(written) -> None:
    comparison = written[0]
    sentences = answer(comparison)
    pair = of_pair(comparison.pairs, "ubr", "random")
    assert pair is not None
    assert points(pair.value) in sentences[1]
    assert point_bounds(pair) in sentences[1]
    for sentence, claim in zip(sentences[1:], comparison.claims, strict=False):
        assert claim.verdict in sentence
        assert ("neither a yes nor a no" in sentence) == (claim.verdict == "not resolved")
    assert "is better than ImageNet alone" in sentences[3]


def test_every_picture_is_embedded_once_and_every_start_has_its_panel(written) -> None:
    comparison, of_page, folder = written
    html = (folder / "report.html").read_text("utf-8")
    embedded = re.findall(r"data:image/jpeg;base64,[^\"]+", html)
    assert 4 < len(embedded) <= sum(SHOWN.values())
    assert len(embedded) == len(set(embedded))
    compared = sum(bool(arm.finished) for arm in comparison.arms)
    assert html.count("<use href=") + len(embedded) >= compared * len(embedded)
    assert len(of_page.answers) == compared


def test_a_grid_in_progress_says_so_on_top(metrics, record) -> None:
    waiting = Cell(arm="random", seed=2, status="not started")
    arm = record.arms[0].model_copy(update={"cells": (*record.arms[0].cells, waiting)})
    started = record.model_copy(update={"arms": (arm,)})
    html = render_html(started, evidence(), rng())
    assert "Not finished: 1 of 3 trainings finished, 1 failed and 1 not started" in html
    assert html.index("Not finished") < html.index("The claims of the paper")
    nothing = started.model_copy(
        update={"arms": (ArmResult(arm="random", cells=(waiting,)),), "pairs": ()}
    )
    html = render_html(nothing, Evidence(truth_and_answers()[0], {}, Path("nowhere")), rng())
    assert "No training has finished yet" in html


@pytest.mark.parametrize("text", ["random", EVIL, "a" * 300])
def test_every_figure_is_well_formed_svg_without_styles(metrics, written, text: str) -> None:
    record, comparison = toy_record(metrics, text), written[0]
    truth, answers = truth_and_answers()
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


def test_values_that_the_page_reads_lie_where_the_curve_is_drawn(written) -> None:
    comparison = written[0]
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


def test_same_record_gives_the_same_bytes(record, tmp_path: Path) -> None:
    first = write_report(tmp_path / "a", record, evidence(), rng())
    second = write_report(tmp_path / "b", record, evidence(), rng())
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "cells.csv",
        "comparison.json",
        "differences.csv",
        "groups.csv",
        "recalls.csv",
        "report.html",
        "table.md",
    ]


def test_record_survives_json(written) -> None:
    comparison, _, folder = written
    text = (folder / "comparison.json").read_text("utf-8")
    assert Comparison.model_validate_json(text) == comparison
    assert "fractions of 1" in json.loads(text)["units"]


def test_markdown_table_is_the_golden_one(record) -> None:
    assert markdown_table(record) == (
        "| start | seeds | top-5 recall | FROC mean | AP50 | AP | 95 % interval of top-5 recall |\n"
        "|---|---|---|---|---|---|---|\n"
        "| random | 1 of 2 | 50.0 ± 1.0 | 50.0 ± 1.0 | 50.5 ± 1.0 | 50.5 ± 1.0 | 25.0 to 75.0 |\n"
        "| imagenet | not run | — | — | — | — | random |\n"
        "\n"
        "In per cent; mean ± standard deviation over seeds. Differences are in points.\n"
        "\n"
        "1 of 2 trainings finished, 1 failed.\n"
        "\n"
        "| claim | verdict | difference | why |\n"
        "|---|---|---|---|\n"
        "| random | not tested | — | random |\n"
    )


def test_csv_files_hold_every_cell_difference_and_evaluation_as_fractions(written) -> None:
    comparison = written[0]

    def rows(text: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(text)))

    cells = rows(cells_csv(comparison))
    assert len(cells) == len(comparison.cells) + 1  # and the arm that was not run
    assert {row["label_fraction"] for row in cells} == {"", "1", "0.1"}
    differences = rows(differences_csv(comparison))
    expected = len(comparison.pairs) + len(comparison.label_pairs)
    expected += sum(len(point.pairs) for point in comparison.curve_points)
    assert len(differences) == expected
    assert float(differences[0]["difference"]) == pytest.approx(comparison.pairs[0].value, abs=1e-6)
    each = json.loads(differences[0]["per_seed"])
    assert np.mean(each) == pytest.approx(comparison.pairs[0].value, abs=1e-5)
    assert {row["unit"] for row in cells + differences} == {"fraction of 1"}
    assert len(rows(recalls_csv(comparison))) == sum(len(cell.curve) for cell in comparison.cells)


@given(st.sampled_from("=+-@\t\r"), st.text(max_size=5))
@settings(max_examples=25, deadline=None)
def test_S05_formula_gets_an_apostrophe(first: str, rest: str) -> None:
    arm = ArmResult(arm=first + rest, not_run=first)
    record = Comparison(
        title="", data={}, settings="", audit=(), arms=(arm,), pairs=(), claims=(), untested={},
        versions={},
    )  # fmt: skip
    assert cells_csv(record).splitlines()[1].lstrip('"').startswith("'")


def test_numbers_in_words() -> None:
    assert points(-0.0001) == "0.0"
    assert points(-0.012) == "\N{MINUS SIGN}1.2"
    assert with_minus("p-value -2.4 to -1e-5, no-1") == (
        "p-value \N{MINUS SIGN}2.4 to \N{MINUS SIGN}1e-5, no-1"
    )


def test_a_recipe_names_its_preset_and_what_leaves_it() -> None:
    config = DetConfig(coco=Path("x"))
    assert nearest_preset(config) == "the defaults"
    other = config.model_copy(update={"iterations": 7, "workers": 3, "device": "cpu"})
    assert nearest_preset(other) == "the defaults, except iterations 7 (there 60000)"
