"""Cells of our CSV files that a spreadsheet must not compute."""

from __future__ import annotations

from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""With what a cell begins that spreadsheets take for a formula."""


def harmless(cell: Any) -> Any:
    """Put an apostrophe before a text that would be taken for a formula; return anything else."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
