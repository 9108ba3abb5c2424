"""Checkpoints and weight files: safetensors, written atomically, with their own SHA-256 inside.

No file is ever unpickled. A checkpoint is one safetensors file: every tensor of a nested state
under its path (``model.trunk.conv1_1.weight``), everything else as JSON in the metadata.
safetensors has no checksum of its own (a flipped byte loads silently), so the digest of tensors
and metadata is stored and checked on every read.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ubr_pretrain import __version__
from ubr_pretrain.whole_file import write_atomically

if TYPE_CHECKING:  # a hash or a refusal needs no torch
    from torch import Tensor

FORMAT = 1
"""Version of the layout described above. A file says which one it has and which version of this
project made it (``made_by``, which the first files of layout 1 lack; nothing depends on it)."""

_TENSOR = "$tensor"

MAX_HEADER_BYTES = 100_000_000
"""What safetensors itself reads of one."""


class CheckpointRefused(ValueError):  # noqa: N818
    """A weight file that is damaged, of another kind, or made by another version."""


def write_checkpoint(path: Path, state: Mapping[str, Any], kind: str) -> None:
    """Write a nested state of tensors and plain values.

    Args:
        path: the file; replaced atomically.
        state: nested dicts and lists of tensors, numbers, strings, booleans and None.
        kind: what the file is ("ubr", "detector", "backbone"); a reader asks for it by name.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors), allow_nan=False)
    metadata = {"format": str(FORMAT), "kind": kind, "made_by": __version__, "state": tree}
    with write_atomically(path) as file, ThreadPoolExecutor(1) as beside:
        digest = beside.submit(_digest, tensors, metadata)
        unknown = "0" * hashlib.sha256().digest_size * 2
        _write_header(file, tensors, metadata | {"sha256": unknown})
        for name in _in_order(tensors):
            file.write(_bytes(tensors[name]))
        file.seek(0)
        _write_header(file, tensors, metadata | {"sha256": digest.result()})


def _write_header(
    file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write what precedes the tensors in a safetensors file, the same bytes every time.

    The library's writers copy all tensors first, or write a file of a name of their own, which a
    kill would leave behind. Layout: github.com/huggingface/safetensors, "Format".
    """
    import torch

    names = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.bfloat16: "BF16",
        torch.float16: "F16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in _in_order(tensors):
        tensor, begin = tensors[name], end
        end += tensor.nbytes
        shape, offsets = list(tensor.shape), [begin, end]
        header[name] = {"dtype": names[tensor.dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def _in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return names so that every tensor begins at a multiple of the size of its numbers."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def read_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Read back what ``write_checkpoint`` wrote, on the CPU.

    Raises:
        CheckpointRefused: not such a file, damaged, another ``kind``, or from a newer version.
    """
    metadata, tensors = _read(path)
    if metadata.get("kind") != kind:
        raise CheckpointRefused(f"{path}: is a {metadata.get('kind')!r} file, expected {kind!r}")
    try:
        state = _join(json.loads(metadata["state"]), tensors)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointRefused(f"{path}: its state is not what this project writes") from error
    if not isinstance(state, dict):
        raise CheckpointRefused(f"{path}: its state is no dictionary")
    return state


def checkpoint_kind(path: Path) -> str:
    """Return the ``kind`` of a weight file of ours, without reading its tensors."""
    return _metadata(path).get("kind", "")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointRefused(
            f"{path}: not a whole safetensors file ({look_of(path) or error})"
        ) from error
    if "sha256" not in metadata or "format" not in metadata:
        raise CheckpointRefused(f"{path}: a safetensors file, but not a checkpoint of this project")
    if metadata["format"] != str(FORMAT):
        layout, maker = (ascii(metadata.get(key, ""))[:40] for key in ("format", "made_by"))
        raise CheckpointRefused(
            f"{path}: layout {layout} was made by version {maker}; this is version {__version__}, "
            f"which reads layout {FORMAT}"
        )
    return metadata


def look_of(path: Path) -> str:
    """Say what a file that is no weights looks like, "" where nothing can be said."""
    from ubr_pretrain.stored_file import describe

    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        return error.strerror or ""
    if head.startswith(b"PK"):
        return "" if path.suffix != ".safetensors" else "looks like a file of torch.save"
    looks = describe(head)
    if looks.startswith("begins with"):
        return _cut_off(path) if path.suffix == ".safetensors" else ""
    return looks


def _cut_off(path: Path) -> str:
    """Say how much of a safetensors file is missing at its end, "" where nothing seems to be."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            return ""
        if size < 8 + length:
            return f"cut off after {size} bytes, within its header"
        try:
            header = json.loads(file.read(length))
            tensors = (header[name] for name in header.keys() - {"__metadata__"})
            whole = 8 + length + max(int(tensor["data_offsets"][1]) for tensor in tensors)
        except (
            ArithmeticError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ):
            return ""
    return f"cut off after {size} of {whole} bytes" if size < whole else ""


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    metadata = _metadata(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stored = metadata.pop("sha256")
    if _digest(tensors, metadata) != stored:
        raise CheckpointRefused(f"{path}: E-CKPT-HASH  SHA-256 does not fit: the file is damaged")
    return metadata, tensors


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items())), allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors out of a nested value, leaving their paths behind."""
    from torch import Tensor

    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        # JSON keys are strings; an optimizer's state is keyed by integers.
        return {
            "$dict": [
                [key, _split(item, f"{name}.{key}" if name else str(key), tensors)]
                for key, item in value.items()
            ]
        }
    if isinstance(value, (list, tuple)):
        return [_split(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be stored in a checkpoint")


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _join(item, tensors) for key, item in value["$dict"]}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
