"""The bytes of a volume file: cut, flipped, swollen, misnamed, or no file at all."""

import gzip
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ubr_pretrain.stored_volumes import (
    nii,
    refusal,
    refused,
    scan,
    write_itk,
)
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.reading_rules import ReadingRules
from ubr_pretrain.volumes import find_volumes, read_volume


def compressed(folder: Path, kind: str) -> Path:
    if kind == "nii.gz":
        path = folder / "scan.nii.gz"
        path.write_bytes(gzip.compress(nii(folder, "plain.nii").read_bytes(), mtime=0))
        return path
    return write_itk(folder / f"scan.{kind}", scan((8, 16, 16)), compress=True)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
def test_V01_empty_file(tmp_path: Path, suffix: str) -> None:
    """E-EMPTY with the file."""
    path = tmp_path / f"scan.{suffix}"
    path.touch()
    refused(path, "E-EMPTY")


@pytest.mark.parametrize("suffix", ["nii", "nrrd", "mha"])
@settings(max_examples=40, deadline=None)
@given(keep=st.integers(0, 999))
def test_V02_any_cut_of_a_plain_file_is_refused(tmp_path_factory, suffix: str, keep) -> None:
    """A file cut at any byte is refused by a code, never read in part."""
    path = write_itk(tmp_path_factory.mktemp("cut") / f"scan.{suffix}", scan())
    whole = path.read_bytes()
    path.write_bytes(whole[: keep * len(whole) // 1000])
    assert refusal(path).code.startswith("E-")


def test_V02_truncated_nii_states_both_byte_counts(tmp_path: Path) -> None:
    """E-TRUNC with the bytes that the header declares and those that are there."""
    path = nii(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, "E-TRUNC", "declares 240 bytes", "holds 200")


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
@settings(max_examples=40, deadline=None)
@given(keep=st.integers(0, 999))
def test_V03_any_cut_of_a_compressed_file_is_refused(tmp_path_factory, kind: str, keep) -> None:
    """A compressed file cut at any byte is refused: it is read to its end mark."""
    path = compressed(tmp_path_factory.mktemp("cut"), kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep * len(whole) // 1000])
    assert refusal(path).code.startswith("E-")


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
@settings(max_examples=40, deadline=None)
@given(where=st.integers(0, 9999), bit=st.integers(0, 7))
def test_V04_a_flipped_bit_is_refused_or_harmless(tmp_path_factory, kind: str, where, bit) -> None:
    """Refused, or every voxel is as before (a flip in the name or time of a gzip header)."""
    path = compressed(tmp_path_factory.mktemp("flip"), kind)
    before = read_volume(path)
    content = bytearray(path.read_bytes())
    start = 0 if kind == "nii.gz" else content.index(b"\x1f\x8b" if kind == "nrrd" else b"LOCAL\n")
    content[start + where * (len(content) - start) // 10_000] ^= 1 << bit
    path.write_bytes(content)
    try:
        after = read_volume(path)
    except VolumeRefused:
        return
    np.testing.assert_array_equal(after.hu, before.hu)  # a flip in the gzip header's time or flags
    assert after.spacing_mm_zyx == before.spacing_mm_zyx


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha"])
def test_V04_damage_in_the_compressed_voxels_is_a_checksum_error(tmp_path: Path, kind) -> None:
    """E-CRC: the checksum at the end is always compared."""
    path = compressed(tmp_path, kind)
    content = bytearray(path.read_bytes())
    content[-60] ^= 0x10
    path.write_bytes(content)
    refused(path, "E-CRC", "damaged")


@pytest.mark.parametrize("lost", [1, 4, 8])
def test_V05_a_lost_gzip_trailer_is_a_truncation(tmp_path: Path, lost: int) -> None:
    """E-TRUNC: all voxels are there, but the end mark is lost."""
    path = compressed(tmp_path, "nii.gz")
    path.write_bytes(path.read_bytes()[:-lost])
    refused(path, "E-TRUNC", "end mark")


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"<!DOCTYPE html><html>403 Forbidden</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"not found\n", "looks like text"),
        (b"\xff\xd8\xff\xe0JFIF", "JPEG"),
        (b"PK\x03\x04....", "zip"),
        (bytes(range(200, 256)), "begins with c8 c9"),
    ],
)
def test_V06_a_file_that_is_no_volume_says_what_it_looks_like(tmp_path, content, looks) -> None:
    """E-FORMAT with what it looks like: a web page, an LFS pointer, text, a picture, an archive."""
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    refused(path, "E-FORMAT", looks)


@pytest.mark.parametrize("name", ["plain.nii.gz", "noext", "other.mha"])
@pytest.mark.parametrize("zipped", [False, True])
def test_V07_content_decides_and_not_the_name(tmp_path: Path, name: str, zipped: bool) -> None:
    """Read: the first bytes decide, whatever the name."""
    content = nii(tmp_path).read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if zipped else content)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


def test_a_gzip_file_of_several_members_is_one_stream(tmp_path: Path) -> None:
    content = nii(tmp_path).read_bytes()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_volume(path).hu, scan())


@pytest.mark.parametrize("suffix", ["nii", "nrrd", "mha"])
def test_bytes_after_the_voxels_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write_itk(tmp_path / f"scan.{suffix}", scan())
    path.write_bytes(path.read_bytes() + b"\0\0")
    refused(path, "E-FORMAT", "goes on after")


