"""The body-part regressor: a trunk, conv6, global average pooling (pool6), fc7.

Shapes:
    N: slices; H, W: input pixels; F: features of pool6 (512 at width 1).

Reference:
    Yan, Lu, Summers, ISBI 2018, Fig. 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ubr_pretrain.backbone import Backbone, Provenance, read_entries
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import (
    Architecture,
    Trunk,
    fold_batch_norm,
    is_width,
    require_network,
    scaled_channels,
)

HEAD_STD = 0.001
"""Gaussian initialisation of conv6 and fc7 in the authors' released code."""


class Regressor(nn.Module):
    """One score for every slice; larger is more inferior.

    Args:
        trunk: conv1..conv5.
        head_std: standard deviation of the Gaussian that conv6 and fc7 start from; None: He's
            for conv6 and 0.01 for fc7, which lets a trunk from scratch leave the plateau.
    """

    def __init__(self, trunk: Trunk, head_std: float | None = HEAD_STD) -> None:
        super().__init__()
        features = scaled_channels(512, trunk.width)
        self.trunk = trunk
        self.conv6 = nn.Conv2d(trunk.out_channels, features, 1)
        self.fc7 = nn.Linear(features, 1)
        if head_std is None:
            nn.init.kaiming_normal_(self.conv6.weight, nonlinearity="relu")
            nn.init.normal_(self.fc7.weight, std=0.01)
        else:
            nn.init.normal_(self.conv6.weight, std=head_std)
            nn.init.normal_(self.fc7.weight, std=head_std)
        nn.init.zeros_(self.conv6.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.fc7.bias)

    def pool6(self, slices: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N F"]:
        """Return the features behind the score."""
        return torch.relu(self.conv6(self.trunk(slices))).mean(dim=(2, 3))

    def forward(self, slices: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
        """Return one score a slice."""
        return self.fc7(self.pool6(slices)).squeeze(1)


@dataclass(frozen=True)
class TrainedRegressor:
    """A regressor from a checkpoint, in eval mode, with what is needed to use it rightly."""

    regressor: Regressor
    input_spec: InputSpec
    provenance: Provenance


def regressor_state(
    regressor: Regressor, input_spec: InputSpec, provenance: Provenance
) -> dict[str, Any]:
    """Return the part of a training checkpoint from which ``read_regressor`` rebuilds it."""
    trunk = regressor.trunk
    return {
        "arch": trunk.arch,
        "width": trunk.width,
        "batch_norm": trunk.batch_norm,
        "input_spec": input_spec.model_dump(mode="json"),
        "provenance": provenance.model_dump(mode="json"),
        "regressor": regressor.state_dict(),
    }


def read_regressor(path: Path) -> TrainedRegressor:
    """Read the regressor of a training checkpoint; every tensor must fit.

    Raises:
        CheckpointRefused: damaged, not a UBR checkpoint, or tensors missing or misshapen.
    """
    state = read_checkpoint(path, "ubr")
    spec, provenance = read_entries(state, str(path))
    arch: Any = state.get("arch")
    width: Any = state.get("width")
    tensors: Any = state.get("regressor")
    if arch not in get_args(Architecture) or not is_width(width) or not isinstance(tensors, dict):
        raise CheckpointRefused(
            f"{path}: arch {arch!r}, width {width!r} and a {type(tensors).__name__} of tensors "
            "describe no regressor"
        )

    def network() -> Regressor:
        return Regressor(Trunk(arch, float(width), batch_norm=state.get("batch_norm") is True))

    try:
        require_network(network, tensors, str(path))
    except ValueError as error:
        raise CheckpointRefused(str(error)) from error
    regressor = network()
    regressor.load_state_dict(tensors)
    for name, tensor in regressor.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointRefused(f"{path}: {name} holds values that are not finite")
    return TrainedRegressor(regressor.eval().requires_grad_(False), spec, provenance)


def regressor_backbone(trained: TrainedRegressor) -> Backbone:
    """Return the trunk of a trained regressor for transfer, its batch norms folded away."""
    trunk = trained.regressor.trunk
    folded = trunk.batch_norm or trained.provenance.folded_batch_norm
    provenance = trained.provenance.model_copy(update={"folded_batch_norm": folded})
    return Backbone(fold_batch_norm(trunk), trained.input_spec, provenance)
