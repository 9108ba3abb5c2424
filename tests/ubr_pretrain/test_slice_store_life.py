"""The store is the same bytes whoever builds it, however often it was killed or damaged."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import slice_files, slice_store, store_room
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.training_data import read_training_data
from ubr_pretrain.volumes import find_volumes, read_volume

SPEC = InputSpec(size_px=32, fov_mm=512.0)

BUILD = """
import sys
from pathlib import Path
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.volumes import find_volumes
data, store = map(Path, sys.argv[1:])
build_slice_store(store, find_volumes([data]), InputSpec(size_px=32, fov_mm=512.0), min_slices=4,
                  threads=2, say=print)
"""


def contents(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.iterdir()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"), 6)


@pytest.fixture
def store(data, tmp_path):
    build_slice_store(tmp_path / "store", find_volumes([data]), SPEC, min_slices=4)
    return tmp_path / "store"


def test_a_store_of_an_earlier_version_goes_on_being_used(tmp_path, monkeypatch):
    """Names and digests as version 0.1.0 wrote them."""
    monkeypatch.chdir(tmp_path)
    z, y, x = np.mgrid[:12, :50, :40]
    hu = np.where((y - 25) ** 2 + (x - 20) ** 2 < 300, 40 + z + 3 * (x % 7), -1000)
    image = nib.Nifti1Image(hu.astype(np.int16).transpose(), np.diag([-2.0, -2.0, 5.0, 1.0]))
    nib.save(image, "scan.nii")
    os.utime("scan.nii", ns=(1, 10**18))
    for fov_mm, name, digest in (
        (None, "e16f3e4f9a6d", "51dcd0750f29fb0385a8cfb3d2be6b99b4272265bdd7a3717a3fcb3064bb7460"),
        (120.0, "d938edeef41f", "7af28a9a45544292e88e2b326efac9be35d77ddd26fcfb0812957940ad5dae81"),
    ):
        spec = InputSpec(size_px=32, fov_mm=fov_mm)
        (volume,), _ = build_slice_store(
            Path("store"), find_volumes([Path("scan.nii")]), spec, min_slices=4
        )
        assert (volume.file.name, volume.sha256) == (f"scan-{name}.npy", digest)


def test_slices_lie_in_the_store_as_numpy_saves_them(data, store):
    for entry in find_volumes([data]):
        volume = read_volume(entry.path)
        plain = io.BytesIO()
        np.save(plain, resample_slices(volume.hu, volume.spacing_mm_zyx[1:], SPEC))
        (file,) = store.glob(f"{entry.name}-*.npy")
        assert file.read_bytes() == plain.getvalue()


def test_any_number_of_threads_builds_the_same_bytes_in_the_same_order(data, store, tmp_path):
    for threads in (1, 5):
        other = tmp_path / f"by{threads}"
        stored, _ = build_slice_store(
            other, find_volumes([data]), SPEC, min_slices=4, threads=threads
        )
        assert contents(other) == contents(store)
        assert [v.name for v in stored] == [e.name for e in find_volumes([data])]


def test_threads_that_write_leave_the_umask_and_the_usual_permissions(tmp_path, monkeypatch):
    umask = os.umask
    before = umask(0o027)

    def slow(mask):  # another thread has its turn between asking and setting back
        old = umask(mask)
        time.sleep(0.0005)
        return old

    monkeypatch.setattr(os, "umask", slow)
    try:
        slices = np.zeros((2, 4, 4), np.int16)
        with ThreadPoolExecutor(8) as pool:
            for n in range(50):
                pool.submit(slice_files.SliceFiles(tmp_path / f"{n}.npy").write, slices, {})
        assert umask(0o027) == 0o027
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
        assert len([*tmp_path.iterdir()]) == 100
    finally:
        umask(before)


def test_T03_slices_are_on_the_disk_before_their_record_is_there(tmp_path, monkeypatch):
    """What a power failure leaves: a record that can be believed has its slices."""
    events: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), sync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append(b.suffix), replace(a, b)))
    slice_files.SliceFiles(tmp_path / "a.npy").write(np.zeros((2, 4, 4), np.int16), {})
    assert events == ["sync", ".npy", ".json"]


def test_two_builds_at_once_leave_one_whole_store(data, store, tmp_path):
    both = tmp_path / "both"
    command = [sys.executable, "-c", BUILD, str(data), str(both)]
    builders = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [builder.wait() for builder in builders] == [0, 0]
    assert contents(both) == contents(store)


def test_T01_a_build_killed_in_the_middle_is_finished_by_the_next(tmp_path):
    """SIGKILL while a store is built: the next run decodes the rest, byte for byte."""
    data = write_tiny_cohort(tmp_path / "data", 40, max_slices=20)
    store = tmp_path / "store"
    build = subprocess.Popen([sys.executable, "-c", BUILD, str(data), str(store)])
    while len([*store.glob("*.json")]) < 3 and build.poll() is None:
        time.sleep(0.002)
    build.send_signal(signal.SIGKILL)
    assert build.wait() == -signal.SIGKILL, "it finished before it was killed"
    whole = {file.stem for file in store.glob("*.json")}
    assert 3 <= len(whole) < 40
    for name in whole:  # a record never without its slices
        record = json.loads((store / f"{name}.json").read_text())
        assert slice_files.SliceFiles(store / f"{name}.npy").fault(record, 32, hashed=True) is None
    for part in store.glob(".*.part"):
        os.utime(part, (0, 0))  # an hour later
    said: list[str] = []
    entries = find_volumes([data])
    build_slice_store(store, entries, SPEC, min_slices=4, say=said.append)
    assert f"{40 - len(whole)} of 40 volumes decoded" in said[-1]
    build_slice_store(tmp_path / "straight", entries, SPEC, min_slices=4)
    assert contents(store) == contents(tmp_path / "straight")


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "header", "gone"])
def test_T17_damaged_slices_are_decoded_again_and_said_once(data, store, damage):
    """Stored slices that were damaged on the disk: found by their hash and decoded again."""
    before = contents(store)
    (file,) = store.glob("p2-*.npy")
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        if damage == "flip":
            content[-1000] ^= 1
        elif damage == "header":
            content[3] ^= 255
        file.write_bytes(content[:-7] if damage == "cut" else content + b"x" * (damage == "longer"))
    said: list[str] = []
    build_slice_store(store, find_volumes([data]), SPEC, min_slices=4, say=said.append)
    assert [str(file) in line for line in said].count(True) == 1
    assert "decoded again" in said[0]
    assert "1 of 6 volumes decoded" in said[-1]
    assert contents(store) == before


@pytest.mark.parametrize("record", [b"", b"[1]", b'{"name": "p2"}', b"\xff"])
def test_a_damaged_record_counts_as_none(data, store, record):
    before = contents(store)
    (file,) = store.glob("p2-*.json")
    file.write_bytes(record)
    build_slice_store(store, find_volumes([data]), SPEC, min_slices=4)
    assert contents(store) == before


def test_T17_a_damaged_volume_without_its_source_is_refused(tmp_path):
    """Damaged slices whose scan is gone: the volume is refused (E-MISSING), the rest is used."""
    data = write_tiny_cohort(tmp_path / "data", 2)
    entries = find_volumes([data])
    (good, bad), _ = build_slice_store(tmp_path / "store", entries, SPEC, min_slices=4)
    bad.file.write_bytes(bad.file.read_bytes()[:-2])
    damaged = bad.file.stat().st_mtime_ns
    original = slice_store.source_key

    def key(entry, spec):  # the file goes between the look at the store and the decoding
        found = original(entry, spec)
        if entry.name == bad.name:
            entry.path.unlink()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_store, "source_key", key)
        stored, refused = build_slice_store(tmp_path / "store", entries, SPEC, min_slices=4)
    assert [v.name for v in stored] == [good.name]
    assert [(r.name, r.code) for r in refused] == [(bad.name, "E-MISSING")]
    assert bad.file.stat().st_mtime_ns == damaged


def test_T06_a_disk_that_is_too_small_is_refused_before_anything_is_decoded(
    data, tmp_path, monkeypatch
):
    """A disk too small for all slices: refused with both sizes before a volume is decoded."""
    slices = sum(read_volume(entry.path).num_slices for entry in find_volumes([data]))
    needed = slices * 2 * 32**2

    def build(free):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(store_room, "disk_usage", lambda _: usage)
        return build_slice_store(tmp_path / "store", find_volumes([data]), SPEC, min_slices=4)

    with pytest.raises(ValueError, match=r"are to be written and .* --store"):
        build(needed)
    assert not [*(tmp_path / "store").iterdir()]
    assert len(build(2 * needed)[0]) == 6


def test_T06_a_disk_that_fills_up_ends_the_build_in_one_line(data, tmp_path, monkeypatch):
    """Disk full while volumes are stored: one line with the room that is left, no half file."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slice_files.npy, "write_array_header_1_0", full)
    with pytest.raises(ValueError, match=r"No space left on device; .* GB are free"):
        build_slice_store(tmp_path / "store", find_volumes([data]), SPEC, min_slices=4)
    assert not [*(tmp_path / "store").iterdir()]


