"""Trains the cells of a comparison as jobs of a SLURM cluster, one a cell, through submitit.

A job runs what a child process of the local launcher runs. What is in the queue is remembered in
``jobs.json``, so the command may end, and the same command later gathers. A job that reaches its
time limit is queued again by submitit and goes on from its last checkpoint.

The folder of the comparison, the data and the environment must be seen by every node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_det.cell_job import CellJob, TrainCell, train_cell
from lesion_det.cells import is_finished
from lesion_det.grid_progress import GridProgress
from lesion_det.launch import Ending, Stopped, Task, ending_words, last_line
from ubr_pretrain.runtime import stop_on_signals
from ubr_pretrain.whole_file import write_atomically

if TYPE_CHECKING:
    from submitit import Executor, Job

TIME_MIN = 24 * 60
"""Limit of a job where ``time`` is not given; a longer training is queued again."""

MAX_NUM_TIMEOUT = 100

POLL_S = 5.0

INSTALL = "--slurm: needs submitit; pip install 'ct-body-part-transfer[cluster]'"


def slurm_executor(folder: Path, options: Sequence[str], *, gpu: bool) -> Executor:
    """Return submitit's executor for SLURM.

    Args:
        folder: for its scripts and logs; on a file system that every node sees.
        options: ``KEY=VALUE`` with the long options of ``sbatch`` (``partition=gpu``,
            ``mem=32G``, ``exclusive``); ``time`` is in minutes, a whole number.
        gpu: ask for one GPU, unless ``options`` say which.

    Raises:
        ValueError: submitit is not installed; there is no SLURM; an option is malformed.
    """
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # its own closes all others' handlers
    try:
        import submitit
    except ImportError as error:
        raise ValueError(INSTALL) from error
    parameters = read_options(options)
    time_min = str(parameters.pop("time", TIME_MIN))
    if not time_min.isdecimal() or int(time_min) == 0:
        raise ValueError(f"--slurm time={time_min}: minutes, a whole number above 0")
    if gpu and not any("gpu" in key or key == "gres" for key in parameters):
        parameters["gpus"] = "1"
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_NUM_TIMEOUT)
    except RuntimeError as error:
        raise ValueError(f"--slurm: {error}") from error
    executor.update_parameters(
        job_name="compare_inits", time=int(time_min), additional_parameters=parameters
    )
    return executor


def read_options(options: Sequence[str]) -> dict[str, str | bool]:
    """Return ``KEY=VALUE`` pairs as a mapping; a key alone is a switch.

    Raises:
        ValueError: an empty key or value.
    """
    parameters: dict[str, str | bool] = {}
    for option in options:
        key, equals, value = option.partition("=")
        key = key.removeprefix("--").replace("_", "-")
        if not key or (equals and not value):
            raise ValueError(f"--slurm {option}: expected KEY=VALUE, as partition=gpu")
        parameters[key] = value if equals else True
    return parameters


class ClusterLauncher:
    """Submits the cells that are not in the queue yet and waits for all of them.

    Args:
        executor: of submitit.
        jobs_file: remembers the jobs by the name of their cell.
        wait: False: end once everything is in the queue.
        train: a function of a module, which every node can import.
    """

    def __init__(
        self,
        executor: Executor,
        jobs_file: Path,
        *,
        wait: bool,
        train: TrainCell = train_cell,
    ) -> None:
        self._executor, self._jobs_file, self._wait = executor, jobs_file, wait
        self._job = CellJob(train)

    def __call__(
        self, tasks: Sequence[Task], say: Callable[[str], None]
    ) -> Generator[Ending, None, None]:
        """Train ``tasks`` as jobs; see ``launch.Launch``.

        Raises:
            Stopped: a signal came, or nobody waits; the jobs go on.
        """
        with GridProgress(tasks, say) as progress:
            queued: list[tuple[Task, Job[int]]] = []
            remembered = self._remembered(tasks)
            for task in tasks:
                job = remembered.get(task.folder.name) or self._submit(task)
                say(f"{task.key.words}: job {job.job_id}")
                progress.start(task)
                queued.append((task, job))
            with stop_on_signals() as stop:
                while queued and self._wait and not stop.signal:
                    ended = [(task, job) for task, job in queued if job.done()]
                    for task, job in ended:
                        queued.remove((task, job))
                        reason = "" if is_finished(task.folder) else why_it_failed(job)
                        progress.end(task, reason)
                        yield Ending(task.key, reason)
                    progress.update()
                    if queued and not ended:
                        time.sleep(POLL_S)
        if queued:
            raise Stopped(f"{len(queued)} jobs are in the queue", stop.exit_code)

    def _remembered(self, tasks: Sequence[Task]) -> dict[str, Job[int]]:
        """Return the jobs of earlier sessions that have not ended, by the name of their cell."""
        ids, folder = self._read_jobs(), self._executor.folder
        names = [task.folder.name for task in tasks if task.folder.name in ids]
        jobs = {name: self._executor.job_class(folder, ids[name]) for name in names}
        return {name: job for name, job in jobs.items() if not job.done()}

    def _submit(self, task: Task) -> Job[int]:
        job: Job[int] = self._executor.submit(self._job, task.config, task.folder)
        jobs = {**self._read_jobs(), task.folder.name: job.job_id}
        with write_atomically(self._jobs_file, "w") as file:
            file.write(json.dumps(jobs, indent=2, allow_nan=False) + "\n")
        return job

    def _read_jobs(self) -> Mapping[str, str]:
        if not self._jobs_file.is_file():
            return {}
        return json.loads(self._jobs_file.read_text("utf-8"))


def why_it_failed(job: Job[int]) -> str:
    """Return how a job ended whose training did not come to its end."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    log = last_line(job.paths.stderr)
    try:
        return f"job {job.job_id}: {ending_words(job.result(), log)}"
    except (FailedJobError, UncompletedJobError):
        return f"job {job.job_id}: {job.state}" + (f"; its last line: {log}" if log else "")
