"""torchvision's ImageNet weights as a file: the one in its cache, else fetched there.

torchvision looks at the hash of what it fetches and never at what lies in its cache already; here
both are held to it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch

from ubr_pretrain.checkpoint import CheckpointRefused, file_sha256, look_of
from ubr_pretrain.trunk import Architecture

SILENCE_S = 30.0
"""A server that says nothing for so long is not waited for."""


def imagenet_weights(arch: Architecture) -> Path:
    """Return the file of torchvision's weights, fetched into its cache where it is not there.

    Args:
        arch: "vgg16" or "alexnet".

    Raises:
        ValueError: they cannot be fetched; the message names URL, hash and the flag for a file.
        CheckpointRefused: the file in the cache is another.
    """
    url = imagenet_url(arch)
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if file.is_file():
        require_torchvisions(file, arch)
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _no_endless_silence():
            torch.hub.download_url_to_file(url, str(file), _hash_of(url))
    except (OSError, HTTPException, RuntimeError) as error:
        raise ValueError(
            f"torchvision's {arch} weights are not in its cache ({file.parent}) and cannot be "
            f"fetched ({error}); download {url} (its SHA-256 begins with {_hash_of(url)}) "
            "elsewhere and pass the file with --imagenet-weights"
        ) from error
    return file


def require_torchvisions(file: Path, arch: Architecture) -> None:
    """Compare a file that has the name of torchvision's weights with their hash.

    Raises:
        CheckpointRefused: it is another file.
    """
    url = imagenet_url(arch)
    if file.name != Path(url).name or not file.is_file():
        return
    found, expected = file_sha256(file), _hash_of(url)
    if not found.startswith(expected):
        looks = f", {looks}" if (looks := look_of(file)) else ""
        raise CheckpointRefused(
            f"{file}: SHA-256 begins with {found[: len(expected)]}, that of torchvision's {arch} "
            f"weights with {expected}{looks}; delete the file, and fetch {url}"
        )


def imagenet_url(arch: Architecture) -> str:
    """Return where torchvision keeps the weights of ``IMAGENET1K_V1``."""
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    known = {"vgg16": VGG16_Weights.IMAGENET1K_V1, "alexnet": AlexNet_Weights.IMAGENET1K_V1}
    return str(known[arch].url)


def _hash_of(url: str) -> str:
    """Return the first digits of the SHA-256, which are the last of the name."""
    return Path(url).name.removesuffix(".pth").rpartition("-")[2]


@contextmanager
def _no_endless_silence() -> Iterator[None]:
    """Let no connection wait for longer than ``SILENCE_S``; torch.hub sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
