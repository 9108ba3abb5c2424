"""Every fast way through a DICOM file ends where pydicom's does."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.ubr_pretrain.dicom_writer import put, save, slice_dataset, write_series
from tests.ubr_pretrain.stored_volumes import scan
from ubr_pretrain import dicom_elements, dicom_header
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.dicom_header import read_dicom_header
from ubr_pretrain.dicom_pixels import decode, read_plain
from ubr_pretrain.volumes import find_volumes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize(("stored", "signed"), [(12, 0), (12, 1), (16, 0), (16, 1), (13, 1)])
def test_plain_pixels_are_what_pydicom_decodes(tmp_path, syntax, stored, signed):
    noise = np.random.default_rng(stored).integers(0, 2**16, (9, 7)).astype("<u2")
    ds = slice_dataset(
        np.zeros((9, 7), np.int16),
        (0, 0, 0),
        BitsStored=stored,
        HighBit=stored - 1,
        PixelRepresentation=signed,
    )
    ds.PixelData = noise.tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "0.dcm"
    ds.save_as(path, enforce_file_format=True)
    header = read_dicom_header(path, 10**9)
    assert header.plain_pixels is not None
    fast = read_plain(path, header.plain_pixels, (1, 9, 7))
    assert np.array_equal(fast[0], pixel_array(path, raw=True))
    assert np.array_equal(fast, decode(path, syntax, (1, 9, 7)))


@pytest.mark.parametrize(
    "elements",
    [{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, {"BitsStored": None}, {"BitsStored": 17}],
)
def test_pixels_of_another_kind_are_left_to_pydicom(tmp_path, elements):
    ds = slice_dataset(np.zeros((8, 8), np.int16), (0, 0, 0), **elements)
    assert read_dicom_header(save(ds, tmp_path / "0.dcm"), 10**9).plain_pixels is None


def test_a_dicom_file_cut_after_its_header_was_judged_is_refused(tmp_path):
    write_series(tmp_path, scan((4, 8, 8)))
    (entry,) = find_volumes([tmp_path])
    plain = entry.headers[0].plain_pixels
    assert plain is not None
    entry.headers[0].path.write_bytes(entry.headers[0].path.read_bytes()[:-10])
    with pytest.raises(VolumeRefused, match=r"E-MISSING.*changed"):
        entry.read()
    with pytest.raises(VolumeRefused, match="E-TRUNC"):
        read_plain(entry.headers[0].path, plain, (1, 8, 8))


def test_headers_are_the_same_whatever_was_read_before(tmp_path, monkeypatch):
    """The same bytes mean another number in another byte order, sign or character set."""
    hu = scan((2, 8, 8))
    for n, (syntax, changes) in enumerate(
        [
            (ExplicitVRLittleEndian, {"Rows": 256, "Columns": 1}),
            (ExplicitVRBigEndian, {"Rows": 1, "Columns": 256}),
            (ImplicitVRLittleEndian, {"PixelRepresentation": 1, "PixelPaddingValue": -2000}),
            (ImplicitVRLittleEndian, {"PixelRepresentation": 0, "PixelPaddingValue": 63536}),
            (ExplicitVRLittleEndian, {"SpecificCharacterSet": "ISO_IR 100", "PatientID": "Zoë"}),
            (ExplicitVRLittleEndian, {"SpecificCharacterSet": "ISO_IR 192", "PatientID": "Zoë"}),
            (ExplicitVRLittleEndian, {"SpecificCharacterSet": ["ISO 2022 IR 6", "ISO 2022 IR 87"]}),
            (ExplicitVRLittleEndian, {"RescaleSlope": None, "ImageType": ["DERIVED", "LOCALIZER"]}),
        ]
    ):
        ds = slice_dataset(hu[0], (0, 0, n))
        put(**changes)(ds)
        ds.PixelData = bytes(2 * ds.Rows * ds.Columns)
        ds.file_meta.TransferSyntaxUID = syntax
        little = syntax != ExplicitVRBigEndian
        with pydicom.config.disable_value_validation():
            pydicom.dcmwrite(
                tmp_path / f"{n}.dcm",
                ds,
                enforce_file_format=True,
                implicit_vr=syntax == ImplicitVRLittleEndian,
                little_endian=little,
            )
    files = sorted(tmp_path.iterdir())
    alone = []
    for file in files:
        dicom_elements.Elements._converted.clear()
        alone.append(read_dicom_header(file, 10**9))
    assert [read_dicom_header(file, 10**9) for file in files] == alone
    assert [read_dicom_header(file, 10**9) for file in reversed(files)] == alone[::-1]
    assert [(h.rows, h.columns) for h in alone[:2]] == [(256, 1), (1, 256)]
    assert [h.padding for h in alone[2:4]] == [-2000, 63536]
    monkeypatch.setattr(dicom_elements, "MAX_CONVERTED", 3)
    assert [read_dicom_header(file, 10**9) for file in files] == alone


def test_headers_of_a_series_share_what_they_agree_on(tmp_path):
    (entry,) = find_volumes([write_series(tmp_path, scan((4, 8, 8)))])
    first, *others = entry.headers
    for other in others:
        assert other.series_uid is first.series_uid
        assert other.frames[0].orientation is first.frames[0].orientation
        assert other.frames[0].moments is first.frames[0].moments
        assert other.frames[0].position_mm != first.frames[0].position_mm


def test_the_transfer_syntax_is_found_however_the_file_states_it(tmp_path):
    """A group length that lies, or is missing, is no reason to guess."""
    path = save(slice_dataset(scan((1, 8, 8))[0], (0, 0, 0)), tmp_path / "0.dcm")
    expected = read_dicom_header(path, 10**9)
    content = path.read_bytes()
    place = content.index(b"\x02\x00\x00\x00UL")
    without = content[:place] + content[place + 12 :]
    path.write_bytes(without)
    header = read_dicom_header(path, 10**9)
    assert header.transfer_syntax == expected.transfer_syntax == ExplicitVRLittleEndian
    assert header.plain_pixels is not None
    assert expected.plain_pixels is not None
    assert header.plain_pixels.offset == expected.plain_pixels.offset - 12
    assert io.BytesIO(without).getvalue()[header.plain_pixels.offset :] == content[-128:]


META_LENGTH = 140
"""Where a file says how long its file meta group is."""


def regrouped(content: bytes, change: str) -> bytes:
    """Return a DICOM file whose file meta group is unusual, or wrong."""
    length = int.from_bytes(content[META_LENGTH : META_LENGTH + 4], "little")
    end = META_LENGTH + 4 + length
    more = {
        "private OB": b"\x02\x00\x02\x01OB\0\0"
        + (300).to_bytes(4, "little")
        + b"\x02\0\x10\0UI" * 49
        + bytes(6),
        "beyond the head": b"\x02\x00\x02\x01OB\0\0" + (2000).to_bytes(4, "little") + bytes(2000),
        "command set": b"",
    }.get(change, b"")
    stated = length + len(more) + {"too long": 8, "too short": -8, "cut short": -3}.get(change, 0)
    if change == "command set":
        content = content[:end] + bytes([0, 0, 0, 0, 4, 0, 0, 0]) + bytes(4) + content[end:]
    elif change == "no data set":
        content = content[:end]
    return (
        b"".join(
            [
                content[:META_LENGTH],
                stated.to_bytes(4, "little"),
                content[META_LENGTH + 4 : end],
                more,
            ]
        )
        + content[end:]
    )


@pytest.mark.parametrize(
    "change",
    [
        *("none", "private OB", "beyond the head", "command set", "no data set"),
        *("too long", "too short", "cut short"),
    ],
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_short_way_through_a_header_ends_where_the_long_one_does(
    tmp_path, monkeypatch, change, syntax
):
    ds = slice_dataset(scan((1, 8, 8))[0], (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(tmp_path / "0.dcm", enforce_file_format=True)
    (tmp_path / "0.dcm").write_bytes(regrouped((tmp_path / "0.dcm").read_bytes(), change))

    def outcome() -> object:
        try:
            return read_dicom_header(tmp_path / "0.dcm", 10**9)
        except VolumeRefused as refusal:
            return refusal.code

    taken = dicom_header._plain_syntax((tmp_path / "0.dcm").read_bytes()[:1024])
    assert (taken is not None) == (change in ("none", "private OB"))
    short = outcome()
    monkeypatch.setattr(dicom_header, "_plain_syntax", lambda _: None)
    assert short == outcome()


@pytest.mark.parametrize("kind", [b"SQ", b"UT", b"UN", b"OW", b"US", b"ui", b"\xff\xff"])
def test_a_transfer_syntax_of_another_kind_is_left_to_pydicom(tmp_path, kind):
    path = save(slice_dataset(scan((1, 8, 8))[0], (0, 0, 0)), tmp_path / "0.dcm")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x02\0\x10\0UI", b"\x02\0\x10\0" + kind, 1))
    assert path.read_bytes() != content
    assert dicom_header._plain_syntax(path.read_bytes()[:1024]) is None


@pytest.mark.parametrize("left", range(-4, 13))
def test_a_file_that_ends_in_its_file_meta_group_is_left_to_pydicom(tmp_path, left):
    path = save(slice_dataset(scan((1, 8, 8))[0], (0, 0, 0)), tmp_path / "0.dcm")
    content = path.read_bytes()[: META_LENGTH + 4 + left]  # in its version, an OB
    stated = (1).to_bytes(4, "little")
    cut = (content[:META_LENGTH] + stated + content[META_LENGTH + 4 :])[: len(content)]
    assert dicom_header._plain_syntax(cut) is None


def element(syntax: str) -> bytes:
    """Return the element of a transfer syntax."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\x02\0\x10\0UI" + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize(
    ("stated", "in_truth"),
    [
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    ],
)
def test_pixels_that_a_wrong_transfer_syntax_would_shift_are_refused(tmp_path, stated, in_truth):
    """100 x 100 pixels: the letters OW, taken for a length, are not too few bytes for them."""
    ds = slice_dataset(scan((1, 100, 100))[0], (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = in_truth
    ds.save_as(tmp_path / "0.dcm", enforce_file_format=True)
    content = (tmp_path / "0.dcm").read_bytes()
    assert read_dicom_header(tmp_path / "0.dcm", 10**9).pixel_fault is None
    length = int.from_bytes(content[META_LENGTH : META_LENGTH + 4], "little")
    length += len(element(stated)) - len(element(in_truth))
    content = content.replace(element(in_truth), element(stated), 1)
    content = content[:META_LENGTH] + length.to_bytes(4, "little") + content[META_LENGTH + 4 :]
    (tmp_path / "0.dcm").write_bytes(content)
    header = read_dicom_header(tmp_path / "0.dcm", 10**9)
    assert header.transfer_syntax == stated
    assert header.rows == 100
    assert header.pixel_fault is not None
    assert header.pixel_fault[0] == "E-HEADER"


@pytest.mark.parametrize("keyword", ["BitsStored", "PixelRepresentation"])
def test_several_numbers_in_place_of_one_are_left_to_pydicom(tmp_path, keyword):
    ds = slice_dataset(scan((1, 8, 8))[0], (0, 0, 0), **{keyword: [1, 1]})
    header = read_dicom_header(save(ds, tmp_path / "0.dcm"), 10**9)
    assert header.plain_pixels is None
    assert header.pixel_fault is None
