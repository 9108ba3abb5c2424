"""Slices of known place: read from coordinates or landmarks, refused where they cannot be right."""

import numpy as np
import pandas as pd
import pytest

from ubr_pretrain.anchors import APEX_MM, CREST_MM, REACH_MM, landmark_mm, read_anchors

Z_MM = {"a": tuple(np.arange(120) * 5.0), "b": (0.0, 3.0, 6.0)}


def write(path, **columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_coordinates_come_back_slice_by_slice_and_the_rest_is_unknown(tmp_path):
    table = write(
        tmp_path / "t.csv", volume=["b", "b", "else"], index_sup_to_inf=[2, 0, 9],
        coordinate_mm=[400.5, 390.0, 1.0],
    )  # fmt: skip
    known = read_anchors([table], Z_MM)
    assert list(known) == ["b"]
    np.testing.assert_array_equal(known["b"], [390.0, np.nan, 400.5])


def test_landmarks_are_exact_where_they_lie_linear_between_and_unknown_far_away(tmp_path):
    table = write(
        tmp_path / "t.csv", volume=["a"] * 3, landmark=["lung_apex", "kidney_lower_pole",
        "iliac_crest"], index_sup_to_inf=[20, 30, 100],
    )  # fmt: skip
    place = read_anchors([table], Z_MM)["a"]
    assert place[20] == APEX_MM == landmark_mm("lung_apex")
    assert place[100] == CREST_MM == landmark_mm("iliac_crest")
    assert place[60] == pytest.approx((APEX_MM + CREST_MM) / 2)  # the kidney does not anchor
    reach = int(REACH_MM / 5)
    assert place[20 - reach] == APEX_MM - REACH_MM
    assert place[100 + reach] == CREST_MM + REACH_MM
    assert np.isnan(place[[0, 20 - reach - 1, 100 + reach + 1]]).all()


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"volume": ["b"], "index_sup_to_inf": [3], "coordinate_mm": [1.0]}, "slice 3 of b"),
        (
            {"volume": ["b"], "index_sup_to_inf": [-1], "coordinate_mm": [1.0]},
            "index_sup_to_inf -1 is no whole number",
        ),
        (
            {"volume": ["b"], "index_sup_to_inf": [0], "coordinate_mm": [np.nan]},
            "nan is no finite number",
        ),
        ({"volume": ["b"] * 2, "index_sup_to_inf": [0] * 2, "coordinate_mm": [1.0, 2]}, "twice"),
        ({"volume": ["b"], "index_sup_to_inf": [0]}, "lacks the column coordinate_mm"),
        ({"volume": ["x"], "index_sup_to_inf": [0], "coordinate_mm": [1.0]}, "no training volume"),
        (
            {
                "volume": ["a"] * 3,
                "landmark": ["lung_apex", "carina", "liver_dome"],
                "index_sup_to_inf": [1, 5, 3],
            },
            "do not run from head to feet",
        ),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(tmp_path, columns, rule):
    with pytest.raises(ValueError, match=rule):
        read_anchors([write(tmp_path / "t.csv", **columns)], Z_MM)


def test_a_volume_anchored_by_two_tables_is_refused(tmp_path):
    table = {"volume": ["b"], "index_sup_to_inf": [0], "coordinate_mm": [1.0]}
    paths = [write(tmp_path / name, **table) for name in ("1.csv", "2.csv")]
    with pytest.raises(ValueError, match="'b' is anchored by another table too"):
        read_anchors(paths, Z_MM)
    with pytest.raises(ValueError, match="no table of anchors"):
        read_anchors([tmp_path / "absent.csv"], Z_MM)
