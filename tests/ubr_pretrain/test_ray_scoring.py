"""Scoring on a cluster of several machines: what one machine says, whatever dies meanwhile."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ubr_pretrain.archives import recorded, write_archive, write_toy_checkpoint
from tests.ubr_pretrain.test_guard import FaultyEntry
from ubr_pretrain import score_volumes, scoring_run
from ubr_pretrain.scans import find_scans
from ubr_pretrain.score_archive import ScoreArchive

ray = pytest.importorskip("ray", reason="needs Ray")

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),  # every worker imports PyTorch: seconds, minutes on a busy machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),  # among Ray's own modules
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines of one core each, as far as Ray knows, and one that only leads."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")  # 15 is Ray's: beside other tests nothing is left
        memory = {"object_store_memory": 80_000_000}
        head = {"num_cpus": 0, "include_dashboard": False, **memory}
        running = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            running.add_node(num_cpus=1, **memory)
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_archive(tmp_path_factory.mktemp("data") / "archive", 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_toy_checkpoint(tmp_path_factory.mktemp("weights") / "ubr.safetensors")


@pytest.fixture(scope="module")
def local(archive, checkpoint, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What a run on this machine says of the archive."""
    out = tmp_path_factory.mktemp("local")
    assert score_volumes.main(command(archive, checkpoint, out)) == 1
    return recorded(out)


def command(archive: Path, checkpoint: Path, out: Path, *more: object) -> list[str]:
    fixed = ["--checkpoint", checkpoint, "--device", "cpu", "--pictures", "false", "--out", out]
    return [str(word) for word in (archive, *fixed, *more)]


def on(cluster: Any) -> tuple[str, ...]:
    return "--engine", "ray", "--ray-address", cluster.address


def after_the_first_record(monkeypatch: pytest.MonkeyPatch, event: Callable[[], None]) -> None:
    """Let something happen once one scan is recorded and others are on their way."""
    add = ScoreArchive.add
    events = iter([event])

    def add_and_tell(self: ScoreArchive, *args: Any, **line: Any) -> None:
        add(self, *args, **line)
        next(events, lambda: None)()

    monkeypatch.setattr(ScoreArchive, "add", add_and_tell)


def scorers() -> list[int]:
    """Return the processes on this machine that score."""
    found = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    lines = (line.split(maxsplit=1) for line in found.stdout.splitlines())
    return [int(pid) for pid, name in lines if name.startswith("ray::") and "ScanScorer" in name]


def test_a_machine_dies_and_a_decoder_crashes_and_nothing_is_lost_or_twice(
    cluster, archive, checkpoint, local, tmp_path, monkeypatch, capsys
) -> None:
    """Files that are damaged, or whose decoder crashes, are rows; the rest equals a local run."""

    def find_with_a_crash(paths, say):
        found = find_scans(paths, say)
        found.volumes.insert(1, FaultyEntry(archive / "crash.dcm", "SIGSEGV", "nobody"))
        return found

    def lose_a_machine():
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)

    monkeypatch.setattr(scoring_run, "find_scans", find_with_a_crash)
    after_the_first_record(monkeypatch, lose_a_machine)
    argv = command(archive, checkpoint, tmp_path, *on(cluster))
    assert score_volumes.main(argv) == 1
    records = recorded(tmp_path)
    crashed = records.pop("SIGSEGV")
    assert (crashed["code"], crashed["cause"]) == ("E-CRASH", "its reader ended with SIGSEGV")
    assert records == local
    assert records["cut"]["code"] == "E-TRUNC"
    assert "cut.nii" in capsys.readouterr().err
    assert not ray.is_initialized()


def test_what_is_recorded_is_not_sent_again(
    cluster, archive, checkpoint, local, tmp_path, monkeypatch
) -> None:
    from ubr_pretrain import ray_scoring

    assert score_volumes.main(command(archive, checkpoint, tmp_path)) == 1
    sent: list[str] = []

    class Nothing:
        def iter_rows(self):
            return iter(())

    def note(job, work, done):
        sent.extend(task.name for task in work)
        return Nothing()

    monkeypatch.setattr(ray_scoring, "_stream", note)
    with pytest.raises(RuntimeError, match="0 of 1 scans came back"):
        score_volumes.main(command(archive, checkpoint, tmp_path, *on(cluster)))
    assert sent == ["cut"]  # what was refused is tried again
    assert recorded(tmp_path) == local


def test_a_worker_dies_and_its_shard_is_whole(
    cluster, archive, checkpoint, local, tmp_path, monkeypatch
) -> None:
    after_the_first_record(monkeypatch, lambda: os.kill(scorers()[0], signal.SIGKILL))
    argv = command(archive, checkpoint, tmp_path, *on(cluster), "--shard", "1/1")
    assert score_volumes.main(argv) == 1
    folder = tmp_path / "shard-00001-of-00001"
    assert recorded(folder) == local
    assert (folder / "complete.json").exists()


def test_the_driver_is_killed_and_the_same_command_goes_on(
    cluster, archive, checkpoint, local, tmp_path
) -> None:
    argv = command(archive, checkpoint, tmp_path, *on(cluster))
    script = "from ubr_pretrain.score_volumes import main; raise SystemExit(main())"
    driver = subprocess.Popen([sys.executable, "-c", script, *argv])
    journal = tmp_path / "scores.jsonl"
    deadline_s = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        assert driver.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    before = journal.read_bytes()
    assert score_volumes.main(argv) == 1
    assert journal.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert recorded(tmp_path) == local


