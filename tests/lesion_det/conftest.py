"""What several tests of the report look at."""

from pathlib import Path

import pytest

from lesion_det.comparison import Comparison
from lesion_det.report import Evidence
from tests.lesion_det.toy_report import toy_report


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Evidence]:
    """A grid of three starts, three seeds and two fractions of the labels."""
    folder: Path = tmp_path_factory.mktemp("grid")
    return toy_report(folder, num_val=16)


@pytest.fixture(scope="session")
def comparison(grid: tuple[Comparison, Evidence]) -> Comparison:
    return grid[0]
