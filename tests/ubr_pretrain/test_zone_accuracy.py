"""The statistics of Table 1 against plain loops and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as judge

from ubr_pretrain.zone_accuracy import (
    NUM_RESAMPLES,
    accuracy_by_distance,
    calibration_pairs,
    clustered_interval,
    confusion_matrix,
    distance_to_border,
    recall_of_zones,
    spread,
    try_pair,
)

zones = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@given(zones)
def test_confusion_is_scikit_learns(pairs):
    true, predicted = np.array(pairs).T
    assert (confusion_matrix(true, predicted) == judge(true, predicted, labels=[0, 1, 2])).all()


@given(zones)
def test_recall_is_the_share_of_every_zone_that_is_there(pairs):
    true, predicted = np.array(pairs).T
    recall = recall_of_zones(confusion_matrix(true, predicted))
    for k, zone in enumerate(("chest", "abdomen", "pelvis")):
        if (true == k).any():
            assert recall[zone] == pytest.approx((predicted[true == k] == k).mean())
        else:
            assert zone not in recall


def test_the_interval_resamples_whole_subjects():
    values = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    subjects = np.array(["a", "a", "a", "b", "b", "c", "c"])
    found = clustered_interval(values, subjects, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    draws = rng.integers(3, size=(NUM_RESAMPLES, 3))
    means = []
    for draw in draws:
        drawn = [v for i in draw for v, s in zip(values, subjects, strict=True) if s == "abc"[i]]
        means.append(sum(drawn) / len(drawn))
    assert found == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))


def test_slices_of_one_subject_say_nothing_about_others():
    assert clustered_interval(np.ones(5), np.array(["a"] * 5), np.random.default_rng(0)) is None


def test_repeating_every_slice_of_every_subject_changes_no_interval():
    """A slice-wise bootstrap would shrink by a factor of three."""
    rng = np.random.default_rng(0)
    values, subjects = rng.random(60), np.repeat(np.arange(12), 5)
    once = clustered_interval(values, subjects, np.random.default_rng(1))
    nine = clustered_interval(np.tile(values, 9), np.tile(subjects, 9), np.random.default_rng(1))
    assert once == pytest.approx(nine)


def test_distance_to_the_border_is_that_of_a_loop():
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "volume": ["a"] * 9 + ["b"] * 4 + ["c"] * 6,
            "zone": [0, 0, 0, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2],
            "z_mm": [*np.arange(9) * 5.0, *np.arange(4) * 2.5, *np.arange(6) * 8.0],
        }
    )
    shuffled = table.sample(frac=1, random_state=2)
    found = dict(zip(shuffled.index, distance_to_border(shuffled), strict=True))
    for i, row in table.iterrows():
        borders = []
        own = table[table["volume"] == row["volume"]]
        for (_, up), (_, down) in zip(
            own.iloc[:-1].iterrows(), own.iloc[1:].iterrows(), strict=True
        ):
            if up["zone"] != down["zone"]:
                borders.append((up["z_mm"] + down["z_mm"]) / 2)
        expected = min((abs(row["z_mm"] - b) for b in borders), default=np.inf)
        assert found[i] == expected
    del rng


@given(st.lists(st.floats(0, 500), min_size=1, max_size=50))
def test_every_slice_with_a_border_is_in_one_bin(distances):
    distance = np.array([*distances, np.inf])
    bins = accuracy_by_distance(distance, np.ones(len(distance), bool))
    assert sum(part["num_slices"] for part in bins) == len(distances)
    assert {part["accuracy"] for part in bins} <= {None, 1.0}


def slices(**volumes):
    parts = [
        pd.DataFrame({"volume": name, "subject": subject, "zone": of_volume})
        for name, (subject, of_volume) in volumes.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_pair_shows_both_borders_and_is_of_two_subjects():
    table = slices(
        whole=("s1", [0, 1, 2]),
        chest=("s2", [0, 0]),
        upper=("s3", [0, 1]),
        lower=("s4", [1, 2]),
        again=("s1", [0, 1, 2]),
        pelvis=("s5", [2, 2]),
    )
    found = set(calibration_pairs(table, 100, np.random.default_rng(0)))
    assert found == {
        ("chest", "whole"), ("upper", "whole"), ("lower", "whole"), ("pelvis", "whole"),
        ("again", "chest"), ("again", "upper"), ("again", "lower"), ("again", "pelvis"),
        ("lower", "upper"),
    }  # fmt: skip
    assert len(calibration_pairs(table, 3, np.random.default_rng(0))) == 3


def test_a_cohort_without_borders_cannot_calibrate():
    with pytest.raises(ValueError, match="show the borders"):
        calibration_pairs(slices(a=("a", [0]), b=("b", [1, 2])), 5, np.random.default_rng(0))


def test_volumes_of_the_calibrating_subjects_are_not_tested():
    table = slices(a=("s1", [0, 1, 2]), b=("s2", [0, 1, 2]), c=("s1", [0, 1]), d=("s4", [0, 1, 2]))
    table["score"] = table["zone"].astype(float)
    trial = try_pair(table, ("a", "b"))
    assert set(trial.table["volume"]) == {"d"}
    assert trial.correct.all()


def test_spread_of_one_value_has_no_deviation():
    assert spread([0.5]) == {"num": 1, "mean": 0.5, "sd": 0.0, "min": 0.5, "max": 0.5}
    assert spread([0.0, 1.0])["sd"] == pytest.approx(np.std([0, 1], ddof=1))
