"""A wrong length makes an element of its neighbours; nothing of them is ever shown."""

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.dicom_writer import save, slice_dataset
from tests.ubr_pretrain.stored_volumes import scan
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.volumes import read_volume

SECRETS = re.compile(r"doe|jane|mrn|4711|19400101", re.IGNORECASE)
ELEMENTS = {
    "Modality": b"\x08\x00\x60\x00CS",
    "SOPClassUID": b"\x08\x00\x16\x00UI",
    "PatientPosition": b"\x18\x00\x00\x51CS",
    "SeriesInstanceUID": b"\x20\x00\x0e\x00UI",
    "PhotometricInterpretation": b"\x28\x00\x04\x00CS",
    "RescaleSlope": b"\x28\x00\x53\x10DS",
    "RescaleType": b"\x28\x00\x54\x10LO",
    "ImageType": b"\x08\x00\x08\x00CS",
}


def slice_file(folder: Path) -> Path:
    ds = slice_dataset(
        scan((1, 6, 5))[0], (0, 0, 0), PatientBirthDate="19400101", PatientPosition="HFS",
        PatientComments="Doe Jane MRN-4711", ImageComments="Jane Doe 4711",
    )  # fmt: skip
    return save(ds, folder / "a.dcm")


def told(path: Path) -> str:
    """What is said of a file that is refused, or of one that is read."""
    try:
        volume = read_volume(path)
    except VolumeRefused as refusal:
        return str(refusal).replace(str(path), "")
    return " ".join(volume.notes)


@pytest.mark.parametrize("keyword", ELEMENTS)
@pytest.mark.parametrize("kind", ["short", "UN"])
def test_N01_an_element_that_swallows_its_neighbours_is_not_quoted(tmp_path, keyword, kind) -> None:
    """E-HEADER without a byte of the content: it may hold the patient's name."""
    path = slice_file(tmp_path)
    content = path.read_bytes()
    at = content.index(ELEMENTS[keyword])
    wrong = struct.pack("<H", 700) if kind == "short" else b"\0\0" + struct.pack("<I", 700)
    head = content[at : at + 6] if kind == "short" else content[at : at + 4] + b"UN"
    path.write_bytes(content[:at] + head + wrong + content[at + 8 :])
    assert SECRETS.search(content.decode("latin-1"))
    words = told(path)
    assert words.startswith("E-")
    assert not SECRETS.search(words)
    assert words.isprintable()
    assert len(words) < 200


@given(where=st.integers(132, 900), value=st.integers(0, 255))
def test_N01_no_changed_byte_of_a_header_brings_the_patient_into_a_refusal(
    tmp_path_factory, where: int, value: int
) -> None:
    """Whatever byte of a header is changed, no refusal and no note holds a name, number or date."""
    path = slice_file(tmp_path_factory.mktemp("slice"))
    content = bytearray(path.read_bytes())
    content[where % (len(content) - 60)] = value
    path.write_bytes(content)
    assert not SECRETS.search(told(path))
