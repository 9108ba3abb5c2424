"""How large all is that ``gpu.py`` measures: the paper's sizes, or ones that take seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of everything that is measured; the defaults are the paper's."""

    device: str = "cuda"
    width: float = 1.0
    side_px: int = 128
    g: int = 12
    m: int = 8
    volumes: int = 10
    slices: int = 120
    steps: int = 200
    warm: int = 20
    paper_iterations: int = 1500
    growing_groups: tuple[int, ...] = (3, 6, 12, 24, 48, 96)
    growing_volumes: tuple[int, ...] = (10, 100, 1000)
    growing_slices: int = 24
    scan_px: int = 512
    scan_slices: int = 600
    detector_px: int = 512
    fc_dim: int = 4096
    detector_steps: int = 60
    growing_images: tuple[int, ...] = (1, 2, 4, 8)
    workers: int = 8
    tiny: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether there is anything to measure."""
        return self.device.startswith("cuda")

    @property
    def warning(self) -> str:
        """What a reader must know before any figure; "" where they are what they say."""
        if self.tiny:
            return (
                "Sizes are tiny: every line is run, nothing is compared, the figures mean nothing."
            )
        return (
            "" if self.on_gpu else "No GPU: every precision is computed in fp32, by the processor."
        )


TINY = {
    "width": 0.05,
    "side_px": 32,
    "g": 2,
    "m": 4,
    "volumes": 2,
    "slices": 12,
    "steps": 3,
    "warm": 1,
    "paper_iterations": 4,
    "growing_groups": (1, 2),
    "growing_volumes": (1, 2),
    "growing_slices": 6,
    "scan_px": 48,
    "scan_slices": 8,
    "detector_px": 64,
    "fc_dim": 8,
    "detector_steps": 1,
    "growing_images": (1, 2),
    "workers": 0,
    "tiny": True,
}
