"""Cells of our CSV files: text that a spreadsheet must not compute, and that stays in its row."""

from __future__ import annotations

from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""With what a cell begins that spreadsheets take for a formula."""


def harmless(cell: Any) -> Any:
    """Put an apostrophe before a text that would be taken for a formula; return anything else.

    A carriage return becomes a line feed: the csv module (and pandas) does not quote the one, and
    a reader would end the row there.
    """
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if cell.startswith(FORMULA_STARTS) else text
