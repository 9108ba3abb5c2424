"""A weight file that this project need not have written: read without executing anything."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import torch
from safetensors import SafetensorError, safe_open

from ubr_pretrain.bounded_file import MAX_NOTE_BYTES, require_at_most
from ubr_pretrain.checkpoint import CheckpointRefused, file_sha256, look_of
from ubr_pretrain.plain_pickle import DAMAGED, unpickled
from ubr_pretrain.printable import printable

_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError),
    *(IndexError, KeyError, AttributeError),
)
"""What ``pickle`` raises on bytes that are not a whole pickle, besides its own error."""


_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError),
)
"""What ``zipfile`` raises on damage, of its table or of a part."""


def read_foreign_weights(file: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return what a ``.safetensors`` or a ``torch.save`` file holds, and what it says of itself.

    Args:
        file: read with ``weights_only=True`` where it is not ``.safetensors``.

    Returns:
        The tensors by name, or whatever nest of plain values ``torch.save`` was given; and the
        metadata of a ``.safetensors``, or the ``.json`` that our own export puts beside a
        ``.pth``, empty where there is neither.

    Raises:
        CheckpointRefused: absent, damaged, in need of code to be read, or beside our description
            of another file.
    """
    if not file.is_file():
        raise CheckpointRefused(f"{file}: no such file")
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                about = opened.metadata() or {}
                return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118
        except SafetensorError as error:
            raise CheckpointRefused(
                f"{file}: not a whole safetensors file ({look_of(file) or error})"
            ) from error
    about = _read_description(file)
    _require_checksums(file)
    try:
        with catch_warnings(action="ignore"):  # of a pickle's protocol, on the way to its refusal
            return torch.load(file, map_location="cpu", weights_only=True), about
    except (*_DAMAGED, RuntimeError, OSError, OverflowError, MemoryError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        reason = look_of(file) or said[0]
        if isinstance(error, pickle.UnpicklingError) and not look_of(file):
            # torch would say how to run it nevertheless
            odd = re.search(r"GLOBAL (\S+)", str(error))
            what = printable(odd[1]) if odd else "more than tensors"
            reason = f"it holds {what}, which is not executed: save the state_dict alone"
        raise CheckpointRefused(f"{file}: not a tensor-only torch file ({reason})") from error


def _require_checksums(file: Path) -> None:
    """Compare the checksums that a torch file of the zip kind has, which torch itself does not.

    Raises:
        CheckpointRefused: a part of it is damaged.
    """
    with file.open("rb") as opened:
        if opened.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:  # the older kind has none
            return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (*_ZIP_ERRORS, OSError) as error:
        cut = f"; cut off after {file.stat().st_size} bytes?" * isinstance(
            error, zipfile.BadZipFile
        )
        raise CheckpointRefused(f"{file}: not a whole torch file ({error}{cut})") from error
    if damaged is not None:
        raise CheckpointRefused(f"{file}: {damaged} fails its checksum: the file is damaged")


def _read_description(file: Path) -> Mapping[str, Any]:
    """Return the ``.json`` beside a file where it is ours; a stranger says nothing to us."""
    description = file.with_suffix(".json")
    require_at_most(description, MAX_NOTE_BYTES)
    try:
        about = json.loads(description.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(about, dict) or "provenance" not in about:
        return {}
    if about.get("sha256", "") not in ("", file_sha256(file)):
        raise CheckpointRefused(f"{file}: not the file that {description.name} describes")
    return about


def parse_json(text: str | bytes, source: str) -> Any:
    """Return the content of JSON from anywhere.

    Raises:
        CheckpointRefused: it is no JSON, or nested deeper than Python follows.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointRefused(f"{source}: not JSON ({error})") from error


def read_plain_pickle(path: Path) -> Any:
    """Unpickle numpy arrays, containers, strings and numbers, and refuse everything else.

    Raises:
        CheckpointRefused: the pickle names any other class or function, or is damaged.
    """
    try:
        return unpickled(path.read_bytes())
    except (*DAMAGED, OSError) as error:
        reason = look_of(path) or " ".join(str(error).split()) or type(error).__name__
        raise CheckpointRefused(f"{path}: not a pickle of plain arrays ({reason})") from error
