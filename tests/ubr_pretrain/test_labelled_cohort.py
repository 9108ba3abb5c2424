"""Sets are drawn by subject, and no subject is in two of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.evidence_config import SetSizes
from ubr_pretrain.labelled_cohort import (
    Cohort,
    EvidenceSets,
    draw_sets,
    read_cohort,
    slice_table,
    write_sets,
)
from ubr_pretrain.phantom_volumes import write_cohort
from ubr_pretrain.slice_store import StoredVolume

CLASSES = ["head_neck", "chest", "chest", "abdomen", "abdomen", "pelvis", "legs"]


def stored(name, subject, num=7):
    return StoredVolume(name, subject, Path(), Path(), tuple(5.0 * i for i in range(num)), 5.0, "")


def labels(*classes):
    zone = [("chest", "abdomen", "pelvis").index(c) if c in CLASSES[1:6] else -1 for c in classes]
    return pd.DataFrame(
        {"index_sup_to_inf": np.arange(len(classes)), "class": classes, "zone": zone}
    )


def cohort(num_subjects=12, num_labelled=10, volumes_each=2):
    volumes = [
        stored(f"s{s:02d}_{v}", f"s{s:02d}")
        for s in range(num_subjects)
        for v in range(volumes_each)
    ]
    known = {v.name: labels(*CLASSES) for v in volumes if int(v.subject[1:]) < num_labelled}
    return Cohort(tuple(volumes), known, {}, ())


@pytest.mark.parametrize("seed", range(5))
def test_no_subject_is_in_two_sets_and_all_its_volumes_stay_together(seed):
    sets = draw_sets(cohort(), SetSizes(unlabelled=3, test=4, labelled=2), 5, seed)
    subjects = {name: {v.subject for v in volumes} for name, volumes in sets.items()}
    assert {name: len(of) for name, of in subjects.items()} == {
        "unlabelled": 3, "test": 4, "labelled": 2, "two": 2,
    }  # fmt: skip
    assert len(set.union(*subjects.values())) == 11
    assert len(sets.unlabelled) == 6
    assert len(sets.test) == 8
    assert len(sets.two) == 2


def test_a_subject_in_two_sets_is_refused():
    a, b, c, d, e = (stored(n, n) for n in "abcde")
    EvidenceSets((a,), (b,), (c,), (d, e))
    with pytest.raises(ValueError, match="subject b is in the sets test and labelled"):
        EvidenceSets((a,), (b,), (stored("other", "b"),), (d, e))
    with pytest.raises(ValueError, match="1 volumes set the thresholds"):
        EvidenceSets((a,), (b,), (c,), (d,))


def test_the_draw_is_the_seeds():
    sizes = SetSizes(unlabelled=3, test=4, labelled=2)
    one, two, other = (draw_sets(cohort(), sizes, 5, seed) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_a_share_is_of_all_subjects():
    sets = draw_sets(cohort(20, 20), SetSizes(unlabelled=0.5, test=0.2, labelled=0.2), 5, 0)
    assert sets.summary()["unlabelled"]["subjects"] == 10
    assert sets.summary()["test"]["subjects"] == 4


def test_only_labelled_subjects_are_tested_and_unlabelled_ones_are_trained_on():
    sizes = SetSizes(unlabelled=2, test=6, labelled=2)
    sets = draw_sets(cohort(num_labelled=10), sizes, 5, 0)
    assert {v.subject for v in sets.unlabelled} == {"s10", "s11"}
    with pytest.raises(ValueError, match=r"sets\.test: 9 subjects wanted, 8 left that can serve"):
        draw_sets(cohort(num_labelled=10), SetSizes(unlabelled=1, test=9, labelled=1), 5, 0)


def test_volumes_too_short_for_a_group_are_not_trained_on():
    with pytest.raises(ValueError, match=r"sets\.unlabelled: 3 subjects wanted, 0 left"):
        draw_sets(cohort(), SetSizes(unlabelled=3, test=4, labelled=2), 8, 0)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"test": 2.5}, "test 2.5: a number of subjects is whole"),
        ({"test": 0}, "greater than 0"),
        ({"unlabelled": 0.7, "test": 0.3, "labelled": 0.2}, "add up to more than 1"),
    ],
)
def test_impossible_sizes_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        SetSizes(**sizes)


def test_rows_of_the_table_count_slices_laid_end_to_end():
    volumes = [stored("a", "a", 4), stored("b", "b", 7), stored("c", "c", 7)]
    known = {"b": labels(*CLASSES), "c": labels(*CLASSES).iloc[[2, 5]]}
    table = slice_table(volumes, known)
    assert table["row"].tolist() == [4 + 1, 4 + 2, 4 + 3, 4 + 4, 4 + 5, 11 + 2, 11 + 5]
    assert table["zone"].tolist() == [0, 0, 1, 1, 2, 0, 2]
    assert table.loc[table["volume"] == "c", "z_mm"].tolist() == [10.0, 25.0]
    with pytest.raises(ValueError, match="none of these volumes"):
        slice_table(volumes[:1], known)


def test_the_sets_are_written_down(tmp_path):
    sets = draw_sets(cohort(), SetSizes(unlabelled=3, test=4, labelled=2), 5, 0)
    write_sets(sets, tmp_path / "sets.csv")
    table = pd.read_csv(tmp_path / "sets.csv")
    assert table.groupby("subject")["set"].nunique().max() == 1
    assert len(table) == sum(len(volumes) for _, volumes in sets.items())


def test_a_label_beyond_the_last_slice_is_refused(tmp_path):
    for _ in write_cohort(tmp_path / "ct", 1, 3, 32, region="trunk", max_slices=20):
        pass
    table = tmp_path / "ct/slice_classes.csv"
    said = []
    data = ([tmp_path / "ct"], [table], tmp_path / "store", InputSpec(size_px=32), said.append)
    read = read_cohort(*data)
    name = read.volumes[0].name
    assert len(read.labels[name]) == len(read.volumes[0].z_mm)
    table.write_text(table.read_text() + f"{name},400,pelvis\nelsewhere,0,chest\n")
    with pytest.raises(ValueError, match=f"labels slice 400 of {name}, which has"):
        read_cohort(*data)
    table.write_text(table.read_text().replace(f"{name},400,pelvis\n", ""))
    read_cohort(*data)
    assert said[-1] == "1 labelled volumes are not in the data"
