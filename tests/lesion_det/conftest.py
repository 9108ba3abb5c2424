"""What several tests look at: a comparison, and which inputs were decoded."""

import shutil
from pathlib import Path

import pytest

from lesion_det import prepared_images
from lesion_det.compare_inits import compare
from lesion_det.comparison import Comparison
from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.plan import Question
from lesion_det.report import Evidence
from lesion_det.slices import PreparedImage, prepare_image
from tests.lesion_det.toy_comparison import toy_config, write_toy_data, write_toy_ubr
from tests.lesion_det.toy_grid import Trainer, quiet
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


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    folder = tmp_path_factory.mktemp("toy")
    coco, images = write_toy_data(folder)
    ubr = write_toy_ubr(folder / "ubr.safetensors")
    return Question(toy_config(coco, images, ubr), ("random", "ubr"), (0, 1))


@pytest.fixture(scope="module")
def finished_once(question: Question, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    trainer = Trainer()
    assert compare(question, out, trainer, say=quiet) == (0, {})
    assert trainer.trained == ["random-seed0", "ubr-seed0", "random-seed1", "ubr-seed1"]
    return out


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of a finished comparison."""
    return shutil.copytree(finished_once, tmp_path / "finished")
