"""Files held against a list of SHA-256 sums: what has changed or is not listed is refused."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import nii, refused, scan, write_itk
from ubr_pretrain.checksums import read_checksums
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.score_volumes import main
from ubr_pretrain.volumes import find_volumes, read_volume

SHAPE = (5, 40, 40)


def sums_of(folder: Path, *names: str) -> Path:
    """Write a list as the tool of the system writes it."""
    files = names or sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()
    )
    listed = subprocess.run(["sha256sum", *files], cwd=folder, capture_output=True, check=True)
    sums = folder / "sums.sha256"
    sums.write_bytes(listed.stdout)
    return sums


def flip(path: Path, place: int = -40) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_V10_one_changed_bit_is_found_by_the_sums(tmp_path: Path) -> None:
    """E-CRC with the file, where the format has no checksum and the picture is plausible."""
    series = write_series(tmp_path / "series", scan(SHAPE), (5.0, 2.0, 2.0))
    plain = nii(tmp_path, "plain.nii")
    detached = write_itk(tmp_path / "detached.mhd", scan())
    sums = sums_of(tmp_path)
    for path, damaged in (
        (series, series / "003.dcm"), (plain, plain), (detached, tmp_path / "detached.raw"),
    ):  # fmt: skip
        before = read_volume(path, checksums=sums)
        flip(damaged)
        after = read_volume(path)
        assert np.count_nonzero(before.hu != after.hu) == 1
        assert after.notes == before.notes
        (entry,) = find_volumes([path])
        with pytest.raises(VolumeRefused, match=rf"^E-CRC .*{damaged.name} .*sums\.sha256"):
            entry.read(checksums=sums)


def test_V10_a_file_without_a_sum_is_refused(tmp_path: Path) -> None:
    """E-CRC, is not in the list: what was to be checked and could not be is not used."""
    nii(tmp_path, "known.nii")
    sums = sums_of(tmp_path)
    refused(nii(tmp_path, "new.nii"), "E-CRC", "is not in sums.sha256", checksums=sums)
    assert read_volume(tmp_path / "known.nii", checksums=sums).num_slices == 6


def test_V10_score_volumes_refuses_what_differs_and_scores_the_rest(tmp_path, capsys) -> None:
    """--checksums: the changed scan and picture are rows with E-CRC, exit code 1."""
    data = tmp_path / "data"
    for name, uid in (("good", "1.2.1"), ("bad", "1.2.2")):
        write_series(data / name, scan(SHAPE), (5.0, 2.0, 2.0), SeriesInstanceUID=uid)
        Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40)).save(data / f"{name}.png")
    sums = sums_of(data)
    flip(data / "bad" / "002.dcm")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(data / "bad.png")
    checkpoint = write_toy_checkpoint(tmp_path / "toy.safetensors")
    argv = [str(data), "--checkpoint", str(checkpoint), "--pictures", "false", "--views", "1"]
    argv += ["--device", "cpu", "--out", str(tmp_path / "scores"), "--checksums"]
    assert main([*argv, str(sums)]) == 1
    told = capsys.readouterr().err
    assert "002.dcm" in told
    assert "bad.png" in told
    whole = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert sorted(r.get("code", "") for r in whole["volumes"]) == ["", "E-CRC"]
    assert {r["image"]: r.get("code", "") for r in whole["images"]} == {"bad": "E-CRC", "good": ""}
    assert len(whole["checksums_sha256"]) == 64
    sums.write_text("not a sum\n")
    with pytest.raises(SystemExit, match="2"):
        main([*argv, str(sums)])
    complaint = capsys.readouterr().err
    assert "line 1 is no SHA-256 sum and name" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("name", ["a b.nii", "line\nbreak.nii", "back\\slash.nii", "é\u202e.nii"])
def test_any_name_that_sha256sum_writes_is_understood(tmp_path: Path, name: str) -> None:
    nii(tmp_path).rename(tmp_path / name)
    sums = read_checksums(sums_of(tmp_path, name))
    assert [*sums] == [str((tmp_path / name).resolve())]
