"""The table of all results: assembled from what modules say, whatever one of them does."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

STUB = """
from table import Row

def rows():
    return [
        Row("a step", 1.0, 2.0, "s", "bare", 1.11, "on a quiet machine"),
        Row("a slice", 3.0, 2.0, "ms", "a peer", 1.0),
        Row("a file", 3.0, 2.0, "MB", "another"),
    ]
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("bench")


def test_rows_of_all_modules_are_written_and_a_broken_one_is_named(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first.py").write_text(STUB)
    (tmp_path / "broken.py").write_text("def rows():\n    raise ValueError('no disk')\n")
    (tmp_path / "last.py").write_text(STUB.replace("a step", "another step"))
    modules = ("first", "broken", "absent", "last")
    assert bench.measure(modules, tmp_path, tmp_path) == 1
    record = json.loads((tmp_path / "results.json").read_text())
    assert [*record["rows"]] == ["first", "last"]
    assert record["failed"] == {
        "broken": "exit code 1: ValueError: no disk",
        "absent": "exit code 1: ModuleNotFoundError: No module named 'absent'",
    }
    verdicts = [(row["ratio"], row["verdict"]) for row in record["rows"]["first"]]
    assert verdicts == [(0.5, "met"), (1.5, "missed"), (1.5, "")]
    assert record["machine"]["cores"] > 0
    assert record["machine"]["packages"]["torch"]
    page = (tmp_path / "results.md").read_text()
    assert page.startswith(record["date"])
    for line in ("| a step | 1 s | bare | 2 s | 0.500 | <= 1.11 | met |", "broken: failed: exit"):
        assert line in page
    assert "another step" in capsys.readouterr().out


def test_all_modules_are_there_and_say_how_they_are_run(bench: ModuleType) -> None:
    for module in bench.MODULES:
        text = (BENCHMARKS / f"{module}.py").read_text()
        assert "\ndef rows(" in text
        assert f"python benchmarks/{module}.py" in text


def test_inputs_are_well_formed_rows(bench: ModuleType) -> None:
    for row in bench.rows_of("inputs", BENCHMARKS):
        assert row.ours > 0
        assert row.bound > 0
        assert row.verdict in ("met", "missed")
