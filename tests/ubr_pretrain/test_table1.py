"""Rows of Table 1, their order, and the slices that figures show."""

import numpy as np
import pandas as pd
import pytest

from ubr_pretrain.evidence_examples import odd_slice
from ubr_pretrain.evidence_page import text_table
from ubr_pretrain.table1 import METHODS, compare_rows, make_row

NUM = 30


@pytest.fixture(scope="module")
def tested():
    """Eight subjects of 30 slices: ten of every zone, 10 mm apart."""
    return pd.concat(
        pd.DataFrame(
            {
                "volume": f"v{s}",
                "subject": f"s{s}",
                "z_mm": np.arange(NUM) * 10.0,
                "zone": np.arange(NUM) // 10,
            }
        )
        for s in range(8)
    ).reset_index(drop=True)


def with_errors(table, share, seed):
    zones = table["zone"].to_numpy()
    wrong = np.random.default_rng(seed).random(len(zones)) < share
    return np.where(wrong, (zones + 1) % 3, zones)


def test_a_row_says_what_its_answers_are(tested):
    zones = tested["zone"].to_numpy()
    right = zones.copy()
    late = zones.copy()
    late[np.arange(len(late)) % NUM == 10] = 0  # the first slice of every abdomen
    row = make_row(METHODS[3], 2, {0: right, 5: late}, tested, [0.9, 0.7])
    assert (row.number, row.paper, row.num_labelled_volumes) == (4, 0.9599, 2)
    assert row.seeds == (0, 5)
    assert row.accuracy_of_seeds == (1.0, pytest.approx(29 / 30))
    assert row.accuracy == pytest.approx((1 + 29 / 30) / 2)
    assert row.sd_over_seeds == pytest.approx(np.std([1, 29 / 30], ddof=1))
    assert row.recall == {"chest": 1.0, "abdomen": pytest.approx(0.95), "pelvis": 1.0}
    assert row.confusion == ((160, 0, 0), (8, 152, 0), (0, 0, 160))
    assert row.share_of_errors_near == 1.0
    nearest = row.by_distance[0]  # 5 mm: the two slices at every border
    assert nearest["num_slices"] == 8 * 4
    assert nearest["accuracy"] == pytest.approx((3 + 0.5) / 4)
    assert row.over_pairs["mean"] == pytest.approx(0.8)
    low, high = row.interval_95
    assert low == pytest.approx(high)  # every subject has the same errors


def test_a_row_without_an_error_has_no_share_of_errors(tested):
    row = make_row(METHODS[0], 8, {0: tested["zone"].to_numpy()}, tested, None)
    assert row.share_of_errors_near is None
    assert row.over_pairs is None
    assert row.sd_over_seeds == 0.0


def test_every_two_rows_are_compared_in_the_papers_order(tested):
    zones = tested["zone"].to_numpy()
    shares = {1: 0.3, 2: 0.05, 3: 0.3, 4: 0.05, 5: 0.05, 6: 0.05}
    correct = {
        n: (with_errors(tested, share, n) == zones).astype(float) for n, share in shares.items()
    }
    found = {(c.better, c.worse): c for c in compare_rows(correct, tested)}
    assert len(found) == 15
    paper = {m.number: m.paper for m in METHODS}
    assert all(paper[a] > paper[b] for a, b in found)
    assert found[1, 6].verdict == "the other way round"
    assert found[4, 3].verdict == "as in the paper"
    assert found[1, 3].verdict == "not told apart"
    for (a, b), pair in found.items():
        assert pair.difference == pytest.approx(correct[a].mean() - correct[b].mean())
        low, high = pair.interval_95
        assert low <= pair.difference <= high


def test_the_text_table_has_a_line_for_every_row(tested):
    rows = [make_row(m, 2, {0: with_errors(tested, 0.1, m.number)}, tested, None) for m in METHODS]
    lines = text_table(rows).splitlines()
    assert len(lines) == 2 + len(METHODS)
    assert lines[2].startswith("| 1 | Supervised softmax [2] | 2 | 0 | ")
    assert lines[-1].endswith("| 98.41 |")


Z = np.arange(40) * 5.0


def test_a_falling_curve_runs_backwards():
    assert odd_slice(-Z, Z) == (0, "scores fall")


def test_a_jump_is_found_at_the_slice_behind_it():
    scores = Z / 20 + 0.01 * np.sin(np.arange(40))
    scores[23:] += 4
    index, reason = odd_slice(scores, Z)
    assert index == 23
    assert reason.startswith("jumps by +4.2")


def test_without_a_jump_it_is_the_slice_farthest_off_the_line():
    scores = Z / 20 + 2 * np.exp(-(((np.arange(40) - 12) / 4) ** 2))
    index, reason = odd_slice(scores, Z)
    assert index == 12
    assert "off the line" in reason
