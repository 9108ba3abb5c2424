"""Small faults planted in a module's source, one at a time: what a slip of the hand would leave.

A mutant changes one expression or one statement. Left alone are docstrings, annotations,
decorators and the text of messages, which no test should quote word for word.
"""

from __future__ import annotations

import ast
import copy
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
_PAIRS = (
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("sin", "cos"),
    ("flatnonzero", "argsort"),
    ("left", "right"),
    ("sum", "mean"),
)
COUNTERPARTS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
"""Names and words that are easily taken for each other."""

SYMMETRIC = ("min", "max", "minimum", "maximum")
"""Functions that do not care which argument comes first."""

GUARDS = ("strict",)
"""Arguments that say nothing but what is so anyhow: zip's."""

CODE = re.compile(r"E-[A-Z0-9-]+")


@dataclass(frozen=True)
class Mutant:
    """A module with one fault.

    Attributes:
        function: outermost function or method that holds the fault; empty: it acts on import.
        lines: of the original, one of which a test must run to see the fault.
        was: the changed lines, without their margin.
        becomes: what stands there instead.
        source: of the whole module.
    """

    function: str
    lines: range
    was: str
    becomes: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What names a mutant while its neighbours change."""
        return self.function, self.was, self.becomes


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module, no two alike."""
    finder = _Finder()
    finder.visit(ast.parse(source))
    original = source.encode()
    starts = [0]
    for line in original.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[str, Mutant] = {}
    for fault in finder.faults:
        start = starts[fault.at[0] - 1] + fault.at[1]
        stop = starts[fault.at[2] - 1] + fault.at[3]
        changed = (original[:start] + fault.text.encode() + original[stop:]).decode()
        was, becomes = _difference(source, changed)
        found.setdefault(changed, Mutant(fault.function, fault.lines, was, becomes, changed))
    found.pop(source, None)
    return list(found.values())


def _difference(source: str, changed: str) -> tuple[str, str]:
    lines = list(difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0))[2:]
    was, becomes = (
        " ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+"
    )
    return was, becomes


@dataclass(frozen=True)
class _Fault:
    function: str
    lines: range
    at: tuple[int, int, int, int]
    text: str


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.faults: list[_Fault] = []
        self._function = ""
        self._classes: list[str] = []
        self._statement: ast.stmt | None = None
        self._raising = False

    # Where we are.

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.stmt):
            super().visit(node)
            return
        outer, self._statement = self._statement, node
        super().visit(node)
        self._statement = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._classes.append(node.name)
        self._all(node.body)
        self._classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        self._all(defaults)
        outermost = not self._function
        if outermost:
            self._function = ".".join([*self._classes, node.name])
        self._all(node.body)
        if outermost:
            self._function = ""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Messages and labels are no concern of these mutants."""

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not (isinstance(node.value, ast.Name) and node.value.id == "Literal"):
            self.generic_visit(node)

    def _all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    # What can go wrong there.

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                changed = copy.copy(node)
                changed.ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                self._plant(node, changed)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.MatMult):
            self._plant(node, ast.BinOp(node.right, node.op, node.left))
        else:
            self._plant(node, ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._plant(node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._plant(node, node.operand)
        if not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)
        elif isinstance(node.op, ast.USub):
            value = node.operand.value
            for other in (value - 1, value + 1):
                self._plant(node, ast.UnaryOp(ast.USub(), ast.Constant(other)))

    def visit_Constant(self, node: ast.Constant) -> None:
        for other in _other_values(node.value, self._raising):
            self._plant(node, ast.Constant(other))

    def visit_If(self, node: ast.If) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        ordered = ast.unparse(node.func).rpartition(".")[2] not in SYMMETRIC
        if ordered and len(node.args) > 1 and not _is_starred(node.args[:2]):
            first, second, *rest = node.args
            self._plant(node, ast.Call(node.func, [second, first, *rest], node.keywords))
        if not self._raising:
            for i, keyword in enumerate(node.keywords):
                kept = node.keywords[:i] + node.keywords[i + 1 :]
                if keyword.arg not in GUARDS:
                    self._plant(node, ast.Call(node.func, node.args, kept))
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in GUARDS:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in COUNTERPARTS:
            self._plant(node, ast.Name(COUNTERPARTS[node.id]))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in COUNTERPARTS:
            self._plant(node, ast.Attribute(node.value, COUNTERPARTS[node.attr]))
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not _is_none(node.value):
            self._plant(node, ast.Return(ast.Constant(None)))
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        self._plant(node, ast.Pass())
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._plant(node, ast.Pass())
        other = ARITHMETIC[type(node.op)]()
        self._plant(node, ast.AugAssign(node.target, other, node.value))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Subscript | ast.Attribute) for target in node.targets):
            self._plant(node, ast.Pass())
        self._all([node.value, *node.targets])

    def visit_Raise(self, node: ast.Raise) -> None:
        self._plant(node, ast.Pass())
        self._raising = True
        self.generic_visit(node)
        self._raising = False

    def visit_Continue(self, node: ast.Continue) -> None:
        self._plant(node, ast.Break())

    def visit_Break(self, node: ast.Break) -> None:
        self._plant(node, ast.Continue())

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.NamedExpr):
            self._plant(test, ast.UnaryOp(ast.Not(), test))

    def _plant(self, node: ast.expr | ast.stmt, changed: ast.AST) -> None:
        assert self._statement is not None
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        text = ast.unparse(ast.fix_missing_locations(changed))
        if isinstance(changed, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp):
            text = f"({text})"
        lines = range(self._statement.lineno, node.end_lineno + 1)
        at = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        self.faults.append(_Fault(self._function, lines, at, text))


def _is_starred(nodes: Sequence[ast.expr]) -> bool:
    return any(isinstance(node, ast.Starred) for node in nodes)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _other_values(value: object, raising: bool) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
        yield value - 1
    elif isinstance(value, str) and (not raising or CODE.fullmatch(value)):
        yield COUNTERPARTS.get(value, f"{value}X")
