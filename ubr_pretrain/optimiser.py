"""The optimiser of a training: SGD or AdamW in which biases and norms do not decay."""

from __future__ import annotations

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
    module: nn.Module, config: OptimiserConfig, bias_lr_factor: float = 1.0
) -> torch.optim.Optimizer:
    """Return an optimiser of all parameters of ``module``.

    Every group has a ``lr_factor``: 1 for weights, ``bias_lr_factor`` for the others. A loop that
    sets the learning rate of an iteration multiplies it by that, unless it leaves the factor at 1.

    Args:
        module: what is trained.
        config: name ("sgd" or "adamw"), learning rate, momentum, decay.
        bias_lr_factor: learning rate of biases and norms over that of weights.
    """
    weights = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.weight_decay, "lr_factor": 1.0},
        {"params": others, "weight_decay": 0.0, "lr_factor": bias_lr_factor},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr)
