"""A training step of the regressor, data included, against the bare network on a resident batch.

    python benchmarks/training.py

Ours is ``train_ubr.train`` itself, in blocks of steps between which the bare step runs. While that
runs, threads still prepare our next batches: the steps that have them for nothing, and the bare
steps that run beside them, are not counted. The peer is a training loop as most are written: a
Dataset that reads one item, a DataLoader that puts it into a batch, random transforms slice by
slice; same network, same batch, same losses.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from generated import write_ct
from table import Row, to_markdown
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ubr_pretrain.ct import AIR_HU, InputSpec
from ubr_pretrain.groups import equidistant_slices
from ubr_pretrain.journal import Journal, ProgressLine
from ubr_pretrain.losses import ubr_loss
from ubr_pretrain.network_input import network_input
from ubr_pretrain.optimiser import build_optimiser
from ubr_pretrain.regressor import Regressor
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.train_ubr import train
from ubr_pretrain.training_batches import THREADS_AHEAD
from ubr_pretrain.training_data import read_training_data
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.ubr_config import Augmentation, Losses, Optimiser, UbrConfig

CPU = torch.device("cpu")
WARM, BLOCK, BLOCKS = 4, 12, 2
"""Steps that warm up, steps at a stretch, and how often."""

STEPS = WARM + BLOCK * BLOCKS
AHEAD = 2 * THREADS_AHEAD["cpu"]
"""Batches that ``worked_ahead`` holds or prepares while a step runs."""

ALL_VIEWS = Augmentation(
    scale=0.35,
    stretch=0.12,
    shift=0.12,
    rotate_deg=10.0,
    flip=0.5,
    contrast=0.2,
    offset_hu=40.0,
    noise_hu=30.0,
    blur=0.8,
    field=0.3,
    erase=0.25,
)
"""Those of the preset ``scorer``."""

SGD = Optimiser(name="sgd", lr=1e-4)
GROUPS = (2, 4, 6, 8, 10, 12)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_ct(folder / "ct", num_volumes=8, num_slices=60, side_px=128)
        plain = configured(data, 0.25, 6, 64)
        views = configured(data, 0.25, 6, 64, augmentation=ALL_VIEWS, oversample=2, batch_norm=True)
        return [
            against_bare("no views", plain, folder / "a", threads=1),
            against_bare("no views", plain, folder / "b", threads=2),
            against_bare("all views, batch norm", views, folder / "c", threads=1),
            against_bare("all views, batch norm", views, folder / "d", threads=2),
            against_bare(
                "all views", configured(data, 0.25, 12, 32, augmentation=ALL_VIEWS), folder / "e", 2
            ),
            against_bare(
                "all views", configured(data, 0.25, 2, 128, augmentation=ALL_VIEWS), folder / "f", 2
            ),
            against_peer(views, folder / "g", threads=2),
            *growth(data, folder / "h"),
        ]


def configured(data: Path, width: float, g: int, size_px: int, **more: object) -> UbrConfig:
    """Return a training that neither validates nor saves while it is measured."""
    return UbrConfig(
        data=(data,),
        holdout_fraction=0.0,
        width=width,
        head_std=None,
        input=InputSpec(size_px=size_px, std=(64.0, 64.0, 64.0), fov_mm=400.0),
        g=g,
        losses=Losses(reduction="mean"),
        optimiser=SGD,
        iterations=STEPS,
        eval_every=10**6,
        save_every=10**6,
        device="cpu",
        **more,
    )


def against_bare(what: str, config: UbrConfig, out: Path, threads: int) -> Row:
    with torch_threads(threads):
        ours_s, bare_s = step_seconds(config, out, bare_step(config))
    return Row(
        f"UBR training step, {named(config)}, {what}, {counted(threads)}",
        ours_s,
        bare_s,
        "s",
        "forward, backward, SGD of the bare regressor on a resident batch",
        1.11,
    )


def against_peer(config: UbrConfig, out: Path, threads: int) -> Row:
    with torch_threads(threads):
        folder = RunFolder(out / "peer")
        volumes = read_training_data(config, folder, Ranks(0, 1, CPU)).training
        items = PeerDataset([v.file for v in volumes], config, STEPS * config.g)
        loader = DataLoader(items, config.g, collate_fn=collate_slices)
        ours_s, peer_s = step_seconds(config, out / "ours", peer_step(config, iter(loader)))
    return Row(
        f"UBR training step, {named(config)}, all views, batch norm, {counted(threads)}",
        ours_s,
        peer_s,
        "s",
        "Dataset of one item + DataLoader + collate slice by slice, in the same process",
        note="the peer's views: the same kinds, drawn and made for every slice by itself; its "
        "loader without worker processes, which would take the network's cores",
    )


def growth(data: Path, out: Path) -> list[Row]:
    """Hold the time of a step against a line in g x m, and its growth against the bare step's."""
    configs = [configured(data, 0.1, g, 32, augmentation=ALL_VIEWS) for g in GROUPS]
    with torch_threads(1):
        pairs = [step_seconds(c, out / str(c.g), bare_step(c), min) for c in configs]
    slices = [c.g * c.m for c in configs]
    ours, bare = zip(*pairs, strict=True)
    slope, start = np.polyfit(slices, ours, 1)
    line = [float(start + slope * n) for n in slices]
    worst = max(range(len(slices)), key=lambda i: abs(ours[i] / line[i] - 1))
    sizes = f"g x m = {slices[0]} .. {slices[-1]} slices of 32 px, width 0.1"
    return [
        Row(
            f"training step against {sizes}: {slices[worst]} slices, the furthest from a line",
            ours[worst],
            line[worst],
            "s",
            f"the line {1e3 * start:.2g} ms + {1e3 * slope:.3g} ms a slice",
            1.1,
        ),
        Row(
            f"largest over smallest training step, {sizes}",
            ours[-1] / ours[0],
            bare[-1] / bare[0],
            "times",
            "the bare step's",
            1.1,
        ),
    ]


