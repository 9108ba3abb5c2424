"""Scans scored by the machines of a Ray cluster, as a stream through Ray Data.

    tasks, or units that are searched where there is room -> actors that read and score -> driver

An actor holds a scorer and its own reading children (``GuardedReader``), so a volume's voxels never
cross a network: a task of some kilobytes goes out, a record comes back. Ray Data hands out no more
than the actors can take and the driver has fetched; what a lost worker had in hand is given to
another, and a scan at which ``MAX_DEATHS`` workers died is refused (E-CRASH).

The scans, the checkpoint, and the folder of the results where pictures or pages are written, must
lie at the same path on every machine, with the same version of this package.
"""

from __future__ import annotations

import logging
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import ray
import ray.data
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.guard import GuardedReader
from ubr_pretrain.runtime import STOP_SIGNALS, StopRequest
from ubr_pretrain.scan_scoring import ScorerChoice, ScoringRules, ScoringRun
from ubr_pretrain.score_archive import JOURNAL
from ubr_pretrain.scoring_plan import Recorded, Scored, ScoringTask, plan_unit
from ubr_pretrain.shards import Unit
from ubr_pretrain.volumes import VolumeEntry

MAX_DEATHS = 3
"""Workers that may die at one scan, be it of the scan or of the machine."""

READERS_PER_GPU = 8
"""More children than that decode faster than a GPU scores."""

SEARCHES_AT_ONCE = 4
"""Units that are searched at the same time: reading headers waits for disks, not for processors."""

Row = dict[str, Any]


@dataclass(frozen=True)
class RayJob:
    """What every worker is told.

    Attributes:
        choice: of the scorer.
        identity: of the scorer as the driver read it; a worker that reads another refuses to work.
        rules: what to do with each scan.
        out: folder of pictures and pages, absolute.
    """

    choice: ScorerChoice
    identity: Mapping[str, Any]
    rules: ScoringRules
    out: Path


