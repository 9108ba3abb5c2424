"""The files that a trunk is exported to, written and read back.

===============================  ================  =============================================
layout                           file              description (input, provenance, licence)
===============================  ================  =============================================
``ubr``                          ``.safetensors``  in its metadata (``write_backbone``)
``timm``                         ``.safetensors``  in its metadata
``segmentation_models_pytorch``  ``.safetensors``  in its metadata
``torchvision``                  ``.safetensors``  in its metadata
``torchvision``                  ``.pth``          tensors only; beside it ``.json``
``torchvision-classifier``       as torchvision    as torchvision
``detectron2``                   ``.pth``          entries beside ``model``
``detectron2``                   ``.pkl``          the same; the tensors are numpy arrays
``mmdetection``                  ``.pth``          ``meta`` beside ``state_dict``
``onnx``, ``onnx-scorer``        ``.onnx``         in its metadata
===============================  ================  =============================================

Beside every file lies a model card, its name and ``.md``. An export to a folder is ``README.md``
(the card), ``config.json`` (the description) and ``model`` with the layout's first suffix.

Reference:
    Detectron2's model-zoo pickle: ``detectron2.checkpoint.DetectionCheckpointer``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from converters.layouts import random_classifier
from converters.model_card import FLAT, Exported, hub_config, model_card
from ubr_pretrain.backbone import read_backbone, write_backbone
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.foreign_weights import read_foreign_weights, read_plain_pickle
from ubr_pretrain.layouts import Layout, rename, tensor_names
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically

SUFFIXES: Mapping[Layout, tuple[str, ...]] = {
    "ubr": (".safetensors",),
    "torchvision": (".safetensors", ".pth"),
    "torchvision-classifier": (".safetensors", ".pth"),
    "detectron2": (".pth", ".pkl"),
    "mmdetection": (".pth",),
    "timm": (".safetensors",),
    "segmentation_models_pytorch": (".safetensors",),
    "onnx": (".onnx",),
    "onnx-scorer": (".onnx",),
}
AUTHOR = "ct-body-part-transfer"
"""Anything but "Caffe2", of which Detectron2 would rename the tensors."""

PICKLE_PROTOCOL = 4


@dataclass(frozen=True)
class ExportFiles:
    """Where an export goes.

    Attributes:
        weights: the tensors.
        card: the model card.
        description: JSON beside the weights; None: it stands in them.
        folder: whether the three have a folder of their own.
    """

    weights: Path
    card: Path
    description: Path | None
    folder: bool

    def all(self) -> tuple[Path, ...]:
        """Return the files, the weights last: where they are, the rest is."""
        return tuple(file for file in (self.card, self.description, self.weights) if file)


def export_files(out: Path, layout: Layout) -> ExportFiles:
    """Return the files that an export to ``out`` makes: a folder where it has no suffix.

    Raises:
        ValueError: the layout has no file of that suffix.
    """
    suffixes = SUFFIXES[layout]
    if not out.suffix:
        return ExportFiles(
            out / f"model{suffixes[0]}", out / "README.md", out / "config.json", True
        )
    if out.suffix not in suffixes:
        raise ValueError(
            f"{out}: layout {layout} is written as {' or '.join(suffixes)}, or as a folder (a name "
            "without suffix)"
        )
    description = out.with_suffix(".json") if out.suffix == ".pth" and layout in FLAT else None
    return ExportFiles(out, out.with_name(f"{out.name}.md"), description, False)


def write_weights(file: Path, exported: Exported) -> None:
    """Write the weight file of a layout, atomically; ``.onnx`` is written by ``onnx_graph``."""
    if exported.layout == "ubr":
        write_backbone(file, exported.backbone)
        return
    trunk, layout, about = exported.backbone.trunk, exported.layout, exported.about()
    tensors = {name: t.detach().cpu().contiguous() for name, t in trunk.state_dict().items()}
    tensors = rename(tensors, tensor_names(trunk.arch, layout))
    if layout == "torchvision-classifier":
        tensors |= random_classifier(trunk.arch)
    match layout, file.suffix:
        case _, ".safetensors":
            metadata = {k: v if isinstance(v, str) else to_json(v) for k, v in about.items()}
            data = save(tensors, {"format": "pt", **metadata})
        case "detectron2", ".pkl":
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            zoo = {"model": arrays, "__author__": AUTHOR, "matching_heuristics": True}
            data = pickle.dumps(zoo | about, PICKLE_PROTOCOL)
        case "detectron2", _:
            data = _torch_bytes({"model": tensors, **about})
        case "mmdetection", _:
            data = _torch_bytes({"state_dict": tensors, "meta": about})
        case _:
            data = _torch_bytes(tensors)
    with write_atomically(file) as opened:
        opened.write(data)


def write_companions(files: ExportFiles, exported: Exported, title: str) -> None:
    """Write the model card and, where there is one, the description of weights that are there."""
    sha256, name = file_sha256(files.weights), files.weights.name
    card = model_card(exported, name, sha256, title=title, folder=files.folder)
    with write_atomically(files.card, "w") as opened:
        opened.write(card)
    if files.description:
        with write_atomically(files.description, "w") as opened:
            opened.write(to_json(hub_config(exported, sha256), indent=1) + "\n")


def read_weights(path: Path, layout: Layout) -> dict[str, Tensor]:
    """Read the tensors back, under the names of ``layout``; nothing is executed.

    Raises:
        CheckpointRefused: a pickle with anything but numpy arrays and plain values, or a sidecar
            that belongs to another file.
    """
    if layout == "ubr":
        return dict(read_backbone(path).trunk.state_dict())
    if layout in ("onnx", "onnx-scorer"):
        from converters.onnx_graph import read_onnx_weights

        return read_onnx_weights(path)
    if path.suffix == ".pkl":
        arrays = read_plain_pickle(path)["model"]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    content, _ = read_foreign_weights(path)
    inside = {"detectron2": "model", "mmdetection": "state_dict"}.get(layout)
    return dict(content[inside] if inside else content)


def _torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
