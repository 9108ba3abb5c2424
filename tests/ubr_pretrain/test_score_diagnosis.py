"""Scores with an offset of their own in every volume: how far apart one border is scored."""

import numpy as np
import pandas as pd
import pytest

from ubr_pretrain.score_diagnosis import border_spread_mm

STEP_MM, SLOPE = 5.0, 0.02


def cohort(offsets_mm):
    parts = []
    for i, offset_mm in enumerate(offsets_mm):
        z = np.arange(60) * STEP_MM
        part = {"volume": f"v{i}", "zone": np.arange(60) // 20, "z_mm": z}
        parts.append(pd.DataFrame(part).assign(score=SLOPE * (z + offset_mm)))
    return pd.concat(parts, ignore_index=True)


def test_the_spread_of_offsets_is_returned_in_millimetres():
    offsets_mm = [0.0, 30.0, -20.0, 55.0]
    table = cohort(offsets_mm).sample(frac=1, random_state=0)
    found = border_spread_mm(table, table["score"].to_numpy())
    expected = np.std(offsets_mm, ddof=1)
    assert found == {
        "liver dome": pytest.approx(expected),
        "iliac crest": pytest.approx(expected),
    }


def test_volumes_on_one_scale_have_no_spread():
    table = cohort([0.0, 0.0, 0.0])
    found = border_spread_mm(table, table["score"].to_numpy())
    assert found["liver dome"] == pytest.approx(0, abs=1e-9)


def test_a_border_that_one_volume_shows_is_left_out():
    table = cohort([0.0, 10.0])
    table = table[(table["volume"] == "v0") | (table["zone"] < 2)]
    assert set(border_spread_mm(table, table["score"].to_numpy())) == {"liver dome"}


def test_flat_scores_have_no_millimetres():
    table = cohort([0.0, 10.0])
    assert border_spread_mm(table, np.zeros(len(table))) == {}