def test_the_size_of_the_store_is_stated(data, tmp_path):
    said: list[str] = []
    stored, _ = build_slice_store(
        tmp_path / "store", find_volumes([data]), SPEC, min_slices=4, say=said.append
    )
    assert f"{sum(len(v.z_mm) for v in stored)} slices of 2048 bytes" in said[-1]


def test_what_one_rank_refused_no_other_reads_again(tmp_path, monkeypatch):
    data = write_tiny_cohort(tmp_path / "data", 4)
    short = nib.load(data / "p1.nii").slicer[:, :, :3]
    nib.save(short, data / "p1.nii")
    read: list[str] = []
    entry_type = slice_store.VolumeEntry
    original = entry_type.read

    def counted(self, **rules):
        read.append(self.name)
        return original(self, **rules)

    monkeypatch.setattr(entry_type, "read", counted)
    seen: dict[int, object] = {}

    class Rank:
        world_size, is_first, num_local = 2, True, 2

        def __init__(self, rank):
            self.rank = rank

        def gather_objects(self, value):
            seen[self.rank] = value
            return list(seen.values())

    config = tiny_config(data, store=tmp_path / "store", holdout=())
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    ranks = [read_training_data(config, folder, Rank(n)) for n in (1, 0)]  # type: ignore[arg-type]
    assert sorted(read) == ["p0", "p1", "p2", "p3"]
    assert [r.name for r in ranks[-1].refused] == ["p1"]
    assert [v.name for v in ranks[-1].training] == ["p0", "p2", "p3"]
