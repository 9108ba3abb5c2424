"""Trains the cells of a comparison as tasks of a Ray cluster, one a GPU, or side by side on CPUs.

A task starts a child process as the local launcher does, waits for it, and says why it failed. A
task whose worker or machine dies is run again elsewhere, and continues from its last checkpoint.

The folder of the comparison, the data and the environment must be seen by every machine. Free of
torch, which the workers of Ray do not need.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lesion_det.cell_job import TrainCell, train_cell
from lesion_det.det_config import DetConfig
from lesion_det.grid_progress import GridProgress
from lesion_det.launch import CellProcess, Ending, Stopped, Task, last_line
from ubr_pretrain.held_folder import is_held
from ubr_pretrain.ray_session import HERE, ray_session, require_ray

FLAG = "--ray"

RETRIES = 5
"""Of a cell whose worker or machine died."""

POLL_S = 1.0

ASKED_AGAIN_S = 10.0
"""A cell that was asked to stop and has not ended is asked once more."""

LET_GO_S = 60.0
"""Until the process of a dead machine has let go of its folder."""

MAX_WORDS = 200
"""Of what Ray says about a death, which it says at length."""


class Share(NamedTuple):
    """What one cell holds of a machine."""

    cpus: int
    gpus: float


def cell_share(device: str, jobs: int | None, machines: Sequence[Mapping[str, float]]) -> Share:
    """Return what every cell asks for: one a GPU, or one a machine where there is none.

    Args:
        device: of the configuration.
        jobs: cells side by side on one machine, instead.
        machines: their resources as Ray counts them ("CPU", "GPU"); the smallest counts.

    Raises:
        ValueError: a GPU was asked for and there is none.
    """
    of_use = [machine for machine in machines if machine.get("CPU", 0) >= 1]
    with_gpu = [machine for machine in of_use if machine.get("GPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise ValueError(f"{FLAG}: device cuda: no machine of the cluster has a GPU")
    shares = []
    for machine in of_use if device == "cpu" or not with_gpu else with_gpu:
        gpus = 0.0 if device == "cpu" else machine.get("GPU", 0.0)
        cells = jobs or max(1, int(gpus))
        part = min(1.0, int(10_000 * gpus / cells) / 10_000)  # Ray counts to four places
        shares.append(Share(max(1, int(machine["CPU"]) // cells), part))
    if not shares:
        return Share(1, 0.0)
    return Share(min(share.cpus for share in shares), min(share.gpus for share in shares))


def cells_that_fit(share: Share, machines: Sequence[Mapping[str, float]]) -> int:
    """Return how many cells run at the same time, at least one: machines may still come.

    Args:
        share: of every cell.
        machines: their resources as Ray counts them.
    """
    fit = 0
    for machine in machines:
        cells = int(machine.get("CPU", 0)) // share.cpus
        if share.gpus:
            cells = min(cells, int(machine.get("GPU", 0) / share.gpus))
        fit += cells
    return max(1, fit)


class RayLauncher:
    """Trains on the machines of a cluster.

    Args:
        address: see ``ray_session``.
        device: of the configuration.
        jobs: cells side by side on one machine; None: one a GPU, one where there is none.
        train: a function of a module, which every machine can import.

    Raises:
        ValueError: Ray is not installed, nothing answers at the address, or the device is a GPU
            with a number or one that no machine there has.
    """

    def __init__(
        self, address: str, device: str, jobs: int | None = None, train: TrainCell = train_cell
    ) -> None:
        require_ray(FLAG)
        if device.startswith("cuda:"):
            raise ValueError(f"{FLAG}: device {device}: every cell is dealt its GPU; say cuda")
        self._address, self._device, self._jobs, self._train = address, device, jobs, train
        if address != HERE:  # what is not there is said before hours of decoding
            self.cells_at_once()

    def cells_at_once(self) -> int:
        """Ask the cluster how many cells it trains at the same time.

        Raises:
            ValueError: no cluster, or no GPU there.
        """
        with ray_session(self._address, FLAG):
            machines = _machines()
            return cells_that_fit(cell_share(self._device, self._jobs, machines), machines)

    def __call__(
        self, tasks: Sequence[Task], say: Callable[[str], None]
    ) -> Generator[Ending, None, None]:
        """Train ``tasks``; see ``launch.Launch``.

        Raises:
            Stopped: a signal came; every cell that ran has saved a checkpoint and ended.
            ValueError: no cluster, or no GPU there.
        """
        from ubr_pretrain.run_folder import LOCK
        from ubr_pretrain.runtime import stop_on_signals

        with ray_session(self._address, FLAG), GridProgress(tasks, say) as progress:
            import ray

            machines = _machines()
            share = cell_share(self._device, self._jobs, machines)
            say(
                f"Ray: {len(machines)} machine{'' if len(machines) == 1 else 's'}; a cell holds "
                f"{share.cpus} CPU, {share.gpus:g} GPU"
            )
            train = _From(Path.cwd(), self._train)
            threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share.cpus))}
            remote = ray.remote(run_cell).options(
                num_cpus=share.cpus, num_gpus=share.gpus, max_retries=RETRIES
            )
            running: dict[Any, Task] = {}
            with stop_on_signals() as stop:
                for task in tasks:
                    lock = task.folder / LOCK
                    ref = remote.remote(train, task.config, task.folder, task.log, lock, threads)
                    running[ref] = task
                    progress.start(task)
                while running and not stop.signal:
                    ended, _ = ray.wait([*running], timeout=POLL_S)
                    for ref in ended:
                        task = running.pop(ref)
                        reason = why_it_failed(ref, task.log)
                        progress.end(task, reason)
                        yield Ending(task.key, reason)
                    progress.update()
                while running:  # until the last one has saved; a request may be lost on its way
                    for ref in running:
                        ray.cancel(ref)
                    ended, _ = ray.wait([*running], num_returns=len(running), timeout=ASKED_AGAIN_S)
                    running = {ref: task for ref, task in running.items() if ref not in ended}
        if stop.signal:
            raise Stopped("stopped", stop.exit_code)


def _machines() -> list[Mapping[str, float]]:
    """Return the resources of every machine of the cluster that this process is a driver of."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


