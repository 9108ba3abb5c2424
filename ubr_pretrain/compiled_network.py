"""A network translated by torch.compile, its parameters and their names untouched."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn


def compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return ``network`` translated; the first call of every shape takes a minute.

    Args:
        network: keeps its own slow form too, for other shapes.
        device: that it runs on.

    Raises:
        ValueError: what translates it is not installed.
    """
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in names if name):
        raise ValueError("compile: needs a C++ compiler (g++ or clang++), none is installed")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError("compile: needs Triton on CUDA, which is not installed")
    translated: Callable[[Tensor], Tensor] = torch.compile(network)
    return translated
