"""The loop of kills, short, and whether it sees what it is there to see.

``make kill`` kills some 200 times. Here every kind of work is killed twice, at moments that are
counted in what happens to files, and so are the same on any machine.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kill.attempts import Attempt, Command
from tests.kill.moments import Moment, Watch
from tests.kill.remains import damages, differences, outcome
from tests.kill.works import KINDS
from tests.ubr_pretrain.archives import write_toy_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def kill_twice(out: Path) -> subprocess.CompletedProcess[str]:
    flags = ["--kills", "2", "--most", "2", "--real", "0", "--by-changes", "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "tests.kill", *flags],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(1200)
def test_T01_T02_killed_work_ends_like_work_that_nobody_disturbed(tmp_path: Path) -> None:
    """After SIGKILL the same command goes on: equal weights, logs, tables; nothing half-written."""
    done = kill_twice(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["faults"] == []
    for kind in KINDS:
        of_kind = figures["kinds"][kind]
        assert of_kind["kills"] >= 2
        assert of_kind["finished"] >= 1
    again = kill_twice(tmp_path)  # the kills that are there count
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_the_loop_sees_what_is_cut_changed_missing_or_left(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
        write_toy_checkpoint(place / "last.safetensors")
        (place / "run.json").write_text(
            json.dumps({"seconds": time.monotonic(), "out": str(place)})
        )
    assert not damages(here)
    assert differences(outcome(here), outcome(there)) == []
    (here / ".scores.csv.x1y2.part").touch()
    (there / "scores.csv").touch()
    weights = bytearray((here / "last.safetensors").read_bytes())
    weights[-9] ^= 1
    (here / "last.safetensors").write_bytes(weights)
    (here / "run.json").write_text('{"seconds": 1, "out": "else')
    assert [line.partition(":")[0] for line in damages(here)] == ["last.safetensors", "run.json"]
    (here / "run.json").write_text('{"seconds": 1, "out": "elsewhere"}')
    left, missing, manifest = differences(outcome(here), outcome(there))
    assert left == ".scores.csv.x1y2.part: should not be there"
    assert missing == "scores.csv: missing"
    assert manifest == "run.json: out: elsewhere, not PLACE"


def test_the_loop_sees_a_step_that_is_lost_and_a_store_without_its_slices(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("save_every: 3\n")
    lines = [json.dumps({"iteration": i, "kind": "train"}) + "\n" for i in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:3]))
    assert not damages(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    (tmp_path / "v.json").write_text('{"num_slices": 2, "z_mm": [0, 5], "sha256": ""}')
    no_slices, lost = damages(tmp_path)
    assert no_slices.startswith("v.json: cannot be read")
    assert lost.endswith("5 steps done, 0 kept, although 3 make a checkpoint")


LEAVES_A_CHILD = """
import pathlib, subprocess, sys, time
place = pathlib.Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(place / "sub").mkdir()
time.sleep(0.3)
(place / "sub" / ".table.csv.x1y2.part").touch()
time.sleep(60)
"""


def test_the_loop_kills_at_a_half_written_file_and_finds_who_is_left_behind(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tests.kill.attempts.MOURNING", 300)
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "leaves.py").write_text(LEAVES_A_CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = Command("leaves", [str(place)])
    with Watch(place) as watch, Attempt(command, tmp_path / "log") as attempt:
        assert watch.until(Moment("half-written files", 1), lambda: attempt.exit_code)
        assert attempt.kill("process", min) == "process"
        assert attempt.wait() == -9
        (left,) = attempt.bury()
    assert "time.sleep(60)" in left
    assert attempt.bury() == []
