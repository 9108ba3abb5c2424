"""Where the tests find real data; shape annotations run as checks while the tests do."""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything imports them: every annotated shape below is checked at every call.
install_import_hook(
    [
        "ubr_pretrain.losses",
        "ubr_pretrain.groups",
        "ubr_pretrain.augmentation",
        "ubr_pretrain.resident_slices",
        "ubr_pretrain.training_batches",
        "ubr_pretrain.rank_batch_norm",
        "ubr_pretrain.network_input",
        "ubr_pretrain.scoring",
        "ubr_pretrain.zones",
        "ubr_pretrain.trunk",
        "ubr_pretrain.regressor",
        "ubr_pretrain.zone_accuracy",
        "ubr_pretrain.slice_positions",
        "ubr_pretrain.baselines",
        "ubr_pretrain.pool6",
        "ubr_pretrain.score_diagnosis",
        "ubr_pretrain.table1",
        "ubr_pretrain.evidence_examples",
        "lesion_det.boxes",
        "lesion_det.overlap",
        "lesion_det.topk_recall",
        "lesion_det.froc",
        "lesion_det.significance",
        "lesion_det.simulated_arms",
        "lesion_det.layer_similarity",
        "lesion_det.lesion_groups",
        "lesion_det.coco_ap",
    ],
    "beartype.beartype",
)

# A busy machine is no fault; and a check of one commit says the same whenever it is run. New
# examples are searched for with --hypothesis-profile=search (make search).
settings.register_profile("any_machine", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("any_machine")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"real data not present: shared/data/{name}")
    return folder


@pytest.fixture(scope="session")
def real_ct() -> Path:
    return _folder("ct")


@pytest.fixture(scope="session")
def real_openkbp() -> Path:
    return _folder("openkbp")


@pytest.fixture(scope="session")
def real_dicom() -> Path:
    return _folder("dicom")


@pytest.fixture(scope="session")
def real_deeplesion() -> Path:
    return _folder("deeplesion")


@pytest.fixture
def load_inputs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What makes many small things for ``benchmarks/load.py``."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    return importlib.import_module("load_inputs")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: small layers are not worth sharing, and sums keep their order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs an installed Chromium or Chrome")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()
