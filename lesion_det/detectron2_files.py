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

from lesion_det.det_config import DetConfig, DetectorConfig, InputConfig
from lesion_det.detector_layouts import BACKGROUND_BOX, from_detectron2, to_detectron2
from lesion_det.detectron2_settings import (
    DetectorSettings,
    detectron2_settings,
    differences,
    read_detectron2_settings,
    solver_settings,
)
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import CheckpointRefused, write_atomically
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.foreign_weights import read_foreign_weights

MODEL, CONFIG = "model.pth", "config.yaml"
DESCRIBED = ("arm", "width", "input", "input_spec", "detector_config", "provenance", "config")
"""Entries of a detector's checkpoint that describe it."""


def write_detectron2(folder: Path, state: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the detector of a checkpoint as ``model.pth`` and ``config.yaml``.

    Args:
        folder: where to.
        state: of ``read_checkpoint(path, "detector")``.
    """
    settings = stated_settings(state)
    num_sizes = len(settings.detector.anchor_sizes_px)
    tensors = to_detectron2(state["detector"], num_sizes)
    unread = {n: t.clone() for n, t in tensors.items() if n.startswith(BACKGROUND_BOX)}
    content = {
        "model": {n: t.contiguous().clone() for n, t in tensors.items() if n not in unread},
        BACKGROUND_BOX: unread,
        "description": {name: state[name] for name in DESCRIBED},
        "__author__": f"ct-body-part-transfer {metadata.version('ct-body-part-transfer')}",
    }
    keys = detectron2_settings(settings)
    if state["config"]:
        keys |= solver_settings(DetConfig.model_validate({"coco": Path(), **state["config"]}))
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
        differences(detectron2_settings(stated_settings(described)), keys, str(config))
    tensors: dict[str, Tensor] = {**content["model"], **content.get(BACKGROUND_BOX, {})}
    num_sizes = len(settings.detector.anchor_sizes_px)
    wanted = _expected_shapes(settings)
    for name, tensor in tensors.items():
        if name not in wanted:
            raise CheckpointRefused(f"{model}: {name} is no tensor of this detector")
        if tuple(tensor.shape) != wanted[name]:
            raise CheckpointRefused(
                f"{model}: {name} is {tuple(tensor.shape)}, its configuration needs {wanted[name]}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointRefused(f"{model}: {name} holds values that are not finite")
    needed = {name for name in wanted if not name.startswith(BACKGROUND_BOX)}
    if missing := sorted(needed - tensors.keys()):
        raise CheckpointRefused(
            f"{model}: lacks {len(missing)} of {len(needed)} tensors, first {missing[0]}"
        )
    return {**described, "detector": from_detectron2(tensors, num_sizes)}


def stated_settings(state: Mapping[str, Any]) -> DetectorSettings:
    """Return the settings that a checkpoint states."""
    return DetectorSettings(
        width=state["width"],
        detector=DetectorConfig.model_validate(state["detector_config"]),
        input=InputConfig.model_validate(state["input"]),
        input_spec=InputSpec.model_validate(state["input_spec"]),
    )


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


def _expected_shapes(settings: DetectorSettings) -> dict[str, tuple[int, ...]]:
    from lesion_det.detector import Detector
    from ubr_pretrain.trunk import Trunk

    with torch.device("meta"):
        trunk = Trunk("vgg16", settings.width, stride=settings.detector.stride)
    detector = Detector(trunk, settings.input_spec, settings.detector, head_seed=0)
    tensors = to_detectron2(detector.state_dict(), len(settings.detector.anchor_sizes_px))
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name the configuration with --config")
    try:
        keys = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(keys, dict):
        raise ValueError(f"{path}: not a configuration of Detectron2")
    return keys
