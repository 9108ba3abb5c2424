"""Numbers of training steps: added up over the ranks, and read when the device has them.

A loop that reads its loss in every step makes a GPU wait for the host and the host for the GPU.
Here the numbers of a step leave the device in one copy and are read one step later, while the next
one is computed; a CPU has nothing to wait for and is read at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ubr_pretrain.runtime import Ranks, StopRequest

About = TypeVar("About")


@dataclass(frozen=True)
class _Sent(Generic[About]):
    """Numbers on their way to the host, and when they are there."""

    about: About
    shapes: Mapping[str, torch.Size]
    numbers: Tensor
    arrived: torch.cuda.Event | None


class LateRecord(Generic[About]):
    """The numbers of every step of a training, in order.

    All ranks send and read at the same steps, so that they also agree on when to stop: each tells
    the others, with its numbers, of a signal that it got.

    Args:
        ranks: this process among its peers.
        stop: where signals are noted.
        told: is called with what ``send`` was given to tell the step by, and the sums of its
            numbers in float64. What it raises, such as for a loss that is not finite, comes out of
            ``send`` or ``drain``.
        late: steps that may be under way unread; None: 1 on a GPU, 0 on a CPU.
    """

    def __init__(
        self,
        ranks: Ranks,
        stop: StopRequest,
        told: Callable[[About, dict[str, Tensor]], None],
        late: int | None = None,
    ) -> None:
        self._ranks, self._stop, self._told = ranks, stop, told
        self._late = int(ranks.device.type == "cuda") if late is None else late
        self._sent: deque[_Sent[About]] = deque()
        self._agreed = False

    @property
    def stopping(self) -> bool:
        """Whether a signal came, on any rank; all ranks see it before the same step."""
        return self._stop.signal is not None if self._ranks.world_size == 1 else self._agreed

    def send(self, about: About, numbers: Mapping[str, Tensor]) -> None:
        """Add up a step's numbers over the ranks and send them off; read those that are due.

        Args:
            about: what ``told`` needs to know the step by.
            numbers: float32 of any shape, on the device; equal names and shapes on all ranks.
        """
        flat = torch.cat([number.detach().reshape(-1) for number in numbers.values()]).double()
        if self._ranks.world_size > 1:
            signals = flat.new_zeros(self._ranks.world_size)
            signals[self._ranks.rank] = self._stop.signal or 0
            flat = torch.cat([flat, signals])
            self._ranks.add_up(flat)
        shapes = {name: number.shape for name, number in numbers.items()}
        arrived = None
        if flat.is_cuda:
            host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            flat = host.copy_(flat, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._sent.append(_Sent(about, shapes, flat, arrived))
        self._read(self._late)

    def drain(self) -> None:
        """Read all that was sent: before weights are judged or written, and at the end."""
        self._read(0)

    def agree(self) -> None:
        """Tell all ranks of a signal that one got since its numbers were sent."""
        if self._ranks.world_size > 1:
            found = [number for number in self._ranks.gather_objects(self._stop.signal) if number]
            if found:
                self._agreed = True
                self._stop.signal = self._stop.signal or max(found)

    def _read(self, left: int) -> None:
        while len(self._sent) > left:
            sent = self._sent.popleft()
            if sent.arrived is not None:
                sent.arrived.synchronize()
            sizes = [math.prod(shape) for shape in sent.shapes.values()]
            rest = len(sent.numbers) - sum(sizes)
            *parts, signals = torch.split(sent.numbers, [*sizes, rest])
            if signals.any():
                self._agreed = True
                self._stop.signal = self._stop.signal or int(signals.max())
            self._told(
                sent.about,
                {
                    name: part.view(shape)
                    for (name, shape), part in zip(sent.shapes.items(), parts, strict=True)
                },
            )
