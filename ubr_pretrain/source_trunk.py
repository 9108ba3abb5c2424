"""The trunk of ImageNet or of others that a training starts from, and the words for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ubr_pretrain.backbone import Backbone, read_imagenet_trunk
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.foreign_file import weight_file
from ubr_pretrain.starting_flags import ExternalInput, described_input
from ubr_pretrain.trunk import Architecture

INPUT_FIELDS = ("window", "scale", "mean", "std")
INPUT_FIELDS_OF_PICTURES = ("scale", "mean", "std")


class StartFiles(Protocol):
    """What of a configuration names the source: the same fields for a regressor and a detector."""

    @property
    def imagenet_weights(self) -> Path | None:
        """File of ImageNet weights in torchvision's layout."""

    @property
    def external(self) -> Path | None:
        """File or folder of others."""

    @property
    def external_input(self) -> ExternalInput:
        """How HU become the input of ``external``."""

    @property
    def width(self) -> float:
        """Channel multiplier."""


@dataclass(frozen=True)
class SourceTrunk:
    """A trunk to start from.

    Attributes:
        backbone: the trunk, its input, how it was made.
        words: the file's name and its layout, or the name of torchvision's weights; never a path.
        sha256: hash of the file, "" where there is none.
        input_fields: of its ``InputSpec``, those that a training must not change. Pictures have no
            HU: a trunk that was trained on them leaves the window open.
    """

    backbone: Backbone
    words: str
    sha256: str
    input_fields: tuple[str, ...] = INPUT_FIELDS


def read_source_trunk(files: StartFiles, arch: Architecture) -> SourceTrunk:
    """Read the trunk of ``external`` where that is named, else ImageNet's.

    Raises:
        ValueError: the weights cannot be had, are no such trunk, or do not say what they read.
    """
    if files.external is not None:
        spec = described_input(files.external_input)
        found = read_external_trunk(files.external, files.width, spec, arch)
        return SourceTrunk(
            found.backbone,
            f"{files.external.name} ({found.words})",
            file_sha256(weight_file(files.external)),
            INPUT_FIELDS_OF_PICTURES if files.external_input == "imagenet" else INPUT_FIELDS,
        )
    file = files.imagenet_weights
    named = {"vgg16": "VGG16_Weights", "alexnet": "AlexNet_Weights"}[arch]
    return SourceTrunk(
        read_imagenet_trunk(file, arch, files.width),
        file.name if file else f"torchvision {named}.IMAGENET1K_V1",
        file_sha256(file) if file else "",
        INPUT_FIELDS_OF_PICTURES,
    )


def adopt_input(
    chosen: InputSpec, own: InputSpec, words: str, fields: Iterable[str] = INPUT_FIELDS
) -> InputSpec:
    """Return the input of a training that goes on from a trunk: the window and grey values of that.

    What ``chosen`` leaves at its default gives way; anything else must agree, because a trunk that
    is fed with other numbers than it was trained on is worth little, in silence (torchvision's
    ImageNet mean and sd differ from grey values of 0..255 by a factor of 57). Sizes are free: a
    convolution reads images of any.

    Args:
        chosen: the input that was asked for.
        own: the trunk's.
        words: what the trunk is.
        fields: those that must be the trunk's.

    Raises:
        ValueError: naming the field, both values and the source.
    """
    default = InputSpec()
    for name in fields:
        value, wanted = getattr(chosen, name), getattr(own, name)
        if value not in (getattr(default, name), wanted):
            raise ValueError(
                f"input.{name} {value}: the trunk of {words} was trained on {name} {wanted}; "
                f"leave --input.{name} out"
            )
    return chosen.model_copy(update={name: getattr(own, name) for name in fields})
