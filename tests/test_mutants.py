"""The planter of faults plants what it says, and its runner tells found faults from missed ones."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.mutants.__main__ import excuses
from tests.mutants.judges import JUDGES, judges_of
from tests.mutants.mutators import mutants

PROJECT = Path(__file__).resolve().parents[1]


def planted(source: str) -> set[str]:
    return {mutant.becomes for mutant in mutants(textwrap.dedent(source))}


@pytest.mark.parametrize(
    ("source", "becomes"),
    [
        ("a = b < c\n", {"a = (b <= c)", "a = (b >= c)"}),
        ("a = b is None\n", {"a = (b is not None)"}),
        ("a = b + c\n", {"a = (b - c)"}),
        ("a = b @ c\n", {"a = (c @ b)"}),
        ("a = b and c\n", {"a = (b or c)"}),
        ("a = not b\n", {"a = b"}),
        ("a = -1\n", {"a = 1", "a = (-0)", "a = (-2)"}),
        ("a = 2.5\n", {"a = 3.5", "a = 1.5"}),
        ("a = True\n", {"a = False"}),
        ("a = 'left'\n", {"a = 'right'"}),
        ("a = 'b'\n", {"a = 'bX'"}),
        ("f(b, c)\n", {"pass", "f(c, b)"}),
        ("a = f(b, c=d)\n", {"a = f(b)"}),
        ("a = min(b)\n", {"a = max(b)"}),
        ("a = b.any()\n", {"a = b.all()"}),
        ("a += b\n", {"pass", "a -= b"}),
        ("a.b = c\n", {"pass"}),
        ("def f():\n    return a\n", {"return None"}),
        ("a = b if c else d\n", {"a = b if (not c) else d"}),
        ("while a:\n    break\n", {"continue"}),
        ("raise A('E-GAP')\nraise B('words')\n", {"pass", "raise A('E-GAPX')"}),
        ("a: Literal['b'] = f'{c + 1} words'\n", set()),
        ("@d(1)\ndef f(a: int) -> 'b':\n    'words'\n", set()),
    ],
)  # fmt: skip
def test_every_slip_is_planted_once(source: str, becomes: set[str]) -> None:
    assert planted(source) == becomes


def test_a_mutant_knows_its_function_and_its_lines() -> None:
    (first, second) = mutants("class A:\n    def f(self, b=1):\n        return b\n")[1:]
    assert (first.function, first.lines) == ("", range(2, 3))
    assert (second.function, second.lines) == ("A.f", range(3, 4))
    assert (second.was, second.becomes) == ("return b", "return None")


TOY = """\
LIMIT = 3


def clip(x):
    return LIMIT if x > LIMIT else x


def count(n):
    steps = 0
    while n > 0:
        n -= 1
        steps += 1
    return steps


def unseen():
    return 1
"""
TOY_TESTS = """\
from toy import clip, count

def test_clip():
    assert clip(5) == 3
    assert clip(1) == 1

def test_count():
    assert count(4) == 4
"""
ASK = """\
from pathlib import Path
from tests.mutants import judging
from tests.mutants.mutators import mutants
judging.IMPORT_CPU_S = 1
module = Path("toy.py")
for mutant, verdict in judging.judge_module(module, [TESTS], mutants(module.read_text()), 2):
    print(f"{verdict}: {mutant.function}: {mutant.becomes}")
"""


def ask(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "toy.py").write_text(TOY)
    (folder / "test_toy.py").write_text(tests)
    return subprocess.run(
        [sys.executable, "-c", ASK.replace("TESTS", "'test_toy.py'")],
        cwd=folder,
        env={"PYTHONPATH": f"{PROJECT}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_found_missed_and_endless_mutants_are_told_apart(tmp_path: Path) -> None:
    verdicts = ask(tmp_path, TOY_TESTS).stdout.splitlines()
    assert {line for line in verdicts if line.startswith("survived")} == {
        "survived: clip: return LIMIT if (x >= LIMIT) else x",
        "survived: unseen: return None",
        "survived: unseen: return 2",
        "survived: unseen: return 0",
    }
    assert "timed out: count: n += 1" in verdicts
    for found in ("LIMIT = 4", "LIMIT = 2"):
        assert f"killed: : {found}" in verdicts
    assert "killed: count: steps -= 1" in verdicts
    assert len(verdicts) == len(mutants(TOY))


def test_judges_that_fail_without_a_mutant_judge_nothing(tmp_path: Path) -> None:
    asked = ask(tmp_path, TOY_TESTS.replace("== 4", "== 5"))
    assert asked.stdout == ""
    assert "toy.py: test_toy.py::test_count fails without any mutant" in asked.stderr


def test_the_table_names_modules_and_tests_that_are_there() -> None:
    for module in JUDGES:
        for test in (module, *judges_of(module)):
            assert (PROJECT / test.partition("::")[0]).is_file(), test


def test_every_survivor_on_the_list_is_a_mutant_and_has_a_reason() -> None:
    for module, listed in excuses().items():
        source = (PROJECT / module).read_text("utf-8")
        planted_there = {mutant.key for mutant in mutants(source)}
        assert listed.keys() <= planted_there, module
        assert all(len(why) > 10 for why in listed.values())
