"""A VGG-16 trunk of others: read from a file of a known layout, complete, or refused.

==============  ==============================  ================================================
layout          conv1_1.weight                  files
==============  ==============================  ================================================
``torchvision`` ``features.0.weight``           ``.pth``, ``.safetensors``
``ubr``         ``conv1_1.weight``              the same, and ``export_backbone.py``'s own
``detectron2``  ``backbone.conv1_1.weight``     ``.pth`` and ``.pkl`` with ``model``
==============  ==============================  ================================================

Other trainers wrap the tensors in a dictionary and put one prefix before all names
(``module.``, ``encoder.``); both are taken off and named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ubr_pretrain.backbone import Backbone, Provenance, read_backbone
from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.foreign_weights import read_foreign_weights, read_plain_pickle
from ubr_pretrain.layouts import Layout, tensor_names
from ubr_pretrain.trunk import Trunk, load_trunk

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which trainers put the tensors, beside an optimiser or a number of epochs."""

HEADS = frozenset(
    {
        *("classifier", "conv6", "fc", "fc6", "fc7", "fc8", "head"),
        *("rpn", "roi_heads", "proposal_generator", "pixel_mean", "pixel_std"),
    }
)
"""First parts of the names of tensors that stand behind a trunk; any other stranger is refused."""

BATCH_NORM = ("running_mean", "running_var")


@dataclass(frozen=True)
class ExternalTrunk:
    """What a file of others held.

    Attributes:
        backbone: the trunk and its input.
        layout: whose names the tensors had.
        prefix: before every name, "" where there was none.
        ignored: tensors behind the trunk, counted by the first part of their names.
    """

    backbone: Backbone
    layout: Layout
    prefix: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What was found, for a reader."""
        under = f" under {self.prefix!r}" if self.prefix else ""
        heads = ", ".join(f"{count} of {name}" for name, count in self.ignored.items())
        return f"{self.layout} layout{under}" + (f", ignored: {heads}" if heads else "")


def read_external_trunk(
    file: Path, width: float = 1.0, input_spec: InputSpec | None = None
) -> ExternalTrunk:
    """Read a VGG-16 trunk without batch norm; every tensor of it must be there and fit.

    Args:
        file: ``.safetensors``, ``.pkl`` (Detectron2's model zoo), or what ``torch.save`` wrote.
        width: channel multiplier that the file must have.
        input_spec: how HU become its input; None: as the file says, where this project wrote it.

    Raises:
        CheckpointRefused: damaged, or in need of code to be read; no known layout; another
            network; a tensor missing, unknown, misshapen or not finite; no word on its input, or
            another one than ``input_spec``.
    """
    content, about = _read(file)
    if "kind" in about:
        if about["kind"] != "backbone":
            raise CheckpointRefused(f"{file}: is a {about['kind']!r} checkpoint; export its trunk")
        own = read_backbone(file)
        _input_of(file, own.input_spec, input_spec)
        return ExternalTrunk(own, "ubr")
    tensors = _unwrap(file, content)
    layout, prefix = _recognise(file, tensors)
    names = {f"{prefix}{theirs}": ours for ours, theirs in tensor_names("vgg16", layout).items()}
    strangers = sorted(tensors.keys() - names.keys())
    ignored = Counter(name.removeprefix(prefix).partition(".")[0] for name in strangers)
    if unknown := [n for n in strangers if n.removeprefix(prefix).partition(".")[0] not in HEADS]:
        if any(name.endswith(BATCH_NORM) for name in unknown):
            raise CheckpointRefused(f"{file}: has batch norms; expected a VGG-16 without them")
        raise CheckpointRefused(f"{file}: {unknown[0]} is no tensor of a VGG-16 ({layout} layout)")
    if missing := [name for name in names if name not in tensors]:
        raise CheckpointRefused(
            f"{file}: lacks {len(missing)} of {len(names)} trunk tensors, first {missing[0]}"
        )
    trunk = Trunk("vgg16", width)
    try:
        load_trunk(trunk, {ours: tensors[theirs] for theirs, ours in names.items()}, str(file))
    except ValueError as error:
        raise CheckpointRefused(str(error)) from error
    stated, made = _own_description(file, about)
    spec = _input_of(file, stated, input_spec)
    return ExternalTrunk(Backbone(trunk, spec, made), layout, prefix, dict(sorted(ignored.items())))


def _read(file: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return what a file holds, and what it says of itself."""
    if file.suffix != ".pkl":
        return read_foreign_weights(file)
    if not file.is_file():
        raise CheckpointRefused(f"{file}: no such file")
    content = read_plain_pickle(file)
    return content, content if isinstance(content, dict) else {}


def _unwrap(file: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of a nest of dictionaries."""
    while isinstance(content, Mapping):
        arrays = {
            str(name): torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in content.items()
            if isinstance(value, (Tensor, np.ndarray))
        }
        if arrays:
            return arrays
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(inside) != 1:
            found = ", ".join(map(str, content)) or "nothing"
            raise CheckpointRefused(
                f"{file}: no tensors, and not one of {', '.join(WRAPPERS)} to look into "
                f"(it holds {found})"
            )
        content = content[inside[0]]
    raise CheckpointRefused(f"{file}: holds a {type(content).__name__}, not tensors by name")


def _recognise(file: Path, names: Iterable[str]) -> tuple[Layout, str]:
    """Return the one layout and prefix of the first convolution."""
    firsts: dict[Layout, str] = {
        layout: tensor_names("vgg16", layout)["conv1_1.weight"] for layout in ("torchvision", "ubr")
    }
    found = [
        (layout, name.removesuffix(first))
        for layout, first in firsts.items()
        for name in names
        if name == first or name.endswith(f".{first}")
    ]
    if len(found) != 1:
        raise CheckpointRefused(
            f"{file}: no known layout of a VGG-16: {len(found)} tensors are called "
            f"{' or '.join(firsts.values())} (the first is {next(iter(names))})"
        )
    return ("detectron2", "") if found[0] == ("ubr", "backbone.") else found[0]


def _own_description(file: Path, about: Mapping[str, Any]) -> tuple[InputSpec | None, Provenance]:
    """Return the input that our own export wrote beside the tensors, and how they were made."""
    if "provenance" not in about:
        return None, Provenance(init="external")
    try:
        spec, made = (
            json.loads(value) if isinstance(value, str) else value
            for value in (about["input_spec"], about["provenance"])
        )
        return InputSpec.model_validate(spec), Provenance.model_validate(made)
    except (KeyError, ValueError) as error:
        raise CheckpointRefused(f"{file}: its input_spec or provenance is not ours") from error


def _input_of(file: Path, stated: InputSpec | None, wanted: InputSpec | None) -> InputSpec:
    if stated is not None and wanted not in (None, stated):
        raise CheckpointRefused(f"{file}: says that its input was {stated}, not {wanted}")
    spec = stated or wanted
    if spec is None:
        raise CheckpointRefused(
            f"{file}: does not say what its input was; pass --external_input imagenet, or its own "
            "--external_input.scale S --external_input.mean [M,M,M] --external_input.std [S,S,S]"
        )
    return spec
