"""The report's chapter on the regressor behind the trunk."""

import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lesion_det.cells import Cell
from lesion_det.comparison import ArmResult, Comparison
from lesion_det.curve_figures import draw_ubr_training
from lesion_det.report import Evidence, render_html
from lesion_det.ubr_chapter import read_ubr_chapter
from tests.lesion_det.toy_split import toy_ground_truth, write_text

EVIL = '"><script>alert(1)</script>{{7*7}}'


def page(chapter) -> str:
    """Return a page of a comparison in which nothing has run yet."""
    arm = ArmResult(arm="ubr", cells=(Cell(arm="ubr", seed=0, status="not started"),))
    comparison = Comparison(
        title="", data={}, settings="", audit=(), arms=(arm,), pairs=(), claims=(), untested={},
        versions={},
    )  # fmt: skip
    truth = toy_ground_truth([[(1.0, 2.0, 3.0, 4.0)]])
    return render_html(
        comparison, Evidence(truth, {}, Path("nowhere"), ubr=chapter), np.random.default_rng(0)
    )


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
    html = page(chapter)
    assert html.count(f"data:image/png;base64,{picture}") == 6
    assert "6 of 8 curves are shown" in html
    assert "9 volumes to train on, 2 held out" in html
    assert "E-TRUNC short" in html
    assert "<script>alert" not in html
    assert "<b>volume" not in html


def test_N79_a_report_shows_the_doubtful_ones_of_thousands_of_volumes(tmp_path: Path) -> None:
    """A report over thousands of scored volumes shows 200, refused and doubtful ones first."""
    volumes = [
        {
            "volume": f"scan{i:05d}",
            "num_slices": 3,
            "r": 0.9,
            "rank_r": i / 3000,
            "slices": [i] * 99,
        }
        for i in range(3000)
    ]
    volumes[2500] = {"volume": "cut", "code": "E-TRUNC", "cause": "short"}
    write_text(tmp_path / "scores.json", json.dumps({"volumes": volumes}))
    chapter = read_ubr_chapter(None, tmp_path, [])
    assert chapter is not None
    names = [volume["volume"] for volume in chapter.scores]
    assert names == [*(f"scan{i:05d}" for i in range(199)), "cut"]
    assert not any("slices" in volume for volume in chapter.scores)
    html = page(chapter)
    assert "3000 volumes scored" in html
    assert "200 of 3000 volumes are shown" in html
    assert html.count("<td>scan") == 199


def test_no_chapter_without_a_regressor() -> None:
    assert read_ubr_chapter(None, None, []) is None
    assert "body-part regressor behind" not in page(None)


def test_training_figure_of_a_run_without_validation() -> None:
    svg = draw_ubr_training([{"iteration": 1, "kind": "train", "order": 0.7}])
    assert ElementTree.fromstring(svg).tag.endswith("svg")
