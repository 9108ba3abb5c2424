"""A fraction of the labels is one of patients, the same for every arm; data have a fingerprint."""

import itertools
import json
import re
from pathlib import Path

import pytest

from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import GroundTruthRefused
from lesion_det.splits import data_sha256, labelled_images, read_splits
from tests.lesion_det.toy_slices import KEY, ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_split import toy_ground_truth
from tests.lesion_det.toy_training import tiny

IMAGES = toy_ground_truth([[(0, 0, 9, 9)]] * 40, patients=[i // 2 for i in range(40)]).images


def patients(fraction: float, seed: int = 0) -> set[int]:
    return {image.patient_index for image in labelled_images(IMAGES, fraction, seed)}


def test_fractions_are_nested_and_of_whole_patients() -> None:
    fractions = (0.01, 0.05, 0.1, 0.25, 1.0)
    drawn = [patients(fraction) for fraction in fractions]
    assert [len(d) for d in drawn] == [1, 1, 2, 5, 20]
    assert all(small <= large for small, large in itertools.pairwise(drawn))
    assert len(labelled_images(IMAGES, 0.25, 0)) == 10  # both images of each


def test_all_labels_leave_the_order_as_it_is() -> None:
    assert labelled_images(IMAGES, 1.0, 3) == IMAGES


def test_seeds_draw_other_patients() -> None:
    assert len({frozenset(patients(0.25, seed)) for seed in range(8)}) > 4


def images_sha256(toy: ToyDeepLesion, **changes: object) -> str:
    config = tiny(toy, **changes)
    return data_sha256(config, read_splits(config))["images"]


def test_neighbours_of_key_slices_are_among_the_data_where_inputs_are_made_of_them(
    tmp_path: Path,
) -> None:
    toy = write_toy_deeplesion(tmp_path, {"train": 40, "val": 2})  # not all are read
    three, single = images_sha256(toy), images_sha256(toy, input=InputConfig(slices="single"))
    folders = sorted(toy.images.iterdir())
    for folder in folders:
        neighbour = folder / f"{KEY + 1:03d}.png"
        before = neighbour.read_bytes()
        neighbour.write_bytes(before + b" ")
        assert images_sha256(toy) != three
        neighbour.write_bytes(before)
    assert images_sha256(toy) == three
    (folders[7] / f"{KEY - 1:03d}.png").unlink()
    assert images_sha256(toy) != three
    assert images_sha256(toy, input=InputConfig(slices="single")) == single


def test_bytes_of_a_sample_of_neighbours_are_read(tmp_path: Path) -> None:
    toy = write_toy_deeplesion(tmp_path, {"train": 4, "val": 2})
    before = images_sha256(toy)
    neighbour = toy.images / "000003_01_01" / f"{KEY - 1:03d}.png"
    data = bytearray(neighbour.read_bytes())
    data[-20] ^= 1
    neighbour.write_bytes(data)
    assert images_sha256(toy) != before


def renamed(coco: Path, name: str, **indices: int) -> None:
    """Give the first image another name and other indices."""
    content = json.loads(coco.read_text("utf-8"))
    content["images"][0] |= {"file_name": name, **indices}
    coco.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("spelt", ["shared.png", "./shared.png"])
def test_N65_an_image_under_another_patient_in_the_validation_file_is_a_leak(
    tmp_path: Path, spelt: str
) -> None:
    """An image that is trained on and evaluated on is refused whatever patient each file says it
    is of; both files and the image are named."""
    toy = write_toy_deeplesion(tmp_path, {"train": 2, "val": 2})
    renamed(toy.coco / "train.json", "shared.png")
    renamed(toy.coco / "val.json", spelt)
    train, val = re.escape(str(toy.coco / "train.json")), re.escape(str(toy.coco / "val.json"))
    words = rf"^{re.escape(spelt)} is both trained on \({train}, .*\) and evaluated on \({val}, "
    with pytest.raises(GroundTruthRefused, match=words):
        read_splits(tiny(toy))
    key = toy.images / "000001_01_01" / f"{KEY:03d}.png"
    (toy.images / "shared.png").write_bytes(key.read_bytes())
    assert read_splits(tiny(toy, allow_leakage=True)).num_judged == 2


def test_N66_an_image_of_two_training_files_is_refused(tmp_path: Path) -> None:
    """An image that two files of the training list would be learned from twice: refused, both
    files named."""
    toy = write_toy_deeplesion(tmp_path, {"train": 2, "val": 2})
    again = tmp_path / "again.json"
    again.write_bytes((toy.coco / "train.json").read_bytes())
    files = (toy.coco / "train.json", again)
    with pytest.raises(GroundTruthRefused, match=r"again\.json: .* once: also in .*train\.json"):
        read_splits(tiny(toy, train=files, val=(toy.coco / "val.json",)))
