"""Finding volumes: every one once, in one order, with a name and a subject, none lost."""

import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import scan, write_itk
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import find_volumes, read_volume


def ct(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_itk(path, scan(seed=seed))


def names(*paths: Path) -> list[str]:
    return [entry.name for entry in find_volumes(paths)]


def test_every_format_is_found_below_a_folder_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nrrd", "sub/c.mhd", "sub/d.nhdr", "sub/e.mha"):
        ct(tmp_path / name)
    write_series(tmp_path / "dicom", scan())
    found = names(tmp_path)
    assert [name.partition("-")[0] for name in found] == ["a", "b", "series", "c", "d", "e"]
    assert found == names(tmp_path)


def test_entries_read_what_read_volume_reads(tmp_path: Path) -> None:
    ct(tmp_path / "a.nii.gz")
    write_series(tmp_path / "dicom", scan(seed=3))
    for entry in find_volumes([tmp_path]):
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(entry)).read().hu, read_volume(entry.path).hu
        )


def test_S08_equal_stems_get_names_of_their_own(tmp_path: Path) -> None:
    """Equal stems in several folders get a hash of the path each."""
    for name in ("p1/ct.nii", "p2/CT.nii.gz", "other.nii"):
        ct(tmp_path / name)
    found = names(tmp_path)
    assert len({name.casefold() for name in found}) == 3
    assert found[0] == "other"
    assert found[1].startswith("ct-")
    assert found[2].startswith("CT-")
    assert set(names(tmp_path / "p2", tmp_path / "p1")) == set(found[1:])


def test_V63_a_name_is_fit_for_a_file_name(tmp_path: Path) -> None:
    """Outputs have names of letters, digits, dots and dashes only, of at most 100 characters."""
    ct(tmp_path / "scan.nii").rename(tmp_path / "-a b\n'$(x)\u202e.nii")
    ct(tmp_path / "scan.nii").rename(tmp_path / ("y" * 240 + ".nii"))
    ct(tmp_path / "scan.nii").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.nii"))
    for name in names(tmp_path):
        name.encode()
        assert name.isprintable()
        assert 0 < len(name) <= 100
        assert not set(name) & set("/\\'\"$ ()\n")
        assert not name.startswith(("-", "."))


