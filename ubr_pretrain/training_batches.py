"""The batches of a training: drawn and fetched ahead by threads, finished on the device.

Nothing here makes a GPU wait: what comes from the host lies in pinned memory and is copied behind
the step before.

Shapes:
    g: groups of this rank; m: slices of a group; S: pixels of a view; k: slices of known place.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubr_pretrain.augmentation import Views, draw_views, view_groups
from ubr_pretrain.ct import BURNED_IN
from ubr_pretrain.groups import GroupSampler
from ubr_pretrain.resident_slices import ResidentSlices, choose_residence
from ubr_pretrain.runtime import Ranks, generator
from ubr_pretrain.training_data import TrainingData
from ubr_pretrain.ubr_config import UbrConfig
from ubr_pretrain.work_ahead import worked_ahead

VIEWS = 2
"""Stream of random numbers of the views (groups use 0 and 1)."""

THREADS_AHEAD = {"cpu": 1, "cuda": 4}
"""A GPU takes a step in milliseconds, and noise is drawn on the host."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from, on the device.

    Attributes:
        iteration: counted from 1.
        volumes: names of all groups' volumes, those of other ranks included.
        drawable: whether pictures may be made of this rank's groups.
        hu: this rank's groups, as their views show them.
        z_mm: position of every slice in its volume.
        known_mm: its coordinate in the reference body, NaN where not known.
        known: where ``known_mm``, laid flat, is not NaN.
    """

    iteration: int
    volumes: tuple[str, ...]
    drawable: tuple[bool, ...]
    hu: Float[Tensor, "g m S S"]
    z_mm: Float[Tensor, "g m"]
    known_mm: Float[Tensor, "g m"]
    known: Int64[Tensor, " k"]


@dataclass(frozen=True)
class _Fetched:
    """A batch on the host; all tensors are on their way or ready to go."""

    iteration: int
    volumes: tuple[str, ...]
    drawable: tuple[bool, ...]
    slices: Tensor
    places: tuple[Tensor, Tensor, Tensor]
    views: Views


class TrainingBatches:
    """Draws what a rank looks at; iteration k does not depend on how the run got there.

    Args:
        data: the volumes.
        config: its batch, views and seed.
        ranks: the groups of an iteration are dealt out to them in turn.

    Raises:
        ValueError: the slices do not fit where they are asked to lie.
    """

    def __init__(self, data: TrainingData, config: UbrConfig, ranks: Ranks) -> None:
        self.mine = range(ranks.rank, config.g, ranks.world_size)
        self._config, self._device = config, ranks.device
        self._names = [volume.name for volume in data.training]
        self._drawable = [BURNED_IN not in volume.notes for volume in data.training]
        self._sampler = GroupSampler(
            [volume.runs for volume in data.training],
            config.g,
            config.m,
            config.seed,
            config.start_rule,
            data.weights,
            data.smallest_intervals(config.min_interval_mm),
        )
        residence = choose_residence(config.residence, data.training, ranks.device)
        self._slices = ResidentSlices(data.training, residence, ranks.device)
        self._z_mm = np.concatenate([volume.z_mm for volume in data.training]).astype(np.float32)
        unknown = [np.full(len(volume.z_mm), np.nan) for volume in data.training]
        self._known_mm = np.concatenate(
            [data.known_mm.get(*pair) for pair in zip(self._names, unknown, strict=True)]
        ).astype(np.float32)

    @property
    def residence(self) -> str:
        """Where the slices lie."""
        return self._slices.residence

    def of(self, iterations: range) -> Generator[Batch, None, None]:
        """Yield the batches of ``iterations``, in order."""
        threads = THREADS_AHEAD[self._device.type]
        with closing(worked_ahead(self._fetch, iterations, threads)) as coming:
            for fetched in coming:
                yield self._arrive(fetched)

    def _fetch(self, iteration: int) -> _Fetched:
        """Do what can be done ahead, in a thread: draws, noise, reading."""
        config = self._config
        groups = self._sampler.draw(iteration)
        own = [groups[i] for i in self.mine]
        places = self._slices.places(own)
        known_mm = self._known_mm[places]
        rngs = [generator(config.seed, VIEWS, iteration, i) for i in self.mine]
        views = draw_views(config.augmentation, rngs, config.m, config.input.size_px)
        tables = (self._z_mm[places], known_mm, np.flatnonzero(~np.isnan(known_mm)))
        z_mm, known_mm, known = (self._staged(torch.from_numpy(table)) for table in tables)
        return _Fetched(
            iteration,
            tuple(self._names[volume] for volume, _ in groups),
            tuple(self._drawable[volume] for volume, _ in own),
            self._staged(self._slices.fetch(own)),
            (z_mm, known_mm, known),
            views.moved(self._staged),
        )

    def _arrive(self, fetched: _Fetched) -> Batch:
        """Do the rest on the device."""
        slices = self._slices.arrive(self._sent(fetched.slices))
        views = fetched.views.moved(self._sent)
        hu = view_groups(slices.float(), views, self._config.input.size_px)
        places = [self._sent(table) for table in fetched.places]
        return Batch(fetched.iteration, fetched.volumes, fetched.drawable, hu, *places)

    def _staged(self, tensor: Tensor) -> Tensor:
        """Return a tensor where the device can copy it from without the host's help."""
        return tensor.pin_memory() if self._device.type == "cuda" else tensor

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)
