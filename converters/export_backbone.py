"""Export the trunk of a UBR checkpoint for the libraries in which it is to work, verified.

Commands::

    export_backbone.py best.safetensors ubr.safetensors
    export_backbone.py best.safetensors exports/timm --layout timm --license apache-2.0
    export_backbone.py best.safetensors vgg16.pth --layout detectron2
    export_backbone.py best.safetensors scorer.onnx --layout onnx-scorer

OUT with a suffix is that file, with a model card (``OUT.md``) beside it. OUT without one is a
folder as Hugging Face Hub keeps it: ``README.md``, ``config.json``, ``model.*``. Nothing appears
before it was read back bit-equal, loaded strictly into a fresh network, and gave the checkpoint's
activations on random slices; ONNX was run by ONNX Runtime.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.config import CommandParser, give_up
from ubr_pretrain.transferred_blocks import WHOLE

if TYPE_CHECKING:
    from converters.verified_export import Export
    from ubr_pretrain.layouts import Layout

PROG = "export_backbone.py"
LAYOUTS = (
    *("ubr", "torchvision", "torchvision-classifier", "detectron2", "mmdetection", "timm"),
    *("segmentation_models_pytorch", "onnx", "onnx-scorer"),
)
LICENSES = (
    *("unknown", "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0"),
    *("mpl-2.0", "openrail", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0"),
)
"""Of the Hub's identifiers those that fit weights."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = CommandParser(prog=PROG, description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("checkpoint", type=Path, help="a checkpoint of train_ubr.py, or a backbone file")
    add("out", type=Path, help="a file with the layout's suffix, or a folder (no suffix)")
    add("--layout", choices=LAYOUTS, default="ubr", help="whose names and format")
    add("--in_channels", type=int, choices=[1, 3], default=3, help="1: conv1 summed over three")
    add(
        "--license",
        choices=LICENSES,
        default="unknown",
        metavar="ID",
        help=f"of the weights, for the card: {', '.join(LICENSES)}",
    )
    add("--overwrite", action="store_true", help="replace files that are there")
    arguments = parser.parse_args(argv)

    from converters.verified_export import export_backbone

    try:
        export = export_backbone(
            arguments.checkpoint,
            arguments.out,
            arguments.layout,
            in_channels=arguments.in_channels,
            weights_license=arguments.license,
            overwrite=arguments.overwrite,
        )
    except (ValueError, OSError) as error:
        give_up(PROG, error)
    _print_export(export, arguments.layout, arguments.in_channels)
    print(f"next: {_next_step(export, arguments.layout, arguments.out)}")
    return 0


def _print_export(export: Export, layout: Layout, in_channels: int) -> None:
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
    width_hu = spec.window.upper_hu - spec.window.lower_hu
    window = f"clip((HU {-spec.window.lower_hu:+g}) / {width_hu:g}, 0, 1)"
    last = "scores" if layout == "onnx-scorer" else export.tensors[-1].name.removesuffix(".bias")
    folded = ", batch norms folded" if made.folded_batch_norm else ""
    print(f"{last} activations: relative difference {export.activation_difference:.1e}")
    if export.border is not None:
        print(f"one channel, the border of the image: relative difference {export.border:.1e}")
    print(f"made by: init {made.init}, pretraining {made.pretraining}{folded}")
    mean, std = spec.mean[:in_channels], spec.std[:in_channels]
    if layout == "detectron2":
        keys = detectron2_input(spec, in_channels)
        print(f"INPUT.FORMAT: {keys.format}")
        print(f"MODEL.PIXEL_MEAN: {[round(value, 4) for value in keys.pixel_mean]}")
        print(f"MODEL.PIXEL_STD: {[round(value, 4) for value in keys.pixel_std]}")
        print(f"the dataset mapper hands over 255 * {window}, HU = PNG value - 32768, as floats")
    else:
        where = " (inside the graph: it reads HU)" if layout in ("onnx", "onnx-scorer") else ""
        print(f"input: ({spec.scale:g} * {window} - {mean}) / {std}{where}")
    for file, sha256 in export.files.items():
        print(f"wrote {file}  sha256 {sha256}")


def _next_step(export: Export, layout: Layout, out: Path) -> str:
    """Return the command that follows an export."""
    made = export.backbone.provenance
    card, *_, weights = export.files
    if layout == "ubr" and made.pretraining == "ubr":
        arm = {"random": "ubr", "imagenet": "ubr+imagenet"}.get(made.init)
        whole = made.began_through == WHOLE
        start = f"{arm} --ubr" if arm and whole else "external --external"
        return f"train_det.py --init {start} {weights} --coco COCO --images PNGS"
    if layout == "timm" and card.name == "README.md":
        return f'timm.create_model("local-dir:{out}", pretrained=True, features_only=True)'
    if layout == "detectron2":
        return f"DetectionCheckpointer(model).load({str(weights)!r}), as in {card}"
    if layout == "mmdetection":
        return f"backbone=dict(init_cfg=dict(type='Pretrained', checkpoint={str(weights)!r}))"
    if layout in ("onnx", "onnx-scorer"):
        return f"onnxruntime.InferenceSession({str(weights)!r}), as in {card}"
    return f"load {weights} as the code in {card} does"


if __name__ == "__main__":
    sys.exit(main())
