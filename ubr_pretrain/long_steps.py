"""Training steps of many seconds, as a CPU takes: a signal need not wait for the end of one.

Until the optimiser steps, nothing has moved the weights: a step that is given up is made anew, with
the same draws, when the training goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ubr_pretrain.runtime import Ranks, Stopped, StopRequest

LONG_S = 1.0
"""A step that takes longer is given up at a signal; a shorter one is brought to its end."""


class LongSteps:
    """Forward and backward passes that a signal ends between two layers, where they take long.

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
        self._stop = stop
        self._began_s: float | None = None
        self.given_up = False
        keeps_count = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
        alone = ranks.world_size == 1 and ranks.device.type == "cpu"
        if alone and not keeps_count and not compiled:
            for module in network.modules():
                if not [*module.children()]:
                    module.register_forward_hook(self._after_layer)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Enclose a forward and backward pass; ``given_up`` says that a signal ended it."""
        self._began_s = time.monotonic()
        try:
            yield
        except Stopped:
            self.given_up = True
        finally:
            self._began_s = None

    def look(self) -> None:
        """Look for a signal, between two layers.

        Raises:
            Stopped: there was one, and the step takes long.
        """
        began_s = self._began_s
        if began_s is None or self._stop.signal is None:
            return
        if time.monotonic() - began_s > LONG_S:
            raise Stopped

    def _after_layer(self, _layer: nn.Module, _inputs: object, output: object) -> None:
        self.look()
        if isinstance(output, Tensor) and output.requires_grad:  # on its way back, too
            output.register_hook(lambda _: self.look())  # type: ignore[no-untyped-call]
