"""Voxels from another process: the same voxels, few at a time, nothing left when one is killed."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.ubr_pretrain.stored_volumes import nii
from ubr_pretrain.ct import Volume
from ubr_pretrain.read_ahead import read_ahead
from ubr_pretrain.sparse_volume import SparseVolume
from ubr_pretrain.volumes import find_volumes

KILLED = """
import multiprocessing, sys, time
from pathlib import Path
from ubr_pretrain.read_ahead import read_ahead
from ubr_pretrain.volumes import find_volumes

if __name__ == "__main__":
    coming = read_ahead(find_volumes([Path(sys.argv[1])]), readers=2)
    first = next(coming)
    next(coming)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def mapped_volumes() -> int:
    maps = Path("/proc/self/maps").read_text()
    return len(set(re.findall(r"(\d+)\s+/memfd:volume", maps)))


def open_files() -> list[str]:
    handles = Path("/proc/self/fd").iterdir()
    return [str(handle.readlink()) for handle in list(handles) if handle.is_symlink()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_volumes_in_memory_are_as_many_as_readers_and_the_one_in_use(tmp_path: Path) -> None:
    for number in range(9):
        nii(tmp_path, f"{number}.nii")
    seen = []
    for entry, outcome in read_ahead(find_volumes([tmp_path]), readers=2):
        assert isinstance(outcome, Volume)
        np.testing.assert_array_equal(outcome.hu, entry.read().hu)
        outcome.hu[:] = 0  # may be written to
        seen.append(mapped_volumes())
        del outcome
    assert max(seen) <= 3
    assert max(seen) >= 1
    assert mapped_volumes() == 0
    assert not [name for name in open_files() if "memfd:volume" in name]


def test_a_sparse_volume_crosses_whole(tmp_path: Path) -> None:
    nii(tmp_path, "one.nii")
    (entry,) = find_volumes([tmp_path])
    stride_mm = 2.5 * entry.read().spacing_mm_zyx[0]
    ((_, passed),) = read_ahead([entry], readers=1, stride_mm=stride_mm)
    plain = entry.read(stride_mm=stride_mm)
    assert isinstance(passed, SparseVolume)
    assert isinstance(plain, SparseVolume)
    for name in ("hu", "z_mm", "every_z_mm", "read_index"):
        np.testing.assert_array_equal(getattr(passed, name), getattr(plain, name))
    assert passed.notes == plain.notes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_readers_end_with_the_process_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(4):
        nii(tmp_path / "scans", f"{number}.nii")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(tmp_path / "scans")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        readers = [int(word) for word in parent.stdout.readline().split()]
        assert len(readers) == 2
        parent.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 20
    while any(is_running(pid) for pid in readers):
        assert time.monotonic() < deadline_s, "a reader outlived its parent"
        time.sleep(0.05)  # with the last of them goes the memory: it has no name to outlive them


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
