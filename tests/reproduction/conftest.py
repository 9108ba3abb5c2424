"""Finished runs of both trainings, as small as they come, and what is done to copies of them."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_training import tiny as tiny_detector
from tests.reproduction.both_trainings import TRAIN, ask
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.config import Config


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five volumes of CT, and images with lesions."""
    data = tmp_path_factory.mktemp("data")
    write_tiny_cohort(data / "ct")
    write_toy_deeplesion(data / "lesions", {"train": 3, "val": 2, "test": 1})
    return data


@pytest.fixture(scope="package")
def configs(data: Path) -> dict[str, Config]:
    lesions = data / "lesions"
    toy = ToyDeepLesion(lesions / "Images_png", lesions / "coco")
    short = {"iterations": 2, "eval_every": 2, "save_every": 2}
    tested = (toy.coco / "test.json",)
    return {
        "ubr": tiny_config(data / "ct", iterations=3, eval_every=2, save_every=2),
        "detector": tiny_detector(toy, **short, test=tested),
    }


@pytest.fixture(scope="package")
def runs(configs: dict[str, Config], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each training."""
    base, threads = tmp_path_factory.mktemp("runs"), torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, train in TRAIN.items():
        assert train(ask(configs[kind], base / kind)) == 0
    torch.set_num_threads(threads)
    return {kind: base / kind for kind in TRAIN}


@pytest.fixture
def ubr(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the finished run of a regressor."""
    return shutil.copytree(runs["ubr"], tmp_path / "run")


@pytest.fixture
def pair(runs: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """Two copies of a finished run."""
    kind = getattr(request, "param", "ubr")
    return [shutil.copytree(runs[kind], tmp_path / name) for name in ("run", "again")]
