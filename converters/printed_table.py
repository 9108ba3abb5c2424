"""A table on standard output: drawn by rich on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], num_text: int = 1) -> None:
    """Print rows of cells; the first ``num_text`` columns are text, the others numbers."""
    if sys.stdout.isatty():
        table = Table()
        for i, name in enumerate(columns):
            table.add_column(name, justify="left" if i < num_text else "right")
        for row in rows:
            table.add_row(*row)
        Console(markup=False).print(table)
        return
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        cells = (
            cell.ljust(width) if i < num_text else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
