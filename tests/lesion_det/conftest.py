"""What several tests look at: a comparison, and which inputs were decoded."""

from pathlib import Path

import pytest

from lesion_det import prepared_images
from lesion_det.comparison import Comparison
from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.report import Evidence
from lesion_det.slices import PreparedImage, prepare_image
from tests.lesion_det.toy_report import toy_report


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Evidence]:
    """A grid of three starts, three seeds and two fractions of the labels."""
    folder: Path = tmp_path_factory.mktemp("grid")
    return toy_report(folder, num_val=16)


@pytest.fixture(scope="session")
def comparison(grid: tuple[Comparison, Evidence]) -> Comparison:
    return grid[0]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the key slices that were decoded, as they are."""
    names: list[str] = []

    def decode(images: Path, record: ImageRecord, config: InputConfig) -> PreparedImage:
        names.append(record.file_name)
        return prepare_image(images, record, config)

    monkeypatch.setattr(prepared_images, "prepare_image", decode)
    return names
