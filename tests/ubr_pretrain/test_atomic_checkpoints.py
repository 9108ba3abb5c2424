"""Checkpoints under SIGKILL: torch.save against ours, on the same disk and at the same moments."""

import json
import subprocess
import sys

KILL_WRITERS = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint, write_checkpoint

torch.set_num_threads(1)
folder, state = Path(sys.argv[1]), {"weights": {"a": torch.zeros(2_000_000)}, "iteration": 1}

def plain(file):
    torch.save(state, file)

def atomic(file):
    write_checkpoint(file, state, "ubr")

def is_whole(file, write):
    try:
        if write is atomic:
            return read_checkpoint(file, "ubr")["iteration"] == 1
        return torch.load(file, weights_only=True)["iteration"] == 1
    except (CheckpointRefused, RuntimeError, OSError, EOFError):
        return False

lost = {}
for write in (plain, atomic):
    file, rng = folder / write.__name__, random.Random(0)
    lost[write.__name__] = 0
    for _ in range(12):
        write(file)
        child = os.fork()
        if not child:
            while True:
                write(file)
        time.sleep(rng.uniform(0.02, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lost[write.__name__] += not is_whole(file, write)
print(json.dumps(lost))
"""


def test_M15_a_kill_never_costs_the_checkpoint(tmp_path):
    """12 kills each: torch.save to the final name leaves unreadable files, ours never one."""
    done = subprocess.run(
        [sys.executable, "-c", KILL_WRITERS, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lost = json.loads(done.stdout)
    assert lost["plain"] > 0
    assert lost["atomic"] == 0
