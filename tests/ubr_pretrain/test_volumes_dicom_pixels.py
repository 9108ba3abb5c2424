"""DICOM pixels: byte orders, compression, ceilings, padding, rescale, Enhanced CT."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from tests.ubr_pretrain.dicom_writer import (
    SERIES_UID,
    enhanced_dataset,
    put,
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


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_V50_other_byte_orders_are_read_equal(tmp_path: Path, hu, syntax) -> None:
    """Read, equal voxel by voxel."""
    little = syntax == ImplicitVRLittleEndian
    for k, one in enumerate(hu):
        ds = slice_dataset(one, (0, 0, -5.0 * k))
        ds.file_meta.TransferSyntaxUID = syntax
        if not little:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
        dcmwrite(
            tmp_path / f"{k}.dcm",
            ds,
            implicit_vr=little,
            little_endian=little,
            force_encoding=True,
        )
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def compress(ds: FileDataset, syntax: str) -> FileDataset:
    ds.compress(syntax, generate_instance_uid=False)
    return ds


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_V51_lossless_compression_is_bit_equal(tmp_path: Path, syntax) -> None:
    """Read, equal voxel by voxel."""
    hu = scan((3, 32, 32))
    for k, one in enumerate(hu):
        save(compress(slice_dataset(one, (0, 0, -5.0 * k)), syntax), tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def test_V52_lossy_compression_is_noted(tmp_path: Path, hu) -> None:
    """Read, with a note on the loss."""
    volume = read_volume(write_series(tmp_path, hu, SPACING, LossyImageCompression="01"))
    assert "pixels were compressed with loss" in volume.notes


@pytest.mark.parametrize("syntax", [MPEG2MPML, "1.2.826.0.1.3680043.8.498.77"])
def test_V53_a_syntax_that_is_not_decoded_is_named(tmp_path: Path, syntax: str) -> None:
    """E-CODEC with the UID of the transfer syntax."""
    path = save(
        compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), RLELossless), tmp_path / "a.dcm"
    )
    content = path.read_bytes()
    old, new = str(RLELossless).encode(), str(syntax).encode()
    old, new = old + b"\0" * (len(old) % 2), new + b"\0" * (len(new) % 2)
    content = content.replace(
        struct.pack("<H", len(old)) + old, struct.pack("<H", len(new)) + new, 1
    )
    grown = struct.unpack_from("<I", content, 140)[0] + len(new) - len(old)
    path.write_bytes(content[:140] + struct.pack("<I", grown) + content[144:])
    refused(path, "E-CODEC", str(syntax))


def test_V53_damaged_htj2k_is_a_codec_fault(tmp_path: Path) -> None:
    """E-CODEC with the name of the compression where an HTJ2K codestream is none; that a sound one
    is read is not shown, for lack of a program that writes one."""
    ds = compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), RLELossless)
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless
    refused(save(ds, tmp_path / "a.dcm"), "E-CODEC", "High-Throughput")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@settings(max_examples=40, deadline=None)
@given(keep=st.integers(0, 999))
def test_V08_V60_any_cut_of_a_compressed_slice_is_refused(tmp_path_factory, syntax, keep) -> None:
    """A compressed slice cut at any byte is refused."""
    path = tmp_path_factory.mktemp("cut") / "a.dcm"
    save(compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), syntax), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep * len(whole) // 1000])
    with pytest.raises(VolumeRefused):
        read_volume(path)


def test_V60_a_truncated_codestream_is_a_codec_fault(tmp_path: Path) -> None:
    """E-CODEC with the name of the compression: half a picture is none."""
    ds = compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), JPEG2000Lossless)
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([stream[: len(stream) // 2]])
    refused(save(ds, tmp_path / "a.dcm"), "E-CODEC", "JPEG 2000")


def test_V55_a_deflated_slice_is_read_under_the_ceiling(tmp_path: Path, hu) -> None:
    """Read, equal voxel by voxel; E-SIZE-LIMIT beyond the ceiling."""
    for k, one in enumerate(hu):
        ds = slice_dataset(one, (0, 0, -5.0 * k))
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        save(ds, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)
    refused(tmp_path / "0.dcm", "E-SIZE-LIMIT", max_bytes=59)


def test_V57_a_deflate_bomb_in_dicom_is_stopped_at_the_ceiling(tmp_path: Path, hu) -> None:
    """E-SIZE-LIMIT, stopped while it inflates."""

    from ubr_pretrain.dicom_header import read_dicom_header

    ds = slice_dataset(hu[0], (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ds, tmp_path / "a.dcm")
    content = path.read_bytes()
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    inside = zlib.decompress(content[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(inside + bytes(8 << 20)) + packer.flush()
    path.write_bytes(content[:start] + bomb)
    with pytest.raises(VolumeRefused, match=r"^E-SIZE-LIMIT .* inflates to more than 1000000"):
        read_dicom_header(path, 1_000_000)


def test_V56_a_compressed_slice_of_absurd_size_is_refused_before_decoding(tmp_path: Path) -> None:
    """E-SIZE-LIMIT: no side of a slice is longer than 4096 pixels."""
    ds = compress(slice_dataset(scan((1, 32, 32))[0], (0, 0, 0)), RLELossless)
    ds.Rows = ds.Columns = 65535
    refused(save(ds, tmp_path / "a.dcm"), "E-SIZE-LIMIT", "65535 x 65535 pixels, limit 4096")


def test_V56_the_whole_series_has_a_ceiling(tmp_path: Path, hu) -> None:
    """E-SIZE-LIMIT with the bytes of the whole series, before a slice is decoded."""
    write_series(tmp_path, hu, SPACING)
    refused(tmp_path, "E-SIZE-LIMIT", "420 bytes of HU, limit 419", max_bytes=419)


@pytest.mark.parametrize("padding_hu", [-2000, -3024])
def test_V44_padding_below_air_becomes_air(tmp_path: Path, hu, padding_hu: int) -> None:
    """Padding becomes -1024 HU, air; all else stays."""
    padded = hu.copy()
    padded[:, 0] = padding_hu
    volume = read_volume(
        write_series(tmp_path, padded, SPACING, PixelPaddingValue=padding_hu + 1024)
    )
    assert (volume.hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 1:], hu[:, 1:])


def test_V44_padding_at_the_top_of_the_scale_becomes_air(tmp_path: Path, hu) -> None:
    """Padding above every HU becomes -1024 HU, air; all else stays."""
    raw = (hu.astype(np.int32) + 1024).astype(np.uint16)
    raw[:, 0] = 63536
    change = {
        k: put(PixelRepresentation=0, PixelData=one.tobytes(), PixelPaddingValue=63536)
        for k, one in enumerate(raw)
    }
    volume = read_volume(write_series(tmp_path, hu, SPACING, change=change))
    assert (volume.hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(volume.hu[:, 1:], hu[:, 1:])


def test_V45_a_modality_lut_is_refused(tmp_path: Path, hu) -> None:
    """E-RESCALE: a look-up table is not applied."""

    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [2, 0, 16], "US", bytes(4)
    write_series(tmp_path, hu, SPACING, change=put(ModalityLUTSequence=Sequence([lut])))
    refused(tmp_path, "E-RESCALE", "Modality LUT")


def test_V46_an_enhanced_ct_uses_its_functional_groups(tmp_path: Path, hu) -> None:
    """Read, with positions and rescale of every frame from its functional groups."""
    path = save(enhanced_dataset(hu, SPACING), tmp_path / "enhanced.dcm")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.spacing_mm_zyx == SPACING


def test_N92_only_its_own_groups_speak_for_a_frame(tmp_path: Path, hu) -> None:
    """A rescale of the table's position, or the place of a referenced image, is not the frame's;
    E-HEADER where more or fewer frames are described than held."""
    ds = enhanced_dataset(hu, SPACING)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        table, image = Dataset(), Dataset()
        table.RescaleSlope, table.RescaleIntercept = 3, 0
        image.ImagePositionPatient, image.PixelSpacing = [0.0, 0.0, 0.0], [9.0, 9.0]
        frame.ReferencedImageSequence, frame.CTPositionSequence = [image], [table]
    volume = read_volume(save(ds, tmp_path / "enhanced.dcm"))
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.spacing_mm_zyx, SPACING)

    described = list(ds.PerFrameFunctionalGroupsSequence)
    for frames in (described[:-1], [*described, described[0]]):
        ds.PerFrameFunctionalGroupsSequence = frames
        words = f"describes {len(frames)} frames and holds {len(hu)}"
        refused(save(ds, tmp_path / "enhanced.dcm"), "E-HEADER", words)


def test_V46_an_enhanced_ct_without_a_rescale_is_not_hu(tmp_path: Path, hu) -> None:
    """E-NOHU: stored numbers are never taken for HU."""
    ds = enhanced_dataset(hu, SPACING, with_rescale=False)
    refused(save(ds, tmp_path / "enhanced.dcm"), "E-NOHU", "no rescale")


def test_V46_a_plain_multi_frame_file_has_no_geometry(tmp_path: Path, hu) -> None:
    """E-GEOM: frames without positions have no order."""
    ds = slice_dataset(hu[0], (0, 0, 0), NumberOfFrames=7, PixelData=bytes(420))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(ds, keyword)
    refused(save(ds, tmp_path / "frames.dcm"), "E-GEOM", "no ImagePositionPatient")


def test_S03_burned_in_text_is_noted(tmp_path: Path, hu) -> None:
    """The volume says so in a note."""
    volume = read_volume(write_series(tmp_path, hu, SPACING, BurnedInAnnotation="YES"))
    assert "text may be burned into the pixels" in volume.notes


def test_S01_nothing_of_the_patient_is_in_an_entry_or_a_volume(tmp_path: Path, hu) -> None:
    """No element that names the patient is in an entry, a volume or its notes."""
    write_series(tmp_path, hu, SPACING, PatientBirthDate="19400101", AccessionNumber="ACC-77")
    (entry,) = find_volumes([tmp_path])
    volume = entry.read()
    told = " ".join([entry.name, entry.subject, volume.source, *volume.notes])
    for secret in ("Doe", "Jane", "MRN-4711", "19400101", "ACC-77", SERIES_UID):
        assert secret not in told
