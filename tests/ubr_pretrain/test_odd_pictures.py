"""Pictures that archives hold beside sound ones: damaged, in other forms, or of no HU."""

import json
import random
import struct
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import save, slice_dataset
from tests.ubr_pretrain.test_images import refused, written
from tests.ubr_pretrain.test_volumes_png import chunk, png, table
from ubr_pretrain import images, score_image
from ubr_pretrain.ct import VolumeRefused, Window
from ubr_pretrain.images import array_to_image, read_image
from ubr_pretrain.score_volumes import main


def a_slice() -> np.ndarray:
    """Return HU of a body in air, with fat around it and a spine in it."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    hu = np.full(x.shape, -1000.0)
    hu[x**2 / 0.64 + y**2 / 0.36 < 1] = -100
    hu[x**2 / 0.5 + y**2 / 0.25 < 1] = 50
    hu[x**2 + (y - 0.3) ** 2 < 0.02] = 1100
    noise = np.random.default_rng(0).normal(0, 15, x.shape)
    return np.rint(hu + noise).clip(-1024).astype(np.int16)


HU = a_slice()


def unit(hu: np.ndarray, lower: float = -175.0, upper: float = 275.0) -> np.ndarray:
    return ((hu - lower) / (upper - lower)).clip(0, 1)


GREY = np.rint(255 * unit(HU)).astype(np.uint8)
GREY16 = np.rint(65535 * unit(HU)).astype(np.uint16)
STORED = (HU.astype(np.int32) + 32768).astype(np.uint16)


def encoded(form: str = "PNG", **how: object) -> bytes:
    content = BytesIO()
    Image.fromarray(GREY).save(content, form, **how)
    return content.getvalue()


def exif(tag: int) -> bytes:
    """Return EXIF that asks for a quarter turn, with text where ``tag`` has a number."""
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 2, 0x112, 3, 1, 6, 0)
    return head + struct.pack("<HHI4sI", tag, 2, 4, b"abc\0", 0)


def flipped(content: bytes, at: int, bit: int = 0) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def resealed(content: bytes) -> bytes:
    """Make the checksums of a PNG fit what its chunks hold."""
    out, at = content[:8], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if at + 12 + length > len(content):
            break
        out += chunk(content[at + 4 : at + 8], content[at + 8 : at + 8 + length])
        at += 12 + length
    return out + content[at:]


def odd_pictures() -> dict[str, bytes]:
    sound = encoded()
    pixel_size = sound[:33] + chunk(b"pHYs", b"\0\0\0\1") + sound[33:]
    return {
        "header_length.png": flipped(sound, 11),
        "pixels.png": flipped(sound, len(sound) - 13),  # their checksum; Pillow would show them
        "short_pHYs.png": pixel_size,
        "number_tag.jpg": encoded("JPEG", exif=exif(0x100)),
        "ratio_tag.jpg": encoded("JPEG", exif=exif(0x11A)),
    }


def test_N86_a_damaged_or_odd_picture_is_a_row_and_the_others_are_scored(tmp_path, capsys):
    """A picture that cannot be decoded has a row with E-CRC and its path in the log; the other
    pictures are scored, and the exit code is 1."""
    odd = odd_pictures()
    (tmp_path / "data").mkdir()
    for name, content in ({"a.png": encoded(), "z.jpg": encoded("JPEG")} | odd).items():
        (tmp_path / "data" / name).write_bytes(content)
    checkpoint, out = write_toy_checkpoint(tmp_path / "toy.safetensors"), tmp_path / "scores"
    argv = [str(tmp_path / "data"), "--checkpoint", str(checkpoint), "--out", str(out)]
    assert main(argv) == 1
    images = json.loads((out / "scores.json").read_text())["images"]
    assert {i["image"] for i in images if "code" not in i} == {"a", "z"}
    codes = {i["image"]: i["code"] for i in images if "code" in i}
    assert codes == {Path(name).stem: "E-CRC" for name in odd}
    said = capsys.readouterr().err
    assert all(str(tmp_path / "data" / name) in said for name in odd)
    assert (out / "images.csv").is_file()


def test_N86_whatever_is_wrong_with_a_picture_is_a_refusal(tmp_path):
    """A picture with bytes changed, lost and put in, its checksums made to fit, is read or refused,
    and nothing else is raised."""
    rng = random.Random(0)
    turned = Image.Exif()
    turned[0x112], turned[0x10E] = 6, "abc"
    seeds = [
        encoded(),
        encoded(dpi=(300, 300), exif=turned),
        encoded("JPEG", exif=turned),
        cv2.imencode(".png", STORED)[1].tobytes(),
    ]
    outcomes = set()
    for _ in range(400):
        content = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 2, 4))):
            at = rng.randrange(4, min(len(content), rng.choice((60, 300, 9999))))
            if rng.random() < 0.7:
                content[at] ^= 1 << rng.randrange(8)
            elif rng.random() < 0.5:
                del content[at : at + rng.randrange(1, 9)]
            else:
                content[at:at] = rng.randbytes(rng.randrange(1, 9))
        changed = bytes(content)
        is_png = changed.startswith(b"\x89PNG")
        (tmp_path / "one").write_bytes(resealed(changed) if is_png else changed)
        try:
            outcomes.add(read_image(tmp_path / "one").hu.dtype.name)
        except VolumeRefused as refusal:
            outcomes.add(refusal.code)
    assert outcomes >= {"int16", "E-CRC", "E-TRUNC", "E-FORMAT"}


def test_a_table_or_a_disk_that_cannot_be_read_is_a_refusal(tmp_path, monkeypatch):
    """Of pictures as of volumes, so that the others go on."""
    path = png(tmp_path / "a.png", GREY)
    for error, code in ((PermissionError("no"), "E-MISSING"), (MemoryError(), "E-MEMORY")):
        monkeypatch.setattr(images, "table_spacing_mm", Mock(side_effect=error))
        refused(path, code)


def doubts(image) -> str:
    return "; ".join(note for note in image.notes if "?" in note)


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        (STORED, ""),
        (GREY, ""),
        (GREY16, "stored values lie in 0..65535: a window?"),
        ((STORED.astype(np.int32) - 31744).astype(np.uint16) * 16, "no soft tissue"),
        (255 - GREY, "shifted or inverted"),
        (np.rint(255 * unit(HU, -1350, 150)).astype(np.uint8), "there is no air"),
    ],
    ids=["HU + 32768", "window", "16-bit window", "12 bits times 16", "inverted", "lung window"],
)
def test_N87_a_picture_of_no_hu_or_of_another_window_has_a_note(tmp_path, picture, word):
    """A note in images.csv where a 16-bit picture is a window, or an 8-bit one has no air or ends
    in white; none on a sound slice."""
    found = doubts(read_image(png(tmp_path / "a.png", picture)))
    assert word in found
    assert bool(found) is bool(word)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (HU, ""),
        (HU.astype(np.float64), ""),
        (GREY, ""),
        (HU + 1024, "there is no air"),
        (unit(HU), "already windowed?"),
        (HU.astype(np.int8), "there is no air"),
        (GREY.astype(np.int64), "an 8-bit picture?"),
    ],
    ids=["HU", "real", "grey", "+ 1024", "0..1", "int8", "int64 grey"],
)
def test_N87_an_array_of_no_hu_has_a_note(array, word):
    """An array through score_image is judged as a volume is, and its doubt is a note."""
    found = doubts(array_to_image(array, pixel_mm=6.0))
    assert word in found
    assert bool(found) is bool(word)


def test_N87_one_dicom_slice_has_the_notes_of_its_hu(tmp_path):
    """A DICOM slice, a 16-bit PNG and an array of the same shifted HU have one and the same
    doubt."""
    shifted = HU + 1024
    dataset = slice_dataset(shifted, (0.0, 0.0, 0.0), (6.0, 6.0))
    of_dicom = read_image(save(dataset, tmp_path / "one"))
    of_png = read_image(png(tmp_path / "a.png", STORED + 1024))
    assert "there is no air" in doubts(of_dicom)
    assert doubts(of_dicom) == doubts(of_png) == doubts(array_to_image(shifted))


@pytest.mark.parametrize("value", [0, 100])
def test_N87_a_picture_of_one_value_is_refused(tmp_path, value):
    """E-NOHU for one pixel, for all black, for one grey, for a picture that lives in its alpha
    alone, and for one number of HU."""
    whole = np.full((40, 40), value, np.uint8)
    refused(png(tmp_path / "a.png", whole), "E-NOHU")
    refused(png(tmp_path / "one.png", whole[:1, :1]), "E-NOHU")
    hidden = np.dstack([np.zeros((*GREY.shape, 3), np.uint8), GREY])
    refused(written(tmp_path / "alpha.png", Image.fromarray(hidden)), "E-NOHU")
    refused(png(tmp_path / "hu.png", whole.astype(np.uint16) + 32768), "E-NOHU")
    for array in (whole, whole.astype(np.int16)):
        with pytest.raises(VolumeRefused, match=r"E-NOHU .*every pixel is"):
            array_to_image(array)


def test_N87_transparent_pixels_are_air(tmp_path):
    """What shines through is taken for black, with a note; a picture that covers all has none."""
    expected = read_image(png(tmp_path / "a.png", GREY)).hu
    covering = np.dstack([GREY] * 3 + [np.full_like(GREY, 255)])
    opaque = read_image(written(tmp_path / "opaque.png", Image.fromarray(covering)))
    np.testing.assert_array_equal(opaque.hu, expected)
    assert not any("transparent" in note for note in opaque.notes)
    covering[GREY <= 2] = (255, 255, 255, 0)
    clear = read_image(written(tmp_path / "clear.png", Image.fromarray(covering)))
    np.testing.assert_array_equal(clear.hu, expected)
    assert "transparent pixels taken as black" in clear.notes


@pytest.mark.parametrize("channels", [3, 4])
def test_N87_sixteen_bits_in_colour_are_refused(tmp_path, channels):
    """E-FORMAT where three or four channels of 16 bits would be cut to 8."""
    refusal = refused(png(tmp_path / "a.png", np.dstack([STORED] * channels)), "E-FORMAT")
    assert "of 16 bits" in refusal.cause


@pytest.mark.parametrize(
    "window", [("-1024", "40000"), ("-40000", "40000"), ("-1e9", "1e9")], ids="..".join
)
def test_N90_a_window_beyond_all_hu_is_one_line(tmp_path, capsys, window):
    """A window that leaves -32768..32767 ends the command with one line, and score_image with a
    ValueError of one."""
    path = png(tmp_path / "a.png", GREY)
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "--out", str(tmp_path / "scores"), "--window-hu", *window])
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "HU lie in -32768..32767" in complaint
    with pytest.raises(ValueError, match=r"^window [^\n]*HU lie in -32768\.\.32767$"):
        score_image(GREY, window_hu=tuple(float(end) for end in window))


def test_the_widest_window_is_read_without_a_wrap():
    shades = np.tile(np.arange(256, dtype=np.uint8), (9, 1))
    hu = array_to_image(shades, Window(lower_hu=-32768, upper_hu=32767)).hu
    assert (hu[0, 0], hu[0, 255]) == (-32768, 32767)
    assert (np.diff(hu[0, 3:].astype(int)) > 0).all()


def test_N91_a_stated_pixel_size_is_kept_whatever_the_flag_says(tmp_path):
    """The size of a pixel in DL_info.csv or DICOM stands; --pixel-mm counts where none is
    stated."""
    path = png(tmp_path / "000123_02_01_040.png", GREY)
    assert read_image(path, pixel_mm=0.5).pixel_mm_yx == (0.5, 0.5)
    table(tmp_path, '000123_02_01_040.png,123,"0.9, 0.8, 5.0"')
    assert read_image(path, pixel_mm=0.5).pixel_mm_yx == (0.8, 0.9)
    stated = save(slice_dataset(HU, (0.0, 0.0, 0.0), (0.6, 0.7)), tmp_path / "one")
    assert read_image(stated, pixel_mm=0.5).pixel_mm_yx == (0.6, 0.7)
