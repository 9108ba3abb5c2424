"""Many volumes with few files open, in little memory, and with a word from time to time."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.ubr_pretrain.archives import write_toy_checkpoint
from ubr_pretrain import folder_walk, journal, read_ahead
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.scan_scoring import ScoringRun
from ubr_pretrain.score_archive import open_archive
from ubr_pretrain.score_tables import write_tables
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.scoring_run import _Recorder
from ubr_pretrain.volumes import find_volumes

WITH_64_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from ubr_pretrain.gather_scores import main as gather
from ubr_pretrain.score_volumes import main as score
from ubr_pretrain.train_ubr import main as train
data, out = sys.argv[1:]
small = "--preset demo --device cpu --width 0.1 --g 8 --m 4 --iterations 12 --eval_every 12".split()
kept = ["--residence", "disk", "--holdout_fraction", "0.2"]
print("trained", train(["--data", data, "--out", f"{out}/run", *small, *kept]))
regressor = f"{out}/run/checkpoints/last.safetensors"
flags = [data, "--checkpoint", regressor, "--views", "1", "--pictures", "false", "--out", out]
print("scored", score([*flags, "--shard", "1/1"]))
print("gathered", gather([out, "--format", "csv", "json", "parquet"]))
"""


def test_N78_more_volumes_than_files_that_may_be_open(tmp_path: Path, load_inputs) -> None:
    """Training, scoring and gathering 70 volumes work where 64 files may be open at once."""
    data = load_inputs.write_volumes(tmp_path / "data", 70)
    done = subprocess.run(
        [sys.executable, "-c", WITH_64_FILES, str(data), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for told in ("trained 0", "scored 0", "gathered 0", "70 volumes scored, 0 refused"):
        assert told in done.stdout
    assert len((tmp_path / "volumes.csv").read_text().splitlines()) == 71


def record(number: int, num_slices: int = 400) -> dict:
    values = [round(0.37 * n, 6) for n in range(num_slices)]
    columns = ("z_mm", "score", "score_alone", "score_sd", "coordinate", "coordinate_sd")
    return {
        "volume": f"scan{number}",
        "subject": f"scan{number}",
        "num_slices": num_slices,
        "spacing_mm_zyx": [5.0, 0.7, 0.7],
        "r": 1.0,
        "zones": None,
        "slices": {name: [value + number for value in values] for name in columns},
        "notes": [],
    }


def test_N79_tables_of_many_volumes_need_no_more_memory(tmp_path: Path, monkeypatch) -> None:
    """Recording and tabling a further volume of 400 slices takes less than 2 kB of memory."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def peak_bytes(num_volumes: int) -> int:
        tracemalloc.start()
        with open_archive(tmp_path / f"out{num_volumes}", {}) as archive:
            for number in range(num_volumes):
                name = f"scan{number}"
                archive.add("volumes", name, name, name, record(number))
            write_tables(archive, ["csv", "json"])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(2)
    few, many = peak_bytes(5), peak_bytes(25)
    assert (many - few) / 20 < 2000
    assert (tmp_path / "out25" / "scores.csv").stat().st_size > 25 * 400 * 50


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second passes whenever somebody looks."""
    seconds = count()
    fake = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    for module in (journal, folder_walk):
        monkeypatch.setattr(module, "time", fake)
    return


def test_N79_long_work_says_something_before_a_tenth_of_it_is_done(clock, capsys) -> None:
    """Long work prints how far it is within two seconds, then every quarter of a minute."""
    line = ProgressLine(100)
    for number in range(1, 101):
        line.show(number, "volumes decoded")
    told = [text.split("/")[0] for text in capsys.readouterr().err.splitlines()]
    assert [int(number) for number in told] == [2, 17, 32, 47, 62, 77, 92, 100]


def test_N79_a_long_search_says_how_many_files_it_has_looked_at(
    clock, tmp_path: Path, load_inputs
) -> None:
    """A search in a large archive prints how many files were looked at and volumes found."""
    folder = load_inputs.write_foreign(tmp_path / "folder", 36)
    told: list[str] = []
    assert len(find_volumes([folder], told.append)) == 4
    assert told == [
        f"searching: {looked} files looked at, {found} volumes found"
        for looked, found in ((1, 0), (16, 0), (31, 0))
    ]


def test_N79_scores_are_printed_as_they_come(
    tmp_path: Path, load_inputs, monkeypatch, capsys, one_thread
) -> None:
    """score_volumes.py prints every volume as it comes, long before the tenth part is done."""
    data = load_inputs.write_volumes(tmp_path / "data", 40)
    checkpoint = write_toy_checkpoint(tmp_path / "ubr.safetensors")
    monkeypatch.setattr(read_ahead, "WORTH_A_CHILD", 1000)
    recorded: list[str] = []
    original = ScoringRun.record_volume

    def counting(self, task, outcome):
        recorded.append(task.name)
        return original(self, task, outcome)

    shown: list[int] = []
    take = _Recorder.take

    def taking(self, scored):
        take(self, scored)
        shown.append(len(recorded))

    monkeypatch.setattr(ScoringRun, "record_volume", counting)
    monkeypatch.setattr(_Recorder, "take", taking)
    flags = ["--checkpoint", str(checkpoint), "--views", "1", "--pictures", "false"]
    assert score_volumes([str(data), *flags, "--out", str(tmp_path / "out")]) == 0
    assert len(recorded) == 40
    assert shown[0] <= 4
    assert all(later - number <= 4 for number, later in enumerate(shown))
