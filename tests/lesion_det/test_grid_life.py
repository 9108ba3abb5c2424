"""A grid of real trainings that is killed again and again ends like one that nobody disturbed."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lesion_det.cell_job import train_cell
from lesion_det.compare_inits import OF_A_CELL, compare
from lesion_det.comparison import Comparison
from lesion_det.grid_progress import iterations_done
from lesion_det.launch import Ending, Task
from lesion_det.plan import Question
from tests.lesion_det.toy_comparison import toy_config, write_toy_data

ROOT = Path(__file__).resolve().parents[2]
CELLS = ("random-seed0", "random-seed1")
ITERATIONS = 60
SETTINGS: dict[str, Any] = {
    "iterations": ITERATIONS,
    "eval_every": 20,
    "save_every": 10,
    "batch": 1,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    coco, images = write_toy_data(tmp_path_factory.mktemp("toy"), num_train=4, num_val=4)
    common = toy_config(coco, images).model_copy(update=SETTINGS)
    return Question(common, ("random",), (0, 1))


def in_this_process(
    tasks: Sequence[Task], say: Callable[[str], None]
) -> Generator[Ending, None, None]:
    for task in tasks:
        assert train_cell(task.config, task.folder) == 0
        yield Ending(task.key)


@pytest.fixture(scope="module")
def undisturbed(question: Question, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert compare(question, out, in_this_process, say=lambda _: None)[0] == 0
    return out


def flags(question: Question, out: Path) -> list[str]:
    common = question.common
    config = out.with_suffix(".yaml")
    text = common.model_dump_json(exclude={*OF_A_CELL, "external"})
    config.write_text(text)  # JSON is YAML
    inits = ["--inits", *question.inits, "--seeds", *map(str, question.seeds), "--jobs", "2"]
    return ["--config", str(config), "--out", str(out), *inits, "--title", question.title]


def start_command(question: Question, out: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "lesion_det.compare_inits", *flags(question, out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            start_new_session=True,
            stdout=file,
            stderr=file,
        )


def kill(process: subprocess.Popen[bytes], out: Path, whole_group: bool) -> None:
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline_s = time.monotonic() + 30  # the children's end takes a moment on a busy machine
    while any(is_held(cell) for cell in (out / "cells").glob("random-seed?")):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def is_held(folder: Path) -> bool:
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def progress(out: Path) -> int:
    """Return the iterations of both cells together."""
    return sum(iterations_done(out / "cells" / name) for name in CELLS)


def outcome(out: Path) -> tuple[Any, dict[str, str]]:
    """Return the comparison without clocks and machines, and the hash of every checkpoint.

    Its own hash, over all tensors and values: safetensors writes metadata in any order.
    """
    comparison = Comparison.model_validate_json((out / "comparison.json").read_bytes())
    content = comparison.model_dump(exclude={"versions"})
    for arm in content["arms"]:
        for cell in arm["cells"]:
            assert cell.pop("machine")
            assert cell.pop("seconds") > 0
    files = sorted((out / "cells").glob("*/checkpoints/*.safetensors"))
    hashes = {}
    for file in files:
        with safe_open(file, framework="pt") as checkpoint:
            hashes[str(file.relative_to(out))] = checkpoint.metadata()["sha256"]
    return content, hashes


RESUMED = "resumed after iteration"


def test_killed_grid_ends_like_an_undisturbed_one_bit_for_bit(
    question: Question, undisturbed: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "killed", tmp_path / "log"
    rng = random.Random(4)
    for whole_group, moment in ((True, rng.randint(5, 40)), (False, rng.randint(50, 90))):
        process = start_command(question, out, log)
        try:
            while progress(out) < moment or (not whole_group and RESUMED not in log.read_text()):
                assert process.poll() is None, log.read_text()
                time.sleep(0.005)
        finally:
            kill(process, out, whole_group)
        assert progress(out) < len(CELLS) * ITERATIONS
    assert RESUMED in log.read_text()
    assert compare(question, out, in_this_process, say=lambda _: None)[0] == 0
    assert outcome(out) == outcome(undisturbed)
    assert len(outcome(out)[1]) == 4  # last and best of both cells
