"""The help of every command comes at once, and in plain words."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPTS: dict[str, str] = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8")
)["project"]["scripts"]

HEAVY = {"torch", "torchvision", "SimpleITK", "cv2", "pandas", "matplotlib", "scipy", "sklearn"}

ASK = """
import importlib, sys
module, function = sys.argv[1].split(":")
try:
    getattr(importlib.import_module(module), function)(["--help"])
except SystemExit as stop:
    assert stop.code == 0
loaded = set(sys.argv[2:]) & set(sys.modules)
assert not loaded, loaded
"""

CODE_WORDS = re.compile(
    r"typing\.|Annotated|Optional\[|Union\[|Literal\[|<class|NoneType|``|SUPPRESS"
    r"|STEP_EVERY of|STAGES"
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_plain_and_comes_before_anything_heavy(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, SCRIPTS[script], *HEAVY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["usage:", script]
    assert not CODE_WORDS.findall(done.stdout)
