"""Mutations of records: cells of a CSV, values of a JSON or YAML."""

from __future__ import annotations

import csv
import io
import json
from random import Random
from typing import Any

from tests.fuzz.byte_mutators import BOUNDARY_WORDS

BOUNDARY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.5, -0.5, 1.5, 1e-300, 1e300, 10**18, 2**63, 10**400,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "nan", "1e999", "text", "../../x",
    "/etc/passwd", "a\0b", "\u202e", "\ud800", "=1+1", "x" * 3000, [], {}, [0], [[]], {"": 0},
    [1, 2, 3, 4], [float("nan")] * 4, ["a"] * 4, [1, 2, 3], [1, 2, 3, 4, 5], {"a": {"b": []}},
)  # fmt: skip


def csv_cells(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Change a table: a cell, a row, a column, its separator, its encoding."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"), newline="")))
    rows = [row for row in rows if row] or [[""]]
    n = rng.randrange(len(rows))
    m = rng.randrange(len(rows[n]))
    encoding, separator = "utf-8", ","
    match rng.randrange(16):
        case 0:
            rows.pop(n)
            how = f"row {n} removed"
        case 1:
            rows.insert(rng.randrange(len(rows) + 1), rows[n])
            how = f"row {n} doubled"
        case 2:
            rows[n].pop(m)
            how = f"cell {n},{m} removed"
        case 3:
            rows[n].insert(m, rng.choice(BOUNDARY_WORDS))
            how = f"a cell more in row {n}"
        case 4:
            for row in rows:
                del row[m : m + 1]
            how = f"column {m} removed"
        case 5:
            for row in rows:
                row.insert(m, row[m] if m < len(row) else "")
            how = f"column {m} doubled"
        case 6:
            separator = rng.choice(";\t|")
            how = f"separator {separator!r}"
        case 7:
            encoding = rng.choice(("utf-16", "utf-8-sig", "utf-32"))
            how = f"encoding {encoding}"
        case 8:
            k = rng.randrange(len(rows))
            rows[n], rows[k] = rows[k], rows[n]
            how = f"rows {n} and {k} exchanged"
        case _:
            rows[n][m] = _other_cell(rng, rows[n][m])
            how = f"cell {n},{m} = {rows[n][m][:60]!r}"
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=rng.choice(("\n", "\r\n")))
    writer.writerows(rows)
    return text.getvalue().encode(encoding, "surrogatepass"), how


def _other_cell(rng: Random, cell: str) -> str:
    words = cell.split(", ") if ", " in cell else cell.split(",")
    n = rng.randrange(len(words))
    near = [rng.choice(BOUNDARY_WORDS)]
    try:
        value = float(words[n])
        near += [
            f"{x:g}" for x in (-value, value + 1, value - 1, value * 2, value / 2, value * 100)
        ]
    except ValueError:
        near += [words[n].upper(), words[n] + "x", words[n][:-1]]
    words[n] = rng.choice(near)
    if rng.random() < 0.1:
        words = words[:-1] if rng.random() < 0.5 else [*words, "1"]
    return ", ".join(words)


def tree_values(rng: Random, tree: Any) -> tuple[Any, str]:
    """Change one place of a tree of dictionaries and lists (JSON, YAML)."""
    places = list(_places(tree))
    if not places:
        return rng.choice(BOUNDARY_VALUES), "the whole replaced"
    holder, key = rng.choice(places)
    before = holder[key]
    match rng.randrange(8):
        case 0:
            del holder[key]
            return tree, f"{key!r} removed"
        case 1 if isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), before)
            return tree, f"item {key} doubled"
        case 1:
            holder[f"{key}{rng.choice(('_', ' ', 'x'))}"] = holder.pop(key)
            return tree, f"{key!r} renamed"
        case 2:
            other, there = rng.choice(places)
            if not isinstance(other, list) or there < len(other):
                holder[key] = json.loads(json.dumps(other[there])) if there in _keys(other) else 0
            return tree, f"{key!r} takes the value of {there!r}"
        case 3 if isinstance(before, int | float) and not isinstance(before, bool):
            holder[key] = rng.choice((-before, before + 1, before - 1, before * 2, str(before)))
            return tree, f"{key!r} {before} -> {holder[key]!r}"
        case _:
            holder[key] = rng.choice(BOUNDARY_VALUES)
            return tree, f"{key!r} = {str(holder[key])[:40]!r}"


def _keys(holder: Any) -> Any:
    return range(len(holder)) if isinstance(holder, list) else holder


def _places(tree: Any) -> Any:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield tree, key
            yield from _places(value)
    elif isinstance(tree, list):
        for n, value in enumerate(tree[:50]):
            yield tree, n
            yield from _places(value)


def json_values(rng: Random, content: bytes) -> tuple[bytes, str]:
    """Change one value of a JSON document; sometimes its form."""
    tree, how = tree_values(rng, json.loads(content))
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05:
        key = '"a": 1, "a": 2'
        text, how = text.replace("{", "{" + key + ",", 1), f"{how}; a key twice"
    if rng.random() < 0.02:
        text, how = "[" * 100_000 + text, f"{how}; nested 100,000 deep"
    return text.encode("utf-8", "surrogatepass"), how
