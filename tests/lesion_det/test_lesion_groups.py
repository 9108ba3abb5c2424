"""Every lesion is in exactly one group of each kind, and its boundaries are where they are said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_det.ground_truth import GroundTruth
from lesion_det.lesion_groups import groups_by_interval, groups_by_size, groups_by_type
from lesion_det.metrics import measure
from tests.lesion_det.toy_split import TOY_SHA256, toy_predictions, toy_record

LESION = (10.0, 20.0, 40.0, 60.0)
KINDS = (groups_by_type, groups_by_size, groups_by_interval)


def truth_of(
    *lesions: tuple[float, float, int],
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    patients: list[int] | None = None,
) -> GroundTruth:
    """One image a lesion: long diameter in px, slice interval in mm, type."""
    images = tuple(
        replace(
            toy_record(i, [LESION], (patients or range(1, len(lesions) + 1))[i - 1]),
            spacing_mm_zyx=(interval_mm, *pixel_mm),
            diameters_px=np.array([[long_px, 1.0]]),
            lesion_types=np.array([lesion_type]),
        )
        for i, (long_px, interval_mm, lesion_type) in enumerate(lesions, start=1)
    )
    return GroundTruth(TOY_SHA256, images, "toy.json")


def only_group(groups) -> str:
    ((name, members),) = groups.items()
    assert members.all()
    return name


@pytest.mark.parametrize(
    ("long_mm", "group"),
    [
        (0.0, "< 10 mm"),
        (9.999, "< 10 mm"),
        (10.0, "10-30 mm"),
        (30.0, "10-30 mm"),
        (30.001, "> 30 mm"),
        (342.5, "> 30 mm"),
    ],
)
def test_ten_and_thirty_mm_belong_to_the_middle(long_mm: float, group: str) -> None:
    assert only_group(groups_by_size(truth_of((long_mm, 5.0, 1)))) == group


@pytest.mark.parametrize(
    ("interval_mm", "group"),
    [
        (0.25, "<= 1 mm"),
        (1.0, "<= 1 mm"),
        (1.25, "1-2.5 mm"),
        (2.5, "1-2.5 mm"),
        (3.0, "> 2.5 mm"),
        (5.0, "> 2.5 mm"),
    ],
)
def test_one_and_two_and_a_half_mm_belong_below(interval_mm: float, group: str) -> None:
    assert only_group(groups_by_interval(truth_of((9.0, interval_mm, 1)))) == group


def test_size_is_in_mm_and_averages_rows_and_columns() -> None:
    (image,) = truth_of((20.0, 5.0, 1), pixel_mm=(0.5, 0.7)).images
    assert image.long_diameters_mm.tolist() == [12.0]


def test_ten_mm_written_with_the_decimals_of_the_table_are_ten() -> None:
    assert 14.2857 * 0.7 < 10
    assert only_group(groups_by_size(truth_of((14.2857, 5.0, 1), pixel_mm=(0.7, 0.7)))) == (
        "10-30 mm"
    )


def test_types_go_by_name_and_a_number_without_one_by_its_number() -> None:
    groups = groups_by_type(truth_of((9.0, 5.0, 5), (9.0, 5.0, -1), (9.0, 5.0, 12)))
    assert {name: np.flatnonzero(members).tolist() for name, members in groups.items()} == {
        "unknown": [1],
        "lung": [0],
        "type 12": [2],
    }


lesions = st.tuples(
    st.sampled_from([1.0, 9.5, 10.0, 10.5, 30.0, 31.0]),
    st.sampled_from([0.5, 1.0, 2.0, 2.5, 5.0]),
    st.sampled_from([-1, 1, 5, 8]),
)


@given(st.lists(lesions, min_size=1, max_size=8))
def test_every_lesion_is_in_one_group_of_each_kind(described) -> None:
    for kind in KINDS:
        members = np.stack(list(kind(truth_of(*described)).values()))
        assert members.any(axis=1).all()  # a group without lesions is left out
        np.testing.assert_array_equal(members.sum(axis=0), 1)


@settings(max_examples=5)
@given(st.lists(st.tuples(lesions, st.booleans(), st.integers(1, 3)), min_size=1, max_size=8))
def test_rows_of_a_kind_sum_to_all_lesions(described) -> None:
    of_lesions, found, patients = map(list, zip(*described, strict=True))
    truth = truth_of(*of_lesions, patients=patients)
    answers = toy_predictions([[(0.9, LESION)] if hit else [] for hit in found])
    metrics = measure(truth, answers, np.random.default_rng(0))
    for rows in (metrics.by_type, metrics.by_size, metrics.by_interval):
        assert sum(row.num_lesions for row in rows) == len(described)
        assert sum(row.recall * row.num_lesions for row in rows) == pytest.approx(sum(found))
        assert max(row.num_patients for row in rows) <= metrics.num_patients


def test_interval_of_a_group_is_over_the_patients_of_that_group() -> None:
    small, large = (5.0, 5.0, 1), (50.0, 5.0, 1)
    truth = truth_of(small, small, small, large, patients=[1, 1, 2, 3])
    answers = toy_predictions([[(0.9, LESION)], [(0.9, LESION)], [], [(0.9, LESION)]])
    below, above = measure(truth, answers, np.random.default_rng(0)).by_size
    assert (below.name, below.num_lesions, below.num_patients) == ("< 10 mm", 3, 2)
    assert below.recall == below.interval.value == pytest.approx(2 / 3)
    assert below.interval.low < 2 / 3 < below.interval.high
    assert (above.num_lesions, above.num_patients, above.recall) == (1, 1, 1.0)
    assert (above.interval.low, above.interval.high) == (None, None)
    assert "one patient" in above.interval.note


def test_no_lesions_no_groups() -> None:
    truth = GroundTruth(TOY_SHA256, (toy_record(1, []),), "toy.json")
    assert [dict(kind(truth)) for kind in KINDS] == [{}, {}, {}]
