"""Places of slices by robust lines: outliers corrected, doubtful volumes left out by name."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.anchors import read_anchors
from ubr_pretrain.place_slices import line_mm, main
from ubr_pretrain.ubr_config import Losses

SCALE = Losses()
Z_MM = np.arange(40) * 5.0


def scores_of(places_mm):
    return (places_mm - SCALE.zero_mm) * SCALE.score_per_mm


@given(st.floats(0.75, 1.25), st.floats(0, 900), st.integers(0, 36))
def test_a_stretch_of_wrong_scores_is_put_back_on_the_line(slope, start_mm, first):
    true_mm = start_mm + slope * Z_MM
    scores = scores_of(true_mm)
    scores[first : first + 4] += 1.0  # 40 mm
    np.testing.assert_allclose(line_mm(Z_MM, scores, SCALE), true_mm, atol=6)


@pytest.mark.parametrize(
    ("z_mm", "scores", "rule"),
    [
        (Z_MM[:7], scores_of(Z_MM[:7]), "7 slices"),
        (Z_MM / 10, scores_of(Z_MM), "over 20 mm"),
        (Z_MM, scores_of(1.5 * Z_MM), "1.50 mm per mm"),
        (Z_MM, scores_of(-Z_MM), "-1.00 mm per mm"),
        (Z_MM, scores_of(Z_MM) + 9 * (np.arange(40) % 7 == 0), "< 0.9"),
        (Z_MM, np.where(np.arange(40) == 20, 1e300, scores_of(Z_MM)), "< 0.9"),
    ],
)
def test_a_line_that_cannot_be_trusted_is_refused(z_mm, scores, rule):
    with pytest.raises(ValueError, match=rule):
        line_mm(z_mm, scores, SCALE)


def test_the_command_writes_anchors_and_names_who_is_left_out(tmp_path, capsys):
    tables = [
        pd.DataFrame({"volume": name, "slice_index": range(40), "z_mm": Z_MM, "score": scores})
        for name, scores in (("1", scores_of(300 + Z_MM)), ("odd", scores_of(-Z_MM)))
    ]
    pd.concat(tables).to_csv(tmp_path / "scores.csv", index=False)
    out = tmp_path / "placed.csv"
    assert main([str(tmp_path), "--out", str(out)]) == 0
    assert "left out: odd: its line runs -1.00" in capsys.readouterr().err
    known = read_anchors([out], {"1": tuple(Z_MM)})
    np.testing.assert_allclose(known["1"], 300 + Z_MM, atol=0.01)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--out", str(out)])
    assert "exists" in capsys.readouterr().err
