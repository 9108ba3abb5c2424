"""Rules between rows: repeated and contradicting rows, leakage, official counts."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from converters.cohort import (
    OFFICIAL,
    SplitCounts,
    merge_rows,
    official_differences,
    patients_in_two_splits,
    settle_noisy,
    split_counts,
)
from converters.deeplesion import read_deeplesion
from converters.lesions import Lesion
from tests.converters.conftest import MakeRow, WriteTable
from tests.converters.strategies import lesion_lists


@pytest.fixture
def lesion(make_row: MakeRow, write_table: WriteTable) -> Lesion:
    (one,) = read_deeplesion(write_table([make_row()])).lesions
    return one


def test_L07_a_repeated_row_is_dropped_and_names_the_first(lesion: Lesion):
    """It is dropped, counted, and named with the line that it repeats."""
    again = replace(lesion, line=9, lesion_type=2)
    kept, refused, duplicates = merge_rows([lesion, again])
    assert (kept, refused) == ([lesion], [])
    assert [(f.code, f.line, f.text) for f in duplicates] == [
        ("W-DUPLICATE", 9, "repeats line 2 (same image, same box)")
    ]


def test_L08_lesions_of_one_slice_stay_and_are_put_together(lesion: Lesion):
    """Rows of one slice that are no repetition stay, side by side."""
    elsewhere = replace(lesion, key_slice=replace(lesion.key_slice, key_slice_index=41))
    second = replace(lesion, box_xyxy=(1.0, 2.0, 3.0, 4.0))
    kept, refused, duplicates = merge_rows([elsewhere, lesion, second])
    assert kept == [second, lesion, elsewhere]
    assert refused == duplicates == []


@pytest.mark.parametrize(
    "change",
    [
        {"height_px": 768},
        {"slice_range": (34, 47)},
        {"spacing_mm_zyx": (1.0, 0.75, 0.75)},
        {"split": "train"},
    ],
)
def test_rows_that_contradict_each_other_about_one_image_are_all_refused(lesion: Lesion, change):
    other = replace(lesion, key_slice=replace(lesion.key_slice, **change), line=3)
    sound = replace(lesion, key_slice=replace(lesion.key_slice, key_slice_index=41), line=4)
    kept, refused, _ = merge_rows([lesion, other, sound])
    assert kept == [sound]
    assert [(f.code, f.line) for f in refused] == [("E-CONFLICT", 2), ("E-CONFLICT", 3)]
    assert next(iter(change)) in refused[0].text


@pytest.mark.parametrize(
    "change", [{"window_hu": (-160.0, 240.0)}, {"patient_age": None}, {"patient_gender": ""}]
)
def test_rows_that_disagree_in_what_no_box_depends_on_take_the_first_ones_word(
    lesion: Lesion, change
):
    other = replace(
        lesion, key_slice=replace(lesion.key_slice, **change), box_xyxy=(1.0, 2.0, 3.0, 4.0), line=3
    )
    kept, refused, noticed = merge_rows([lesion, other])
    assert [row.box_xyxy for row in kept] == [other.box_xyxy, lesion.box_xyxy]
    assert [row.key_slice for row in kept] == [lesion.key_slice] * 2
    assert refused == []
    assert [(f.code, f.line) for f in noticed] == [("W-CONFLICT", 2)]
    assert noticed[0].text == f"lines 2, 3 are of one image but disagree in {next(iter(change))}"


def test_L11_patients_in_two_splits_are_named(lesion: Lesion):
    """Every such patient is named with the splits."""

    def of(patient: int, split):
        return replace(
            lesion, key_slice=replace(lesion.key_slice, patient_index=patient, split=split)
        )

    rows = [of(7, "train"), of(7, "train"), of(3, "val"), of(3, "test"), of(1, "test")]
    assert patients_in_two_splits(rows) == {3: ["test", "val"]}


@settings(max_examples=25, deadline=None)
@given(lesions=lesion_lists())
def test_L11_a_table_split_by_patient_never_leaks_and_one_moved_row_always_does(lesions):
    """A table split by patients has none; one row moved to another split always is one."""
    assert patients_in_two_splits(lesions) == {}
    first = lesions[0].key_slice
    moved_to = next(split for split in OFFICIAL if split != first.split)
    moved = replace(lesions[0], key_slice=replace(first, split=moved_to))
    assert list(patients_in_two_splits([*lesions, moved])) == [first.patient_index]


@settings(max_examples=25, deadline=None)
@given(lesions=lesion_lists())
def test_the_order_of_the_table_does_not_matter(lesions):
    assert merge_rows(lesions)[0] == merge_rows(lesions[::-1])[0]


def test_L16_possibly_noisy_lesions_are_kept_or_dropped_and_listed(lesion: Lesion):
    """Kept by default, dropped with --noisy drop; listed either way."""
    noisy = replace(lesion, possibly_noisy=True, line=3)
    assert settle_noisy([lesion, noisy], "keep") == ([lesion, noisy], [])
    kept, dropped = settle_noisy([lesion, noisy], "drop")
    assert kept == [lesion]
    assert [(f.code, f.line) for f in dropped] == [("W-NOISY", 3)]


def test_L18_the_official_counts_are_the_papers():
    """The counts compared with are those of the DeepLesion paper."""
    assert sum(split.rows for split in OFFICIAL.values()) == 32_735
    assert sum(split.images for split in OFFICIAL.values()) == 32_120


def test_L18_a_part_of_the_table_is_not_compared():
    """A part of the table is not compared with the totals."""
    assert official_differences({**OFFICIAL, "train": SplitCounts(936, 919)}) is None


def test_L18_the_full_table_has_no_differences():
    """The full table has no differences."""
    assert official_differences(OFFICIAL) == []


@pytest.mark.parametrize(
    "counts",
    [
        {"train": SplitCounts(22_919, 22_495)},
        {"train": SplitCounts(22_920, 22_496), "val": SplitCounts(4_888, 4_793)},
        {"train": SplitCounts(0, 0), "val": SplitCounts(4_890, 4_793)},
    ],
)
def test_L18_a_full_table_with_other_counts_says_where(counts):
    """A full table with other counts says in which split, and both counts."""
    differences = official_differences({**OFFICIAL, **counts})
    assert differences is not None
    assert [line.split()[0] for line in differences] == list(counts)


def test_L18_unreadable_rows_count_as_rows(make_row: MakeRow, write_table: WriteTable):
    """Rows that cannot be read count as rows of the table."""
    rows = [make_row(), make_row(Bounding_boxes="x"), make_row(Train_Val_Test="")]
    counts = split_counts(read_deeplesion(write_table(rows)))
    assert counts["val"] == SplitCounts(rows=2, images=1)
    assert counts["train"] == counts["test"] == SplitCounts(rows=0, images=0)