def test_a_manifest_names_the_subjects(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        ct(tmp_path / f"{name}.nii.gz")
    (tmp_path / "manifest.csv").write_text("volume,subject\na,S1\nb,S1\nc,\n", encoding="utf-8-sig")
    assert [entry.subject for entry in find_volumes([tmp_path])] == ["S1", "S1", "c"]
    assert find_volumes([tmp_path]).skipped == {"not a volume": 1}


def test_a_manifest_without_subjects_leaves_each_volume_its_own(tmp_path: Path) -> None:
    ct(tmp_path / "a.nii.gz")
    (tmp_path / "manifest.csv").write_text("volume,size\na,3\n")
    assert [entry.subject for entry in find_volumes([tmp_path])] == ["a"]


def test_series_of_one_patient_share_a_subject(tmp_path: Path) -> None:
    write_series(tmp_path / "a", scan(), SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "b", scan(), SeriesInstanceUID="1.2.4")
    write_series(tmp_path / "c", scan(), SeriesInstanceUID="1.2.5", PatientID="other")
    a, b, c = find_volumes([tmp_path])
    assert a.subject == b.subject != c.subject
    assert len({a.name, b.name, c.name}) == 3


def test_a_series_spread_over_folders_is_one_volume(tmp_path: Path) -> None:
    write_series(tmp_path, scan(), names=[f"part{k % 2}/{k}.dcm" for k in range(6)])
    (entry,) = find_volumes([tmp_path])
    assert entry.path == tmp_path
    np.testing.assert_array_equal(entry.read().hu, scan())


def test_single_dicom_files_of_one_series_are_one_volume(tmp_path: Path) -> None:
    write_series(tmp_path, scan())
    (entry,) = find_volumes(sorted(tmp_path.iterdir()))
    np.testing.assert_array_equal(entry.read().hu, scan())


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.nii.gz", b"", "E-EMPTY"),
        ("a.nii", b"<html></html>", "E-FORMAT"),
        ("a.mha", b"\0" * 50, "E-FORMAT"),
        ("a.nrrd", b"version https://git-lfs", "E-FORMAT"),
        ("a.nii.gz", b"\x1f\x8b\x08damaged", "E-CRC"),
    ],
)
def test_V01_V06_a_broken_volume_in_a_folder_is_an_entry_that_refuses(
    tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    """The broken file is a row with its code; the volume beside it is read."""
    (tmp_path / name).write_bytes(content)
    ct(tmp_path / "good.nii")
    broken, good = find_volumes([tmp_path])
    with pytest.raises(VolumeRefused) as caught:
        broken.read()
    assert (caught.value.code, caught.value.path) == (code, str(tmp_path / name))
    assert good.read().num_slices == 6


@pytest.mark.parametrize(
    ("name", "code"), [("gone.nii", "E-MISSING"), ("notes.txt", "E-FORMAT"), ("fifo", "E-NOTFILE")]
)
def test_a_named_file_that_is_no_volume_is_an_entry_that_refuses(tmp_path, name, code) -> None:
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    (entry,) = find_volumes([tmp_path / name])
    with pytest.raises(VolumeRefused, match=f"^{code} .*{name}"):
        entry.read()


def test_foreign_files_are_counted(tmp_path: Path) -> None:
    ct(tmp_path / "a.mhd")  # with a.raw
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "figure.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / ".hidden.nii").write_text("x")
    (tmp_path / "empty.log").touch()
    os.mkfifo(tmp_path / "pipe")
    cohort = find_volumes([tmp_path])
    assert [entry.name for entry in cohort] == ["a"]
    assert cohort.skipped == {"not a volume": 3, "hidden": 1, "E-EMPTY": 1, "E-NOTFILE": 1}


def test_V62_loops_and_links_show_every_real_file_once(tmp_path: Path) -> None:
    """The search ends, and finds every real file once under its first name."""
    ct(tmp_path / "a" / "one.nii")
    os.link(tmp_path / "a" / "one.nii", tmp_path / "a" / "two.nii")
    (tmp_path / "a" / "three.nii").symlink_to("one.nii")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to("a", target_is_directory=True)
    assert names(tmp_path) == ["one"]
    assert names(tmp_path, tmp_path / "a" / "one.nii", tmp_path) == ["one"]


def test_V62_a_link_to_itself_or_to_nothing_is_not_lost(tmp_path: Path) -> None:
    """E-MISSING, one row for each such link."""
    (tmp_path / "self.nii").symlink_to("self.nii")
    (tmp_path / "gone.nii").symlink_to("nothing.nii")
    for entry in find_volumes([tmp_path]):
        with pytest.raises(VolumeRefused, match=r"^E-MISSING "):
            entry.read()
    assert len(find_volumes([tmp_path])) == 2


@pytest.fixture
def too_deep(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for _ in range(50):
        Path("deep" * 25).mkdir()
        os.chdir("deep" * 25)
    os.chdir(tmp_path)
    yield tmp_path
    subprocess.run(["rm", "-r", str(tmp_path / ("deep" * 25))], check=True)  # too deep for Python


def test_V62_folders_nested_beyond_the_longest_path_end_in_a_refusal(too_deep: Path) -> None:
    """E-MISSING, path too long, for what lies there; the rest is read."""
    ct(too_deep / "a.nii")
    good, deep = find_volumes([too_deep])
    assert good.read().num_slices == 6
    with pytest.raises(VolumeRefused, match=r"^E-MISSING .*too long"):
        deep.read()


def test_an_empty_folder_is_no_data(tmp_path: Path) -> None:
    assert find_volumes([tmp_path]) == []
    with pytest.raises(VolumeRefused, match=r"^E-NODATA .*empty"):
        read_volume(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(VolumeRefused, match=r"^E-NODATA .*1 not a volume"):
        read_volume(tmp_path)


def test_several_volumes_must_be_chosen_from(tmp_path: Path) -> None:
    for seed in range(25):
        ct(tmp_path / f"{seed:02d}.nii", seed)
    with pytest.raises(VolumeRefused, match=r"^E-SERIES .*25 volumes.*00\.nii.*and 5 more"):
        read_volume(tmp_path)
