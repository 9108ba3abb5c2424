"""What the checkpoint of a detector says of it: read with its tensors, believed when it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from lesion_det.det_config import Arm, DetectorConfig, InputConfig
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.config import Config, first_problem
from ubr_pretrain.ct import InputSpec


class Description(Config):
    """The entries of a detector's checkpoint that describe it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    arm: Arm
    width: Annotated[float, Field(gt=0)]
    input: InputConfig
    input_spec: InputSpec
    detector_config: DetectorConfig
    provenance: Provenance
    config: Mapping[str, Any]


DESCRIBED = tuple(Description.model_fields)


def read_description(state: object, source: str) -> Description:
    """Return the description among the entries of a checkpoint.

    Args:
        state: the entries, or what stands in their place.
        source: the file, for the message.

    Raises:
        CheckpointRefused: an entry is missing or not what this project writes.
    """
    try:
        return Description.model_validate(state)
    except ValidationError as error:
        problem = " ".join(first_problem(error).split())
        raise CheckpointRefused(f"{source}: its description: {problem}") from error
