"""A trunk of others: read from a file of a known layout, complete, or refused.

===============================  ==========================  ======================================
whose                            first tensor                files
===============================  ==========================  ======================================
this project                     ``conv1_1.weight``          ``export_backbone.py``'s, all of them
torchvision, also whole          ``features.0.weight``       ``.pth``, ``.safetensors``
timm, mmcv, also whole           ``features.0.weight``       the same
segmentation_models_pytorch      ``[encoder.]features.0...``  the same
MMDetection                      ``backbone.features.0...``  ``.pth`` with ``state_dict``, ``meta``
Detectron2                       ``backbone.conv1_1...``     ``.pth`` and ``.pkl`` with ``model``
ONNX                             ``trunk.conv1_1.weight``    ``.onnx`` whose initialisers kept names
a folder of a hub                any of these                ``model.*`` and ``config.json``
===============================  ==========================  ======================================

Layers are called by their place in torchvision's ``features`` or by our names. Trainers wrap the
tensors in a dictionary and put one prefix before all names (``module.``, ``_orig_mod.``,
``encoder.``); both are taken off and named. A conv1 of one channel is given to three equal ones, a
third of its weight each, which computes the same up to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ubr_pretrain.backbone import Backbone, Provenance, read_backbone, read_entries
from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.foreign_file import read_foreign_file, tensors_by_name, weight_file
from ubr_pretrain.layouts import NAMINGS, Layout, tensor_names
from ubr_pretrain.trunk import LAYERS, Architecture, Trunk, load_trunk, require_plain_floats

HEADS = frozenset(
    {
        *("classifier", "pre_logits", "head", "conv6", "fc", "fc6", "fc7", "fc8"),
        *("decoder", "segmentation_head", "classification_head"),
        *("rpn", "roi_heads", "proposal_generator", "pixel_mean", "pixel_std"),
        *("neck", "bbox_head", "rpn_head", "roi_head", "mask_head"),
    }
)
"""First parts of the names of tensors that stand behind a trunk; any other stranger is refused."""

SSD_TAIL = ("features.31", "features.33")
"""fc6 and fc7 as convolutions, behind the last pool of MMDetection's ``SSDVGG``."""

BATCH_NORM = ("running_mean", "running_var")
CALLED: Mapping[Architecture, str] = {"vgg16": "a VGG-16", "alexnet": "an AlexNet"}


