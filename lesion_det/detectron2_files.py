"""A detector as Detectron2 keeps it, ``model.pth`` and ``config.yaml``; Detectron2 not needed.

``model.pth`` holds ``model`` (tensors under Detectron2's names), ``background_box`` (see
``detector_layouts``) and ``description`` (start, input, provenance); tensors and plain values only.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lesion_det.det_config import DetConfig
from lesion_det.detector import Detector
from lesion_det.detector_description import DESCRIBED, Description, read_description
from lesion_det.detector_layouts import BACKGROUND_BOX, from_detectron2, to_detectron2
from lesion_det.detectron2_settings import (
    DetectorSettings,
    detectron2_settings,
    differences,
    read_detectron2_settings,
    solver_settings,
)
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.foreign_weights import read_foreign_weights
from ubr_pretrain.plain_yaml import read_yaml
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.whole_file import write_atomically

MODEL, CONFIG = "model.pth", "config.yaml"


def write_detectron2(folder: Path, state: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the detector of a checkpoint as ``model.pth`` and ``config.yaml``.

    Args:
        folder: where to.
        state: of ``read_checkpoint(path, "detector")``.

    Raises:
        CheckpointRefused: it is not described, or its tensors are not those of its description.
    """
    described = read_description(state, "the checkpoint")
    settings = _settings(described)
    kept = {name: tensor.detach().cpu() for name, tensor in state["detector"].items()}
    _require_whole(kept, _expected_shapes(settings), set(), "the checkpoint")
    tensors = to_detectron2(kept, len(settings.detector.anchor_sizes_px))
    unread = {n: t.clone() for n, t in tensors.items() if n.startswith(BACKGROUND_BOX)}
    content = {
        "model": {n: t.contiguous().clone() for n, t in tensors.items() if n not in unread},
        BACKGROUND_BOX: unread,
        "description": description_of(state),
        "__author__": f"ct-body-part-transfer {metadata.version('ct-body-part-transfer')}",
    }
    keys = detectron2_settings(settings)
    if described.config:
        config = DetConfig.model_validate({"coco": Path(), **described.config})
        keys["INPUT"]["RANDOM_FLIP"] = "horizontal" if config.flip else "none"
        keys |= solver_settings(config)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with write_atomically(folder / CONFIG, "w") as file:
        file.write("# import lesion_det.detector_d2 before Detectron2 reads this\n")
        file.write(yaml.safe_dump(keys, sort_keys=False))
    with write_atomically(folder / MODEL) as file:
        file.write(buffer.getvalue())
    return folder / MODEL, folder / CONFIG


def read_detectron2(model: Path, config: Path) -> dict[str, Any]:
    """Return a detector that Detectron2 keeps as the state of a checkpoint of ours.

    Args:
        model: ours, or one that Detectron2's trainer saved.
        config: its configuration, complete.

    Raises:
        CheckpointRefused: a file is damaged or needs code to be read; a tensor is missing,
            unknown, misshapen or not finite.
        ValueError: the configuration says what the torchvision detector does not do, or another
            thing than the model's own description.
    """
    content, _ = read_foreign_weights(model)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise CheckpointRefused(f"{model}: no checkpoint of Detectron2 (it has no 'model')")
    keys = _read_yaml(config)
    settings = read_detectron2_settings(keys, str(config))
    described = content.get("description")
    if described is None:
        described = _undescribed(settings)
    else:
        stated = _settings(read_description(described, str(model)))
        differences(detectron2_settings(stated), keys, str(config))
    unread = content.get(BACKGROUND_BOX, {})
    if not isinstance(unread, Mapping):
        raise CheckpointRefused(f"{model}: {BACKGROUND_BOX} holds no tensors by name")
    tensors: dict[str, Tensor] = {**content["model"], **unread}
    num_sizes = len(settings.detector.anchor_sizes_px)
    wanted = to_detectron2(_expected_shapes(settings), num_sizes)
    optional = {name for name in wanted if name.startswith(BACKGROUND_BOX)}
    _require_whole(tensors, wanted, optional, str(model))
    described = {name: described[name] for name in DESCRIBED}
    return {**described, "detector": from_detectron2(tensors, num_sizes)}


def description_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``model.pth`` says of a checkpoint; of its provenance, no names of subjects."""
    made = Provenance.model_validate(state["provenance"]).anonymous
    return {**{n: state[n] for n in DESCRIBED}, "provenance": made.model_dump(mode="json")}


def _settings(said: Description) -> DetectorSettings:
    """Return what the detector's tensors need around them."""
    return DetectorSettings(said.width, said.detector_config, said.input, said.input_spec)


def _undescribed(settings: DetectorSettings) -> dict[str, Any]:
    """Describe a detector that others trained: by its configuration alone."""
    return {
        "arm": "external",
        "width": settings.width,
        "input": settings.input.model_dump(mode="json"),
        "input_spec": settings.input_spec.model_dump(mode="json"),
        "detector_config": settings.detector.model_dump(mode="json"),
        "provenance": Provenance(init="external").model_dump(mode="json"),
        "config": {},
    }


def _expected_shapes(settings: DetectorSettings) -> dict[str, Tensor]:
    """Return a detector's tensors without their values, under our names."""
    with torch.device("meta"):
        trunk = Trunk("vgg16", settings.width, stride=settings.detector.stride)
        detector = Detector(trunk, settings.input_spec, settings.detector, head_seed=None)
    return detector.state_dict()


def _require_whole(
    tensors: Mapping[str, object], wanted: Mapping[str, Tensor], optional: set[str], source: str
) -> None:
    """Refuse tensors that are not those of the detector.

    Raises:
        CheckpointRefused: one is unknown, missing, misshapen, no floating-point one or not finite.
    """
    for name, tensor in tensors.items():
        if name not in wanted:
            raise CheckpointRefused(f"{source}: {name} is no tensor of this detector")
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise CheckpointRefused(f"{source}: {name} is no dense tensor")
        if tensor.shape != wanted[name].shape:
            raise CheckpointRefused(
                f"{source}: {name} is {tuple(tensor.shape)}, its configuration needs "
                f"{tuple(wanted[name].shape)}"
            )
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointRefused(f"{source}: {name} holds values that are not finite numbers")
    if missing := sorted(wanted.keys() - optional - tensors.keys()):
        raise CheckpointRefused(
            f"{source}: lacks {len(missing)} of {len(wanted) - len(optional)} tensors, first "
            f"{missing[0]}"
        )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name the configuration with --config")
    keys = read_yaml(path)
    if not isinstance(keys, dict):
        raise ValueError(f"{path}: not a configuration of Detectron2")
    if "_BASE_" in keys:  # Detectron2 would read that file too, wherever it lies
        raise ValueError(f"{path}: builds on {keys['_BASE_']}; expected a whole config.yaml")
    return keys
