"""Machines that lack what one takes for granted: a home, a network, shared memory, a peer."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.config import config_to_yaml

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


def test_T22_T28_without_home_network_and_shared_memory(tmp_path: Path) -> None:
    """No home, no network, a full /dev/shm: it trains; nothing of it needs any of the three."""
    (tmp_path / "offline.py").write_text(OFFLINE)
    flags = run_flags(tmp_path, iterations=1, holdout=())
    command = [sys.executable, str(tmp_path / "offline.py"), *flags]
    if shutil.which("unshare") and not subprocess.run(["unshare", "-m", "true"]).returncode:
        tiny = "mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs /dev/shm && "
        command = ["unshare", "-m", "sh", "-c", tiny + 'exec "$@"', "sh", *command]
    bare = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS")}
    bare |= {"HOME": "/proc/nobody", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=bare, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "asked for the network" not in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "best.safetensors").is_file()


def test_T19_a_rank_that_hangs_ends_the_others(tmp_path: Path) -> None:
    """A rank that hangs: the others end with one line after the time-out (10 min), not before."""
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
        assert time.monotonic() - began_s < 60
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
