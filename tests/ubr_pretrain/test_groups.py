"""Groups are equidistant, never cross a gap, and are a pure function of seed and iteration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubr_pretrain.groups import GroupSampler, equidistant_slices


@st.composite
def runs_and_m(draw):
    m = draw(st.integers(2, 8))
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    lengths[draw(st.integers(0, len(lengths) - 1))] += m  # at least one is long enough
    starts = np.cumsum([0, *[n + 3 for n in lengths]])
    return [range(int(a), int(a) + n) for a, n in zip(starts, lengths, strict=False)], m


@given(runs_and_m(), st.integers(0, 2**32), st.sampled_from(["uniform", "ends"]))
def test_a_group_is_equidistant_increasing_and_inside_one_run(case, seed, rule):
    runs, m = case
    indices = equidistant_slices(runs, m, np.random.default_rng(seed), rule)
    assert len(indices) == m
    assert len(set(np.diff(indices))) == 1
    assert indices[1] > indices[0]
    assert any(indices[0] in run and indices[-1] in run for run in runs)


def test_every_start_and_interval_can_be_drawn():
    rng = np.random.default_rng(0)
    drawn = {tuple(equidistant_slices([range(10)], 4, rng)[[0, 1]]) for _ in range(2000)}
    possible = {(a, a + k) for k in (1, 2, 3) for a in range(10 - 3 * k)}
    assert drawn == possible


def test_a_smallest_interval_is_kept_as_far_as_the_run_allows():
    rng = np.random.default_rng(0)
    for n, smallest in ((40, 4), (15, 2), (9, 1)):  # the longest possible is (n - 1) // 7
        gaps = {np.diff(equidistant_slices([range(n)], 8, rng, min_k=4))[0] for _ in range(200)}
        assert gaps == set(range(min(smallest, (n - 1) // 7), (n - 1) // 7 + 1))


def test_V40_exactly_m_slices_give_the_one_group_there_is():
    """A volume of exactly m slices trains: it gives its one group, k = 1."""
    for seed in range(20):
        indices = equidistant_slices([range(5, 13)], 8, np.random.default_rng(seed))
        assert indices.tolist() == list(range(5, 13))


def test_V39_fewer_slices_than_m_are_refused():
    """A volume without m slices in a run draws no group: it is refused before training."""
    with pytest.raises(ValueError, match=r"E-FEW.*longest has 7"):
        equidistant_slices([range(7), range(10, 13)], 8, np.random.default_rng(0))


def test_starts_follow_their_rule():
    """m = 51 of 100 slices leaves k = 1 and 50 starts; P(sigmoid(U(-5, 5)) < p) is known."""

    def share_of_first_five(rule):
        rng = np.random.default_rng(1)
        starts = [equidistant_slices([range(100)], 51, rng, rule)[0] for _ in range(4000)]
        return np.mean([s < 5 for s in starts])

    assert share_of_first_five("uniform") == pytest.approx(0.1, abs=0.02)
    assert share_of_first_five("ends") == pytest.approx((np.log(0.1 / 0.9) + 5) / 10, abs=0.02)


def test_draws_do_not_depend_on_what_was_drawn_before():
    runs = [[range(20)], [range(30)], [range(9)]]
    once, again = (GroupSampler(runs, 2, 8, seed=5) for _ in range(2))
    for iteration in range(7):
        once.draw(iteration)
    for (va, ia), (vb, ib) in zip(once.draw(7), again.draw(7), strict=True):
        assert va == vb
        assert ia.tolist() == ib.tolist()
    assert any(
        a[1].tolist() != b[1].tolist() for a, b in zip(again.draw(7), again.draw(8), strict=True)
    )


def test_volumes_of_a_batch_differ_and_weights_are_their_frequencies():
    sampler = GroupSampler([[range(9)]] * 4, 2, 8, seed=0, weights=[1.0, 1.0, 1.0, 5.0])
    counts = np.zeros(4)
    for iteration in range(1500):
        first, second = (volume for volume, _ in sampler.draw(iteration))
        assert first != second
        counts[first] += 1
    # which of two draws without replacement comes first is the plain weighted draw
    assert counts / counts.sum() == pytest.approx(np.array([1, 1, 1, 5]) / 8, abs=0.04)


def test_a_volume_without_a_long_run_is_refused_at_once():
    with pytest.raises(ValueError, match="volume 1: no run of 8"):
        GroupSampler([[range(8)], [range(5), range(9, 14)]], 2, 8, seed=0)


def test_a_run_is_drawn_in_proportion_to_its_slices():
    rng = np.random.default_rng(2)
    starts = [equidistant_slices([range(30), range(50, 60)], 10, rng)[0] for _ in range(2000)]
    assert np.mean([s < 30 for s in starts]) == pytest.approx(0.75, abs=0.03)


def test_slices_of_a_group_differ_whatever_the_seed_and_neighbours_are_among_them():
    sampler = GroupSampler([[range(4), range(9, 40)]], 1, 8, seed=3)
    steps = {tuple(np.diff(sampler.draw(i)[0][1])) for i in range(200)}
    assert steps == {(k,) * 7 for k in (1, 2, 3, 4)}


def test_as_many_groups_as_volumes_are_one_of_each_and_more_repeat_some():
    runs = [[range(9)]] * 3
    for iteration in range(10):
        assert sorted(v for v, _ in GroupSampler(runs, 3, 8, seed=1).draw(iteration)) == [0, 1, 2]
    more = GroupSampler(runs, 50, 8, seed=1, weights=[1.0, 0.0, 1.0]).draw(0)
    assert {volume for volume, _ in more} == {0, 2}


def test_rule_and_smallest_interval_reach_the_groups_of_their_volumes():
    sampler = GroupSampler([[range(100)]] * 2, 2, 8, 0, "ends", min_k=[1, 14])
    draws = [group for i in range(300) for group in sampler.draw(i)]
    assert {int(np.diff(s)[0]) for v, s in draws if v == 1} == {14}
    starts = [s[0] for v, s in draws if v == 1]  # 0 and 1 are left of 100 - 7 * 14
    assert set(starts) == {0, 1}
    ends = GroupSampler([[range(100)]], 1, 51, 0, "ends")
    first = np.mean([ends.draw(i)[0][1][0] < 5 for i in range(1000)])
    assert first == pytest.approx(0.28, abs=0.04)  # uniform: 0.1


def test_the_groups_of_a_seed_are_what_they_always_were():
    """A run that is reproduced draws what it drew: another version may not change these."""
    runs = [[range(40)], [range(12), range(20, 60)], [range(30)]]
    for rule, drawn in (
        ("uniform", [(2, [4, 6, 8, 10, 12]), (1, [23, 30, 37, 44, 51])]),
        ("ends", [(2, [1, 3, 5, 7, 9]), (1, [20, 27, 34, 41, 48])]),
    ):
        groups = GroupSampler(runs, 2, 5, 7, rule).draw(3)
        assert [(volume, slices.tolist()) for volume, slices in groups] == drawn


def test_starts_are_uniform_where_no_rule_is_named():
    runs = [range(100)]
    for seed in range(10):
        drawn = equidistant_slices(runs, 51, np.random.default_rng(seed))
        uniform = equidistant_slices(runs, 51, np.random.default_rng(seed), "uniform")
        assert drawn.tolist() == uniform.tolist()
        (_, drawn), (_, uniform) = (
            GroupSampler([runs], 1, 51, seed, *rule).draw(3)[0] for rule in ((), ("uniform",))
        )
        assert drawn.tolist() == uniform.tolist()


def test_no_volumes_are_no_training():
    with pytest.raises(ValueError, match="no volume to draw groups from"):
        GroupSampler([], 2, 8, seed=0)
    with pytest.raises(ValueError, match=r"E-FEW.*longest has 0"):
        equidistant_slices([], 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="volume 0: no run of 8"):
        GroupSampler([[]], 2, 8, seed=0)
