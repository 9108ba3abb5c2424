"""What travels with exported weights: their description in plain values, and a model card.

The card is Markdown under a YAML front matter as Hugging Face Hub reads it; with ``config.json``
and the weights it makes a folder that ``huggingface_hub`` uploads as it is.

Reference:
    https://huggingface.co/docs/hub/model-cards and .../repositories-licenses
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from converters.layouts import SEED, detectron2_input, unit_statistics
from ubr_pretrain.backbone import Backbone
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.layouts import Layout
from ubr_pretrain.trunk import LAYERS, Architecture, scaled_channels

LIBRARIES: dict[Layout, str] = {
    "ubr": "ct-body-part-transfer",
    "torchvision": "torchvision",
    "torchvision-classifier": "torchvision",
    "detectron2": "detectron2",
    "mmdetection": "mmdetection",
    "timm": "timm",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "onnx": "onnx",
    "onnx-scorer": "onnx",
}
"""The Hub's ``library_name``."""

FLAT: tuple[Layout, ...] = ("torchvision", "torchvision-classifier")
"""Layouts whose ``.pth`` is a flat dictionary of tensors, with no room for a description."""

TIMM_NUM_CLASSES = 1000
"""timm loads strictly, and would ask for a trained classifier, for a network of that many classes;
for any other number, and for ``features_only``, it draws the classifier anew."""


@dataclass(frozen=True)
class Exported:
    """What is written, and how.

    Attributes:
        backbone: the trunk as it is written, and the input that it needs.
        layout: whose names and format.
        in_channels: that conv1 reads: 3, or 1.
        license: a Hugging Face identifier; "unknown" where nobody said.
        border: relative difference that the border of one channel makes; None: none.
    """

    backbone: Backbone
    layout: Layout
    in_channels: int = 3
    license: str = "unknown"
    border: float | None = None

    def about(self) -> dict[str, Any]:
        """Return the description in plain values."""
        trunk = self.backbone.trunk
        about: dict[str, Any] = {
            "layout": self.layout,
            "arch": trunk.arch,
            "width": trunk.width,
            "in_channels": self.in_channels,
            "license": self.license,
            "input_spec": self.backbone.input_spec.model_dump(mode="json"),
            "provenance": self.backbone.provenance.model_dump(mode="json"),
            "exported_by": f"ct-body-part-transfer {metadata.version('ct-body-part-transfer')}",
        }
        if self.layout == "torchvision-classifier":
            about["classifier"] = f"random: torchvision's own draw after torch.manual_seed({SEED})"
        return about


def hub_config(exported: Exported, sha256: str) -> dict[str, Any]:
    """Return ``config.json`` as the library of the layout reads it; our description is in it."""
    about = {**exported.about(), "sha256": sha256}
    spec = exported.backbone.input_spec
    statistics = unit_statistics(spec, exported.in_channels)
    mean, std = list(statistics.mean), list(statistics.std)
    if exported.layout == "timm":
        size = [exported.in_channels, spec.size_px, spec.size_px]
        return {
            "architecture": "vgg16",
            "num_classes": TIMM_NUM_CLASSES,
            "model_args": {"in_chans": exported.in_channels},
            "pretrained_cfg": {
                "tag": "ct",
                "custom_load": False,
                "input_size": size,
                "fixed_input_size": False,
                "interpolation": "bilinear",
                "crop_pct": 1.0,
                "mean": mean,
                "std": std,
                "num_classes": TIMM_NUM_CLASSES,
                "pool_size": None,
                "first_conv": "features.0",
                "classifier": "head.fc",
                "license": exported.license,
            },
            "about": about,
        }
    if exported.layout == "segmentation_models_pytorch":
        return {"input_space": "RGB", "input_range": [0, 1], "mean": mean, "std": std, **about}
    return about


