"""Export the trunk of a UBR checkpoint, verified, for this project, torchvision or Detectron2.

Commands::

    export_backbone.py checkpoints/best.safetensors ubr.safetensors
    export_backbone.py checkpoints/best.safetensors vgg16.pth --layout torchvision
    export_backbone.py checkpoints/best.safetensors vgg16.pkl --layout detectron2

Writes the file (for ``.pth`` also a ``.json`` with input and provenance), after it was read back,
loaded strictly into a fresh network, and gave the checkpoint's activations on a random image.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.config import CommandParser, refuse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ubr_pretrain.backbone import Backbone
    from ubr_pretrain.ct import InputSpec
    from ubr_pretrain.layouts import Layout
    from ubr_pretrain.trunk import Trunk

PROG = "export_backbone.py"
ACTIVATION_TOLERANCE = 1e-6
"""Largest allowed difference of the last activations, relative to the largest activation. Both
sides compute in float64, so that only the exported values can differ."""


@dataclass(frozen=True)
class ExportedTensor:
    """One row of the printed table."""

    name: str
    exported_name: str
    shape: tuple[int, ...]
    norm: float


@dataclass(frozen=True)
class Export:
    """A verified export.

    Attributes:
        backbone: what was written; batch norms are folded.
        tensors: from the input on; each was read back bit-equal.
        activation_difference: relative, of the last layer on a random image.
        files: file -> SHA-256.
    """

    backbone: Backbone
    tensors: tuple[ExportedTensor, ...]
    activation_difference: float
    files: dict[Path, str]


def export_backbone(
    checkpoint: Path, out: Path, layout: Layout, *, overwrite: bool = False
) -> Export:
    """Write the trunk of ``checkpoint`` in ``layout``; the files appear only once verified.

    Args:
        checkpoint: a training checkpoint of ``train_ubr.py``, or a backbone file.
        out: the file to write; its suffix must be one of the layout's.
        layout: whose names and format.
        overwrite: replace files that are there.

    Raises:
        CheckpointRefused: ``checkpoint`` is damaged or of another kind.
        FileExistsError: a file is there and ``overwrite`` is False.
        ValueError: wrong suffix, or what was written does not compute what was read.
    """
    from tempfile import TemporaryDirectory

    from converters.weight_files import output_files, read_weights, write_weights
    from ubr_pretrain.checkpoint import file_sha256, write_atomically
    from ubr_pretrain.layouts import tensor_names

    finals = output_files(out, layout)
    if taken := [str(file) for file in finals if file.exists()]:
        if checkpoint.exists() and any(checkpoint.samefile(file) for file in taken):
            raise FileExistsError(f"{taken[0]}: is the checkpoint itself")
        if not overwrite:
            raise FileExistsError(f"{taken[0]}: exists; use --overwrite or another name")
    source, backbone = _read_source(checkpoint)
    trunk = backbone.trunk
    names = tensor_names(trunk.arch, layout)
    with TemporaryDirectory() as folder:
        draft = Path(folder) / out.name
        write_weights(draft, backbone, layout)
        written = read_weights(draft, layout)
        for name, tensor in trunk.state_dict().items():
            if not tensor.equal(written[names[name]]):
                raise ValueError(f"{out}: {names[name]} was not read back as it was written")
        difference = activation_difference(
            source, _fresh_network(written, backbone, layout), backbone.input_spec
        )
        if not difference <= ACTIVATION_TOLERANCE:
            raise ValueError(
                f"{out}: activations differ from the checkpoint's by {difference:.1e}, "
                f"at most {ACTIVATION_TOLERANCE:g} is allowed"
            )
        for final in finals:
            with write_atomically(final) as file:
                file.write((Path(folder) / final.name).read_bytes())
    rows = tuple(
        ExportedTensor(name, names[name], tuple(t.shape), float(t.norm()))
        for name, t in trunk.state_dict().items()
    )
    return Export(backbone, rows, difference, {file: file_sha256(file) for file in finals})


def activation_difference(source: nn.Module, network: nn.Module, spec: InputSpec) -> float:
    """Return the largest difference of two networks' outputs over the largest output.

    Both see one random image of ``spec``, the same on every call, in float64.
    """
    import copy

    import torch

    grey = torch.rand(1, 3, spec.size_px, spec.size_px, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    image = ((spec.scale * grey - mean) / std).double()
    with torch.no_grad():
        ours, theirs = (
            copy.deepcopy(module).double().eval()(image.clone()) for module in (source, network)
        )
    largest = float(ours.abs().max())
    return float((ours - theirs).abs().max()) / (largest or 1.0)


def _read_source(checkpoint: Path) -> tuple[Trunk, Backbone]:
    """Return the trunk as it was trained (batch norms in place), and as it is transferred."""
    from ubr_pretrain.backbone import read_backbone
    from ubr_pretrain.checkpoint import CheckpointRefused, checkpoint_kind
    from ubr_pretrain.regressor import read_regressor, regressor_backbone

    match checkpoint_kind(checkpoint):
        case "ubr":
            trained = read_regressor(checkpoint)
            return trained.regressor.trunk, regressor_backbone(trained)
        case "backbone":
            backbone = read_backbone(checkpoint)
            return backbone.trunk, backbone
        case kind:
            raise CheckpointRefused(f"{checkpoint}: is a {kind!r} file, expected ubr or backbone")


def _fresh_network(tensors: dict[str, Tensor], backbone: Backbone, layout: Layout) -> nn.Module:
    """Load what was read back, strictly, into a new network of the layout's kind."""
    from converters.layouts import torchvision_features
    from ubr_pretrain.layouts import rename, tensor_names
    from ubr_pretrain.trunk import Trunk, load_trunk

    arch, width = backbone.trunk.arch, backbone.trunk.width
    if layout == "torchvision":
        features = torchvision_features(arch, width)
        features.load_state_dict({n.removeprefix("features."): t for n, t in tensors.items()})
        return features[:-1]  # a trunk ends at the last ReLU, before torchvision's last pool
    ours = {theirs: name for name, theirs in tensor_names(arch, layout).items()}
    trunk = Trunk(arch, width)
    load_trunk(trunk, rename(tensors, ours), "the written file")
    return trunk


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = CommandParser(prog=PROG, description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("checkpoint", type=Path, help="a checkpoint of train_ubr.py, or a backbone file")
    add("out", type=Path, help=".safetensors (ubr, torchvision), .pth (torchvision), .pkl")
    add("--layout", choices=["ubr", "torchvision", "detectron2"], default="ubr")
    add("--overwrite", action="store_true", help="replace files that are there")
    arguments = parser.parse_args(argv)
    try:
        export = export_backbone(
            arguments.checkpoint, arguments.out, arguments.layout, overwrite=arguments.overwrite
        )
    except (ValueError, OSError) as error:
        refuse(PROG, str(error))
    _print_export(export, arguments.layout)
    made = export.backbone.provenance
    if arguments.layout == "ubr" and made.pretraining == "ubr":
        arm = "ubr" if made.init == "random" else "ubr+imagenet"
        print(f"next: train_det.py --init {arm} --ubr {arguments.out} --coco COCO --images PNGS")
    return 0


def _print_export(export: Export, layout: Layout) -> None:
    from converters.layouts import detectron2_input
    from converters.printed_table import print_table

    print_table(
        ("tensor", "in the file", "shape", "norm", "verified"),
        [
            (row.name, row.exported_name, "x".join(map(str, row.shape)), f"{row.norm:.4f}", "equal")
            for row in export.tensors
        ],
        num_text=2,
    )
    spec, made = export.backbone.input_spec, export.backbone.provenance
    window = f"clip((HU {-spec.window.lower_hu:+g}) / {_width_hu(spec):g}, 0, 1)"
    last = export.tensors[-1].name.removesuffix(".bias")
    folded = ", batch norms folded" if made.folded_batch_norm else ""
    print(f"{last} activations: relative difference {export.activation_difference:.1e}")
    print(f"made by: init {made.init}, pretraining {made.pretraining}{folded}")
    if layout == "detectron2":
        keys = detectron2_input(spec)
        print(f"INPUT.FORMAT: {keys.format}")
        print(f"MODEL.PIXEL_MEAN: {[round(value, 4) for value in keys.pixel_mean]}")
        print(f"MODEL.PIXEL_STD: {[round(value, 4) for value in keys.pixel_std]}")
        print(f"the dataset mapper hands over 255 * {window}, HU = PNG value - 32768, as floats")
    else:
        print(f"input: ({spec.scale:g} * {window} - {spec.mean}) / {spec.std}")
    for file, sha256 in export.files.items():
        print(f"wrote {file}  sha256 {sha256}")


def _width_hu(spec: InputSpec) -> float:
    return spec.window.upper_hu - spec.window.lower_hu


if __name__ == "__main__":
    sys.exit(main())
