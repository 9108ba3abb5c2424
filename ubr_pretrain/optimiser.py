"""The optimiser of a training: SGD or AdamW in which biases and norms do not decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn


class OptimiserConfig(Protocol):
    """What a training's configuration says of its optimiser."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def momentum(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102


def build_optimiser(
    module: nn.Module,
    config: OptimiserConfig,
    bias_lr_factor: float = 1.0,
    *,
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """Return an optimiser of all parameters of ``module``.

    Every group has a ``lr_factor``: 1 for weights, ``bias_lr_factor`` for the others. A loop that
    sets the learning rate of an iteration multiplies it by that, unless it leaves the factor at 1.

    Args:
        module: what is trained, on its device.
        config: name ("sgd" or "adamw"), learning rate, momentum, decay.
        bias_lr_factor: learning rate of biases and norms over that of weights.
        fused: all parameters in one kernel, equal but for the last bit; None: on a GPU.
    """
    weights = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.weight_decay, "lr_factor": 1.0},
        {"params": others, "weight_decay": 0.0, "lr_factor": bias_lr_factor},
    ]
    if fused is None:
        fused = weights[0].is_cuda or None
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of a checkpoint, whatever device and memory format it was written on.

    Args:
        optimiser: of ``build_optimiser``; how it computes stays its own.
        state: of another one of the same parameters.
    """
    ways = ("fused", "foreach")
    own = [{way: group[way] for way in ways} for group in optimiser.param_groups]
    groups = [a | b for a, b in zip(state["param_groups"], own, strict=True)]
    optimiser.load_state_dict({**state, "param_groups": groups})
    for parameter, held in optimiser.state.items():
        for name, value in held.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                held[name] = torch.empty_like(parameter).copy_(value)  # fused: strides must agree
