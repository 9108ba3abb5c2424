"""Inputs that fuzzing found, made by code: what was read wrongly, or refused in an unclear way."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from tests.fuzz.dicom_mutators import Element, packed
from tests.ubr_pretrain.dicom_writer import (
    enhanced_dataset,
    save,
    slice_dataset,
    write_series,
)
from tests.ubr_pretrain.stored_volumes import nii, refusal, refused, scan, with_lines, write_itk
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import read_volume


def edited(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes that occur in a file."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"space origin:", b"spade origin:", "no field of an NRRD header"),
        (b"space origin:", b"space 1e5", "no field of an NRRD header"),
        (b"sizes:", b" sizes:", "no field of an NRRD header"),
        (b"sizes: ", b"sizes:\r", "no field of an NRRD header"),
        (b"NRRD0004\n", b"NRRD0004*", "first line"),
        (b"NRRD0004\n", b"NRRD0004 \n", "first line"),
        (b"kinds: domain", b"kinds: domaim", "not those of a volume"),
        (b"kinds:", b"axis mins: 0 0 0\nkinds:", "space directions and axismins"),
    ],
)
def test_N40_a_damaged_line_of_an_nrrd_header_is_no_missing_line(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    """E-HEADER with the line: passed over, its default would have moved or scaled the volume."""
    refused(edited(write_itk(tmp_path / "n.nrrd", scan()), old, new), "E-HEADER", words)


def test_N40_an_nrrd_header_without_its_last_line_end_is_cut(tmp_path: Path) -> None:
    """E-TRUNC with the text after which the header ends."""
    path = write_itk(tmp_path / "n.nhdr", scan())
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "E-TRUNC", "ends within the header")


@pytest.mark.parametrize(("old", "new"), [(b"origin: (", b"origin: 9"), (b"33)", b"339")])
def test_N40_an_origin_without_its_brackets_is_none(tmp_path: Path, old: bytes, new: bytes) -> None:
    """E-GEOM: a digit in the place of a bracket moved the volume by 900 mm."""
    refused(edited(write_itk(tmp_path / "n.nrrd", scan()), old, new), "E-GEOM", "space origin")


def test_N40_four_vectors_are_not_three(tmp_path: Path) -> None:
    """E-GEOM: a vector named none was passed over, and the others moved up."""
    path = write_itk(tmp_path / "n.nrrd", scan())
    vectors = "none (0.5,0,0) (0,0.75,0) (0,0,5)"
    refused(with_lines(path, space_directions=vectors), "E-GEOM", "three vectors")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b"Origin = 5 5 5\n", "E-GEOM", "but Origin = 5 5 5"),
        (b"Rotation = 0 1 0 1 0 0 0 0 1\n", "E-GEOM", "but Rotation"),
        (b"ElementByteOrderMSB = True\n", "E-HEADER", "contradict"),
    ],
)
def test_N41_two_names_of_one_thing_must_agree(
    tmp_path: Path, line: bytes, code: str, words: str
) -> None:
    """E-GEOM or E-HEADER with both: readers differ in which of the names they believe."""
    path = write_itk(tmp_path / "m.mha", scan())
    refused(edited(path, b"ElementSpacing", line + b"ElementSpacing"), code, words)


def test_N41_a_direction_that_is_no_unit_vector_is_refused(tmp_path: Path) -> None:
    """E-GEOM: ITK takes its length for a factor of the spacing, others for nothing."""
    path = write_itk(tmp_path / "m.mha", scan(), np.eye(3)[::-1])
    lines = {"TransformMatrix": "1 0 0 0 1 0 0 0 1.5"}
    refused(with_lines(path, **lines), "E-GEOM", "unit vectors")


def test_N41_neither_true_nor_false_is_refused(tmp_path: Path) -> None:
    """E-HEADER with the word: one reader takes it for compressed voxels, another for plain ones."""
    path = write_itk(tmp_path / "m.mha", scan())
    refused(with_lines(path, CompressedData="1 2"), "E-HEADER", "1 2 is neither True nor False")


@pytest.mark.parametrize("word", ["1_1", "\u0661\u0661", "1e", "0x11"])
def test_N42_a_number_is_what_every_program_reads(tmp_path: Path, word: str) -> None:
    """E-GEOM or E-HEADER: 1_1 and digits of other scripts are numbers to Python alone."""
    path = write_itk(tmp_path / "n.nrrd", scan())
    refused(with_lines(path, space_origin=f"({word},-7,33)"), "E-GEOM", "three numbers")
    path = write_itk(tmp_path / "m.mha", scan())
    refused(with_lines(path, Offset=f"{word} -7 33"), "E-HEADER", "is not numbers")


@pytest.mark.parametrize("blank", ["\x1c", "\x0b", "\x85", "\u2003"])
def test_N42_control_characters_are_no_blanks(tmp_path: Path, blank: str) -> None:
    """E-HEADER or E-GEOM: Python parts words at some, ITK does not, and reads an origin of 0."""
    path = write_itk(tmp_path / "m.mha", scan())
    refused(with_lines(path, Offset=f"11 -7{blank}33"), "E-HEADER", "is not numbers")


def test_N43_a_refusal_is_one_printable_line(tmp_path: Path) -> None:
    """Control characters of a damaged header are escaped, thousands of characters cut."""
    path = with_lines(write_itk(tmp_path / "m.mha", scan()), ElementType="a\x07\x1b[31m\u202eb")
    text = str(refusal(path))
    assert text.isprintable()
    assert r"a\x07\x1b[31m\u202eb" in text
    path = with_lines(write_itk(tmp_path / "n.nrrd", scan()), type="x" * 9000)
    assert 400 < len(str(refusal(path))) < 1000


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"scl_slope": 2.0, "scl_inter": np.nan}, "E-RESCALE", "scl_inter nan"),
        ({"scl_slope": np.inf}, "E-RESCALE", "scl_slope inf"),
        ({"scl_slope": 0.0, "scl_inter": -1024.0}, "E-RESCALE", "scl_slope 0"),
        ({"scl_slope": 1e-38}, "E-RESCALE", "scl_slope 1e-38"),
        ({"scl_slope": np.nan, "scl_inter": -1024.0}, "E-RESCALE", "scl_slope nan"),
        ({"pixdim0": -1.02}, "E-GEOM", "must be -1 or 1"),
        ({"pixdim0": -np.inf}, "E-GEOM", "must be -1 or 1"),
        ({"sform_code": 77}, "E-HEADER", "sform_code is 77"),
        ({"pixdim2": 0.7538}, "E-GEOM", "pixdim"),
    ],
)
def test_N44_a_field_on_whose_meaning_readers_differ_is_refused(
    tmp_path: Path, fields: dict[str, float], code: str, words: str
) -> None:
    """E-RESCALE, E-GEOM or E-HEADER with the value: nibabel and ITK make two volumes of it."""
    refused(nii(tmp_path, **fields), code, words)


def test_N44_forms_that_begin_elsewhere_disagree(tmp_path: Path) -> None:
    """E-GEOM with both origins, as for forms that point elsewhere."""
    path = nii(tmp_path)
    content = bytearray(path.read_bytes())
    (x,) = struct.unpack_from("<f", content, 268)
    struct.pack_into("<f", content, 268, x + 2)
    path.write_bytes(content)
    refused(path, "E-GEOM", "qform begins at", "sform begins at")


def test_N44_nan_for_not_scaled_is_still_read(tmp_path: Path) -> None:
    """Read, with a note: nibabel writes NaN for voxels that are not scaled."""
    volume = read_volume(nii(tmp_path, scl_slope=np.nan, scl_inter=np.nan))
    np.testing.assert_array_equal(volume.hu, scan())


@pytest.mark.parametrize("value", [b"2.0 ", b"1.0 "])
def test_N45_an_element_that_is_given_twice_is_refused(tmp_path: Path, value: bytes) -> None:
    """E-HEADER naming the element: of two values one reader takes the first, another the last."""
    path = save(slice_dataset(scan()[0], (0, 0, 0)), tmp_path / "a.dcm")
    slope = packed(Element((0x0028, 0x1053), b"DS", b"1.0 "), implicit=False, order="<")
    again = packed(Element((0x0028, 0x1053), b"DS", value), implicit=False, order="<")
    refused(edited(path, slope, slope + again), "E-HEADER", "0028,1053 is given twice")


def test_N46_bytes_behind_the_pixels_are_an_element_or_zeros(tmp_path: Path) -> None:
    """E-FORMAT for anything else: bytes put into the pixels shift them, and the rest falls out."""
    whole = save(slice_dataset(scan()[0], (0, 0, 0)), tmp_path / "a.dcm").read_bytes()
    path = tmp_path / "b.dcm"
    path.write_bytes(whole + b"\0" * 7)
    np.testing.assert_array_equal(read_volume(path).hu[0], scan()[0])
    path.write_bytes(whole[:-9] + b"\x11\x22\x33" + whole[-9:])
    refused(path, "E-FORMAT", "goes on after its pixels")


def test_N46_a_length_of_4_GB_asks_for_no_memory(tmp_path: Path) -> None:
    """E-HEADER or E-NOPIXELS; a header of a kilobyte made Python set 4 GB aside."""
    import tracemalloc

    path = save(slice_dataset(scan()[0], (0, 0, 0)), tmp_path / "a.dcm")
    element = packed(Element((0x0009, 0x1001), b"OB", b""), implicit=False, order="<")
    false = packed(
        Element((0x0009, 0x1001), b"OB", b""), implicit=False, order="<", length=2**32 - 2
    )
    modality = packed(Element((0x0008, 0x0060), b"CS", b"CT"), implicit=False, order="<")
    edited(edited(path, modality, modality + element), element, false)
    tracemalloc.start()
    assert refusal(path).code in ("E-HEADER", "E-NOPIXELS")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize("keep", [-1, -2, -40])
def test_N47_a_deflated_slice_without_its_end_is_cut(tmp_path: Path, keep: int) -> None:
    """E-TRUNC: the last byte of the stream was missed by nobody, and its loss ended the reader."""
    ds = slice_dataset(scan()[0], (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ds, tmp_path / "a.dcm")
    content = path.read_bytes()
    stream = content[144 + struct.unpack_from("<I", content, 140)[0] :]
    engine = zlib.decompressobj(-15)
    engine.decompress(stream)
    spare = len(engine.unused_data)
    path.write_bytes(content[: len(content) - spare + keep])
    refused(path, "E-TRUNC", "deflated")


@pytest.mark.parametrize(
    ("suffix", "key", "code"),
    [("nhdr", "data file: ", "E-HEADER"), ("mhd", "ElementDataFile = ", "E-UNSAFE")],
)
def test_N48_a_name_with_a_zero_byte_names_no_file(tmp_path: Path, suffix, key, code) -> None:
    """E-HEADER or E-UNSAFE: the operating system knows no such name, and said so in a traceback."""
    path = write_itk(tmp_path / f"scan.{suffix}", scan())
    edited(path, key.encode() + b"scan", key.encode() + b"sc\0n")
    refused(path, code, r"sc\x00n")


def test_N48_a_name_longer_than_any_file_has_names_none(tmp_path: Path) -> None:
    """E-UNSAFE in a bounded line: the name was shown at length."""
    path = edited(write_itk(tmp_path / "n.mhd", scan()), b"n.raw", b"n" * 5000)
    with pytest.raises(VolumeRefused) as caught:
        read_volume(path)
    assert caught.value.code == "E-UNSAFE"
    assert len(str(caught.value)) < 1000


def test_N48_a_signalling_nan_is_a_nan(tmp_path: Path) -> None:
    """E-NAN with the count, and no warning of numpy beside it."""
    path = write_itk(tmp_path / "n.nrrd", scan().astype(np.float32))
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<I", 0x7F800001)
    path.write_bytes(content)
    refused(path, "E-NAN", "1 voxels")


def test_N45_a_series_of_sound_files_has_nothing_twice(tmp_path: Path) -> None:
    """Read as before."""
    np.testing.assert_array_equal(read_volume(write_series(tmp_path, scan())).hu, scan())


def test_N45_a_zero_byte_within_a_number_is_refused(tmp_path: Path) -> None:
    """E-HEADER naming the element: pydicom reads on behind the zero, GDCM ends there."""
    path = save(slice_dataset(scan()[0], (0, 0, 90.5)), tmp_path / "a.dcm")
    refused(edited(path, b"90.5", b"9\x00.5"), "E-HEADER", "zero byte within a number")


def test_N45_two_numbers_in_place_of_one_are_refused(tmp_path: Path) -> None:
    """E-HEADER naming the element: the first of two intercepts is none."""
    path = save(
        slice_dataset(scan()[0], (0, 0, 0), RescaleIntercept=[-1024, 0]), tmp_path / "a.dcm"
    )
    refused(path, "E-HEADER", "RescaleIntercept holds 2 numbers")


def test_N45_bits_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """E-HEADER with both: GDCM takes the highest bit at its word, pydicom does not look at it."""
    path = save(slice_dataset(scan()[0], (0, 0, 0), HighBit=11), tmp_path / "a.dcm")
    refused(path, "E-HEADER", "HighBit 11 does not belong to BitsStored 16")


def test_N45_no_samples_are_not_one_sample(tmp_path: Path) -> None:
    """E-NOPIXELS, E-HEADER or E-RGB: 0 samples a pixel were taken for one."""
    path = save(slice_dataset(scan()[0], (0, 0, 0), SamplesPerPixel=0), tmp_path / "a.dcm")
    assert refusal(path).code in ("E-NOPIXELS", "E-HEADER", "E-RGB")


def test_V31_a_place_beyond_all_scanners_is_refused(tmp_path: Path) -> None:
    """E-GEOM with the numbers, and no warning of numpy about their squares."""
    path = save(slice_dataset(scan()[0], (0, 0, 1e300)), tmp_path / "a.dcm")
    refused(path, "E-GEOM", "1e+300")


def test_V32_a_spacing_without_extent_is_refused(tmp_path: Path) -> None:
    """E-SPACING: 1e-300 mm is more than 0, and no spacing."""
    path = write_itk(tmp_path / "m.mha", scan())
    refused(with_lines(path, ElementSpacing="0.5 1e-300 5"), "E-SPACING", "1e-300")


def test_V41_one_frame_of_an_enhanced_file_with_another_intercept_is_refused(
    tmp_path: Path,
) -> None:
    """E-RESCALE with the frame: files were held against each other, frames of one file not."""
    ds = enhanced_dataset(scan(), (5.0, 0.75, 0.5))
    group = ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0]
    group.RescaleIntercept = 1024
    refused(save(ds, tmp_path / "e.dcm"), "E-RESCALE", "frame 3: slope, intercept (1.0, 1024.0)")


def test_N44_a_damaged_magic_is_refused(tmp_path: Path) -> None:
    """E-HEADER: ITK takes such a file for Analyze 7.5, which has no place in the patient."""
    refused(edited(nii(tmp_path), b"n+1\0", b"n+1\t"), "E-HEADER", "magic")


def test_N46_compressed_pixels_given_twice_are_refused(tmp_path: Path) -> None:
    """E-FORMAT: one reader decodes the first, another the last."""
    ds = slice_dataset(scan((1, 16, 16))[0], (0, 0, 0))
    ds.compress(RLELossless, generate_instance_uid=False)
    path = save(ds, tmp_path / "a.dcm")
    content = path.read_bytes()
    path.write_bytes(content + content[content.rindex(b"\xe0\x7f\x10\x00") :])
    refused(path, "E-FORMAT", "goes on after its pixels")