@dataclass(frozen=True)
class ExternalTrunk:
    """What a file of others held.

    Attributes:
        backbone: the trunk and its input.
        layout: whose names the tensors had: of several with the same names torchvision, unless an
            export of this project says which.
        prefix: before every name, "" where there was none.
        ignored: tensors behind the trunk, counted by the first part of their names.
        in_channels: of conv1 in the file.
        beside: other entries of the dictionaries that held the tensors, such as an optimiser's.
    """

    backbone: Backbone
    layout: Layout
    prefix: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)
    in_channels: int = 3
    beside: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What was found, for a reader."""
        under = f" under {self.prefix!r}" if self.prefix else ""
        grey = ", one channel given to three" if self.in_channels == 1 else ""
        ignored = [f"{count} of {name}" for name, count in self.ignored.items()]
        named = ", ".join([*ignored, *self.beside])
        return f"{self.layout} layout{under}{grey}" + (f", ignored: {named}" if named else "")


def read_external_trunk(
    file: Path,
    width: float | None = 1.0,
    input_spec: InputSpec | None = None,
    arch: Architecture = "vgg16",
) -> ExternalTrunk:
    """Read a trunk without batch norm; every tensor of it must be there and fit.

    Args:
        file: ``.safetensors``, ``.pkl`` (Detectron2's model zoo), ``.onnx``, what ``torch.save``
            wrote, or a folder that holds one of these as ``model.*``.
        width: channel multiplier that the file must have; None: whichever it has.
        input_spec: how HU become its input; None: as the file says, where this project wrote it.
        arch: what the file must hold.

    Raises:
        CheckpointRefused: damaged, or in need of code to be read; no known layout; another
            network; a tensor missing, unknown, misshapen, not plain numbers or not finite; no word
            on its input, or another one than ``input_spec``.
    """
    content, statements = read_foreign_file(file)
    for stated in statements:
        if "kind" in stated:
            return _read_own(file, stated["kind"], width, input_spec, arch)
    tensors, beside = tensors_by_name(file, content)
    layout, prefix = _recognise(file, tensors, arch)
    names = {f"{prefix}{theirs}": ours for ours, theirs in tensor_names(arch, layout).items()}
    ignored = _set_aside(file, tensors, names, prefix, f"{CALLED[arch]} ({layout} layout)")
    if missing := [name for name in names if name not in tensors]:
        raise CheckpointRefused(
            f"{file}: lacks {len(missing)} of {len(names)} trunk tensors of {CALLED[arch]}, "
            f"first {missing[0]}"
        )
    ours = {own: tensors[theirs] for theirs, own in names.items()}
    first, last = (f"{layer.name}.weight" for layer in (LAYERS[arch][0], LAYERS[arch][-1]))
    try:
        for own, tensor in ours.items():
            require_plain_floats(tensor, f"{file}: {own}")
        in_channels = ours[first].shape[1] if ours[first].ndim == 4 else 0
        if in_channels == 1:
            ours[first] = ours[first].double().div(3).float().expand(-1, 3, -1, -1)
        if width is None:
            width = max(1, ours[last].shape[:1].numel()) / LAYERS[arch][-1].channels
        trunk = Trunk(arch, width)
        load_trunk(trunk, ours, str(file))
    except ValueError as error:
        raise CheckpointRefused(str(error)) from error
    described = _own_description(file, statements)
    spec = _input_of(file, described.input_spec if described else None, input_spec)
    if in_channels == 1 and len(set(spec.mean)) + len(set(spec.std)) > 2:
        raise CheckpointRefused(
            f"{file}: conv1 reads one channel, so its input has one mean and one std, not "
            f"{spec.mean} and {spec.std}; pass --external_input.mean [M,M,M] and .std [S,S,S]"
        )
    if described:
        _require_graphs_input(file, tensors, spec)
    made = described.provenance if described else Provenance(init="external")
    if (
        described
        and arch in NAMINGS[described.layout].architectures
        and {*tensor_names(arch, described.layout).values()} == names.keys()
    ):
        layout, prefix = described.layout, ""
    strangers = () if described else beside  # those of an export are its description
    found = Backbone(trunk, spec, made)
    return ExternalTrunk(found, layout, prefix, ignored, in_channels, strangers)


def _read_own(
    file: Path, kind: str, width: float | None, wanted: InputSpec | None, arch: Architecture
) -> ExternalTrunk:
    """Read a file of ``write_backbone``."""
    if kind != "backbone":
        raise CheckpointRefused(
            f"{file}: is a {kind!r} checkpoint; export its trunk with export_backbone.py"
        )
    own = read_backbone(weight_file(file))
    if own.trunk.arch != arch or width not in (None, own.trunk.width):
        raise CheckpointRefused(
            f"{file}: is {own.trunk.arch} of width {own.trunk.width}, not {arch}"
            + (f" of width {width}" if width else "")
        )
    _input_of(file, own.input_spec, wanted)
    return ExternalTrunk(own, "ubr")


def _recognise(file: Path, names: Mapping[str, Tensor], arch: Architecture) -> tuple[Layout, str]:
    """Return the one layout and prefix of the first convolution."""
    firsts: dict[Layout, str] = {
        layout: next(iter(tensor_names(arch, layout).values())) for layout in ("torchvision", "ubr")
    }
    found = [
        (layout, name.removesuffix(first))
        for layout, first in firsts.items()
        for name in names
        if name == first or name.endswith(f".{first}")
    ]
    if len(found) != 1:
        raise CheckpointRefused(
            f"{file}: no known layout of {CALLED[arch]}: {len(found)} tensors are called "
            f"{' or '.join(firsts.values())} (the first is {next(iter(names))})"
        )
    return ("detectron2", "") if found[0] == ("ubr", "backbone.") else found[0]


def _set_aside(
    file: Path, tensors: Mapping[str, Tensor], names: Mapping[str, str], prefix: str, whole: str
) -> dict[str, int]:
    """Count the tensors that stand behind a trunk; refuse any that does not.

    Args:
        file: for the message.
        tensors: of the file.
        names: of the trunk's tensors in the file.
        prefix: before them.
        whole: what ``names`` are, in words.
    """
    behind: Counter[str] = Counter()
    unknown: list[str] = []
    for name in sorted(tensors.keys() - names.keys()):
        inner = ".".join(_below(prefix.split(".")[:-1], name.split(".")))
        head = inner.partition(".")[0]
        if head in HEADS:
            behind[head] += 1
        elif inner.rpartition(".")[0] in SSD_TAIL:
            behind["features behind the last pool"] += 1
        elif file.suffix == ".onnx" and not inner.endswith((".weight", ".bias", *BATCH_NORM)):
            behind["constants"] += 1
        else:
            unknown.append(name)
    if any(name.endswith(BATCH_NORM) for name in unknown):
        raise CheckpointRefused(f"{file}: has batch norms; expected {whole} without them")
    if unknown:
        expected = sum(name.endswith("weight") for name in names)
        raise CheckpointRefused(
            f"{file}: {unknown[0]} is no tensor of {whole}; expected {expected} convolutions, "
            f"found {sum(t.ndim == 4 for name, t in tensors.items() if name in {*names, *unknown})}"
        )
    return dict(sorted(behind.items()))


def _below(prefix: Sequence[str], name: Sequence[str]) -> Iterator[str]:
    """Yield the parts of a name without those that it shares with the prefix from the left."""
    shared = 0
    while shared < min(len(prefix), len(name)) and prefix[shared] == name[shared]:
        shared += 1
    yield from name[shared:]


@dataclass(frozen=True)
class _Description:
    """What an export of this project says of itself."""

    input_spec: InputSpec
    provenance: Provenance
    layout: Layout


def _own_description(file: Path, statements: Sequence[Mapping[str, Any]]) -> _Description | None:
    """Return what our own export wrote beside the tensors; where twice, the same twice."""
    described: list[_Description] = []
    for about in statements:
        layout = about.get("layout", "ubr")
        described.append(
            _Description(
                *read_entries(about, str(file)), layout if layout in get_args(Layout) else "ubr"
            )
        )
    if any(
        (other.input_spec, other.provenance) != (described[0].input_spec, described[0].provenance)
        for other in described
    ):
        raise CheckpointRefused(f"{file}: says two things of its input or of how it was made")
    return described[0] if described else None


def _require_graphs_input(file: Path, tensors: Mapping[str, Tensor], spec: InputSpec) -> None:
    """Refuse an ONNX graph of ours that normalises otherwise than its metadata say."""
    for name in ("mean", "std"):
        if (constant := tensors.get(f"window.{name}")) is not None:
            graph = constant.flatten()
            stated = torch.tensor(getattr(spec, name))[: len(graph)]
            if not torch.equal(graph, stated):
                raise CheckpointRefused(
                    f"{file}: its {name} is {graph.tolist()} in the graph, {stated.tolist()} in "
                    "the metadata"
                )


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
