"""Single slices as pictures: what their grey values and pixels mean, and what is refused."""

import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.ubr_pretrain.dicom_writer import save, slice_dataset
from tests.ubr_pretrain.stored_volumes import scan
from tests.ubr_pretrain.test_volumes_png import MAGIC, chunk, folder_of, header_chunk, table
from ubr_pretrain.ct import VolumeRefused, Window
from ubr_pretrain.images import ASSUMED_WIDTH_MM, array_to_image, read_image

SHADES = np.tile(np.arange(256, dtype=np.uint8), (40, 1))


def written(path: Path, picture: Image.Image, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **how)
    return path


def refused(path: Path, code: str) -> VolumeRefused:
    with pytest.raises(VolumeRefused) as caught:
        read_image(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_grey_values_are_the_window_spread_over_8_bits(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "a.png", Image.fromarray(SHADES)))
    assert image.hu[0, 255] == 275
    step_hu = 450 / 255
    assert np.abs(image.hu[0, 3:] - (-175 + step_hu * np.arange(3, 256))).max() <= 0.5
    assert (image.hu[0, :3] == -1000).all()  # black: what the window cut off was air
    other = read_image(tmp_path / "a.png", Window(lower_hu=-1000, upper_hu=1000))
    assert (other.hu[0, 0], other.hu[0, 255]) == (-1000, 1000)
    low = read_image(tmp_path / "a.png", Window(lower_hu=-1024, upper_hu=0))
    assert (low.hu[0, 0], low.hu[0, 255]) == (-1024, 0)


def test_one_picture_in_every_grey_form_is_one_slice(tmp_path: Path) -> None:
    grey = Image.fromarray(SHADES)
    expected = read_image(written(tmp_path / "l.png", grey)).hu
    for mode in ("RGB", "RGBA", "LA", "P"):
        same = read_image(written(tmp_path / f"{mode}.png", grey.convert(mode)))
        np.testing.assert_array_equal(same.hu, expected, err_msg=mode)
    for mode in ("L", "RGB"):
        near = read_image(written(tmp_path / f"{mode}.jpg", grey.convert(mode), quality=90))
        assert np.abs(near.hu - expected)[:, 10:].max() < 25, mode


def test_a_coloured_picture_is_refused_and_a_coloured_mark_is_not(tmp_path: Path) -> None:
    colours = np.stack([SHADES] * 3, axis=2)
    colours[0, :10, 0] = 200  # a caption of ten pixels
    assert read_image(written(tmp_path / "mark.png", Image.fromarray(colours))).hu.shape == (
        40,
        256,
    )
    colours[:, :, 1] //= 2
    refusal = refused(written(tmp_path / "rgb.png", Image.fromarray(colours)), "E-RGB")
    assert "coloured" in refusal.cause


def test_the_size_of_a_pixel_is_given_listed_or_assumed(tmp_path: Path) -> None:
    path = written(tmp_path / "Key_slices" / "000123_02_01_040.png", Image.fromarray(SHADES))
    assumed = read_image(path)
    assert assumed.pixel_mm_yx[1] == pytest.approx(ASSUMED_WIDTH_MM / 256)
    assert any("pixel size unknown" in note for note in assumed.notes)
    assert read_image(path, pixel_mm=0.7).pixel_mm_yx == (0.7, 0.7)
    table(tmp_path, '000123_02_01_040.png,123,"0.9, 0.8, 5.0"')
    listed = read_image(path)
    assert listed.pixel_mm_yx == (0.8, 0.9)
    assert not any("unknown" in note for note in listed.notes)
    beside = written(tmp_path / "000123_02_01_041.png", Image.fromarray(SHADES))
    assert read_image(beside).pixel_mm_yx == (0.8, 0.9)
    with pytest.raises(VolumeRefused, match="E-SPACING"):
        read_image(beside, pixel_mm=-1.0)


def test_a_16_bit_slice_of_deeplesion_is_hu(tmp_path: Path) -> None:
    hu = scan((3, 6, 5))
    folder = folder_of(tmp_path, hu)
    table(tmp_path, '000123_02_01_040.png,123,"0.9, 0.8, 5.0"')
    image = read_image(folder / "041.png")
    np.testing.assert_array_equal(image.hu, hu[1])
    assert image.pixel_mm_yx == (0.8, 0.9)


def test_16_bits_that_are_not_hu_plus_32768_are_refused(tmp_path: Path) -> None:
    stored = (scan((1, 6, 5))[0] + 1024).astype(np.uint16)
    path = tmp_path / "slice.png"
    path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())
    refused(path, "E-NOHU")


def test_one_dicom_slice_has_its_own_hu_and_pixels(tmp_path: Path) -> None:
    hu = scan((1, 6, 5))[0]
    dataset = slice_dataset(hu, (0.0, 0.0, 0.0), (0.6, 0.7), SliceThickness=None)
    image = read_image(save(dataset, tmp_path / "one"))
    np.testing.assert_array_equal(image.hu, hu)
    assert image.pixel_mm_yx == (0.6, 0.7)


@settings(max_examples=40)
@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["PNG", "JPEG"]))
def test_a_picture_that_was_cut_is_refused_or_whole(tmp_path_factory, share, form) -> None:
    content = BytesIO()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 50)).astype(np.uint8))
    picture.save(content, form)
    path = tmp_path_factory.mktemp("cut") / "slice"
    path.write_bytes(content.getvalue())
    whole = read_image(path).hu
    path.write_bytes(content.getvalue()[: int(share * len(content.getvalue()))])
    try:
        assert np.array_equal(read_image(path).hu, whole)  # only an end mark is missing
    except VolumeRefused as refusal:
        assert refusal.code in ("E-EMPTY", "E-FORMAT", "E-CRC", "E-TRUNC")  # noqa: PT017
        assert "Error(" not in str(refusal)  # noqa: PT017


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (Image.new("1", (40, 40)), "E-FORMAT"),
        (Image.new("L", (5000, 3)), "E-SIZE-LIMIT"),
    ],
)
def test_pictures_that_are_no_slice(tmp_path: Path, picture: Image.Image, code: str) -> None:
    refused(written(tmp_path / "a.png", picture), code)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_V57_a_picture_that_claims_a_huge_size_is_refused_unread(tmp_path: Path, side: int) -> None:
    """E-SIZE-LIMIT from the header of the picture, before a pixel is decoded."""
    head = header_chunk(side, side, depth=8)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "a.png").write_bytes(MAGIC + head + pixels + chunk(b"IEND", b""))
    refused(tmp_path / "a.png", "E-SIZE-LIMIT")


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<!DOCTYPE html><p>not found")
    assert "web page" in refused(tmp_path / "a.png", "E-FORMAT").cause


def test_an_array_of_bytes_is_grey_and_any_other_is_hu() -> None:
    grey = array_to_image(SHADES)
    assert (grey.hu.min(), grey.hu.max()) == (-1000, 275)
    hu = array_to_image(SHADES.astype(np.float32) * 4 - 1000, pixel_mm=0.5)
    assert (hu.hu.min(), hu.hu.max()) == (-1000, 20)
    assert hu.pixel_mm_yx == (0.5, 0.5)
    for wrong, code in (
        (np.zeros((2, 3, 4), np.int16), "E-DIM"),
        (np.full((3, 4), np.nan), "E-NAN"),
        (np.zeros((3, 4), complex), "E-FORMAT"),
    ):
        with pytest.raises(VolumeRefused, match=code):
            array_to_image(wrong)
