"""A fraction of the labels is one of patients, nested, and the same for every arm."""

import itertools

from lesion_det.splits import labelled_images
from tests.lesion_det.toy_split import toy_ground_truth

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
