"""How an installed command ends: at once, with its code, and with all that it had to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import atexit, os, sys, threading, time
from pathlib import Path

class Torch:
    def __del__(self):
        print("taken apart")

library = Torch()

def main(argv):
    threading.Thread(target=lambda: time.sleep(0.2) or print("a thread")).start()
    atexit.register(lambda: print("tidied"))
    print("x" * 5_000)
    assert not sys.stdin.isatty() and not sys.stderr.isatty()
    assert os.open(__file__, os.O_RDONLY) > 2  # the number of no stream
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
        stdin=subprocess.DEVNULL,
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


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_N58_a_command_without_streams_does_its_work(run, closed):
    """As a daemon starts it: what it says is lost, no file of results takes a stream's place."""
    ended = run("0", preexec_fn=lambda: [os.close(number) for number in closed])
    assert ended.returncode == 0


def test_N58_a_folder_that_is_gone_is_said_in_one_line(run, tmp_path):
    """Exit code 2; the libraries blame files of their own."""
    gone = tmp_path / "gone"
    gone.mkdir()
    removed = {"cwd": gone, "preexec_fn": gone.rmdir, "capture_output": True}
    assert run("--help", **removed).returncode == 0
    gone.mkdir()
    ended = run("0", **removed)
    assert ended.returncode == 2
    assert ended.stderr == "-c: the current folder is gone (No such file or directory)\n"
