"""The slices of a training where the device reaches them: in its memory, pinned, or on disk.

Shapes:
    N: slices of all volumes, one volume behind another; g: groups; m: slices of a group;
    S: pixels of the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, Int16, Int64
from numpy import ndarray
from torch import Tensor

from ubr_pretrain.slice_store import StoredVolume

Residence = Literal["device", "host", "disk"]

SHARE = 0.5
"""Of the free memory that slices may take; the network's activations need the rest of a GPU's."""


class ResidentSlices:
    """All slices of a training as one tensor [N, S, S] of int16 HU, or as the files that hold it.

    Where they lie changes no bit of what is gathered. ``fetch`` may run in a thread, ahead of time;
    ``arrive`` finishes on the device.

    Args:
        volumes: of the store.
        residence: "device": one tensor there, a group is one index; "host": one tensor, pinned for
            a GPU, groups are copied over; "disk": the files, mapped into memory, the same.
        device: where groups are wanted.
    """

    def __init__(
        self, volumes: Sequence[StoredVolume], residence: Residence, device: torch.device
    ) -> None:
        self.residence, self.device = residence, device
        lengths = [len(volume.z_mm) for volume in volumes]
        self.starts = np.array([0, *accumulate(lengths)])
        self._volumes = volumes
        self._slices: Int16[Tensor, "N S S"] | None = None
        if residence != "disk":
            where = device if residence == "device" else torch.device("cpu")
            shape = (sum(lengths), *volumes[0].slices.shape[1:])
            pinned = residence == "host" and device.type == "cuda"
            self._slices = torch.empty(shape, dtype=torch.int16, device=where, pin_memory=pinned)
            for first, volume in zip(self.starts, volumes, strict=False):
                part = torch.from_numpy(np.array(volume.slices))
                self._slices[first : first + len(part)] = part

    def places(self, groups: Sequence[tuple[int, Int[ndarray, " m"]]]) -> Int64[ndarray, "g m"]:
        """Return where drawn groups (volume, slices of it) stand among all N slices."""
        return np.stack([self.starts[volume] + indices for volume, indices in groups])

    def fetch(self, groups: Sequence[tuple[int, Int[ndarray, " m"]]]) -> Tensor:
        """Return what ``arrive`` needs of drawn groups, in host memory: places, or the slices."""
        if self._slices is None:
            mapped = [self._volumes[volume].slices[indices] for volume, indices in groups]
            return torch.from_numpy(np.stack(mapped))
        places = torch.from_numpy(self.places(groups))
        if self.residence == "device":
            return places
        return self._chosen(self._slices, places)

    def arrive(self, fetched: Tensor) -> Int16[Tensor, "g m S S"]:
        """Return the slices of what was fetched, once that is on the device."""
        if self._slices is None or self.residence == "host":
            return fetched
        return self._chosen(self._slices, fetched)

    @staticmethod
    def _chosen(
        slices: Int16[Tensor, "N S S"], places: Int64[Tensor, "g m"]
    ) -> Int16[Tensor, "g m S S"]:
        return slices.index_select(0, places.flatten()).view(*places.shape, *slices.shape[1:])


def choose_residence(
    asked: Residence | Literal["auto"],
    volumes: Sequence[StoredVolume],
    device: torch.device,
    free_bytes: Callable[[torch.device], int] | None = None,
) -> Residence:
    """Return where slices go: where they were asked to, or by themselves ("auto").

    A CPU maps the files: the system keeps them in its cache and no copy is made. For a GPU they go
    into its memory, else into pinned memory, where they take no more than ``SHARE`` of what is free
    there; else they stay on disk.

    Args:
        asked: "auto" or where.
        volumes: of the store.
        device: that trains.
        free_bytes: of a device; None: is asked for.

    Raises:
        ValueError: they do not fit where they were asked to go.
    """
    if asked == "disk" or (asked == "auto" and device.type == "cpu"):
        return "disk"
    free, host = free_bytes or _free_bytes, torch.device("cpu")
    num_bytes = sum(len(volume.z_mm) for volume in volumes) * volumes[0].slices[0].nbytes
    if asked == "auto":
        if num_bytes <= SHARE * free(device):
            return "device"
        return "host" if num_bytes <= SHARE * free(host) else "disk"
    room = free(device if asked == "device" else host)
    if num_bytes > room:
        raise ValueError(
            f"residence {asked}: the slices take {num_bytes / 1e9:.1f} GB, {room / 1e9:.1f} GB are "
            "free there; use auto"
        )
    return asked


def _free_bytes(device: torch.device) -> int:
    """Return what is free, on the host for each of its ranks."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    available = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(available) * 1024 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
