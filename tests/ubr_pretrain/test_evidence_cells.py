"""Cells are kept as they end and never computed twice."""

import numpy as np
import pytest

from ubr_pretrain.evidence_cells import Cell, PlannedCell, read_cell, run_cells, write_cell


def planned(name, asked, fails=()):
    def compute(folder, say):
        asked.append(name)
        if name in fails:
            raise KeyboardInterrupt
        say("half way")
        return {"scores": np.arange(3.0)}, {"name": name}

    return PlannedCell(name, 1.0, compute)


def test_the_same_plan_goes_on_where_it_was_interrupted(tmp_path):
    asked, said = [], []
    with pytest.raises(KeyboardInterrupt):
        run_cells([planned(n, asked, fails="c") for n in "abcd"], tmp_path, said.append)
    assert asked == ["a", "b", "c"]
    assert said[0].startswith("[1/4] a: 0 s; about ")
    cells = run_cells([planned(n, asked) for n in "abcd"], tmp_path, said.append)
    assert asked == ["a", "b", "c", "c", "d"]
    assert list(cells) == ["a", "b", "c", "d"]
    assert cells["a"].facts["name"] == "a"
    assert cells["d"].arrays["scores"].tolist() == [0, 1, 2]
    assert {"seconds", "cpu_seconds"} < set(cells["a"].facts)


def test_a_cell_without_facts_is_not_whole(tmp_path):
    asked = []
    write_cell(tmp_path / "a", Cell({"scores": np.zeros(1)}, {}))
    (tmp_path / "a/facts.json").unlink()
    run_cells([planned("a", asked)], tmp_path, lambda _: None)
    assert asked == ["a"]


def test_a_cell_reads_back_as_it_was_written(tmp_path):
    cell = Cell({"scores": np.array([0.1, -2.0]), "zones": np.array([1, 2])}, {"C": 0.1, "n": [1]})
    write_cell(tmp_path, cell)
    back = read_cell(tmp_path)
    assert back.facts == cell.facts
    for name, array in cell.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
