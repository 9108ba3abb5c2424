"""The page on scale: its tables are what its own figures give, by arithmetic done once more."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scale.md"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scale")


def test_tables_of_the_page_are_those_of_its_figures(scale: ModuleType) -> None:
    page = PAGE.read_text("utf-8")
    assert scale.renewed(page, scale.read_figures(page)) == page


def test_costs_are_slices_times_the_cost_of_one(scale: ModuleType) -> None:
    figures = scale.Figures(1.0, 12.0, 1.2, 60.0, 32768.0, 2.0)
    last = scale.costs(figures).splitlines()[-1]
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert cells == [
        *("1,000,000", "300,000,000", "157", "78.6"),
        *("1,000", "100", "15.7", "18", "9.83", "167"),
    ]


def test_the_slower_of_cores_and_link_is_what_is_waited_for(scale: ModuleType) -> None:
    figures = scale.Figures(1.0, 12.0, 1.2, 60.0, 32768.0, 2.0)
    rows = [line.split(" | ") for line in scale.waits(figures).splitlines()[2:]]
    laptop, server = rows[0], rows[2]
    # 300 slices x 1,000: 4 cores at 12 ms are 900 s; 157 GB at 0.11 GB/s are 1,430 s.
    assert laptop[2] == "24 min"
    assert laptop[-1] == "the link (1.6 x) |"
    # 32 cores at 12 ms: 112 s; 157 GB at 1.1 GB/s: 143 s.
    assert server[2] == "2 min"
    assert rows[4][-1] == "the link (1.4 x) |"


def test_page_is_renewed_from_recorded_rows(
    scale: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"what": what, "ours": 2.0 * k + 1} for k, what in enumerate(scale.WHAT.values())]
    results, page = tmp_path / "results.json", tmp_path / "scale.md"
    results.write_text(json.dumps({"rows": {"scale": rows}}))
    page.write_text(PAGE.read_text("utf-8"))
    assert scale.main(["--results", str(results), "--page", str(page)]) == 0
    assert scale.read_figures(page.read_text("utf-8")) == scale.Figures(1, 3, 5, 7, 9, 11)
    assert page.read_text("utf-8").count("<!-- end -->") == len(scale.BLOCKS)
