"""Training steps of many seconds, as a CPU takes: a signal need not wait for the end of one.

Until the optimiser steps, nothing has moved the weights: a step that is given up is made anew, with
the same draws, when the training goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ubr_pretrain.runtime import Ranks, Stopped, StopRequest

LONG_S = 1.0
"""A step after one that took longer is given up at a signal; others are brought to their end."""


class LongSteps:
    """Forward and backward passes that a signal may end.

    Several ranks wait for each other, a GPU takes no seconds, and a batch norm has counted what it
    saw: there every step is brought to its end.

    Args:
        network: that is trained.
        ranks: this process among its peers.
        stop: where signals are noted.
        compiled: whether the network is, and takes no hooks.
    """

    def __init__(
        self, network: nn.Module, ranks: Ranks, stop: StopRequest, *, compiled: bool = False
    ) -> None:
        self._stop, self._is_long = stop, False
        self.given_up = False
        keeps_count = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
        alone = ranks.world_size == 1 and ranks.device.type == "cpu"
        self._may_end = alone and not keeps_count and not compiled
        if self._may_end:  # the backward pass is one call: Python hears of a signal in its hooks
            for module in network.modules():
                if not [*module.children()]:
                    module.register_forward_hook(_listen)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Enclose a forward and backward pass; ``given_up`` says that a signal ended it."""
        began_s = time.monotonic()
        try:
            with self._stop.at_once() if self._is_long else nullcontext():
                yield
        except Stopped:
            self.given_up = True
        self._is_long = self._may_end and time.monotonic() - began_s > LONG_S


def _listen(_module: nn.Module, _inputs: object, output: object) -> None:
    if isinstance(output, Tensor) and output.requires_grad and torch.is_grad_enabled():
        output.register_hook(_nothing)  # type: ignore[no-untyped-call]


def _nothing(_gradient: Tensor) -> None:
    """Change nothing."""
