"""The guarded reader: what goes wrong in a child is a refusal, and the next volume is read."""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import RLELossless

from tests.ubr_pretrain.dicom_writer import save, slice_dataset
from tests.ubr_pretrain.stored_volumes import scan, write_itk
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.guard import GuardedReader
from ubr_pretrain.volumes import VolumeEntry, find_volumes

LIMIT_BYTES = 2_000_000_000
"""Of the address space of a reading process, of which it has used 0.8 GB before it reads."""


@dataclass(frozen=True)
class FaultyEntry(VolumeEntry):
    """A volume whose reading ends as its name says."""

    def read(self, **rules: Any) -> Volume:
        if self.name == "hang":
            time.sleep(600)
        if self.name == "memory":
            np.zeros(LIMIT_BYTES, np.uint8)  # nothing of it is touched: without a limit it is there
        signal.raise_signal(getattr(signal, self.name))
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class InterruptedEntry(VolumeEntry):
    """A volume that is being read when a scheduler tells all processes of the job to end."""

    def read(self, **rules: Any) -> Volume:
        if not (mark := self.path.with_suffix(".mark")).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return super().read(**rules)


@pytest.fixture(scope="module")
def guard():
    with GuardedReader(timeout_s=60, max_memory_bytes=LIMIT_BYTES) as reader:
        yield reader


def test_a_guarded_volume_equals_the_volume(tmp_path: Path, guard: GuardedReader) -> None:
    (entry,) = find_volumes([write_itk(tmp_path / "a.nii.gz", scan())])
    plain, guarded = entry.read(), guard.read(entry)
    np.testing.assert_array_equal(plain.hu, guarded.hu)
    np.testing.assert_array_equal(plain.z_mm, guarded.z_mm)
    assert (plain.spacing_mm_zyx, plain.source) == (guarded.spacing_mm_zyx, guarded.source)


def test_a_reader_that_was_told_to_end_says_nothing_of_the_file(
    tmp_path: Path, guard: GuardedReader
) -> None:
    """The signal was for the job; a good scan recorded as E-CRASH would be a wrong result."""
    path = write_itk(tmp_path / "a.nii", scan())
    volume = guard.read(InterruptedEntry(path, "a", "nobody"))
    assert path.with_suffix(".mark").exists()
    np.testing.assert_array_equal(volume.hu, VolumeEntry(path, "a", "nobody").read().hu)
    with pytest.raises(VolumeRefused, match=r"E-CRASH .*SIGTERM"):
        guard.read(FaultyEntry(path, "SIGTERM", "nobody"))


def test_a_refusal_crosses_the_process_whole(tmp_path: Path, guard: GuardedReader) -> None:
    (entry,) = find_volumes([tmp_path / "gone.nii"])
    with pytest.raises(VolumeRefused, match=r"^E-MISSING .*gone\.nii"):
        guard.read(entry)
    with pytest.raises(ValueError, match="no_such_rule"):
        guard.read(entry, no_such_rule=1)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGSEGV", "E-CRASH .*SIGSEGV"),
        ("SIGABRT", "E-CRASH .*SIGABRT"),
        ("SIGKILL", "E-MEMORY .*killed"),
        ("memory", "E-MEMORY .*2000000000 bytes"),
    ],
)
def test_V58_V59_a_crash_is_a_refusal_and_the_next_volume_is_read(
    tmp_path: Path, guard: GuardedReader, name: str, code: str
) -> None:
    """E-CRASH with the signal, or E-MEMORY with the limit; the run goes on with the next volume."""
    with pytest.raises(VolumeRefused, match=code):
        guard.read(FaultyEntry(tmp_path / "bad.dcm", name, "nobody"))
    (entry,) = find_volumes([write_itk(tmp_path / "a.nii", scan())])
    np.testing.assert_array_equal(guard.read(entry).hu, scan())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_V58_M22_a_fragment_of_two_gigabytes_in_a_small_file(
    tmp_path: Path, guard: GuardedReader
) -> None:
    """E-MEMORY, where the decoder asks for the 2 GB of a false length: it gets none of them, and
    the same reading process reads the next volume."""
    ds = slice_dataset(scan((1, 6, 5))[0], (0, 0, 0))
    ds.compress(RLELossless)
    path = save(ds, tmp_path / "a.dcm")
    (entry,) = find_volumes([path])
    content, judged = path.read_bytes(), path.stat()
    fragment = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xe0\x7f\x10\x00") + 20)
    false = (0x7FFFFFF0).to_bytes(4, "little")
    path.write_bytes(content[: fragment + 4] + false + content[fragment + 8 :])
    assert find_volumes([path])[0].refusal.code == "E-TRUNC"  # seen as soon as headers are read
    os.utime(path, ns=(judged.st_atime_ns, judged.st_mtime_ns))  # so it is not seen any more
    (good,) = find_volumes([write_itk(tmp_path / "a.nii", scan())])
    guard.read(good)
    child = guard._child.pid
    with pytest.raises(VolumeRefused, match=r"^E-MEMORY "):
        guard.read(entry)
    np.testing.assert_array_equal(guard.read(good).hu, scan())
    assert guard._child.pid == child
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{child}/status").read_text())
    assert int(peak[1]) * 1024 < LIMIT_BYTES / 2


def test_V67_a_reader_that_hangs_is_ended(tmp_path: Path) -> None:
    """E-TIMEOUT with the seconds; the reading process is ended, the run goes on."""
    with GuardedReader(timeout_s=0.5) as guard:
        with pytest.raises(VolumeRefused, match=r"^E-TIMEOUT .*within 0\.5 s"):
            guard.read(FaultyEntry(tmp_path / "stalled.nii", "hang", "nobody"))
        assert guard._child is None


def end_at_once(*_: object) -> None:
    """What a child does that ends before it reads."""
    raise SystemExit(3)


def test_a_process_that_cannot_start_says_nothing_of_the_file(tmp_path, monkeypatch) -> None:
    """Such as in a script that is no module to import: the sound scan is not E-CRASH."""
    (entry,) = find_volumes([write_itk(tmp_path / "a.nii", scan())])
    monkeypatch.setattr("ubr_pretrain.guard._serve", end_at_once)
    with GuardedReader() as reader:
        with pytest.raises(RuntimeError, match=r"exit status 3\).*`if __name__ == .__main__.:`"):
            reader.read(entry)
        reader.abandon()


@pytest.mark.parametrize("limits", [{"timeout_s": 0}, {"max_memory_bytes": -1}])
def test_limits_must_be_positive(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        GuardedReader(**limits)