def test_V57_gzip_bomb_behind_a_small_volume_is_stopped_early(tmp_path: Path) -> None:
    """E-FORMAT as soon as the stream goes on after the voxels."""
    path = tmp_path / "bomb.nii.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = packer.compress(nii(tmp_path).read_bytes())
    zeros = bytes(1 << 20)
    content += b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    path.write_bytes(content)
    refused(path, "E-FORMAT", "goes on after the 240 bytes")


def test_V57_the_ceiling_is_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    """E-SIZE-LIMIT with bytes and limit (4 GB), before any memory is taken; read where Python gives
    a larger limit, as the hint tells."""
    path = nii(tmp_path)
    hint = "in Python: read_volume(..., max_bytes=...)"
    refused(path, "E-SIZE-LIMIT", "240 bytes", "limit 239", hint, max_bytes=239)
    assert ReadingRules().max_bytes == 4_000_000_000
    assert read_volume(path, max_bytes=240).num_slices == 6


@pytest.mark.parametrize("zipped", [False, True])
def test_V56_huge_dimensions_are_refused_before_allocation(tmp_path: Path, zipped: bool) -> None:
    """E-TRUNC with the bytes that are declared, before any memory is taken."""
    path = nii(tmp_path, dim1=32767, dim2=32767, dim3=32767)
    if zipped:
        path = Path(f"{path}.gz")
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    refused(path, "E-TRUNC", f"declares {32767**3 * 2} bytes", max_bytes=10**15)


@pytest.mark.parametrize("name", ["folder", "fifo", "socket"])
def test_V61_no_file_with_a_file_name_is_refused_at_once(tmp_path: Path, name) -> None:
    """A pipe or socket is E-NOTFILE at once; a folder is searched (E-NODATA if it is empty)."""
    path = tmp_path / "scan.nii.gz"
    with socket.socket(socket.AF_UNIX) as listening:
        {"folder": Path.mkdir, "fifo": os.mkfifo, "socket": lambda p: listening.bind(str(p))}[name](
            path
        )
    code, word = ("E-NODATA", "empty") if name == "folder" else ("E-NOTFILE", f"a {name}")
    refused(path, code, word.replace("fifo", "pipe"))


def test_V61_a_device_is_no_volume() -> None:
    """E-NOTFILE, without a byte being read."""
    refused(Path("/dev/zero"), "E-NOTFILE", "a device")


@pytest.mark.parametrize(
    "name",
    [
        "a b'c\"$(touch x).nii",
        "\u202etxt.nii",
        "line\nbreak.nii",
        "e\u0301.nii",
        "x" * 251 + ".nii",
    ],
)
def test_V63_any_file_name_is_read(tmp_path: Path, name: str) -> None:
    """Read: a name is never given to a shell."""
    path = nii(tmp_path).rename(tmp_path / name)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


def test_V63_a_name_that_is_no_unicode_is_read(tmp_path: Path) -> None:
    """Read, whatever its bytes."""
    path = nii(tmp_path).rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.nii"))
    np.testing.assert_array_equal(read_volume(path).hu, scan())


@pytest.mark.parametrize("name", ["gone.nii", "no/such/folder.mha", "null\0.nii", "y" * 300])
def test_V65_V66_a_path_that_cannot_be_opened_is_missing(tmp_path: Path, name: str) -> None:
    """E-MISSING with the reason of the system."""
    assert refusal(tmp_path / name).code == "E-MISSING"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up for a while the right of root to read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_V65_what_may_not_be_read_is_missing() -> None:
    """E-MISSING, permission denied, for a file and for a folder of a tree; the rest is read."""
    with TemporaryDirectory() as name:  # tmp_path lies in a folder that nobody may enter
        top = Path(name)
        for place in ("open", "closed", "shut"):
            (top / place).mkdir()
            nii(top / place, f"{place}.nii")
        for path, mode in ((top, 0o755), (top / "closed" / "closed.nii", 0), (top / "shut", 0)):
            path.chmod(mode)
        with as_nobody():
            refused(top / "closed" / "closed.nii", "E-MISSING", "Permission denied")
            entries = find_volumes([top])
            codes = [entry.refusal.code if entry.refusal else "" for entry in entries]
            assert sorted(codes) == ["", "E-MISSING", "E-MISSING"]
            assert entries[codes.index("")].read().num_slices == 6
        (top / "shut").chmod(0o755)


def test_V66_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch) -> None:
    """E-MISSING, changed while being read: nothing of it is used."""

    from ubr_pretrain import volume_file

    path = nii(tmp_path)
    read_header = volume_file.HEADER_READERS["nifti"]

    def and_touch(stream, where):
        os.utime(where, ns=(1, 1))
        return read_header(stream, where)

    monkeypatch.setitem(volume_file.HEADER_READERS, "nifti", and_touch)
    refused(path, "E-MISSING", "changed while")


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.sampled_from([b"NRRD0005\n", b"NDims = 3\n", b""]))
def test_random_bytes_are_refused_and_never_crash(tmp_path_factory, content, start) -> None:
    path = tmp_path_factory.mktemp("noise") / "noise.bin"
    path.write_bytes(start + content)
    assert refusal(path).code.startswith("E-")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 347), st.integers(0, 255))
def test_a_changed_header_byte_gives_a_whole_volume_or_a_refusal(
    tmp_path_factory, where, value
) -> None:
    path = nii(tmp_path_factory.mktemp("fuzz"))
    content = bytearray(path.read_bytes())
    content[where] = value
    path.write_bytes(content)
    try:
        volume = read_volume(path)
    except VolumeRefused:
        return
    assert volume.hu.size == 120
    assert struct.calcsize("<h") * volume.hu.size == volume.hu.nbytes
