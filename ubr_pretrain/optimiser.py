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


def clip_gradients(module: nn.Module, max_norm: float | None) -> torch.Tensor:
    """Scale all gradients to a norm of at most ``max_norm``; return what it was.

    It is not finite where a gradient is not. A GPU is not waited for.

    Args:
        module: with its gradients.
        max_norm: None: they stay as they are.
    """
    parameters = [p for p in module.parameters() if p.grad is not None]
    if max_norm is None:
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return nn.utils.clip_grad_norm_(parameters, max_norm)


def require_finite(module: nn.Module, iteration: int) -> None:
    """Look at all weights and statistics, before they are written.

    Raises:
        FloatingPointError: one is not finite; the tensor and the iteration are named.
    """
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(
                f"iteration {iteration}: {name} is not finite after this step, of which nothing "
                "was written"
            )
