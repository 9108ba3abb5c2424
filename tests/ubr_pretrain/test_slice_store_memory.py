"""A store larger than the memory, of more volumes than files may be open, is read."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from ubr_pretrain import slice_files
from ubr_pretrain.slice_store import StoredVolume

NARROW = """
import resource, sys
from pathlib import Path
import numpy as np
from ubr_pretrain import slice_files
from ubr_pretrain.slice_store import StoredVolume
files = sorted(Path(sys.argv[1]).glob("*.npy"))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
volumes = [StoredVolume("v", "s", f, f, (0.0,), 1.0, "") for f in files]
total = sum(int(v.slices[[0, 3]].sum()) for v in volumes for _ in range(2))
try:
    kept = [np.array(v.slices) for v in volumes]
except (MemoryError, OSError):
    print("total", total, "and the whole does not fit")
"""


def sparse_store(folder: Path, count: int, shape: tuple[int, int, int]) -> list[StoredVolume]:
    """Stored volumes of zeros that take no room on the disk."""
    volumes = []
    for n in range(count):
        file = folder / f"v{n:04d}.npy"
        with file.open("wb") as out:
            header = np.lib.format.header_data_from_array_1_0(np.empty(shape, np.int16))
            np.lib.format.write_array_header_1_0(out, header)
            out.truncate(out.tell() + 2 * int(np.prod(shape)))
        volumes.append(StoredVolume(f"v{n}", f"v{n}", file, file, (0.0,), 1.0, ""))
    return volumes


def test_more_volumes_are_read_than_files_may_be_open(tmp_path, monkeypatch):
    volumes = sparse_store(tmp_path, 700, (4, 8, 8))
    slice_files.forget_maps()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len([*Path("/proc/self/fd").iterdir()])
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(hard, in_use + slice_files.MAX_MAPS + 20), hard)
    )
    try:
        assert sum(int(v.slices[1:3].sum()) for v in volumes for _ in range(2)) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        slice_files.forget_maps()


def test_a_store_larger_than_the_memory_is_read(tmp_path):
    """700 volumes of 2 MB in an address space that has room for 512 maps and 40 MB more."""
    sparse_store(tmp_path, 700, (64, 128, 128))
    room = slice_files.MAX_MAPS * (2 * 64 * 128**2 + 2**13) + 40 * 2**20
    child = [sys.executable, "-c", NARROW, str(tmp_path), str(room)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.stdout == "total 0 and the whole does not fit\n", done.stderr