def test_T04_a_signal_ends_the_wait_for_the_cluster(
    cluster, archive, checkpoint, local, tmp_path
) -> None:
    """SIGTERM while scans are awaited from a cluster: the wait ends, the run goes on later."""
    from ubr_pretrain import ray_scoring

    threads = []
    stream = ray_scoring._stream

    def soon(*args):
        threads.append(threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)))
        threads[0].start()
        return stream(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_scoring, "_stream", soon)
        argv = command(archive, checkpoint, tmp_path, *on(cluster))
        assert score_volumes.main(argv) == 143
    threads[0].join()
    assert recorded(tmp_path).items() <= local.items()
    assert not ray.is_initialized()


def test_what_a_worker_says_of_its_end_is_the_one_line(
    cluster, archive, checkpoint, tmp_path, monkeypatch, capsys
) -> None:
    from ubr_pretrain.ray_scoring import _cause
    from ubr_pretrain.scan_scoring import ScorerChoice

    read = ScorerChoice.identity
    monkeypatch.setattr(
        ScorerChoice, "identity", lambda *of: {**read(*of), "checkpoint_sha256": "of the driver"}
    )
    argv = command(archive, checkpoint, tmp_path, *on(cluster))
    with pytest.raises(SystemExit, match="2"):
        score_volumes.main(argv)
    told = (
        "--engine ray: ValueError: a worker has another scorer than the driver: checkpoint_sha256"
    )
    assert capsys.readouterr().err.splitlines()[-1].endswith(told)
    text = (
        "Traceback\nFloatingPointError: slice 3\n\nThe above exception was the direct cause of the "
        "following exception:\n\nUserCodeException: UDF failed\nTo change retry attempts, ..."
    )
    assert _cause(RuntimeError(text)) == "FloatingPointError: slice 3"
    assert _cause(RuntimeError()) == "RuntimeError"


def test_a_scan_at_which_workers_die_is_refused(
    cluster, archive, checkpoint, local, tmp_path
) -> None:
    from ubr_pretrain.ray_scoring import (
        MAX_DEATHS,
        RayJob,
        ScanScorer,
        Workers,
        _Attempts,
        _packed,
    )
    from ubr_pretrain.ray_session import ray_session
    from ubr_pretrain.scan_scoring import ScorerChoice, ScoringRules
    from ubr_pretrain.scoring_plan import Recorded, plan_unit
    from ubr_pretrain.shards import find_units

    choice = ScorerChoice(checkpoint, device="cpu")
    job = RayJob(choice, choice.identity(choice.read()), ScoringRules(pictures=False), tmp_path)
    (unit,) = [unit for unit in find_units([archive]) if unit.path.name == "p1.nii"]
    (task,) = plan_unit(unit, Recorded(frozenset(), (), tmp_path)).volumes
    with ray_session(cluster.address, "--engine ray"):
        attempts = ray.remote(_Attempts).options(num_cpus=0).remote()
        scorer = ScanScorer(job, Workers(1, 1), attempts)
        for _ in range(MAX_DEATHS):
            ray.get(attempts.begin.remote("volumes p1"))
        refused = pickle.loads(scorer(_packed(task))["item"])
        assert refused.record["code"] == "E-CRASH"
        assert "p1.nii" in refused.complaint
        again = pickle.loads(scorer(_packed(task))["item"])
        assert again.record == local["p1"]
    other = replace(job, identity={**job.identity, "num_views": 1})
    with pytest.raises(ValueError, match="another scorer than the driver: num_views"):
        ScanScorer(other, Workers(1, 1), None)
    elsewhere = replace(job, rules=ScoringRules(pictures=True), out=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a file system that all machines share"):
        ScanScorer(elsewhere, Workers(1, 1), None)


@pytest.mark.parametrize(
    ("device", "threads", "machines", "workers"),
    [
        ("cpu", None, [(0, 0), (2, 0), (3, 1)], (5, 1)),
        ("cpu", 2, [(0, 0), (1, 0), (3, 0), (4, 0)], (3, 2)),
        ("cpu", 8, [(1, 0), (3, 0)], (1, 3)),
        ("auto", None, [(64, 0), (8, 1)], (1, 8, 1, 7)),
        ("cuda", 4, [(64, 0), (8, 2), (96, 4)], (6, 4, 1, 3)),
        ("auto", None, [(48, 2)], (2, 9, 1, 8)),
        ("auto", None, [(1, 2)], (1, 1, 1, 1)),
    ],
)
def test_every_worker_fits_on_a_machine(monkeypatch, device, threads, machines, workers) -> None:
    from ubr_pretrain.ray_scoring import Workers
    from ubr_pretrain.scan_scoring import ScorerChoice

    nodes = [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in machines]
    nodes += [{"Alive": False, "Resources": {"CPU": 99, "GPU": 9}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    found = Workers.of_cluster(ScorerChoice(device=device, threads=threads))
    assert found == Workers(*workers)


@pytest.mark.parametrize(
    ("device", "cpus", "told"), [("cuda", 4, "has a GPU"), ("cpu", 0, "has no CPU")]
)
def test_a_cluster_without_what_is_needed_is_one_line(monkeypatch, device, cpus, told) -> None:
    from ubr_pretrain.ray_scoring import Workers
    from ubr_pretrain.scan_scoring import ScorerChoice

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": cpus}}])
    with pytest.raises(ValueError, match=told):
        Workers.of_cluster(ScorerChoice(device=device))


def test_a_cluster_that_is_started_here_is_as_important_as_this_process(monkeypatch) -> None:
    from ubr_pretrain.ray_session import HERE, ray_session

    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    with ray_session(HERE, "--engine ray"):
        worker = ray.remote(num_cpus=0)(lambda: os.getpriority(os.PRIO_PROCESS, 0)).remote()
        assert ray.get(worker) == os.getpriority(os.PRIO_PROCESS, 0)