def model_card(exported: Exported, weights: str, sha256: str, *, title: str, folder: bool) -> str:
    """Return the card of a weight file.

    Args:
        exported: what was written.
        weights: name of the file.
        sha256: of the file.
        title: heading of the card.
        folder: whether the file lies in a folder of its own, with a ``config.json``.
    """
    trunk, spec = exported.backbone.trunk, exported.backbone.input_spec
    environment = Environment(  # Markdown and Python are not escaped as HTML is
        loader=PackageLoader("converters", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {
        **_numbers(spec, exported.in_channels),
        **_shapes(trunk.arch, trunk.width),
        "layout": exported.layout,
        "arch": trunk.arch,
        "in_channels": exported.in_channels,
        "license": exported.license,
        "weights": weights,
        "in_folder": folder,
    }
    made = exported.backbone.provenance
    code = environment.get_template("loading_code.py.j2").render(values)
    return environment.get_template("model_card.md.j2").render(
        **values,
        code=code,
        title=title,
        sha256=sha256,
        made=made,
        where=_where(weights, exported.layout, folder=folder),
        seed=SEED,
        front_matter=_front_matter(exported),
        arch_words={"vgg16": "VGG-16", "alexnet": "AlexNet"}[trunk.arch]
        + ("" if trunk.width == 1 else f" ({trunk.width:g} of its channels)"),
        mean_words=" / ".join(f"{value:.6g}" for value in spec.mean[: exported.in_channels]),
        std_words=" / ".join(f"{value:.6g}" for value in spec.std[: exported.in_channels]),
        fov_mm=spec.fov_mm,
        detectron2=_rounded(spec, exported.in_channels),
        border=None if exported.border is None else f"{exported.border:.1e}",
    )


def _front_matter(exported: Exported) -> str:
    made = exported.backbone.provenance
    tags = ["ct", "medical-imaging", exported.backbone.trunk.arch]
    tags += ["body-part-regression"] * (made.pretraining == "ubr")
    values: dict[str, Any] = {
        "license": exported.license,
        "library_name": LIBRARIES[exported.layout],
        "tags": [*tags, "ct-body-part-transfer"],
    }
    if exported.layout != "onnx-scorer":
        values["pipeline_tag"] = "image-feature-extraction"
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=False)


def _numbers(spec: InputSpec, in_channels: int) -> dict[str, Any]:
    """Return the numbers of an input as they stand in code."""

    def written(values: tuple[float, ...]) -> str:
        if in_channels == 1 or len(set(values)) == 1:
            return f"{values[0]:.10g}"
        return f"torch.tensor({list(values)})[:, None, None]"

    lower, upper = spec.window.lower_hu, spec.window.upper_hu
    return {
        "lower": f"{lower:.10g}",
        "upper": f"{upper:.10g}",
        "shift": f"{'-' if lower > 0 else '+'} {abs(lower):.10g}",
        "span": f"{upper - lower:.10g}",
        "scale": f"{spec.scale:.10g}",
        "mean": written(spec.mean),
        "std": written(spec.std),
        "size_px": spec.size_px,
    }


def _shapes(arch: Architecture, width: float) -> dict[str, Any]:
    """Return what code needs that builds a trunk, in torchvision's way of writing."""
    channels: list[int | str] = []
    stages: list[int] = []
    last = 0
    for layer in LAYERS[arch]:
        if layer.pool_before:
            channels.append("M")
            stages.append(last)
        last = scaled_channels(layer.channels, width)
        channels.append(last)
    first = LAYERS[arch][0]
    out = scaled_channels(first.channels, width)
    return {
        "width": int(width) if float(width).is_integer() else width,
        "channels": [*channels, "M"],
        "stages": [*stages, last, last],
        "first_name": first.name,
        "first_conv": f"1, {out}, {first.kernel}, {first.stride}, {first.padding}",
    }


def _rounded(spec: InputSpec, in_channels: int) -> dict[str, Any]:
    keys = detectron2_input(spec, in_channels)
    return {
        "format": keys.format,
        "pixel_mean": [round(value, 4) for value in keys.pixel_mean],
        "pixel_std": [round(value, 4) for value in keys.pixel_std],
    }


def _where(weights: str, layout: Layout, *, folder: bool) -> str:
    """Return where the description stands."""
    if folder:
        return "in `config.json`"
    name, suffix = weights.rsplit(".", 1)
    if suffix in ("safetensors", "onnx"):
        return "in the metadata of the file"
    return f"in `{name}.json`" if layout in FLAT else "beside the tensors in the file"
