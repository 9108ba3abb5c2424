"""What a run is made with: versions, code, processor, device. No host name, no user, no path."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ubr_pretrain import __version__

DEPENDENCIES = (
    *("torch", "torchvision", "numpy", "SimpleITK", "isal", "pydicom", "pylibjpeg"),
    *("opencv-python-headless", "pillow", "pandas", "pydantic", "jsonargparse"),
    *("docstring-parser", "PyYAML", "jaxtyping", "safetensors", "scipy", "scikit-learn"),
    *("matplotlib", "tensorboard", "rich", "jinja2", "pyarrow"),
)
"""Those of pyproject.toml, and torch, which torchvision brings."""

OPTIONAL = (
    *("onnx", "onnxscript", "onnxruntime", "openvino", "ray", "submitit"),
    *("segmentation-models-pytorch", "detectron2"),
)
"""Noted where they are installed."""

PACKAGES = ("ubr_pretrain", "converters", "lesion_det")
"""Where the code is."""

ROOT = Path(__file__).resolve().parents[1]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what the numbers of a run may depend on, for ``run.json``.

    Args:
        device: that computes.
    """
    on_gpu = device.type == "cuda"
    return {
        "python": sys.version.split()[0],
        "packages": package_versions(),
        "project": __version__,
        "commit": commit(),
        "code_sha256": code_sha256(),
        "platform": platform.platform(),
        "cpu": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,  # type: ignore[no-untyped-call]
    }


def package_versions() -> dict[str, str | None]:
    """Return the version of every direct dependency, and of the optional ones that are there."""
    versions = {name: _version(name) for name in DEPENDENCIES + OPTIONAL}
    return {name: found for name, found in versions.items() if found or name in DEPENDENCIES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """Return the commit of the checkout that this file lies in, None where it lies in none.

    It says nothing of changes that are not committed; ``code_sha256`` does.
    """
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None


@cache
def code_sha256() -> str:
    """Return a hash of every line of Python of the packages."""
    digest = hashlib.sha256()
    for file in sorted(file for name in PACKAGES for file in (ROOT / name).rglob("*.py")):
        digest.update(f"{file.relative_to(ROOT).as_posix()}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def processor() -> str:
    """Return the name of the processor, the architecture where there is none."""
    return _of_processor("model name") or platform.processor() or platform.machine()


def instructions() -> frozenset[str]:
    """Return which instructions the processor has, in Linux' words; none where it is no Linux."""
    return frozenset((_of_processor("flags") or _of_processor("Features")).split())


def _of_processor(key: str) -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text("utf-8").splitlines() if cpus.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
