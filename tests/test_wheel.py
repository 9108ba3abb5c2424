"""What a wheel installs is complete, and works away from the checkout that it was built from."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ubr_pretrain", "converters", "lesion_det")
SOURCES = (*PACKAGES, "configs", "pyproject.toml", "README.md", "LICENSE")


def files_below(folder: Path) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def leaves(values: dict[str, Any], above: str = "") -> dict[str, str]:
    """Return ``{"a.b": value}``."""
    found: dict[str, str] = {}
    for key, value in values.items():
        inner = leaves(value, f"{above}{key}.") if isinstance(value, dict) else None
        found |= {f"{above}{key}": str(value)} if inner is None else inner
    return found


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel, built from a copy: a build leaves traces, and reads those of others."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    pip("wheel", source, "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


class Installed:
    """An installed wheel, and an unrelated folder to type commands in."""

    def __init__(self, site: Path, folder: Path) -> None:
        self.site, self.folder = site, folder

    def run(self, program: str | Path, *arguments: str | Path) -> str:
        """Return what a program prints that sees the installed wheel before anything else."""
        done = subprocess.run(
            [str(program), *map(str, arguments)],
            env={
                "PATH": os.pathsep.join([str(self.site / "bin"), os.defpath]),
                "PYTHONPATH": str(self.site),
                "HOME": str(self.folder),
                "OMP_NUM_THREADS": "1",
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    site = tmp_path_factory.mktemp("site")
    pip("install", wheel, "--target", site)
    return Installed(site, tmp_path_factory.mktemp("elsewhere"))


def test_wheel_holds_all_files_of_the_packages_and_nothing_else(wheel: Path) -> None:
    sources = {f"{name}/{file}" for name in PACKAGES for file in files_below(ROOT / name)}
    sources |= {f"ubr_pretrain/configs/{file}" for file in files_below(ROOT / "configs")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - about == sources
    assert {Path(name).name for name in about} >= {"METADATA", "LICENSE", "entry_points.txt"}


def test_what_is_imported_is_what_was_installed(installed: Installed) -> None:
    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{p}.__file__' for p in PACKAGES)})"
    places = installed.run(sys.executable, "-c", code).split()
    assert places == [str(installed.site / name / "__init__.py") for name in PACKAGES]


def test_training_takes_the_presets_of_the_package(installed: Installed) -> None:
    assert "body-part regressor" in installed.run("train_ubr.py", "--help")
    for script, preset in (("train_ubr.py", "ubr/laptop"), ("compare_inits.py", "det/laptop")):
        name = preset.partition("/")[2]
        flags = ["--preset", name, "--out", "out", "--print_config"]
        shown = yaml.safe_load(installed.run(script, *flags))
        wanted = yaml.safe_load((ROOT / "configs" / f"{preset}.yaml").read_text("utf-8"))
        assert leaves(wanted).items() <= leaves(shown).items()


def test_a_phantom_is_scored_with_the_weights_of_the_package(installed: Installed) -> None:
    shape = ("--subjects", "1", "--matrix", "64", "--max-slices", "40", "--region", "trunk")
    installed.run("make_phantoms.py", "phantoms", *shape)
    said = installed.run("score_volumes.py", "phantoms/ct", "--pages", "--out", "scores")
    assert "1 volumes scored, 0 refused" in said
    assert "superior to inferior" in said
    (page,) = (installed.folder / "scores").glob("*.html")
    assert "<script>" in page.read_text("utf-8")


def test_a_trunk_is_exported(installed: Installed) -> None:
    weights = installed.site / "ubr_pretrain/weights/scorer.safetensors"
    installed.run("export_backbone.py", weights, "trunk.safetensors", "--layout", "torchvision")
    with safe_open(installed.folder / "trunk.safetensors", framework="pt") as file:
        assert len(list(file.keys())) == 26  # 13 convolutions, their biases
