"""What can go wrong, what happens then, and the test of it: read from the tests, not run.

python -m tests.faults_page       # writes docs/faults.md

A test whose name carries an id (``test_V08_V60_...``) shows what happens in those rows of
``tests/faults.toml``; the first paragraph of its docstring says so in words. So does one with a
table of rows for a parameter: a dictionary of the names of its cases by the id of their row.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.needs import Needs, Source
from ubr_pretrain.printable import printable

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = ROOT / "tests" / "faults.toml"
PAGE = ROOT / "docs" / "faults.md"

_ID = re.compile(r"_([VLCTESMN]\d\d)(?=_|$)")
_KEY = re.compile(r"[VLCTESMN]\d\d")

_HEAD = """\
# What can go wrong, and what happens then

Written by `python -m tests.faults_page` from [tests/faults.toml](../tests/faults.toml) and from the
tests that carry a row's id; a test compares it with what would be written now. Each line of
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
    cases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By id, of a test with a table of rows."""

    @property
    def ids(self) -> list[str]:
        return [*_ID.findall(self.name), *self.cases]

    def says_of(self, id: str) -> str:
        """What happens in a row, and the names of its cases."""
        names = ", ".join(f"`{printable(name)}`" for name in self.cases.get(id, ()))
        return f"{self.behaviour} ({names})" if names else self.behaviour

    @property
    def title(self) -> str:
        """The name without its ids, in words."""
        return _ID.sub("", self.name).removeprefix("test_").strip("_").replace("_", " ")


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


def tests_of(file: Path, needs: Needs) -> Iterator[FaultTest]:
    """The tests of one file that carry an id."""
    source = needs.source(file)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        cases = _table_of_rows(node, source)
        if _ID.search(node.name) or cases:
            said = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            yield FaultTest(node.name, file, said, needs.of(node, file), cases)


def _table_of_rows(test: ast.FunctionDef, source: Source) -> dict[str, Sequence[str]]:
    """The table of rows that is a test's parameter; none for any other test."""
    calls = [mark for mark in test.decorator_list if isinstance(mark, ast.Call) and mark.args]
    for table in (source.names.get(getattr(mark.args[-1], "id", "")) for mark in calls):
        if isinstance(table, ast.Dict):
            keys = [key.value for key in table.keys if isinstance(key, ast.Constant)]
            if keys and all(_KEY.fullmatch(str(key)) for key in keys):
                return dict(ast.literal_eval(table))
    return {}


def fault_tests(root: Path = ROOT) -> list[FaultTest]:
    """Every test whose name carries an id, by file and place in it."""
    needs, files = Needs(root), sorted((root / "tests").rglob("test_*.py"))
    named = [file for file in files if _ID.search(file.read_text("utf-8"))]
    return [test for file in named for test in tests_of(file, needs)]


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
                    f"| {first} | {_cell(test.says_of(fault.id))}{needs} "
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
