"""How checkpoints, stores and journals are read, and what a plain parse says of them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.fuzz.record_checks import RecordFormat, nothing, same
from tests.fuzz.record_originals import ORIGINALS, STATE
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.foreign_file import read_foreign_file
from ubr_pretrain.images import SOFT_TISSUE, CtImage, grey_to_hu, read_image
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.score_archive import open_archive
from ubr_pretrain.slice_files import SliceFiles


def _check_state(path: Path, state: Any) -> str:
    return "" if _equal_state(state, STATE) else "another state than was written"


def _equal_state(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal_state(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal_state, a, b))
    return type(a) is type(b) and a == b


def _check_tensors(path: Path, result: Any) -> str:
    """Compare with a parse of the safetensors layout by hand."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = result[0]
    if header.keys() != tensors.keys():
        return f"{sorted(header)} stored, {sorted(tensors)} read"
    for name, tensor in tensors.items():
        first, last = header[name]["data_offsets"]
        raw = content[8 + size + first : 8 + size + last]
        if tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() != raw:
            return f"{name} is not what is stored"
    return ""


def _check_torch(path: Path, result: Any) -> str:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    return f"{damaged} fails its checksum, and was read" if damaged else ""


def _read_hub(path: Path) -> Any:
    return read_foreign_file(path.parent)


def _read_store(path: Path) -> Any:
    files = SliceFiles(path.with_suffix(".npy"))
    record = files.read_record()
    if record is None:
        return None
    if files.fault(record, 32, hashed=True):
        return None
    return record, np.load(files.slices)


def _check_store(path: Path, result: Any) -> str:
    if result is None:
        return ""
    record, slices = result
    sound = json.loads(ORIGINALS["store"]()["a.json"])
    known = np.load(io.BytesIO(ORIGINALS["store"]()["a.npy"]))
    if not np.array_equal(slices, known):
        return "other slices than were stored"
    for name in ("num_slices", "step_mm", "z_mm", "sha256"):
        if not same(sound[name], record[name]):
            return f"{name} {str(record[name])[:60]}, stored was {sound[name]}"
    return ""


def _read_scores(path: Path) -> Any:
    with open_archive(path.parent, {"weights": "a"}) as archive:
        return {name: archive.record(name) for name in archive.names}


def _check_scores(path: Path, result: Any) -> str:
    plain = {}
    for line in path.read_bytes().split(b"\n")[1:]:
        with suppress(ValueError):
            entry = json.loads(line)
            plain[entry["name"]] = entry["record"]
    return "" if result == plain else f"{result} read of {plain}"


def _check_metrics(path: Path, result: Any) -> str:
    plain = []
    for line in path.read_bytes().splitlines():
        try:
            plain.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return "" if json.dumps(plain) == json.dumps(result) else "other records"


def _check_picture(path: Path, image: CtImage) -> str:
    """Compare with OpenCV's decoder, which checks every checksum, where nothing else is asked."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if any(chunk in content.tobytes() for chunk in (b"tRNS", b"eXIf", b"PLTE")):
        return ""
    plain = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if plain is None:
        return "OpenCV does not read it"
    if plain.dtype != np.uint8 or plain.ndim != 2:
        return ""
    return "" if np.array_equal(grey_to_hu(plain, SOFT_TISSUE), image.hu) else "other pixels"


STATES: dict[str, tuple[str, RecordFormat]] = {
    "checkpoint": (
        "last.safetensors",
        RecordFormat(lambda p: read_checkpoint(p, "ubr"), _check_state),
    ),
    "safetensors": ("w.safetensors", RecordFormat(read_foreign_file, _check_tensors)),
    "torch-file": ("w.pth", RecordFormat(read_foreign_file, _check_torch)),
    "pickle": ("w.pkl", RecordFormat(read_foreign_file, nothing)),
    "hub-folder": ("config.json", RecordFormat(_read_hub, nothing)),
    "store": ("a.json", RecordFormat(_read_store, _check_store)),
    "score-journal": ("scores.jsonl", RecordFormat(_read_scores, _check_scores)),
    "metrics": ("metrics.jsonl", RecordFormat(read_metrics, _check_metrics)),
    "picture-png": ("slice.png", RecordFormat(read_image, _check_picture)),
    "picture-jpeg": ("slice.jpg", RecordFormat(read_image, nothing)),
}
"""By kind: the file that is read, and how."""
