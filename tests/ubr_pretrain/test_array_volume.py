"""Scans in memory: the geometry of an image and the promise of an array."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.stored_volumes import scan
from ubr_pretrain import score_volume
from ubr_pretrain.array_volume import array_to_volume, sitk_to_volume
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.volumes import read_volume

SPACING = (2.5, 0.8, 0.7)


def an_image() -> sitk.Image:
    image = sitk.GetImageFromArray(scan((7, 6, 5)))
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-12.0, 5.0, 300.0))
    return image


def a_body() -> np.ndarray:
    """Return HU of six slices: a block of noisy muscle in air."""
    hu = np.random.default_rng(0).normal(-1000, 15, (6, 32, 32)).clip(-1024)
    hu[:, 6:26, 4:28] += 1050
    return np.rint(hu).astype(np.int16)


def with_lost_rows(hu: np.ndarray) -> np.ndarray:
    hu[3, 12:15] = 0
    return hu


def test_an_image_in_any_of_48_orientations_is_one_volume() -> None:
    expected = sitk_to_volume(sitk.DICOMOrient(an_image(), "LPI"))
    letters = [
        "".join(order[i] for i in turn)
        for order in itertools.product("LR", "PA", "SI")
        for turn in itertools.permutations(range(3))
    ]
    assert len(set(letters)) == 48
    for target in letters:
        volume = sitk_to_volume(sitk.DICOMOrient(an_image(), target))
        np.testing.assert_array_equal(volume.hu, expected.hu, err_msg=target)
        assert volume.spacing_mm_zyx == pytest.approx(SPACING)
        np.testing.assert_allclose(volume.affine_lps, expected.affine_lps, atol=1e-9)


def test_an_image_equals_its_file(tmp_path: Path) -> None:
    sitk.WriteImage(an_image(), str(tmp_path / "scan.mha"))
    read, direct = read_volume(tmp_path / "scan.mha"), sitk_to_volume(an_image())
    np.testing.assert_array_equal(read.hu, direct.hu)
    assert read.spacing_mm_zyx == pytest.approx(direct.spacing_mm_zyx)
    np.testing.assert_allclose(read.affine_lps, direct.affine_lps, atol=1e-9)


def test_every_voxel_of_an_image_keeps_its_place_in_the_patient() -> None:
    image = sitk.DICOMOrient(an_image(), "RSA")
    volume = sitk_to_volume(image)
    for zyx in itertools.product((0, 6), (0, 5), (0, 4)):
        place = tuple(float(p) for p in (volume.affine_lps @ [*zyx, 1.0])[:3])
        assert volume.hu[zyx] == image[image.TransformPhysicalPointToIndex(place)]


def test_an_array_is_taken_in_the_order_that_it_has() -> None:
    hu = scan((7, 6, 5))
    volume = array_to_volume(hu, SPACING)
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.z_mm.tolist() == (np.arange(7) * 2.5).tolist()
    np.testing.assert_array_equal(array_to_volume(hu.astype(np.float64) + 0.2, SPACING).hu, hu)


@pytest.mark.parametrize(
    ("array", "spacing", "code"),
    [
        (np.zeros((3, 4), np.int16), SPACING, "E-DIM"),
        (np.zeros((0, 3, 4), np.int16), SPACING, "E-DIM"),
        (np.zeros((2, 3, 4), bool), SPACING, "E-FORMAT"),
        (np.full((2, 3, 4), np.inf), SPACING, "E-NAN"),
        (np.full((2, 3, 4), 40000.0), SPACING, "E-NOHU"),
        (np.zeros((2, 3, 4)), (0.0, 1.0, 1.0), "E-SPACING"),
    ],
)
def test_arrays_that_are_no_scan(array, spacing, code) -> None:
    with pytest.raises(VolumeRefused, match=code):
        array_to_volume(array, spacing)


@pytest.mark.parametrize(
    "image",
    [sitk.Image([4, 4], sitk.sitkInt16), sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3)],
    ids=["2-D", "RGB"],
)
def test_images_that_are_no_scan(image: sitk.Image) -> None:
    with pytest.raises(VolumeRefused, match="E-DIM"):
        sitk_to_volume(image)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda hu: hu, ""),
        (lambda hu: hu + 1024, "not HU? the lowest value is 0"),
        (lambda hu: ((hu + 175) / 450).clip(0, 1), "not HU? values lie in 0..1"),
        (with_lost_rows, "damaged? 3 rows of one value"),
    ],
    ids=["HU", "+ 1024", "0..1", "lost rows"],
)
def test_N88_a_scan_in_memory_has_the_notes_of_its_file(tmp_path: Path, change, word) -> None:
    """An array, a SimpleITK image and a Volume have the same "not HU?" and "damaged?" notes as the
    file that holds them."""
    hu = change(a_body())
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(SPACING[::-1])
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    checkpoint = write_toy_checkpoint(tmp_path / "toy.safetensors")
    by_hand = Volume(array_to_volume(hu, SPACING).hu, SPACING)
    ways = {
        "file": score_volume(tmp_path / "scan.mha", checkpoint=checkpoint),
        "array": score_volume(hu, spacing_mm_zyx=SPACING, checkpoint=checkpoint),
        "image": score_volume(image, checkpoint=checkpoint),
        "Volume": score_volume(by_hand, checkpoint=checkpoint),
        "read": score_volume(read_volume(tmp_path / "scan.mha"), checkpoint=checkpoint),
    }
    notes = {way: [n for n in scored.notes if "?" in n] for way, scored in ways.items()}
    assert all(found == notes["file"] for found in notes.values()), notes
    assert len(notes["file"]) == bool(word)
    assert all(note.startswith(word) for note in notes["file"])