@dataclass(frozen=True)
class _From:
    """Trains in the folder where the command was started, from which its paths may be told."""

    folder: Path
    train: TrainCell

    def __call__(self, config: DetConfig, out: Path) -> int:
        os.chdir(self.folder)
        return self.train(config, out)


def run_cell(
    train: TrainCell,
    config: DetConfig,
    folder: Path,
    log: Path,
    lock: Path,
    environment: dict[str, str],
) -> str:
    """Be a task of Ray: train one cell in a child process; return why it failed, or "".

    Args:
        train: a function of a module.
        config: of the training.
        folder: of its run.
        log: of what it prints.
        lock: that a process of the same run holds, as long as it lives.
        environment: variables of the child.
    """
    # A cluster that was started in the background of a script ignores SIGINT, and so do its
    # workers: Ray's request to stop, which is that signal, would never arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _wait_until_free(lock)
    child = CellProcess(train, config, folder, log, environment)
    while True:
        try:
            while child.is_alive():
                child.join(POLL_S)  # not for ever: Ray interrupts between two statements
            return child.reason()
        except KeyboardInterrupt:  # cancelled, maybe more than once: it saves and ends by itself
            child.terminate()


def _wait_until_free(lock: Path) -> None:
    """Wait for what an earlier try has left; who holds it longer is named by the training."""
    deadline_s = time.monotonic() + LET_GO_S
    while lock.is_file() and is_held(lock) and time.monotonic() < deadline_s:
        time.sleep(0.1)


def why_it_failed(ref: Any, log: Path) -> str:
    """Return how a cell ended that Ray has done with, "" where its training came to its end."""
    import ray

    try:
        return str(ray.get(ref))
    except ray.exceptions.RayError as error:
        cause, last = getattr(error, "cause", error), last_line(log)
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:MAX_WORDS]}"
        return f"{reason}; its last line: {last}" if last else reason
