"""DICOM bytes: a slice that is cut or foreign refuses its series and is never dropped."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.ubr_pretrain.dicom_writer import (
    save,
    slice_dataset,
    write_series,
)
from tests.ubr_pretrain.stored_volumes import refused, scan
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import find_volumes, read_volume

SHAPE = (7, 6, 5)
SPACING = (5.0, 0.75, 0.5)


@pytest.fixture
def hu() -> np.ndarray:
    return scan(SHAPE)


def test_V08_every_cut_of_a_slice_refuses_its_series(tmp_path: Path, hu) -> None:
    """A slice cut at any byte refuses its series and is named; it is never left out."""
    path = write_series(tmp_path, hu[:2], SPACING) / "000.dcm"  # an end: its loss leaves no gap
    whole = path.read_bytes()
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        with pytest.raises(VolumeRefused) as caught:
            read_volume(tmp_path)
        assert caught.value.path == str(path), f"cut at {keep}: {caught.value}"


def test_V08_a_truncated_slice_states_both_byte_counts(tmp_path: Path, hu) -> None:
    """E-TRUNC with the bytes of pixels that are declared and those that are there."""
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "003.dcm").write_bytes((tmp_path / "003.dcm").read_bytes()[:-20])
    refused(tmp_path, "E-TRUNC", "declares 60 bytes of pixels, holds 40", "003.dcm")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("bad.dcm", b"", "E-EMPTY"),
        ("bad.dcm", b"not found", "E-NOTDICOM"),
        ("bad.DCM", b"<html>login</html>", "E-NOTDICOM"),
        ("noext", bytes(128) + b"DICM" + b"\xff" * 50, "E-NOTDICOM"),
    ],
)
def test_V09_a_broken_slice_refuses_the_series_of_its_folder(
    tmp_path: Path, hu, name: str, content: bytes, code: str
) -> None:
    """E-EMPTY or E-NOTDICOM for the series of that folder; another folder's series is read."""
    write_series(tmp_path / "a", hu, SPACING)
    write_series(tmp_path / "b", hu, SPACING, SeriesInstanceUID="1.2.3")
    (tmp_path / "a" / name).write_bytes(content)
    refused(tmp_path / "a", code, name)
    bad, good = find_volumes([tmp_path])
    assert bad.refusal is not None
    assert bad.refusal.code == code
    np.testing.assert_array_equal(good.read().hu, hu)


def test_V09_foreign_files_are_skipped_and_counted(tmp_path: Path, hu) -> None:
    """Files of other kinds are counted by kind; the series is read."""
    write_series(tmp_path, hu, SPACING)
    (tmp_path / "notes.txt").write_text("seen by A.")
    (tmp_path / "empty").touch()
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "000.dcm").read_bytes())
    cohort = find_volumes([tmp_path])
    assert cohort.skipped == {"not a volume": 1, "E-EMPTY": 1, "hidden": 1, "DICOMDIR": 1}
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def test_V09_broken_files_without_a_series_are_entries(tmp_path: Path) -> None:
    """E-NOTDICOM with what the file looks like: a row of its own."""
    (tmp_path / "bad.dcm").write_text("not found")
    refused(tmp_path, "E-NOTDICOM", "looks like text")


def test_V54_a_file_without_meta_information_is_no_dicom(tmp_path: Path, hu) -> None:
    """E-NOTDICOM; nothing is guessed, there is no --force."""
    path = save(slice_dataset(hu[0], (0, 0, 0)), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[132:])
    refused(path, "E-NOTDICOM", "no DICOM")


def test_V54_a_file_without_a_transfer_syntax_is_no_dicom(tmp_path: Path, hu) -> None:
    """E-NOTDICOM, states no transfer syntax; nothing is guessed."""
    path = save(slice_dataset(hu[0], (0, 0, 0)), tmp_path / "a.dcm")
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI")
    length = 8 + struct.unpack_from("<H", content, at + 6)[0]
    group_length = struct.unpack_from("<I", content, 140)[0]
    content = (
        content[:140]
        + struct.pack("<I", group_length - length)
        + content[144:at]
        + content[at + length :]
    )
    path.write_bytes(content)
    refused(path, "E-NOTDICOM", "no transfer syntax")


@pytest.mark.parametrize("levels", [2_000, 20_000])
def test_V59_nested_sequences_do_not_end_the_process(tmp_path: Path, hu, levels: int) -> None:
    """E-HEADER; the process goes on."""
    path = save(slice_dataset(hu[0], (0, 0, 0)), tmp_path / "a.dcm")
    content = path.read_bytes()
    at = content.index(b"\x08\x00\x60\x00CS")
    item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(content[:at] + item * levels + end * levels + content[at:])
    refused(path, "E-HEADER", "damaged")


@pytest.mark.parametrize("what", ["deleted", "changed"])
def test_V66_a_slice_that_changes_between_header_and_pixels(
    tmp_path, hu, monkeypatch, what
) -> None:
    """E-MISSING with the slice: its pixels are taken only from the file that was judged."""

    from ubr_pretrain import dicom_series

    write_series(tmp_path, hu, SPACING)
    judged = dicom_series.ct_slices

    def and_meddle(*args):
        if what == "deleted":
            (tmp_path / "003.dcm").unlink()
        else:
            os.utime(tmp_path / "003.dcm", ns=(1, 1))
        return judged(*args)

    (entry,) = find_volumes([tmp_path])
    monkeypatch.setattr(dicom_series, "ct_slices", and_meddle)
    with pytest.raises(VolumeRefused, match=r"^E-MISSING .*003\.dcm"):
        entry.read()


def test_N02_headers_without_pixels_are_passed_over_and_counted(tmp_path: Path, hu) -> None:
    """One line and one count for a folder of them, not a row for each; E-NOPIXELS where named."""
    write_series(tmp_path / "headers", hu, SPACING, PixelData=None)
    write_series(tmp_path / "scan", hu, SPACING, SeriesInstanceUID="1.2.3")
    cohort = find_volumes([tmp_path])
    assert [entry.read().num_slices for entry in cohort] == [7]
    assert cohort.skipped == {"E-NOPIXELS": 7}
    assert [fault.code for fault in cohort.passed_over] == ["E-NOPIXELS"]
    with pytest.raises(VolumeRefused, match=r"^E-NOPIXELS .*headers/000\.dcm"):
        read_volume(tmp_path / "headers")
    refused(tmp_path / "headers" / "003.dcm", "E-NOPIXELS", "003.dcm")
