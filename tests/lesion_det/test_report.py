"""The report is one file that escapes what it is given, and its numbers are those of the record."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_det.cells import Cell
from lesion_det.comparison import ArmResult, AuditRow, Comparison, Spread
from lesion_det.froc import froc
from lesion_det.gallery import choose_pictures
from lesion_det.ground_truth import read_ground_truth
from lesion_det.metrics import measure
from lesion_det.report import Evidence, cells_csv, markdown_table, render_html, write_report
from lesion_det.report_figures import (
    draw_differences,
    draw_froc,
    draw_learning_curves,
    draw_recall_at_k,
    draw_ubr_training,
)
from lesion_det.significance import Interval, PairDifference
from lesion_det.ubr_chapter import read_ubr_chapter
from tests.lesion_det.toy_comparison import write_toy_data
from tests.lesion_det.toy_split import toy_ground_truth, toy_predictions, write_text

LESION = (10.0, 20.0, 40.0, 60.0)
EVIL = '"><script>alert(1)</script>{{7*7}}$a$&'


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def truth_and_answers():
    truth = toy_ground_truth([[LESION], [LESION], []])
    return truth, toy_predictions([[(0.9, LESION)], [], [(0.3, LESION)]])


def toy_record(text: str = "random") -> Comparison:
    """Return a comparison of one finished arm in which every free text is ``text``."""
    metrics = measure(*truth_and_answers(), rng())
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


class Page(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data"):
                self.loaded.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")


def test_S04_names_and_reasons_are_text_and_never_markup() -> None:
    page = Page(html := render_html(toy_record(EVIL), evidence(EVIL), rng()))
    assert "script" not in page.tags
    assert page.handlers == []
    assert "&lt;script&gt;" in html
    assert "{{7*7}}" in html


def test_page_loads_nothing_from_anywhere() -> None:
    html = render_html(toy_record(), evidence(), rng())
    page = Page(html)
    assert all(link.startswith(("data:", "#")) for link in page.loaded)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in html
    assert "url(http" not in html
    assert len(page.ids) == len(set(page.ids))


def test_page_says_what_must_be_said() -> None:
    html = render_html(toy_record(), evidence(), rng())
    for words in ("not annotated", "Not a medical device", "not run", "not tested", "Holm"):
        assert words in html


@pytest.mark.parametrize("text", ["random", EVIL])
def test_every_figure_is_well_formed_svg(text: str) -> None:
    record = toy_record(text)
    truth, answers = truth_and_answers()
    finished = {text: record.arms[0].finished}
    for svg in (
        draw_learning_curves(finished),
        draw_recall_at_k(finished, 0.9),
        draw_froc({text: [froc(truth, answers)]}),
        draw_differences(record.pairs),
        draw_learning_curves({}),
    ):
        assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(tmp_path / "a", toy_record(), evidence(), rng())
    second = write_report(tmp_path / "b", toy_record(), evidence(), rng())
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "cells.csv",
        "comparison.json",
        "report.html",
        "table.md",
    ]


def test_record_survives_json() -> None:
    record = toy_record()
    assert Comparison.model_validate_json(record.model_dump_json()) == record


def test_markdown_table_is_the_golden_one() -> None:
    assert markdown_table(toy_record()) == (
        "| start | seeds | top-5 recall | FROC mean | AP50 | AP | 95 % interval of top-5 recall |\n"
        "|---|---|---|---|---|---|---|\n"
        "| random | 1 of 2 | 50.0 ± 1.0 | 50.0 ± 1.0 | 50.5 ± 1.0 | 50.5 ± 1.0 | 25.0 to 75.0 |\n"
        "| imagenet | not run | — | — | — | — | random |\n"
    )


@given(st.sampled_from("=+-@\t\r"), st.text(max_size=5))
@settings(max_examples=25, deadline=None)
def test_S05_formula_gets_an_apostrophe(first: str, rest: str) -> None:
    arm = ArmResult(arm=first + rest, not_run=first)
    record = toy_record().model_copy(update={"arms": (arm,)})
    assert cells_csv(record).splitlines()[1].lstrip('"').startswith("'")


def test_gallery_shows_each_group_and_says_what_it_could_not_read(tmp_path: Path) -> None:
    coco, images = write_toy_data(tmp_path, num_train=1, num_val=3)
    truth = read_ground_truth(coco / "val.json")
    boxes = [[(0.9, tuple(box)) for box in image.boxes_xyxy] for image in truth.images]
    all_found = toy_predictions(boxes, truth.sha256)
    some = toy_predictions([boxes[0], [], []], truth.sha256)
    pictures, problems = choose_pictures(truth, {"a": all_found, "b": some}, images, rng())
    assert problems == []
    assert [p.group for p in pictures] == ["found by some", "found by some", "found by all"]
    for picture in pictures:
        x, y, width, height = picture.view_box
        for lesion in picture.panels[0].lesions:
            assert x <= lesion.x
            assert lesion.x + lesion.width <= x + width
            assert y <= lesion.y
            assert lesion.y + lesion.height <= y + height
    (images / truth.images[0].file_name).unlink()
    pictures, problems = choose_pictures(truth, {"a": all_found, "b": some}, images, rng())
    assert len(pictures) == 2
    assert problems[0].endswith("no such slice")


def write_ubr_run(folder: Path) -> Path:
    records = [
        {"iteration": i, "kind": "train", "loss": 1.0, "order": 0.7 / i, "lr": 0.1}
        for i in range(1, 5)
    ]
    records.append({"iteration": 4, "kind": "val", "rank_r_median": 0.98, "rank_r_worst": 0.9})
    folder.mkdir()
    write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    write_text(folder / "run.json", json.dumps({"num_training": 9, "num_validation": 2}))
    return folder


def test_chapter_on_the_regressor_shows_its_run_scores_and_pictures(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    picture = "iVBORw0KGgo="
    for i in range(8):
        (scores / f"<b>volume_{i}.png").write_bytes(base64.b64decode(picture))
    volumes = [
        {"volume": EVIL, "num_slices": 3, "r": None, "rank_r": 0.5, "direction": "undetermined"},
        {"volume": "cut", "code": "E-TRUNC", "cause": "short"},
    ]
    write_text(scores / "scores.json", json.dumps({"volumes": volumes}))
    chapter = read_ubr_chapter(write_ubr_run(tmp_path / "ubr"), scores, [])
    assert chapter is not None
    html = render_html(toy_record(), evidence(ubr=chapter), rng())
    assert html.count(f"data:image/png;base64,{picture}") == 6
    assert "6 of 8 curves are shown" in html
    assert "9 volumes to train on, 2 held out" in html
    assert "E-TRUNC short" in html
    assert "<script>" not in html
    assert "<b>volume" not in html


def test_no_chapter_without_a_regressor() -> None:
    assert read_ubr_chapter(None, None, []) is None
    assert "body-part regressor behind" not in render_html(toy_record(), evidence(), rng())


def test_training_figure_of_a_run_without_validation() -> None:
    svg = draw_ubr_training([{"iteration": 1, "kind": "train", "order": 0.7}])
    assert ElementTree.fromstring(svg).tag.endswith("svg")