@dataclass(frozen=True)
class Workers:
    """How the actors divide a cluster.

    Attributes:
        count: of actors.
        num_cpus: of each.
        num_gpus: of each.
        readers: volumes that each reads at the same time.
    """

    count: int
    num_cpus: int
    num_gpus: int = 0
    readers: int = 1

    @classmethod
    def of_cluster(cls, choice: ScorerChoice) -> Workers:
        """Divide the cluster that this process is connected to: an actor a GPU, or one a CPU.

        Machine by machine: an actor that fits on none would be waited for for ever.

        Args:
            choice: its device is "auto" (GPUs where the cluster has any), "cpu" or "cuda".

        Raises:
            ValueError: no CPU, or no GPU where one is asked for.
        """
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        machines = [
            tuple(int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
            for node in nodes
            if node["Alive"]
        ]
        machines = [(cpus, gpus) for cpus, gpus in machines if cpus]
        with_gpu = [(cpus, gpus) for cpus, gpus in machines if gpus]
        if choice.device == "cuda" and not with_gpu:
            raise ValueError("--device cuda: no machine of the cluster has a GPU")
        if not machines:
            raise ValueError("--engine ray: the cluster has no CPU")
        if with_gpu and choice.device != "cpu":
            each = max(1, min(cpus // gpus for cpus, gpus in with_gpu))
            readers = max(1, min(READERS_PER_GPU, each - 1))
            each = min(each, readers + 1)
            return cls(sum(min(gpus, cpus // each) for cpus, gpus in with_gpu), each, 1, readers)
        each = min(choice.threads or 1, max(cpus for cpus, _ in machines))
        return cls(sum(cpus // each for cpus, _ in machines), each)


@dataclass(frozen=True)
class Found:
    """What a search of a unit says before its tasks are done; see ``Plan``."""

    held: Sequence[str]
    skipped: Mapping[str, int]
    num_tasks: int


class _Attempts:
    """How often each scan was begun; it lives beside the driver, whatever dies elsewhere."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def begin(self, key: str) -> int:
        self._count[key] = self._count.get(key, 0) + 1
        return self._count[key]

    def end(self, key: str) -> None:
        self._count.pop(key, None)


class ScanScorer:
    """An actor: reads and scores one task after another, or some at a time before a GPU."""

    def __init__(self, job: RayJob, workers: Workers, attempts: Any) -> None:
        choice = replace(job.choice, device="cuda")
        if not workers.num_gpus:
            torch.set_num_threads(workers.num_cpus)
            choice = replace(job.choice, device="cpu", threads=workers.num_cpus)
        if (found := choice.identity(scorer := choice.read())) != job.identity:
            other = sorted(k for k in found if found[k] != job.identity.get(k))
            raise ValueError(f"a worker has another scorer than the driver: {', '.join(other)}")
        writes = job.rules.pictures or job.rules.pages
        if writes and not (job.out / JOURNAL).exists():
            raise ValueError(
                f"--out {job.out}: a worker does not see it; put it on a file system that all "
                "machines share, or use --pictures false"
            )
        self._run = ScoringRun(scorer, job.rules, job.out)
        self._attempts = attempts
        self._device = threading.Lock()
        self._own = threading.local()

    def __call__(self, row: Row) -> Row:
        """Return a row whose item is ``Scored`` where it was a task, else the row itself."""
        item = pickle.loads(row["item"])
        if not isinstance(item, ScoringTask):
            return row
        key = f"{item.kind} {item.name}"
        if ray.get(self._attempts.begin.remote(key)) > MAX_DEATHS:
            cause = f"{MAX_DEATHS} processes died that were to score it"
            scored = self._run.refuse(item, VolumeRefused("E-CRASH", item.entry.path, cause))
        else:
            scored = self._score(item)
        self._attempts.end.remote(key)
        return _packed(scored)

    def _score(self, task: ScoringTask) -> Scored:
        if not isinstance(task.entry, VolumeEntry):
            with self._device:
                return self._run.record_image(task)
        if not hasattr(self._own, "guard"):
            self._own.guard = GuardedReader()
        try:
            outcome = self._own.guard.read(task.entry, **self._run.rules.reading)
        except VolumeRefused as refusal:
            outcome = refusal
        with self._device:
            return self._run.record_volume(task, outcome)


def _search(row: Row, done: Recorded) -> Iterator[Row]:
    """Yield what is to be said of a unit, then its tasks one by one."""
    unit = pickle.loads(row["item"])
    plan = plan_unit(unit, done)
    tasks = [*plan.volumes, *plan.images]
    yield _packed(Found(plan.held, plan.skipped, len(tasks)))
    yield from map(_packed, tasks)


def _packed(item: Any) -> Row:
    return {"item": pickle.dumps(item)}


def score_on_ray(
    job: RayJob,
    work: Sequence[ScoringTask] | Sequence[Unit],
    done: Recorded,
    note: Callable[[Sequence[str], Mapping[str, int]], None],
    stop: StopRequest,
) -> Iterator[Scored]:
    """Score tasks, or what is found in units, on the cluster that this process is connected to.

    Args:
        job: what to do.
        work: tasks, or units.
        done: what is recorded already, of the units.
        note: is told, once a unit, the names that are recorded and what was passed over.
        stop: a signal ends the stream, also while nothing comes.

    Yields:
        What was scored, each scan once, in the order in which they come.

    Raises:
        ValueError: the workers cannot work: another scorer, a folder that they do not see.
        RuntimeError: the stream ended before everything had come.
    """
    if not work:
        return
    seen: set[tuple[str, ...]] = set()
    expected = sum(isinstance(item, ScoringTask) for item in work)
    for item in _until(stop, _stream(job, work, done)):
        if isinstance(item, Found):
            note(item.held, item.skipped)
            expected += item.num_tasks
            continue
        key = tuple(str(item.line[part]) for part in ("kind", "name", "place"))
        if key not in seen:
            seen.add(key)
            yield item
    if stop.signal is None and len(seen) != expected:
        raise RuntimeError(f"{len(seen)} of {expected} scans came back; run the same command again")


def _stream(job: RayJob, work: Sequence[ScoringTask] | Sequence[Unit], done: Recorded) -> Any:
    """Return the data set of everything that is to come; nothing has begun yet."""
    workers = Workers.of_cluster(job.choice)
    _be_quiet()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    attempts = ray.remote(_Attempts).options(num_cpus=0, scheduling_strategy=here).remote()
    rows: ray.data.Dataset = ray.data.from_items(
        list(map(_packed, work)), override_num_blocks=len(work)
    )
    if isinstance(work[0], Unit):
        searches = ray.data.TaskPoolStrategy(size=SEARCHES_AT_ONCE)
        rows = rows.flat_map(partial(_search, done=done), num_cpus=0, compute=searches)
    return rows.map(
        cast(Any, ScanScorer),  # Ray's types know functions only
        fn_constructor_args=(job, workers, attempts),
        compute=ray.data.ActorPoolStrategy(
            size=workers.count,
            max_tasks_in_flight_per_actor=2 * workers.readers,
            max_concurrent_calls_per_actor=workers.readers,
            enable_true_multi_threading=workers.readers > 1,
        ),
        num_cpus=workers.num_cpus,
        num_gpus=workers.num_gpus,
    )


class _Stopped(BaseException):
    """A signal came while the driver was waiting for the cluster."""


def _until(stop: StopRequest, rows: Any) -> Iterator[Any]:
    """Yield the items of rows; a signal ends the wait for the next one."""
    waiting = False

    def handler(number: int, frame: FrameType | None) -> None:
        stop(number, frame)
        if waiting:
            raise _Stopped

    before = {n: signal.signal(n, handler) for n in STOP_SIGNALS}
    try:
        coming = iter(rows.iter_rows())
        while stop.signal is None:
            waiting = True
            row = next(coming, None)
            waiting = False
            if row is None:
                return
            yield pickle.loads(row["item"])
    except _Stopped:
        return
    except RayError as error:
        raise ValueError(f"--engine ray: {_cause(error)}") from error
    finally:
        waiting = False
        for number, own in before.items():
            signal.signal(number, own)


def _cause(error: BaseException) -> str:
    """Return the last line of what went wrong on a worker: Ray tells it first, then itself."""
    told, _, _ = str(error).partition("\n\nThe above exception was the direct cause")
    return (told.strip().splitlines() or [type(error).__name__])[-1]


def _be_quiet() -> None:
    """Keep Ray Data's plans and bars off the terminal, which shows ours."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # every task is a block: it goes out as soon as it is there
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too
