"""Trainings that end in every way, for child processes: imports nothing slow."""

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from lesion_det.det_config import DetConfig
from lesion_det.launch import Task

WAYS = ("finish", "killed", "segfault", "exception", "refused", "told to stop", "exit code 3")
"""By seed."""


def toy_task(folder: Path, seed: int, name: str = "") -> Task:
    """Return a task whose key is a stand-in; the real one would import torch."""
    config = DetConfig(coco=folder, seed=seed, iterations=10)
    key = SimpleNamespace(words=f"cell {seed}", seed=seed)
    return Task(cast(object, key), config, folder / "cells" / (name or f"seed{seed}"))  # type: ignore[arg-type]


def end_somehow(config: DetConfig, folder: Path) -> int:
    """End in the way of the seed."""
    print("printed by the child")
    print("and on the other stream", file=sys.stderr, flush=True)
    way = WAYS[config.seed]
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if way == "exception":
        raise KeyError("something nobody thought of")
    if way == "refused":
        print("weights.pth: no such file", file=sys.stderr)
        return 1
    if way == "told to stop":
        return 128 + signal.SIGTERM
    if way == "exit code 3":
        os._exit(3)
    return 0


def tell_surroundings(config: DetConfig, folder: Path) -> int:
    """Write what the child was told, and end only when the other one has been there too."""
    folder.mkdir()
    told = f"{os.environ['OMP_NUM_THREADS']} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}"
    (folder / "told").write_text(told)
    deadline_s = time.monotonic() + 30
    while len(list(folder.parent.glob("*/told"))) < 2:
        if time.monotonic() > deadline_s:
            return 1
        time.sleep(0.01)
    return 0


def tick(config: DetConfig, folder: Path) -> int:
    """Write until told to stop, which the signal's handler does after one last word."""
    folder.mkdir()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (folder / "ticks").open("a", buffering=1) as ticks:
        while not stopped:
            ticks.write(f"{os.getpid()}\n")
            time.sleep(0.01)
        ticks.write("stopped\n")
    return 128 + stopped[0]


def deaf(config: DetConfig, folder: Path) -> int:
    """Write, whatever comes."""
    folder.mkdir()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with (folder / "ticks").open("a", buffering=1) as ticks:
        while True:
            ticks.write("tick\n")
            time.sleep(0.01)


def finish_second_time(config: DetConfig, folder: Path) -> int:
    """Seed 0 finishes, 1 is killed, 2 raises; 3 waits for the time limit, and then finishes."""
    times = folder.with_name(f"{folder.name}.times")
    first = not times.exists()
    times.touch()
    if config.seed == 1:
        print("its last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 2:
        print("weights.pth: no such file", file=sys.stderr)
        return 1
    if config.seed == 3 and first:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(60)
    folder.mkdir()
    (folder / "run.json").write_text('{"status": "finished"}')
    return 0


def count_to_ten(config: DetConfig, folder: Path) -> int:
    """Count up from where an earlier try was killed; the first one waits for that at five."""
    folder.mkdir(exist_ok=True)
    (folder / "parent").write_text(str(os.getppid()))
    counted = folder / "counted"
    reached = len(counted.read_text().split()) if counted.is_file() else 0
    with (folder / ".lock").open("a") as lock, counted.open("a", buffering=1) as file:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for number in range(reached + 1, 11):
            file.write(f"{number}\n")
            while number == 5:
                time.sleep(0.05)
    return 0


if __name__ == "__main__":  # a parent that can be killed: FOLDER TRAINING [ADDRESS OF RAY]
    from lesion_det.launch import LocalLauncher, Stopped
    from lesion_det.ray_cluster import RayLauncher
    from tests.lesion_det import toy_cells

    top, train = Path(sys.argv[1]), {"tick": toy_cells.tick, "deaf": toy_cells.deaf}[sys.argv[2]]
    ray_address = sys.argv[3] if len(sys.argv) > 3 else ""
    launch = (
        RayLauncher(ray_address, "cpu", 2, train) if ray_address else LocalLauncher(2, (), train)
    )
    try:
        for _ in launch([toy_task(top, seed) for seed in (0, 1, 2)], print):
            pass
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None
