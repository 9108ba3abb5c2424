"""Scoring that is begun twice, killed, or given a file that kills its reader."""

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.ubr_pretrain.archives import recorded, write_archive, write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import SPACING, nii, scan
from tests.ubr_pretrain.test_guard import FaultyEntry
from ubr_pretrain import dicom_series, scoring_run, volume_file
from ubr_pretrain.scan_scoring import ScoringRun
from ubr_pretrain.scans import find_scans
from ubr_pretrain.score_volumes import main
from ubr_pretrain.shards import Shard

POISONED = """
import sys
from tests.ubr_pretrain.test_scoring_faults import with_poison
from ubr_pretrain import scoring_run
from ubr_pretrain.score_volumes import main
scoring_run.find_scans = with_poison
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    checkpoint = write_toy_checkpoint(tmp_path_factory.mktemp("weights") / "ubr.safetensors")
    return ["--checkpoint", str(checkpoint), "--pictures", "false", "--views", "1"]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_S10_two_workers_on_one_shard_and_a_restart(flags, tmp_path, monkeypatch, capsys):
    """A second worker on a shard is refused (code 2); begun again, a shard keeps its bytes."""
    data, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"
    argv = [str(data), "--out", str(out), "--shard", "1/1", *flags]
    plain, codes = ScoringRun.record_volume, []

    def with_a_second_worker(self, *args):
        with pytest.raises(SystemExit) as refused:
            main(argv)
        codes.append(refused.value.code)
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ScoringRun, "record_volume", with_a_second_worker)
        assert main(argv) == 1  # one file of the archive is cut
    assert set(codes) == {2}
    assert capsys.readouterr().err.count("another run is writing there") == len(codes) > 0
    folder = Shard(1, 1).folder(out)
    before = contents(folder)
    assert len(recorded(folder)) == 5
    assert main(argv) == 1
    after = contents(folder)
    # what was refused is tried again, and its line is added once more; all else is as it was
    assert after["scores.jsonl"].startswith(before["scores.jsonl"])
    assert [n for n in before if n not in ("scores.jsonl", "complete.json")] == [
        n for n in after if n not in ("scores.jsonl", "complete.json")
    ]
    alone = tmp_path / "alone"
    assert main([str(data), "--out", str(alone), "--shard", "1/1", *flags]) == 1
    assert contents(Shard(1, 1).folder(alone)) == before


def with_poison(paths, *rest):
    """Find scans, and before them one whose reading ends its process."""
    found = find_scans(paths, *rest)
    found.volumes.insert(0, FaultyEntry(Path(paths[0]) / "poison", "SIGSEGV", "nobody"))
    return found


def test_S11_a_file_that_kills_its_reader_is_set_aside(flags, tmp_path, monkeypatch):
    """A file that crashes its reader is named on the terminal as the run dies; the next run reads
    in a child, records E-CRASH and ends."""
    nii(tmp_path, "a.nii")
    argv = [str(tmp_path), "--out", str(tmp_path / "out"), *flags]
    command = [sys.executable, "-c", POISONED, *argv]
    died = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    assert died.returncode == -signal.SIGSEGV
    assert f" in reading of {tmp_path / 'poison'}\n" in died.stderr
    monkeypatch.setattr(scoring_run, "find_scans", with_poison)
    assert main(argv) == 1
    records = recorded(tmp_path / "out")
    assert records["SIGSEGV"]["code"] == "E-CRASH"
    assert "SIGSEGV" in records["SIGSEGV"]["cause"]
    assert records["a"]["num_slices"] == 6


def test_V66_nothing_is_written_of_a_scan_that_changes_while_it_is_read(
    flags, tmp_path, monkeypatch
):
    """E-MISSING in scores.jsonl and code 1, for a file that is rewritten and for a series that
    loses a slice: no row in scores.csv, no picture; the other scans have theirs."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("changes.nii", "stays.nii"):
        nii(data, name)
    write_series(data / "loses", scan((6, 8, 8)), SPACING)
    read_header, judged = volume_file.HEADER_READERS["nifti"], dicom_series.ct_slices

    def and_rewrite(stream, path):
        if path.name == "changes.nii":
            content = path.read_bytes()
            path.write_bytes(content[:400] + bytes(len(content) - 400))
        return read_header(stream, path)

    def and_delete(*arguments):
        (data / "loses" / "003.dcm").unlink()
        return judged(*arguments)

    monkeypatch.setitem(volume_file.HEADER_READERS, "nifti", and_rewrite)
    monkeypatch.setattr(dicom_series, "ct_slices", and_delete)
    argv = [*flags, "--pictures", "true"]
    assert main([str(data), "--out", str(out), *argv]) == 1
    records = recorded(out)
    assert "changed while" in records["changes"]["cause"]
    refused = {name for name, record in records.items() if record.get("code") == "E-MISSING"}
    assert refused == set(records) - {"stays"}
    assert len(refused) == 2
    assert set(pd.read_csv(out / "scores.csv")["volume"]) == {"stays"}
    assert [file.name for file in out.glob("*.png")] == ["stays.png"]
