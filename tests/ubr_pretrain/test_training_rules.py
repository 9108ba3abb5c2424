"""Small rules of a training that no run is needed to show."""

from pathlib import Path

import pytest

from tests.ubr_pretrain.tiny_cohort import tiny_config
from ubr_pretrain.collapse import CollapseWatch
from ubr_pretrain.groups import GroupSampler
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.slice_store import StoredVolume, split_by_subject


def test_T21_a_clock_that_jumps_moves_no_estimate(monkeypatch):
    """The wall clock jumps by years: elapsed time and time left come from a clock that does not."""
    ticks, said = iter(range(0, 1000, 20)), []
    monkeypatch.setattr("time.time", lambda: pytest.fail("asked for the time of day"))
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    line = ProgressLine(10, note=said.append)
    for count in range(1, 4):
        line.show(count, "")
    line.close()
    assert [words.split()[2] for words in said] == ["3:00", "2:40", "2:20"]


def test_T23_a_warning_needs_two_hundred_iterations_in_a_row():
    """One good batch within 200 iterations: no warning; a falling order loss: none either."""
    watch = CollapseWatch(tiny_config(Path()))
    by_chance = 4 * 3 * 0.6931
    assert not any(watch.look(n, 0.0 if n % 199 else 1.0, 0.5 * by_chance) for n in range(1, 900))
    told = [n for n in range(900, 1300) if watch.look(n, 1e-4, 0.5 * by_chance)]
    assert told == [996]  # the last good one was 796
    watch = CollapseWatch(tiny_config(Path()))
    told = [n for n in range(1, 900) if watch.look(n, 1.0, by_chance)]
    assert told == [200]


def test_T25_fewer_volumes_than_groups_are_drawn_again():
    """g larger than the number of volumes: volumes are drawn again, each group its own slices."""
    groups = GroupSampler([(range(20),), (range(20),)], g=5, m=4, seed=0).draw(1)
    assert len(groups) == 5
    assert {volume for volume, _ in groups} == {0, 1}


def test_T26_no_subject_is_on_both_sides():
    """All volumes of a held-out patient are held out, whichever of them was named."""
    volumes = [
        StoredVolume(f"v{n}", f"s{n // 2}", Path(), Path(), (0.0,), 1.0, "") for n in range(8)
    ]
    training, validation = split_by_subject(volumes, ["v3"], 0.4, seed=1)
    assert {v.subject for v in training}.isdisjoint(v.subject for v in validation)
    assert {"v2", "v3"} <= {v.name for v in validation}
    assert len(training) + len(validation) == 8
