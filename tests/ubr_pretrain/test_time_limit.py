"""Files that do not answer: every command names them and goes on."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.ubr_pretrain.archives import recorded, write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.ramp_bodies import write_ramp_bodies, write_ramp_regressor
from tests.ubr_pretrain.stored_volumes import nii, scan
from tests.ubr_pretrain.test_crop_volumes import MIDDLE, ByPosition
from tests.ubr_pretrain.test_guard import FaultyEntry
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import scan_scoring, time_limit, training_data
from ubr_pretrain.calibrate_scorer import main as calibrate_scorer
from ubr_pretrain.crop_volumes import crop_volumes
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.guard import GuardedReader
from ubr_pretrain.measure_scorer import main as measure_scorer
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.stored_file import StoredFile
from ubr_pretrain.time_limit import each_in_time, in_time
from ubr_pretrain.train_ubr import train
from ubr_pretrain.volumes import find_volumes

LIMIT_S = 1.0
"""Some hundred times what the small files of these tests take."""

HANG_S = 600.0


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(time_limit, "LIMIT_S", LIMIT_S)


def hang(monkeypatch, owner, name, path_of) -> None:
    """Make a function or method hang for every path with "stuck" in its name."""
    plain = getattr(owner, name)

    def hanging(*arguments, **named):
        if "stuck" in path_of(*arguments).name:
            time.sleep(HANG_S)
        return plain(*arguments, **named)

    monkeypatch.setattr(owner, name, hanging)


def when_opened(monkeypatch) -> None:
    hang(monkeypatch, StoredFile, "__init__", lambda _, path: path)


def when_read(monkeypatch) -> None:
    hang(monkeypatch, StoredFile, "blocks", lambda file, *_: file.path)


def test_V67_scoring_goes_on_past_a_few_scans_that_hang(tmp_path, monkeypatch):
    """E-TIMEOUT with the seconds, for a scan whose header or voxels cannot be had, and for a
    picture; what follows them is scored, the exit code is 1. To list a folder and to ask for a
    file's size have no limit, nor has a decoder that keeps Python's lock in a first, small run."""
    for name in ("a.nii", "b_stuck.nii", "c.nii"):
        nii(tmp_path, name)
    for name in ("d.png", "e_stuck.png"):
        Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(tmp_path / name)
    checkpoint = write_toy_checkpoint(tmp_path / "ubr.safetensors")
    flags = ["--checkpoint", str(checkpoint), "--pictures", "false", "--views", "1"]
    refused = {}
    for out, make_it_hang in (("voxels", when_read), ("header", when_opened)):
        with monkeypatch.context() as patch:
            make_it_hang(patch)
            hang(patch, scan_scoring, "read_image", lambda path, *_: path)
            began_s = time.monotonic()
            assert score_volumes([str(tmp_path), "--out", str(tmp_path / out), *flags]) == 1
            assert time.monotonic() - began_s < HANG_S / 5
        refused[out] = {k: v for k, v in recorded(tmp_path / out).items() if "code" in v}
        scored = pd.read_csv(tmp_path / out / "scores.csv")["volume"]
        assert set(scored) == {"a", "c"}
        assert {v["code"] for v in refused[out].values()} == {"E-TIMEOUT"}
        assert {v["cause"] for v in refused[out].values()} == {"not read within 1 s"}
    assert set(refused["voxels"]) == {"b_stuck", "e_stuck"}
    assert set(refused["header"]) == {"b_stuck", "e_stuck.png"}  # it may be anything


def test_V67_training_goes_on_past_a_volume_that_hangs(tmp_path, monkeypatch, capsys):
    """A volume that hangs here and in a child: E-TIMEOUT in manifest.csv, code 1, the rest is
    trained on."""
    data = write_tiny_cohort(tmp_path / "data", 4)

    def with_one_that_hangs(*paths):
        found = find_volumes(*paths)
        found.insert(0, FaultyEntry(data / "hang.nii", "hang", "nobody"))
        return found

    monkeypatch.setattr(training_data, "find_volumes", with_one_that_hangs)
    monkeypatch.setitem(GuardedReader.__init__.__kwdefaults__, "timeout_s", LIMIT_S)
    assert train(tiny_config(data, iterations=1), tmp_path / "run") == 1
    assert "E-TIMEOUT" in capsys.readouterr().err
    assert "hang,,refused,,E-TIMEOUT" in (tmp_path / "run/manifest.csv").read_text()


def test_V67_a_volume_that_hangs_here_is_given_to_a_child(tmp_path, monkeypatch):
    """A volume that another one holds up in this process is trained on all the same: what does not
    answer here is tried once more in a child, and so is what follows."""
    data = write_tiny_cohort(tmp_path / "data", 2)
    (data / "p0.nii").rename(data / "stuck.nii")
    when_read(monkeypatch)  # here; the child knows nothing of it
    spec = tiny_config(data).input
    stored, refused = build_slice_store(
        tmp_path / "store", find_volumes([data]), spec, min_slices=4, threads=1
    )
    assert [volume.name for volume in stored] == ["p1", "stuck"]
    assert refused == []


def test_V67_cropping_goes_on_past_a_scan_that_hangs(tmp_path, monkeypatch, capsys):
    """E-TIMEOUT on the terminal; the other scans are cropped, the exit code is 1."""
    for name in ("a_stuck.nii", "b.nii"):
        nii(tmp_path, name)
    when_read(monkeypatch)
    assert crop_volumes([tmp_path], MIDDLE, ByPosition(), tmp_path / "out") == 1
    assert "E-TIMEOUT" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "out" / "crops.csv")["volume"].tolist() == ["b"]


def test_V67_calibrating_goes_on_and_measuring_ends(tmp_path, monkeypatch, capsys):
    """E-TIMEOUT on the terminal. A calibration is made of the other volumes, with code 1; a
    measurement is of all that its tables name, or ends with code 2."""
    checkpoint = write_ramp_regressor(tmp_path / "ubr.safetensors")
    bodies = write_ramp_bodies(tmp_path / "data", (106.0, 104.0))
    for file in bodies.iterdir():
        text = file.read_bytes()
        file.unlink()
        (bodies / file.name.replace("ramp1", "stuck")).write_bytes(text.replace(b"ramp1", b"stuck"))
    when_read(monkeypatch)
    tables = ["--volumes", str(bodies), "--landmarks", str(bodies / "landmarks.csv")]
    out = tmp_path / "calibration.json"
    assert calibrate_scorer([str(checkpoint), *tables, "--out", str(out)]) == 1
    assert "E-TIMEOUT" in capsys.readouterr().err
    assert '"source": "1 labelled volumes' in out.read_text()
    with pytest.raises(SystemExit, match="2"):
        measure_scorer([str(checkpoint), *tables, "--classes", str(bodies / "slice_classes.csv")])
    assert "E-TIMEOUT" in capsys.readouterr().err


def test_V67_a_file_that_does_not_answer_may_be_a_slice(tmp_path, monkeypatch):
    """E-TIMEOUT for the series beside it, whatever the file's name; other folders are read."""
    write_series(tmp_path / "one", scan((4, 8, 8)), SeriesInstanceUID="1.2.1")
    write_series(tmp_path / "other", scan((4, 8, 8)), SeriesInstanceUID="1.2.2")
    (tmp_path / "one" / "stuck").write_bytes(b"any")
    when_opened(monkeypatch)
    one, other = find_volumes([tmp_path])
    assert other.read().num_slices == 4
    with pytest.raises(VolumeRefused, match=r"^E-TIMEOUT .*one/stuck .*within 1 s"):
        one.read()


def test_the_limit_is_for_every_file_and_not_for_their_sum() -> None:
    paths = [Path(f"{number}") for number in range(6)]

    def slow(path: Path) -> str:
        time.sleep(LIMIT_S / 4)
        return path.name

    assert [*each_in_time(paths, slow)] == ["0", "1", "2", "3", "4", "5"]


def test_what_comes_too_late_is_not_taken_for_another_answer(monkeypatch) -> None:
    """The thread that was left behind is never asked again."""
    monkeypatch.setattr(time_limit, "LIMIT_S", 0.2)

    def late(path: Path) -> str:
        time.sleep(1.0 if path.name == "late" else 0.0)
        return path.name

    with pytest.raises(VolumeRefused, match=r"^E-TIMEOUT"):
        in_time(Path("late"), late, Path("late"))
    until_s = time.monotonic() + 1.5
    while time.monotonic() < until_s:
        assert in_time(Path("a"), str.upper, "a") == "A"
        time.sleep(0.01)


def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    for error in (TimeoutError("of the system"), KeyError("x"), SystemExit(3)):
        with pytest.raises(type(error)) as raised:
            in_time(Path("a"), _raise, error)
        assert raised.value is error


def _raise(error: BaseException) -> None:
    raise error
