"""How an installed command ends: at once, with its code, and with all that it had to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import atexit, sys, threading, time
from pathlib import Path

class Torch:
    def __del__(self):
        print("taken apart")

library = Torch()

def main(argv):
    threading.Thread(target=lambda: time.sleep(0.2) or print("a thread")).start()
    atexit.register(lambda: print("tidied"))
    print("x" * 5_000)
    how = sys.argv[1]
    if how == "refuse":
        raise SystemExit(2)
    if how == "words":
        raise SystemExit("no good")
    if how == "fail":
        raise RuntimeError("a fault")
    return int(how)
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run a command that ends in the way it is told."""
    package = tmp_path / "toy"
    (package / "help").mkdir(parents=True)
    (package / "help" / "command.txt").touch()
    (package / "__init__.py").touch()
    (package / "command.py").write_text(COMMAND)
    script = "import sys; from ubr_pretrain.commands import commands_of\n"
    script += f"sys.path.insert(0, {str(tmp_path)!r})\n"
    script += f"sys.exit(commands_of('toy', {str(package)!r})('command')())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return lambda how, **pipes: subprocess.run(
        [sys.executable, "-c", script, how],
        check=False,
        text=True,
        env=environment,  # unbuffered, a word fails where it is said, and not at the end
        **(pipes or {"capture_output": True}),
    )


@pytest.mark.parametrize(("how", "code"), [("0", 0), ("1", 1), ("143", 143), ("refuse", 2)])
def test_a_command_ends_with_its_code_when_all_is_said_and_tidied(run, how, code):
    """Threads and whoever is told of the end come first; then nothing is taken apart."""
    ended = run(how)
    assert ended.returncode == code
    assert ended.stdout.splitlines() == ["x" * 5_000, "a thread", "tidied"]
    assert not ended.stderr


@pytest.mark.parametrize(("how", "words"), [("fail", "a fault"), ("words", "no good")])
def test_an_error_ends_as_python_ends_it(run, how, words):
    ended = run(how)
    assert ended.returncode == 1
    assert ended.stderr.endswith(f"{words}\n")
    assert ended.stdout.splitlines()[-1] == "taken apart"


def test_nobody_reading_is_no_success(run):
    """Python would say so and end with 120; a flush that fails twice would forget it."""
    with Path("/dev/full").open("w") as full:
        ended = run("0", stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 120
    assert ended.stderr == "-c: [Errno 28] No space left on device\n"
