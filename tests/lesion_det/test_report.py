"""The report is one file that escapes what it is given, and its numbers are those of the record."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lesion_det.cells import Cell
from lesion_det.comparison import ArmResult, Comparison
from lesion_det.det_config import DetConfig
from lesion_det.difference_figures import of_pair
from lesion_det.gallery import SHOWN
from lesion_det.recipe import nearest_preset
from lesion_det.report import Evidence, render_html, write_report
from lesion_det.report_words import answer, point_bounds, points
from tests.lesion_det.toy_report import tiny_evidence, tiny_record, tiny_truth
from ubr_pretrain.web_page import csp_hash

LESION = (10.0, 20.0, 40.0, 60.0)
EVIL = '"><script>alert(1)</script>{{7*7}}$a$&'


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def written(grid, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Evidence, Path]:
    """The grid and the folder of its report."""
    folder = tmp_path_factory.mktemp("written")
    write_report(folder, *grid, rng())
    return *grid, folder


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


def test_S04_names_and_reasons_are_text_and_never_markup() -> None:
    """report.html shows arms, titles, reasons and sources as text: no tag, script or attribute
    comes of them."""
    page = Page(html := render_html(tiny_record(EVIL), tiny_evidence(EVIL), rng()))
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


def test_answer_never_asks_for_more_than_100_points(written) -> None:
    comparison = written[0]
    assert comparison.power is not None
    measured = comparison.power.measured
    blind = [pair.model_copy(update={"smallest_difference": 1.4}) for pair in measured]
    power = comparison.power.model_copy(update={"measured": tuple(blind)})
    unresolved = [c.model_copy(update={"verdict": "not resolved"}) for c in comparison.claims]
    told = comparison.model_copy(update={"power": power, "claims": tuple(unresolved)})
    text = " ".join(answer(told))
    assert "no difference that recalls can have is seen" in text
    assert "140" not in text


def test_every_picture_is_embedded_once_and_every_start_has_its_panel(written) -> None:
    comparison, of_page, folder = written
    html = (folder / "report.html").read_text("utf-8")
    embedded = re.findall(r"data:image/jpeg;base64,[^\"]+", html)
    assert 4 < len(embedded) <= sum(SHOWN.values())
    assert len(embedded) == len(set(embedded))
    compared = sum(bool(arm.finished) for arm in comparison.arms)
    assert html.count("<use href=") + len(embedded) >= compared * len(embedded)
    assert len(of_page.answers) == compared


def test_a_grid_in_progress_says_so_on_top() -> None:
    record = tiny_record()
    waiting = Cell(arm="random", seed=2, status="not started")
    arm = record.arms[0].model_copy(update={"cells": (*record.arms[0].cells, waiting)})
    started = record.model_copy(update={"arms": (arm,)})
    html = render_html(started, tiny_evidence(), rng())
    assert "Not finished: 1 of 3 trainings finished, 1 failed and 1 not started" in html
    assert html.index("Not finished") < html.index("The claims of the paper")
    nothing = started.model_copy(
        update={"arms": (ArmResult(arm="random", cells=(waiting,)),), "pairs": ()}
    )
    html = render_html(nothing, Evidence(tiny_truth()[0], {}, Path("nowhere")), rng())
    assert "No training has finished yet" in html


def test_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(tmp_path / "a", tiny_record(), tiny_evidence(), rng())
    second = write_report(tmp_path / "b", tiny_record(), tiny_evidence(), rng())
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


def test_a_recipe_names_its_preset_and_what_leaves_it() -> None:
    config = DetConfig(coco=Path("x"))
    assert nearest_preset(config) == "the defaults"
    other = config.model_copy(update={"iterations": 7, "workers": 3, "device": "cpu"})
    assert nearest_preset(other) == "the defaults, except iterations 7 (there 60000)"
