"""A store whose builder a file kills: the next one sets the file aside and goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ubr_pretrain.test_guard import FaultyEntry
from tests.ubr_pretrain.tiny_cohort import write_tiny_cohort
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.store_reader import MARK
from ubr_pretrain.volumes import find_volumes

SPEC = InputSpec(size_px=32, fov_mm=512.0)

BUILD = """
import sys
from pathlib import Path
from tests.ubr_pretrain.test_store_reader import build
build(Path(sys.argv[1]), Path(sys.argv[2]), "SIGSEGV")
"""


def build(data: Path, store: Path, *faults: str):
    bad = [FaultyEntry(data / f"{fault}.dcm", fault, "nobody") for fault in faults]
    return build_slice_store(store, [*find_volumes([data]), *bad], SPEC, min_slices=4, threads=1)


def test_T16_S11_a_file_that_kills_the_builder_is_set_aside(tmp_path):
    """A decoder that crashes ends the first build, whose last lines on the terminal name signal and
    file; the next build refuses the file (E-CRASH) and goes on."""
    data, store = write_tiny_cohort(tmp_path / "data", 2), tmp_path / "store"
    died = subprocess.run(
        [sys.executable, "-c", BUILD, data, store], check=False, stderr=subprocess.PIPE, text=True
    )
    assert died.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in died.stderr
    assert f" in reading of {data / 'SIGSEGV.dcm'}\n" in died.stderr
    assert len([*store.glob("*.json")]) == 2
    stored, refused = build(data, store, "SIGSEGV")
    assert [volume.name for volume in stored] == ["p0", "p1"]
    assert [(r.name, r.code) for r in refused] == [("SIGSEGV", "E-CRASH")]
    assert (store / MARK).exists()  # whoever meets this file again is not killed by it
    build(data, store)
    assert (store / MARK).exists()


def test_T16_a_build_that_ends_in_order_leaves_no_mark(tmp_path, monkeypatch):
    """An error that Python sees is no crash: the next build reads as fast as ever."""
    data, store = write_tiny_cohort(tmp_path / "data", 1), tmp_path / "store"

    def fail(*_):
        assert (store / MARK).exists()
        raise RuntimeError("no crash")

    with monkeypatch.context() as patch:
        patch.setattr("ubr_pretrain.slice_store.resample_slices", fail)
        with pytest.raises(RuntimeError, match="no crash"):
            build(data, store)
    assert not (store / MARK).exists()


def test_T01_a_build_killed_behind_its_last_volume_leaves_no_mark_for_ever(tmp_path):
    """What it has decoded is taken as it is, and the next build sweeps away that it died."""
    data, store = write_tiny_cohort(tmp_path / "data", 1), tmp_path / "store"
    build(data, store)
    (store / MARK).touch()  # as if killed before it was removed
    build(data, store)
    assert not (store / MARK).exists()
