"""Cells as jobs of SLURM: submitit's own executor, on commands that stand in for a cluster's."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import submitit

from lesion_det.cluster import ClusterLauncher, read_options, slurm_executor
from lesion_det.launch import Stopped
from tests.lesion_det.toy_cells import finish_second_time, toy_task

ROOT = Path(__file__).resolve().parents[2]

COMMANDS = {
    "sbatch": """
        id=$(($(ls $FAKE/*.sh 2>/dev/null | wc -l) + 101))
        cp $1 $FAKE/$id.sh
        touch $FAKE/$id.running
        (start-job $id) >/dev/null 2>&1 &
        echo Submitted batch job $id""",
    "start-job": """
        while [ -e $FAKE/hold ]; do sleep 0.1; done
        SLURM_JOB_ID=$1 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 \\
        SLURM_LOCALID=0 SLURM_JOB_NODELIST=node1 bash $FAKE/$1.sh
        test -e $FAKE/$1.requeue && rm $FAKE/$1.requeue && exec start-job $1
        rm $FAKE/$1.running""",
    "srun": """
        while [ "${1#--}" != "$1" ]; do
            [ "$1" = --unbuffered ] && shift && continue
            file=$(echo "$2" | sed "s/%j/$SLURM_JOB_ID/; s/%t/0/")
            [ "$1" = --output ] && exec >>$file
            [ "$1" = --error ] && exec 2>>$file
            shift 2
        done
        exec "$@" """,
    "sacct": """
        echo "JobID|State|NodeList"
        for id in "$@"; do
            test -e $FAKE/$id.sh || continue
            test -e $FAKE/$id.running && echo "$id|RUNNING|node1" || echo "$id|OUT_OF_MEMORY|node1"
        done""",
    "scontrol": "touch $FAKE/$2.requeue",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the sbatch scripts are kept by the number of their job."""
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    for name, text in COMMANDS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("lesion_det.cluster.POLL_S", 0.1)
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 1)
    submitit.SlurmJob.watcher.clear()
    return folder


def launch(
    top: Path, seeds: Sequence[int], *, wait: bool, when_queued: Callable[[], None] = lambda: None
) -> tuple[dict[int, str], list[str]]:
    executor = slurm_executor(top / "cluster", ["partition=gpu", "time=90", "mem=32G"], gpu=True)
    launcher = ClusterLauncher(
        executor, top / "cluster" / "jobs.json", wait=wait, train=finish_second_time
    )
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        when_queued()

    (top / "cells").mkdir(exist_ok=True)
    endings = launcher([toy_task(top, seed) for seed in seeds], say)
    return {ending.key.seed: ending.reason for ending in endings}, lines


def test_jobs_are_remembered_waited_for_and_gathered(slurm: Path, tmp_path: Path) -> None:
    (slurm / "hold").touch()  # no job begins, however slow this machine is
    with pytest.raises(Stopped, match="3 jobs are in the queue") as stopped:
        launch(tmp_path, (0, 1, 2), wait=False)
    assert stopped.value.exit_code == 0
    remembered = json.loads((tmp_path / "cluster" / "jobs.json").read_text())
    assert remembered == {"seed0": "101", "seed1": "102", "seed2": "103"}

    def begin() -> None:
        (slurm / "hold").unlink(missing_ok=True)

    reasons, _ = launch(tmp_path, (0, 1, 2), wait=True, when_queued=begin)
    assert reasons == {
        0: "",
        1: "job 102: OUT_OF_MEMORY; its last line: its last words",
        2: "job 103: weights.pth: no such file",
    }
    submitted = sorted(file.name for file in slurm.glob("*.sh"))
    assert submitted == ["101.sh", "102.sh", "103.sh"]  # none of them twice


def test_failed_job_is_tried_again_by_a_new_one(slurm: Path, tmp_path: Path) -> None:
    assert launch(tmp_path, (2,), wait=True)[0] == {2: "job 101: weights.pth: no such file"}
    reasons, lines = launch(tmp_path, (2,), wait=True)
    assert reasons == {2: "job 102: weights.pth: no such file"}
    assert "cell 2: job 102" in lines


def test_job_at_its_time_limit_is_queued_again_and_finishes(slurm: Path, tmp_path: Path) -> None:
    reasons, _ = launch(tmp_path, (3,), wait=True)
    assert reasons == {3: ""}
    assert len(list(slurm.glob("*.sh"))) == 1  # the same job


def test_sbatch_script_says_what_was_asked_for(slurm: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        launch(tmp_path, (0,), wait=False)
    script = (slurm / "101.sh").read_text()
    options = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    log = tmp_path / "cluster" / "%j_0_log"
    assert options == [
        f"#SBATCH --error={log}.err",
        "#SBATCH --gpus=1",
        "#SBATCH --job-name=compare_inits",
        "#SBATCH --mem=32G",
        "#SBATCH --nodes=1",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={log}.out",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=90",
        "#SBATCH --wckey=submitit",
    ]
    assert f"{sys.executable} -u -m submitit.core._submit {tmp_path / 'cluster'}" in script
    while not (tmp_path / "cells" / "seed0" / "run.json").is_file():
        time.sleep(0.05)


def test_options_are_those_of_sbatch() -> None:
    assert read_options(["partition=gpu", "exclusive", "--cpus_per_task=4", "x=a=b"]) == {
        "partition": "gpu",
        "exclusive": True,
        "cpus-per-task": "4",
        "x": "a=b",
    }


def test_no_gpu_is_asked_for_twice_or_for_a_cpu(slurm: Path, tmp_path: Path) -> None:
    for options, gpu in ((["gpus-per-node=2"], True), (["gres=gpu:a100"], True), ([], False)):
        executor = slurm_executor(tmp_path / "cluster", options, gpu=gpu)
        assert "gpus" not in executor.parameters["additional_parameters"]
