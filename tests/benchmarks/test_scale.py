"""The page on scale: its tables are what its own figures give, by arithmetic done once more."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from ubr_pretrain.pretrained import NUM_VIEWS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scale.md"


RECORD = {
    "date": "2026-01-02",
    "machine": {
        "cpu": "a processor",
        "cores": 2,
        "platform": "Linux",
        "python": "3.11",
        "packages": {"torch": "2.15", "detectron2": None},
    },
}


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scale_page")


@pytest.fixture
def figures(scale: ModuleType) -> object:
    return scale.Figures(1.0, 12.0, 1.2, 60.0, 70.0, 32768.0, 2.0)


def table(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_tables_of_the_page_are_those_of_its_figures(scale: ModuleType) -> None:
    page = PAGE.read_text("utf-8")
    assert scale.renewed(page, scale.read_figures(page)) == page


def test_any_number_that_is_edited_shows(scale: ModuleType) -> None:
    page = PAGE.read_text("utf-8")
    for name in scale.BLOCKS:
        begin = page.index(f"<!-- scale.py: {name} -->\n")
        end = page.index("<!-- end -->", begin)
        numbers = [*re.finditer(r"(?<=\| )\d[\d.,]*", page[begin:end])]
        numbers = numbers or [*re.finditer(r"(?<= )\d[\d.,]*", page[begin:end])]
        assert numbers
        for number in numbers:
            last = begin + number.start() + len(number.group().rstrip(",.")) - 1
            edited = f"{page[:last]}{(int(page[last]) + 1) % 10}{page[last + 1 :]}"
            assert scale.renewed(edited, scale.read_figures(edited)) != edited, number.group()


def test_page_says_when_and_where_it_was_measured() -> None:
    measured = PAGE.read_text("utf-8").partition("<!-- scale.py: measured -->\n")[2]
    assert re.match(r"Measured \d{4}-\d\d-\d\d; .+ cores; .+Python 3.+; torch .+\.\n", measured)


def test_core_figures_are_for_the_views_of_the_scorer(scale: ModuleType) -> None:
    assert scale.VIEWS == NUM_VIEWS


def test_costs_are_slices_times_the_cost_of_one(scale: ModuleType, figures: object) -> None:
    # Bytes: 10 KB of each header, 524,288 of pixels, half of them, a tenth of them.
    # Core ms: 12; 12 + 2 x 1 of decompression; 1.2; 1.2 + 0.2.
    assert table(scale.costs(figures))[-1] == [
        *("1,000,000", "300,000,000", "600,000,000", "330,000,000", "160.3", "81.64", "18.73"),
        *("1,000", "1,167", "100", "116.7", "18", "21", "9.83", "166.7"),
    ]


def test_the_slowest_of_cores_link_and_opens_is_what_is_waited_for(
    scale: ModuleType, figures: object
) -> None:
    rows = table(scale.waits(figures))
    # 300 slices x 1,000 on a laptop: 4 cores at 12 ms are 900 s; 160 GB at 0.11 GB/s 1,457 s;
    # every file opened twice 600 s. Compressed: 14 ms are 1,050 s, 82 GB 742 s.
    assert rows[0][3:7] == ["15 min", "24 min", "10 min", "24 min"]
    assert rows[0][-1] == "the link (1.6 x the cores)"
    assert rows[1][3:7] == ["18 min", "12 min", "10 min", "18 min"]
    assert rows[1][-1] == "the cores (1.4 x the link)"
    # With a stride: 90 s, 18.7 GB in 170 s, 1.1 opens a file in 330 s.
    assert rows[2][3:7] == ["90 s", "3 min", "6 min", "6 min"]
    assert rows[2][-1] == "opening files (1.9 x the link)"
    # One server is one client; eight shards at a time are eight.
    assert rows[4][5] == "10 min"
    assert rows[8][5] == "75 s"


def test_first_place_that_is_fast_enough_is_named(scale: ModuleType, figures: object) -> None:
    rows = {(row[0], row[1]): row[2:] for row in table(scale.enough(figures))}
    laptop, server = scale.PLACES[0].name, scale.PLACES[2].name
    assert rows["1,000", "every slice"] == [laptop] * 3  # 24 minutes
    assert rows["10,000", "every slice"] == [server, laptop, laptop]  # 4 hours, 24 minutes
    assert rows["1,000,000", "every slice"][0] == "none of these"


def test_page_is_renewed_from_recorded_rows(
    scale: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"what": what, "ours": 2.0 * k + 1} for k, what in enumerate(scale.WHAT.values())]
    results, page = tmp_path / "results.json", tmp_path / "scale.md"
    results.write_text(json.dumps({**RECORD, "rows": {"scale": rows}}))
    page.write_text(PAGE.read_text("utf-8"))
    main = importlib.import_module("scale").main
    assert main(["--results", str(results), "--page", str(page)]) == 0
    text = page.read_text("utf-8")
    assert scale.read_figures(text) == scale.Figures(1, 3, 5, 7, 9, 11, 13)
    assert "\nMeasured 2026-01-02; a processor, 2 cores; Linux, Python 3.11; torch 2.15.\n" in text
    assert text.count("<!-- end -->") == len(scale.BLOCKS) + 1
