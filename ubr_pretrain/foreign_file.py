"""A weight file or folder of any kind: what it holds, and what it says of itself.

==================  =============================  ===============================================
file                holds                          says of itself
==================  =============================  ===============================================
``.safetensors``    tensors                        its metadata
``.pkl``            plain arrays in dictionaries   entries beside ``model``
``.onnx``           initialisers (needs ``onnx``)  ``metadata_props``
anything else       what ``torch.save`` was given  ``.json`` beside it, entries beside ``model``,
                                                   or ``meta`` beside ``state_dict``
a folder of a hub   the one ``model.*`` in it      that file, and ``config.json``
==================  =============================  ===============================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ubr_pretrain.bounded_file import MAX_NOTE_BYTES, require_at_most
from ubr_pretrain.checkpoint import CheckpointRefused, file_sha256, look_of
from ubr_pretrain.foreign_weights import parse_json, read_foreign_weights, read_plain_pickle
from ubr_pretrain.printable import printable

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which trainers put the tensors, beside an optimiser or a number of epochs."""

MOST_NAMED = 12
"""Entries beside the tensors that are named; of more, their number is."""

HUB_WEIGHTS = ("model.safetensors", "model.pth", "model.onnx")
HUB_CONFIG = "config.json"
"""What the files of a model are called in its folder on a hub."""


def weight_file(path: Path) -> Path:
    """Return the file that holds the weights: of a folder the one that it has.

    Raises:
        CheckpointRefused: a folder with none or several.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in HUB_WEIGHTS if (path / name).is_file()]
    if len(found) != 1:
        raise CheckpointRefused(
            f"{path}: a folder with {len(found)} of {', '.join(HUB_WEIGHTS)}; expected one"
        )
    return found[0]


def read_foreign_file(path: Path) -> tuple[Any, Sequence[Mapping[str, Any]]]:
    """Return what a file holds, and whatever this project wrote about it there.

    Nothing is executed, and no file beside the named one but its description is opened.

    Returns:
        Tensors or arrays by name, or the nest of dictionaries that holds them; and descriptions
        with ``kind`` (a checkpoint of ours) or ``provenance`` (an export), empty where there are
        none.

    Raises:
        CheckpointRefused: absent, damaged, in need of code or of a package to be read.
    """
    file = weight_file(path)
    if not file.is_file():
        raise CheckpointRefused(f"{file}: no such file")
    content: Any
    about: Mapping[str, Any]
    match file.suffix:
        case ".pkl":
            content, about = read_plain_pickle(file), {}
        case ".onnx":
            content, about = read_onnx(file)
        case _:
            content, about = read_foreign_weights(file)
    said: list[Any] = [about]
    if isinstance(content, Mapping):
        said += [content, content.get("meta")]
    if path.is_dir():
        said += _read_hub_config(path / HUB_CONFIG, file)
    return content, [about for about in said if _is_ours(about)]


def tensors_by_name(file: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of a nest of dictionaries, and the names of all entries beside them.

    Raises:
        CheckpointRefused: there are none, or several places to look for them.
    """
    beside: list[str] = []
    while isinstance(content, Mapping):
        tensors = {
            str(name): _tensor(value, f"{file}: {name}") if isinstance(value, np.ndarray) else value
            for name, value in content.items()
            if isinstance(value, (Tensor, np.ndarray))
        }
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not tensors and len(inside) != 1:
            found = ", ".join(map(str, content)) or "nothing"
            raise CheckpointRefused(
                f"{file}: no tensors, and not one of {', '.join(WRAPPERS)} to look into "
                f"(it holds {found})"
            )
        taken = {*tensors} or {*inside}
        beside += sorted(printable(str(key)) for key in content if str(key) not in taken)
        if tensors:
            more = len(beside) - MOST_NAMED
            return tensors, (*beside[:MOST_NAMED], *([f"{more} more"] if more > 0 else []))
        content = content[inside[0]]
    raise CheckpointRefused(f"{file}: holds a {type(content).__name__}, not tensors by name")


def _tensor(array: np.ndarray[Any, Any], called: str) -> Tensor:
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise CheckpointRefused(
            f"{called} holds {array.dtype.name}, which no tensor can"
        ) from error


def _read_hub_config(config: Path, weights: Path) -> list[Any]:
    """Return what ``config.json`` may say: at its top, or in ``about`` where others have that."""
    if not config.is_file():
        return []
    require_at_most(config, MAX_NOTE_BYTES)
    content = parse_json(config.read_bytes(), str(config))
    said: list[Any] = [content, content.get("about")] if isinstance(content, Mapping) else []
    for about in said:
        if _is_ours(about) and about.get("sha256") not in (None, file_sha256(weights)):
            raise CheckpointRefused(f"{weights}: not the file that {config.name} describes")
    return said


def _is_ours(about: Any) -> bool:
    return isinstance(about, Mapping) and (
        "provenance" in about or {"kind", "format", "sha256"} <= about.keys()
    )


def read_onnx(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the initialisers of an ONNX model, and its ``metadata_props``.

    Raises:
        CheckpointRefused: damaged, with tensors in other files, or the package is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise CheckpointRefused(f"{file}: needs a package to be read: pip install onnx") from error
    tensors: dict[str, Tensor] = {}
    try:
        model = onnx.load_model(file, load_external_data=False)
        for initialiser in model.graph.initializer:
            if initialiser.data_location == onnx.TensorProto.EXTERNAL:
                raise CheckpointRefused(
                    f"{file}: {initialiser.name} lies in another file; save the model as one"
                )
            array = onnx.numpy_helper.to_array(initialiser)
            if array.dtype.kind in "fiu":
                tensors[initialiser.name] = torch.from_numpy(array.copy())
    except (DecodeError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointRefused):
            raise
        reason = look_of(file) or error
        raise CheckpointRefused(f"{file}: not a whole ONNX file ({reason})") from error
    if not tensors:
        raise CheckpointRefused(f"{file}: holds no tensors")
    return tensors, {prop.key: prop.value for prop in model.metadata_props}
