"""A GPU as published and as measured, and rows that hold a prediction beside a measurement.

Free of torch until a chip is asked for: ``gpu.py`` unpacks what it needs first.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple


class Peak(NamedTuple):
    """Published figures of a chip, dense: operations and bytes a second."""

    fp32: float
    tf32: float
    bf16: float
    bytes: float


PEAKS = {
    "H200": Peak(67e12, 495e12, 989e12, 4.8e12),
    "H100": Peak(67e12, 495e12, 989e12, 3.35e12),
    "A100": Peak(19.5e12, 156e12, 312e12, 2.0e12),
}
NOMINAL = Peak(1e11, 1e11, 1e11, 2e10)
"""Of anything else, a CPU among them: no published figure, only an order of magnitude."""

EFFICIENCY = {"fp32": 0.75, "tf32": 0.5, "bf16": 0.5}
"""Of the peak that cuDNN's convolutions are assumed to reach."""

PASSES = {"forward": 3, "step": 10}
"""How often the outputs of the convolutions go through memory: written, rectified, read."""


@dataclass(frozen=True)
class GpuRow:
    """A prediction, a measurement, and a bound or peer.

    Attributes:
        what: was measured.
        unit: of all figures.
        predicted: before measuring.
        measured: ours.
        reason: why they differ, as far as the figures themselves tell.
        against: what the bound or peer is; "" where there is none.
        bound: its figure.
        at_most: the aim for measured / bound.
    """

    what: str
    unit: str
    predicted: float
    measured: float
    reason: str
    against: str = ""
    bound: float | None = None
    at_most: float | None = None

    @property
    def alone(self) -> GpuRow:
        """The row, compared with nothing."""
        return replace(self, against="", bound=None, at_most=None)

    def to_markdown(self) -> str:
        """Return the row of a table."""
        ratio = self.measured / self.bound if self.bound else None
        met = (
            ""
            if ratio is None or self.at_most is None
            else "met"
            if ratio <= self.at_most
            else "missed"
        )
        return (
            f"| {self.what} | {self.predicted:.4g} | {self.measured:.4g} {self.unit} "
            f"| {self.measured / self.predicted:.2f} | {self.reason} | {self.against} "
            f"| {'' if self.bound is None else f'{self.bound:.4g}'} "
            f"| {'' if ratio is None else f'{ratio:.3f}'} "
            f"| {'' if self.at_most is None else f'<= {self.at_most:g}'} | {met} |"
        )


HEAD = (
    "| what | predicted | measured | measured / predicted | why they differ | against | theirs "
    "| ratio | aim | |\n|---|---|---|---|---|---|---|---|---|---|"
)


class Chip:
    """The device: its peaks, its clock, its memory."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.name = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        self.peak = next((p for name, p in PEAKS.items() if name in self.name), NOMINAL)

    def set_precision(self, wanted: str) -> str:
        """Set what products are made in, with the fastest kernels; return what this device has.

        Args:
            wanted: "fp32", "tf32", "bf16"; a CPU has the first alone.
        """
        from ubr_pretrain.runtime import set_precision

        found: Any = wanted if self.on_gpu else "fp32"
        set_precision(found, self.device, deterministic=not self.on_gpu)
        return found

    def wait(self) -> None:
        """Return when the device has done all it was given."""
        import torch

        if self.on_gpu:
            torch.cuda.synchronize()

    def timed_s(self, work: Callable[[], object], steps: int, warm: int) -> float:
        """Return the seconds of one of many; the faster of two rounds."""
        best = float("inf")
        for _ in range(2):
            for _ in range(warm):
                work()
            self.wait()
            began_s = time.perf_counter()
            for _ in range(steps):
                work()
            self.wait()
            best = min(best, (time.perf_counter() - began_s) / steps)
        return best

    def peak_mb(self, work: Callable[[], object]) -> float:
        """Return the most memory of the device while ``work`` ran; of a CPU, of the process."""
        import resource

        import torch

        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        work()
        if self.on_gpu:
            return torch.cuda.max_memory_allocated() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    def predicted_s(self, network: Any, shape: Sequence[int], precision: str, kind: str) -> float:
        """Return what a forward pass or a training step of convolutions should take."""
        flops, numbers = cost_of_forward(network, shape)
        flops *= 3 if kind == "step" else 1
        size = 2 if precision == "bf16" else 4
        arithmetic_s = flops / (getattr(self.peak, precision) * EFFICIENCY[precision])
        return arithmetic_s + numbers * size * PASSES[kind] / self.peak.bytes

    def predicted_step_mb(self, network: Any, shape: Sequence[int]) -> float:
        """Return the memory of a training step in float32.

        Weights, gradients and momentum; of every convolution, its output and what the rectifier
        makes of it, both kept for the way back; and once more the largest share for gradients.
        """
        weights = sum(parameter.numel() for parameter in network.parameters())
        return 4 * (3 * weights + 2.5 * cost_of_forward(network, shape)[1]) / 1e6

    def reached(
        self, network: Any, shape: Sequence[int], precision: str, kind: str, s: float
    ) -> str:
        """Say which part of the peak a measured time is."""
        flops = cost_of_forward(network, shape)[0] * (3 if kind == "step" else 1)
        share = flops / s / getattr(self.peak, precision)
        return f"{share:.0%} of the published peak, {EFFICIENCY[precision]:.0%} assumed"


def cost_of_forward(network: Any, shape: Sequence[int]) -> tuple[float, float]:
    """Return floating-point operations, and numbers that convolutions write, of a forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ghost, numbers = copy.deepcopy(network).to("meta"), [0]
    for module in ghost.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *a: numbers.append(a[2].numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(tuple(shape), device="meta"))
    return float(counter.get_total_flops()), float(sum(numbers))
