"""The sources of the packages, parsed once: rules that hold for every line of them."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ubr_pretrain", "converters", "lesion_det", "examples")


@cache
def calls() -> tuple[tuple[str, ast.Call | ast.Import | ast.ImportFrom], ...]:
    """Return every call and import with the file that it is in."""
    return tuple(
        (str(file.relative_to(ROOT)), node)
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
        for node in nodes(file.read_text("utf-8"))
    )


def nodes(code: str) -> list[ast.Call | ast.Import | ast.ImportFrom]:
    """Return every call and import of some code."""
    wanted = ast.Call | ast.Import | ast.ImportFrom
    return [node for node in ast.walk(ast.parse(code)) if isinstance(node, wanted)]


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of an expression, "" of any other."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def says(call: ast.Call, key: str, value: object) -> bool:
    """Whether a call has a keyword with this very constant."""
    return any(
        given.arg == key and isinstance(given.value, ast.Constant) and given.value.value is value
        for given in call.keywords
    )