def step_seconds(
    config: UbrConfig,
    out: Path,
    other: Callable[[], object],
    typical: Callable[[list[float]], float] = statistics.median,
) -> tuple[float, float]:
    """Train, and return the typical seconds of its steps and of ``other``, in turn in blocks.

    Args:
        config: of the training; it takes ``STEPS`` steps.
        out: its run folder.
        other: work of one step, done as often.
        typical: of the steps of all blocks, the first ``AHEAD`` of each left out.
    """
    ours: list[float] = []
    theirs: list[float] = []
    began_s = 0.0

    def progress(_journal: Journal, iteration: int, _text: str) -> None:
        nonlocal began_s
        taken_s, warm = time.perf_counter() - began_s, iteration - WARM
        if warm > 0 and (warm - 1) % BLOCK >= AHEAD:
            ours.append(taken_s)
        if warm >= 0 and warm % BLOCK == 0:
            for step in range(BLOCK if warm else WARM):
                before_s = time.perf_counter()
                other()
                if warm and step >= AHEAD:
                    theirs.append(time.perf_counter() - before_s)
        began_s = time.perf_counter()

    with (
        mock.patch.object(Journal, "progress", progress),
        mock.patch.object(ProgressLine, "say"),
    ):
        code = train(config, out)
    assert code == 0
    return typical(ours), typical(theirs)


def bare_step(config: UbrConfig) -> Callable[[], None]:
    """Return the work that no training step of this network can do without."""
    x = torch.randn(config.g * config.m, 3, config.input.size_px, config.input.size_px)
    learn = learner(config)
    return lambda: learn(x)


def learner(config: UbrConfig) -> Callable[[torch.Tensor], None]:
    network: nn.Module = Regressor(Trunk(config.arch, config.width, batch_norm=config.batch_norm))
    network.to(memory_format=torch.channels_last).train()
    optimiser = build_optimiser(network, config.optimiser)

    def learn(x: torch.Tensor) -> None:
        loss = ubr_loss(network(x).view(config.g, config.m), config.losses, config.g)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        optimiser.step()

    return learn


def peer_step(
    config: UbrConfig, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
) -> Callable[[], None]:
    learn = learner(config)

    def step() -> None:
        slices, _ = next(batches)
        learn(network_input(slices.flatten(0, 1), config.input))

    return step


class PeerDataset(Dataset[tuple[list[torch.Tensor], torch.Tensor]]):
    """One item: m equidistant slices of one volume, each with a view of its own."""

    def __init__(self, files: list[Path], config: UbrConfig, length: int) -> None:
        self.files, self.config, self.length = files, config, length
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, _: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        volume = np.load(self.files[self.rng.integers(len(self.files))], mmap_mode="r")
        chosen = equidistant_slices([range(len(volume))], self.config.m, self.rng)
        return [self.view(volume[i].astype(np.float32)) for i in chosen], torch.from_numpy(chosen)

    def view(self, hu: np.ndarray) -> torch.Tensor:
        """Change one slice as ``ALL_VIEWS`` changes a group."""
        views, rng, side = self.config.augmentation, self.rng, self.config.input.size_px
        x = torch.from_numpy(hu)[None, None]
        x = nn.functional.avg_pool2d(x, self.config.oversample)
        size = math.exp(rng.uniform(-1, 1) * math.log1p(views.scale))
        angle = math.radians(rng.uniform(-1, 1) * views.rotate_deg)
        shift = rng.uniform(-1, 1, 2) * 2 * views.shift
        wide = math.exp(rng.uniform(-1, 1) * math.log1p(views.stretch))
        mirror = -1.0 if rng.random() < views.flip else 1.0
        cos, sin = math.cos(angle) / size, math.sin(angle) / size
        matrix = torch.tensor(
            [[[mirror * cos / wide, -sin, shift[0]], [mirror * sin / wide, cos, shift[1]]]],
            dtype=torch.float32,
        )
        grid = nn.functional.affine_grid(matrix, [1, 1, side, side], align_corners=False)
        x = AIR_HU + nn.functional.grid_sample(x - AIR_HU, grid, align_corners=False)
        x = x * (1 + views.contrast * rng.uniform(-1, 1)) + views.offset_hu * rng.uniform(-1, 1)
        smooth = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = torch.lerp(x, smooth, views.blur * rng.random())
        if rng.random() < views.erase:
            height, width = (int(n) for n in rng.uniform(0.1, 0.4, 2) * side)
            top, left = (int(rng.integers(side - n + 1)) for n in (height, width))
            x[..., top : top + height, left : left + width] = rng.uniform(-200, 250)
        noise = rng.standard_normal((1, 1, side, side), dtype=np.float32)
        return (x + views.noise_hu * rng.random() * torch.from_numpy(noise))[0, 0]


def collate_slices(
    items: list[tuple[list[torch.Tensor], torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put items into a batch [g, m, S, S], a slice at a time."""
    batch = torch.stack([torch.stack(slices) for slices, _ in items])
    return batch, torch.stack([places for _, places in items])


def named(config: UbrConfig) -> str:
    return f"width {config.width:g}, {config.g} x {config.m} slices of {config.input.size_px} px"


def counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


if __name__ == "__main__":
    print(to_markdown(rows()))
