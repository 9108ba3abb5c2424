"""The help of every command comes at once, and in plain words."""

import re
import subprocess
import sys

import pytest

from tests.help_texts import COMMANDS, ROOT, printed_help, stored_help
from ubr_pretrain import __version__
from ubr_pretrain.reading_rules import ReadingRules

HEAVY = {"torch", "torchvision", "SimpleITK", "cv2", "pandas", "matplotlib", "scipy", "sklearn"}

PARSE = """
import sys
from tests.help_texts import printed_help
sys.stdout.write(printed_help(sys.argv[1]))
loaded = set(sys.argv[2:]) & set(sys.modules)
assert not loaded, loaded
"""

ASK = """
import sys
before = set(sys.modules)
import converters.commands, lesion_det.commands, ubr_pretrain.commands
for name in sys.argv[1:]:
    package, _, command = name.rpartition(".")
    assert getattr(sys.modules[f"{package}.commands"], command)(["--help"]) == 0
packages = ("converters", "lesion_det", "ubr_pretrain")
ours = {each for package in packages for each in (package, f"{package}.commands")}
assert set(sys.modules) - before - {"__future__"} == ours, set(sys.modules) - before - ours
"""

CODE_WORDS = re.compile(
    r"typing\.|Annotated|Optional\[|Union\[|Literal\[|<class|NoneType|``|SUPPRESS"
    r"|STEP_EVERY of|STAGES"
)


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", COMMANDS)
def test_stored_help_is_what_the_parser_prints_before_anything_heavy(script: str) -> None:
    printed = run("-c", PARSE, COMMANDS[script], *HEAVY)
    assert printed.split()[:2] == ["usage:", script]
    assert not CODE_WORDS.findall(printed)
    if sys.version_info[:2] == (3, 11):  # whose words for an option the stored texts have
        assert stored_help(COMMANDS[script]).read_text("utf-8") == printed, "run: make help-texts"


def test_help_is_printed_with_nothing_imported() -> None:
    printed = run("-c", ASK, *COMMANDS.values())
    stored = [stored_help(module).read_text("utf-8") for module in COMMANDS.values()]
    assert printed == "".join(stored)
    assert set(ROOT.glob("*/help/*")) == set(map(stored_help, COMMANDS.values()))


def test_help_is_the_same_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        texts.add(printed_help("lesion_det.evaluate_det"))
    assert len(texts) == 1


@pytest.fixture
def audit_coco(monkeypatch: pytest.MonkeyPatch):
    """Return the command as its console script calls it, the script's arguments being ours."""
    from converters.commands import audit_coco

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["audit_coco.py", *arguments])
        return audit_coco()

    return call


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_both_flags_of_help_are_answered(flag, audit_coco, capsys) -> None:
    assert audit_coco(flag) == 0
    stored = stored_help("converters.audit_coco").read_text("utf-8")
    assert capsys.readouterr().out == stored


def test_version_is_that_of_the_package_and_of_the_parser(audit_coco, capsys) -> None:
    from converters.audit_coco import main

    assert audit_coco("--version") == 0
    at_once = capsys.readouterr().out
    assert at_once == f"audit_coco.py {__version__}\n"
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == at_once


def test_a_complaint_that_the_parser_has_before_help_stays(audit_coco, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        audit_coco("--out", "--help")
    assert stop.value.code == 2
    complaint = "audit_coco.py: error: argument --out: expected one argument\n"
    assert capsys.readouterr().err == complaint


def test_what_is_no_command_is_no_attribute() -> None:
    with pytest.raises(ImportError, match="nosuch"):
        from ubr_pretrain.commands import nosuch  # noqa: F401


def test_V11_V23_V24_V30_V32_V57_the_rules_of_the_reader_are_no_flags() -> None:
    """No command has a flag for the gaps, angles, orientation, spacing or bytes that a volume may
    have: these rules are keywords of `read_volume`, in Python."""
    flags = {"stride_mm", "checksums"}  # of score_volumes.py
    words = "|".join(ReadingRules.model_fields.keys() - flags).replace("_", "[-_]")
    for module in COMMANDS.values():
        assert not re.search(rf"--\S*(?:{words})", stored_help(module).read_text("utf-8")), module
