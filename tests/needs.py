"""What a test needs that may not be there: read from its marks, skips, fixtures and helpers."""

import ast
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


class Source:
    """One file: its functions, its names for marks, and where its other functions come from."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.tree = file, ast.parse(file.read_text("utf-8"))
        self.names: dict[str, ast.expr] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.imported: dict[str, Path] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.names[node.targets[0].id] = node.value
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                where = root.joinpath(*str(node.module).split(".")).with_suffix(".py")
                self.imported |= {alias.asname or alias.name: where for alias in node.names}


class Needs:
    """The needs of all tests below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = cache(lambda file: Source(file, root))
        options = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]
        parts = (line.partition(":") for line in options["ini_options"]["markers"])
        self._markers = {name: words.strip() for name, _, words in parts}

    def of(self, test: ast.FunctionDef, file: Path) -> tuple[str, ...]:
        """Return in words what a test of ``file`` needs, each once."""
        source = self.source(file)
        outside = [node for node in source.tree.body if isinstance(node, ast.Assign | ast.Expr)]
        found = [*_of_calls(outside)]
        marks = [*([source.names["pytestmark"]] if "pytestmark" in source.names else [])]
        for mark in [*marks, *test.decorator_list]:
            found += self._of_mark(mark, source)
        found += self._reached(test, source, set())
        return tuple({need.casefold(): need for need in found}.values())

    def _of_mark(self, mark: ast.expr, source: Source) -> Iterator[str]:
        """What a mark, a list of marks or a name of one asks for."""
        if isinstance(mark, ast.Name) and mark.id in source.names:
            yield from self._of_mark(source.names[mark.id], source)
        for part in ast.walk(mark):
            if isinstance(part, ast.Call) and _last_name(part.func) == "skipif":
                yield from (_skipped(word.value) for word in part.keywords if word.arg == "reason")
            elif isinstance(part, ast.Attribute) and part.attr in self._markers:
                yield self._markers[part.attr]

    def _reached(self, function: ast.FunctionDef, source: Source, seen: set[int]) -> Iterator[str]:
        """What a function, its fixtures and the helpers that it calls ask for."""
        seen.add(id(function))
        yield from _of_calls(function.body)
        calls = [part for part in ast.walk(function) if isinstance(part, ast.Call)]
        used = [arg.arg for arg in function.args.args] + [_last_name(call.func) for call in calls]
        for name in dict.fromkeys(used):
            other = self._function(name, source)
            if other is not None and id(other[0]) not in seen:
                yield from self._reached(*other, seen)

    def _function(self, name: str, source: Source) -> tuple[ast.FunctionDef, Source] | None:
        """Find a function of the tests as Python would, a fixture as pytest would."""
        if name in source.functions:
            return source.functions[name], source
        if name in source.imported and source.imported[name].is_file():
            return self._function(name, self.source(source.imported[name]))
        for folder in source.file.relative_to(self.root).parents:
            conftest = self.root / folder / "conftest.py"
            if conftest.is_file() and name in self.source(conftest).functions:
                return self.source(conftest).functions[name], self.source(conftest)
        return None


def _of_calls(body: Iterable[ast.AST]) -> Iterator[str]:
    """What calls of importorskip and skip in these statements ask for."""
    for call in (part for statement in body for part in ast.walk(statement)):
        if not (isinstance(call, ast.Call) and call.args):
            continue
        reasons = [word.value for word in call.keywords if word.arg == "reason"]
        if _last_name(call.func) == "importorskip":
            said = _words(reasons[0]) if reasons else ""
            package = _words(call.args[0]).partition(".")[0]
            yield said if said.startswith("needs ") else f"needs {package}"
        elif _last_name(call.func) == "skip":
            yield _skipped(call.args[0])


def _last_name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _words(node: ast.expr) -> str:
    """Return a text; what is put together when the test runs stands as its source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(_words(part) for part in node.values) if isinstance(node, ast.JoinedStr) else "…"


def _skipped(reason: ast.expr) -> str:
    words = _words(reason)
    return words if words.startswith("needs ") else f"may be skipped: {words}"
