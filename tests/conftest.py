"""Where the tests find real data, and how many threads they use."""

from pathlib import Path

import pytest

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
