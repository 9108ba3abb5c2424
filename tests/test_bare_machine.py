"""Machines that lack what one takes for granted: a home, a network, shared memory, a peer."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.config import config_to_yaml
from ubr_pretrain.runtime import start_ranks

OFFLINE = """
import socket, sys
def no_network(*_):
    raise AssertionError("asked for the network")
socket.socket.connect = socket.getaddrinfo = no_network
import torch
torch.set_num_threads(1)
from ubr_pretrain import store_reader, train_ubr, training_data
store_reader.WORTH_CHILDREN, training_data.THREADS = 0, 1  # with its child and what they share
if __name__ == "__main__":
    sys.exit(train_ubr.main(sys.argv[1:]))
"""

ONE_HANGS = """
import os, sys, time
from ubr_pretrain import runtime
from ubr_pretrain.journal import Journal
import torch
torch.set_num_threads(1)
runtime.RANK_TIMEOUT_S = 8.0
plain = Journal.progress
def progress(self, iteration, text):
    plain(self, iteration, text)
    if os.environ["RANK"] == "1" and iteration == 4:
        print("hangs", flush=True)
        time.sleep(600)
Journal.progress = progress
from ubr_pretrain.train_ubr import main
sys.exit(main(sys.argv[1:]))
"""


def run_flags(tmp_path: Path, **changes: object) -> list[str]:
    config = tiny_config(write_tiny_cohort(tmp_path / "cohort", 2), **changes)
    (tmp_path / "c.yaml").write_text(config_to_yaml(config))
    return ["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]


@pytest.fixture(scope="module")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A training without home and network, and where the system allows it, with a full /dev/shm."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "offline.py").write_text(OFFLINE)
    command = [sys.executable, str(folder / "offline.py")]
    command += run_flags(folder, iterations=1, holdout=())
    tiny = "mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs /dev/shm && ! touch /dev/shm/a && "
    full = ["unshare", "-m", "sh", "-c", tiny + 'exec "$@"', "sh"]
    may = bool(shutil.which("unshare")) and not subprocess.run([*full, "true"]).returncode
    bare = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS")}
    bare |= {"HOME": "/proc/nobody", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*(full if may else []), *command], env=bare, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "asked for the network" not in done.stderr
    return folder / "run", may


def test_T28_without_home_and_network(bare_run: tuple[Path, bool]) -> None:
    """No home and no network: it trains; nothing of it needs any of the two."""
    assert (bare_run[0] / "checkpoints" / "best.safetensors").is_file()


def test_T22_with_a_full_shared_memory(bare_run: tuple[Path, bool]) -> None:
    """A /dev/shm that holds no file: it trains, its child included; nothing of it needs one."""
    run, was_full = bare_run
    if not was_full:
        pytest.skip("needs the right to mount a /dev/shm of its own")
    assert (run / "checkpoints" / "best.safetensors").is_file()


def test_T19_ranks_wait_ten_minutes_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent rank is waited for 10 minutes, not the promised one: it may decode its share of a
    cohort meanwhile."""
    asked: dict[str, Any] = {}

    def init_process_group(_backend: str, **what: Any) -> None:
        asked.update(what)
        raise ValueError("enough")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.distributed.init_process_group", init_process_group)
    with pytest.raises(ValueError, match="enough"), start_ranks("cpu"):
        pass
    assert asked == {"timeout": timedelta(minutes=10)}


def test_T19_a_rank_that_hangs_ends_the_others(tmp_path: Path) -> None:
    """A rank that hangs: the others end with one line after the time-out, here of 8 s, and no
    earlier; the last checkpoint is whole."""
    flags = run_flags(tmp_path, save_every=2, eval_every=100, g=4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = []
    for rank in ("0", "1"):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", ONE_HANGS, *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        ranks.append(subprocess.Popen(command, env=os.environ | own, **pipes))  # type: ignore[call-overload]
    first, second = ranks
    try:
        assert second.stdout.readline() == "hangs\n", second.communicate()
        began_s = time.monotonic()
        _, log = first.communicate(timeout=120)
        assert 4 < time.monotonic() - began_s < 60
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert first.returncode == 1, log
    assert "rank 0 of 2 stops: another rank has died or is out of reach" in log
    assert "Traceback" not in log
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors", "ubr")
    assert saved["iteration"] == 4
    assert second.returncode == -signal.SIGKILL
