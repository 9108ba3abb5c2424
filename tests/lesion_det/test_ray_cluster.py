"""Cells on a cluster of Ray, of two machines here: they end as on one, and outlive either."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lesion_det.compare_inits import compare
from lesion_det.estimate import choose_trial
from lesion_det.launch import LocalLauncher
from lesion_det.plan import Question
from lesion_det.ray_cluster import RayLauncher, Share, cell_share, cells_that_fit
from tests.lesion_det.toy_cells import WAYS, count_to_ten, end_somehow, tell_surroundings, toy_task
from tests.lesion_det.toy_comparison import pretend_training
from tests.lesion_det.toy_grid import quiet

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """Two machines of one core and one GPU each, as far as Ray knows, and one that only leads."""
    utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")  # 15 is Ray's: beside other tests nothing is left
        running = utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        for _ in range(2):
            running.add_node(num_cpus=1, num_gpus=1)
        yield running
        running.shutdown()


def launch(
    cluster, folder: Path, train, seeds, *, device: str = "cpu", meanwhile=lambda: None
) -> dict[int, str]:
    tasks = [toy_task(folder, seed) for seed in seeds]
    other = threading.Thread(target=meanwhile)
    other.start()
    endings = list(RayLauncher(cluster.address, device, train=train)(tasks, quiet))
    other.join()
    return {ending.key.seed: ending.reason for ending in endings}


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_comparison_over_the_cluster_equals_the_local_one_byte_for_byte(
    cluster, question: Question, tmp_path: Path
) -> None:
    question = replace(question, inits=("random",))
    local, over_ray = tmp_path / "local", tmp_path / "ray"
    assert compare(question, local, LocalLauncher(1, (), pretend_training), say=quiet)[0] == 0
    launcher = RayLauncher(cluster.address, "cpu", train=pretend_training)
    assert compare(question, over_ray, launcher, say=quiet)[0] == 0
    for name in ("cells.csv", "recalls.csv", "differences.csv", "table.md"):
        assert (over_ray / name).read_bytes() == (local / name).read_bytes()


def test_end_of_a_cell_has_the_reason_that_it_has_on_one_machine(cluster, tmp_path: Path) -> None:
    seeds = [WAYS.index(way) for way in ("finish", "killed", "exception", "refused")]
    reasons = launch(cluster, tmp_path, end_somehow, seeds)
    tasks = [toy_task(tmp_path / "local", seed) for seed in seeds]
    endings = LocalLauncher(2, (), end_somehow)(tasks, quiet)
    assert reasons == {ending.key.seed: ending.reason for ending in endings}
    log = (tmp_path / "cells" / "seed0.log").read_text()
    assert set(log.splitlines()) == {"printed by the child", "and on the other stream"}


def test_cells_run_side_by_side_each_with_a_gpu_and_its_threads(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / "cells").mkdir()
    assert launch(cluster, tmp_path, tell_surroundings, (0, 1), device="cuda") == {0: "", 1: ""}
    told = {(tmp_path / "cells" / f"seed{i}" / "told").read_text() for i in (0, 1)}
    assert told == {"1 0"}  # the first GPU of either machine


def at_five(counted: Path, kill: Callable[[int], None]) -> None:
    """Wait until the first try counts no further, and call ``kill`` with the worker behind it."""
    wait_until(lambda: counted.is_file() and counted.read_text().endswith("5\n"))
    kill(int((counted.parent / "parent").read_text()))


def test_cell_of_a_killed_worker_is_tried_again_and_continues(cluster, tmp_path: Path) -> None:
    counted = tmp_path / "cells" / "seed0" / "counted"

    def kill_worker() -> None:
        at_five(counted, lambda worker: os.kill(worker, signal.SIGKILL))

    assert launch(cluster, tmp_path, count_to_ten, (0,), meanwhile=kill_worker) == {0: ""}
    assert counted.read_text().split() == [str(number) for number in range(1, 11)]


def test_cell_of_a_dead_machine_continues_on_another(cluster, tmp_path: Path) -> None:
    counted = tmp_path / "cells" / "seed0" / "counted"

    def kill_machine(worker: int) -> None:
        raylet = int(subprocess.check_output(["ps", "-o", "ppid=", str(worker)]))
        (machine,) = [node for node in cluster.worker_nodes if raylet_of(node) == raylet]
        cluster.remove_node(machine, allow_graceful=False)

    def meanwhile() -> None:
        at_five(counted, kill_machine)

    assert launch(cluster, tmp_path, count_to_ten, (0,), meanwhile=meanwhile) == {0: ""}
    assert counted.read_text().split() == [str(number) for number in range(1, 11)]


def raylet_of(node) -> int:
    return node.all_processes["raylet"][0].process.pid


def test_signal_reaches_the_cells_and_they_stop_in_their_own_way(tmp_path: Path) -> None:
    """Also those of a driver in the background of a script, where SIGINT is ignored."""
    command = [sys.executable, "-m", "tests.lesion_det.toy_cells", str(tmp_path), "tick", "local"]
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: len(list(tmp_path.glob("cells/*/ticks"))) == 2)
            driver.send_signal(signal.SIGTERM)
            assert driver.wait(120) == 128 + signal.SIGTERM
        finally:
            driver.kill()  # and with it its cluster, which would tick for ever
            driver.wait()
    written = {file.parent.name: file.read_text() for file in tmp_path.glob("cells/*/ticks")}
    assert written.keys() == {"seed0", "seed1"}  # the third one was not begun
    assert all(text.endswith("stopped\n") for text in written.values())


def test_share_of_a_cell_fits_every_machine() -> None:
    small, large, lead = {"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0, "GPU": 4.0}, {"CPU": 0.0}
    plain = {"CPU": 6.0}
    assert cell_share("auto", None, [small, large, lead, plain]) == Share(4, 1.0)
    assert cell_share("cuda", 4, [small, large]) == Share(2, 0.5)
    assert cell_share("cuda", 3, [small]) == Share(2, 0.6666)
    assert cell_share("auto", None, [plain]) == Share(6, 0.0)
    assert cell_share("cpu", 2, [small, plain]) == Share(3, 0.0)
    assert cell_share("cpu", 100, [plain]) == Share(1, 0.0)
    assert cell_share("auto", None, [lead]) == Share(1, 0.0)  # machines may still come
    with pytest.raises(ValueError, match="no machine of the cluster has a GPU"):
        cell_share("cuda", None, [plain])


def test_no_more_cells_are_planned_than_the_cluster_has_cores_and_gpus_for(cluster) -> None:
    small, large, lead = {"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0, "GPU": 4.0}, {"CPU": 0.0}
    assert cells_that_fit(Share(4, 1.0), [small, large, lead]) == 2 + 4
    assert cells_that_fit(Share(2, 0.5), [small, large]) == 4 + 8
    assert cells_that_fit(Share(3, 0.0), [small, lead]) == 2
    assert cells_that_fit(Share(1, 0.0), [lead]) == 1

    def agrees() -> (
        bool
    ):  # machines of one core each; one that has just died counts a little longer
        asked = RayLauncher(cluster.address, "cpu", jobs=100).cells_at_once()
        return asked == len(cluster.worker_nodes)

    wait_until(agrees)


def test_a_dry_run_plans_with_the_cells_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayLauncher, "cells_at_once", lambda launcher: 3)
    launcher, workers = choose_trial("cpu", 100, 20, "local", on_slurm=False)
    assert (launcher.jobs, workers) == (3, 3)
    launcher, workers = choose_trial("cpu", 100, 2, "local", on_slurm=False)
    assert (launcher.jobs, workers) == (2, 2)
    launcher, workers = choose_trial("cpu", None, 20, None, on_slurm=True)
    assert (launcher.jobs, workers) == (1, 20)


def test_numbered_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="--ray: device cuda:1: every cell is dealt its GPU"):
        RayLauncher("local", "cuda:1")


@pytest.mark.parametrize(
    ("address", "words"),
    [("nonsense", "expected local, auto or HOST:PORT"), ("127.0.0.1:1", "Connection refused")],
)
def test_where_no_cluster_answers_one_line_says_so_before_there_is_a_cell(
    address: str, words: str
) -> None:
    with pytest.raises(ValueError, match=f"--ray {address}: .*{words}"):
        RayLauncher(address, "cpu")
