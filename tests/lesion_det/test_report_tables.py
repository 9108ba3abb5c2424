"""The comparison as Markdown and CSV, and its numbers in words."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_det.comparison import ArmResult, Comparison
from lesion_det.report_tables import cells_csv, differences_csv, markdown_table, recalls_csv
from lesion_det.report_words import points, with_minus
from tests.lesion_det.toy_report import tiny_record


def test_markdown_table_is_the_golden_one() -> None:
    assert markdown_table(tiny_record()) == (
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


def test_csv_files_hold_every_cell_difference_and_evaluation_as_fractions(comparison) -> None:

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
    """An apostrophe stands before every cell that a spreadsheet would compute."""
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
