"""What can go wrong, what happens then, and the test of it: read from the tests, not run.

python -m tests.faults_page       # writes docs/faults.md

A test whose name carries an id (``test_V08_V60_...``) shows what happens in those rows of
``tests/faults.toml``; the first paragraph of its docstring says so in words.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = ROOT / "tests" / "faults.toml"
PAGE = ROOT / "docs" / "faults.md"

_ID = re.compile(r"_([VLCTESMN]\d\d)(?=_|$)")

_HEAD = """\
# What can go wrong, and what happens then

Written by `python -m tests.faults_page` from [tests/faults.toml](../tests/faults.toml) and from the
tests whose names carry a row's id; a test compares it with what would be written now. Each line of
a row is one test of `make test`: what it shows, and its name. {rows} rows, {tests} tests.
"""


@dataclass(frozen=True)
class Fault:
    """One row: what can go wrong, and what of it has no test."""

    id: str
    section: str
    words: str
    open: str = ""


@dataclass(frozen=True)
class FaultTest:
    """One test that shows what happens: where it is, what it says and what it needs to run."""

    name: str
    file: Path
    behaviour: str
    needs: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        return _ID.findall(self.name)

    @property
    def title(self) -> str:
        """The name without its ids, in words."""
        return _ID.sub("", self.name).removeprefix("test_").strip("_").replace("_", " ")


@dataclass
class _Module:
    """One file of tests: its names for marks, and what every test in it needs."""

    markers: Mapping[str, str]
    names: dict[str, ast.expr] = field(default_factory=dict)

    def needs(self, node: ast.expr) -> Iterator[str]:
        """What a mark, a list of marks or a name of one asks for."""
        if isinstance(node, ast.Name) and node.id in self.names:
            yield from self.needs(self.names[node.id])
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and _last_name(part.func) == "skipif":
                yield from (_skipped(word.value) for word in part.keywords if word.arg == "reason")
            elif isinstance(part, ast.Attribute) and part.attr in self.markers:
                yield self.markers[part.attr]

    def needs_of_calls(self, body: Iterable[ast.AST]) -> Iterator[str]:
        """What calls of importorskip and skip in these statements ask for."""
        for call in (part for statement in body for part in ast.walk(statement)):
            if isinstance(call, ast.Call) and call.args:
                if _last_name(call.func) == "importorskip":
                    package = ast.literal_eval(call.args[0]) if _constant(call.args[0]) else "more"
                    yield f"needs {package.partition('.')[0]}"
                elif _last_name(call.func) == "skip":
                    yield _skipped(call.args[0])


def _constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _last_name(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _skipped(reason: ast.expr) -> str:
    words = ast.literal_eval(reason) if _constant(reason) else ast.unparse(reason)
    return words if words.startswith("needs ") else f"skipped where {words}"


def faults(catalogue: Path = CATALOGUE) -> dict[str, Fault]:
    """Every row by its id, in the order of the page."""
    sections = tomllib.loads(catalogue.read_text("utf-8"))
    reasons = sections.pop("open", {})
    rows = {
        id: Fault(id, rows["title"], words, reasons.pop(id, ""))
        for rows in sections.values()
        for id, words in rows.items()
        if id != "title"
    }
    if reasons:
        raise ValueError(f"{catalogue.name}: [open] names rows that are not there: {[*reasons]}")
    return rows


def markers(pyproject: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """What each registered mark says it needs."""
    options = tomllib.loads(pyproject.read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    return {
        name: words.strip() for name, _, words in (m.partition(":") for m in options["markers"])
    }


def tests_of(file: Path, marks: Mapping[str, str]) -> Iterator[FaultTest]:
    """The tests of one file whose names carry an id."""
    tree = ast.parse(file.read_text("utf-8"))
    module = _Module(marks)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            module.names[node.targets[0].id] = node.value
    outside = [node for node in tree.body if isinstance(node, ast.Assign | ast.Expr)]
    everywhere = [*module.needs_of_calls(outside)]
    if "pytestmark" in module.names:
        everywhere += module.needs(module.names["pytestmark"])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and re.match(r"test_.*", node.name):
            if not _ID.search(node.name):
                continue
            own = [need for mark in node.decorator_list for need in module.needs(mark)]
            own += module.needs_of_calls(node.body)
            behaviour = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            needs = tuple(dict.fromkeys(everywhere + own))
            yield FaultTest(node.name, file, behaviour, needs)


def fault_tests(root: Path = ROOT) -> list[FaultTest]:
    """Every test whose name carries an id, by file and place in it."""
    marks = markers(root / "pyproject.toml")
    files = sorted((root / "tests").rglob("test_*.py"))
    return [test for file in files for test in tests_of(file, marks)]


def by_id(tests: Iterable[FaultTest]) -> dict[str, list[FaultTest]]:
    """The tests of every row."""
    rows: dict[str, list[FaultTest]] = defaultdict(list)
    for test in tests:
        for id in test.ids:
            rows[id].append(test)
    return dict(rows)


def page(rows: Mapping[str, Fault], tests: Iterable[FaultTest], root: Path = ROOT) -> str:
    """The whole page, as Markdown."""
    tests = list(tests)
    shown = by_id(tests)
    parts = [_HEAD.format(rows=len(rows), tests=len(tests))]
    if any(fault.open for fault in rows.values()):
        lines = [
            f"- **{fault.id}** {fault.words}: {fault.open}" for fault in rows.values() if fault.open
        ]
        parts.append("## Open\n\n" + "\n".join(lines) + "\n")
    for section in dict.fromkeys(fault.section for fault in rows.values()):
        parts.append(
            f"## {section}\n\n| row | fault | what happens | test |\n| --- | --- | --- | --- |"
        )
        for fault in (fault for fault in rows.values() if fault.section == section):
            first = f"**{fault.id}** | {_cell(fault.words)}"
            if fault.open:
                parts.append(f"| {first} | *open: {_cell(fault.open)}* | |")
                first = " | "
            elif fault.id not in shown:
                parts.append(f"| {first} | **no test** | |")
            for test in shown.get(fault.id, ()):
                link = test.file.relative_to(root).as_posix()
                needs = f" *({_cell('; '.join(test.needs))})*" if test.needs else ""
                parts.append(
                    f"| {first} | {_cell(test.behaviour)}{needs} "
                    f'| [{_cell(test.title)}](../{link} "{test.name}") |'
                )
                first = " | "
        parts.append("")
    return "\n".join(parts)


def complaints(rows: Mapping[str, Fault], tests: Iterable[FaultTest]) -> list[str]:
    """What keeps the page from being whole: one line each, none if it is."""
    tests = list(tests)
    shown = by_id(tests)
    bare = [fault for fault in rows.values() if not fault.open and fault.id not in shown]
    strange = [test for test in tests if not rows.keys() >= {*test.ids}]
    silent = [test for test in tests if not test.behaviour]
    return [
        *(f"{fault.id} ({fault.words}): neither a test nor a line in [open]" for fault in bare),
        *(f"{test.file.name}: {test.name}: an id that faults.toml lacks" for test in strange),
        *(f"{test.file.name}: {test.name}: no docstring says what happens" for test in silent),
    ]


def _cell(words: str) -> str:
    return words.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


def main() -> None:
    rows, tests = faults(), fault_tests()
    PAGE.write_text(page(rows, tests), "utf-8")
    print("\n".join([f"{PAGE.relative_to(ROOT)}: written", *complaints(rows, tests)]))


if __name__ == "__main__":
    main()
