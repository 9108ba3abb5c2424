"""The files that a trunk is exported to, written and read back.

==============  ====================  ===========================================================
layout          file                  input and provenance
==============  ====================  ===========================================================
``ubr``         ``.safetensors``      in its metadata, with a SHA-256 (``write_backbone``)
``torchvision`` ``.safetensors``      in its metadata
``torchvision`` ``.pth``              tensors only; beside it ``.json``
``detectron2``  ``.pkl``              entries beside ``model``; numpy arrays and plain values only
==============  ====================  ===========================================================

Reference:
    Detectron2's model-zoo pickle: ``detectron2.checkpoint.DetectionCheckpointer``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ubr_pretrain.backbone import Backbone, read_backbone, write_backbone
from ubr_pretrain.checkpoint import file_sha256, write_atomically
from ubr_pretrain.foreign_weights import read_foreign_weights, read_plain_pickle
from ubr_pretrain.layouts import Layout, rename, tensor_names
from ubr_pretrain.runtime import to_json

SUFFIXES: Mapping[Layout, tuple[str, ...]] = {
    "ubr": (".safetensors",),
    "torchvision": (".safetensors", ".pth"),
    "detectron2": (".pkl",),
}
AUTHOR = "ct-body-part-transfer"
"""Anything but "Caffe2", of which Detectron2 would rename the tensors."""

PICKLE_PROTOCOL = 4


def output_files(out: Path, layout: Layout) -> tuple[Path, ...]:
    """Return the files that an export to ``out`` makes.

    Raises:
        ValueError: the layout has no file of that suffix.
    """
    if out.suffix not in SUFFIXES[layout]:
        raise ValueError(f"{out}: layout {layout} is written as {' or '.join(SUFFIXES[layout])}")
    return (out.with_suffix(".json"), out) if out.suffix == ".pth" else (out,)


def write_weights(out: Path, backbone: Backbone, layout: Layout) -> None:
    """Write the files of ``output_files``, each atomically."""
    if layout == "ubr":
        write_backbone(out, backbone)
        return
    trunk = backbone.trunk
    tensors = {name: t.detach().cpu().contiguous() for name, t in trunk.state_dict().items()}
    tensors = rename(tensors, tensor_names(trunk.arch, layout))
    about: dict[str, Any] = {
        "layout": layout,
        "arch": trunk.arch,
        "width": trunk.width,
        "input_spec": backbone.input_spec.model_dump(mode="json"),
        "provenance": backbone.provenance.model_dump(mode="json"),
    }
    match out.suffix:
        case ".safetensors":
            metadata = {k: v if isinstance(v, str) else to_json(v) for k, v in about.items()}
            data = save(tensors, {"format": "pt", **metadata})
        case ".pth":
            buffer = io.BytesIO()
            torch.save(tensors, buffer)
            data = buffer.getvalue()
        case _:
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            zoo = {"model": arrays, "__author__": AUTHOR, "matching_heuristics": True}
            data = pickle.dumps(zoo | about, PICKLE_PROTOCOL)
    with write_atomically(out) as file:
        file.write(data)
    if out.suffix == ".pth":
        about["sha256"] = file_sha256(out)
        with write_atomically(out.with_suffix(".json"), "w") as file:
            file.write(to_json(about, indent=1) + "\n")


def read_weights(path: Path, layout: Layout) -> dict[str, Tensor]:
    """Read the tensors back, under the names of ``layout``; nothing is executed.

    Raises:
        CheckpointRefused: a pickle with anything but numpy arrays and plain values, or a sidecar
            that belongs to another file.
    """
    if layout == "ubr":
        return dict(read_backbone(path).trunk.state_dict())
    if path.suffix == ".pkl":
        arrays = read_plain_pickle(path)["model"]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors, _ = read_foreign_weights(path)
    return dict(tensors)
