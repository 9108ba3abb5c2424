"""A volume on its way to the process that asked for it: the voxels in shared memory, not copied.

The memory has no name (``memfd_create``, or a file that was deleted while open), so it goes with
the last process that has it open or mapped, however that process ends.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from dataclasses import dataclass, fields
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ubr_pretrain.ct import Volume


@dataclass(frozen=True)
class PassedVolume:
    """All of a volume but its voxels.

    Attributes:
        kind: the class of the volume.
        rest: its fields without ``hu``.
        shape: of ``hu``.
    """

    kind: type[Volume]
    rest: dict[str, Any]
    shape: tuple[int, ...]


def send_volume(pipe: Connection, volume: Volume) -> None:
    """Send a volume to the process at the other end.

    Raises:
        MemoryError: there is no room for its voxels.
        BrokenPipeError: nobody is at the other end.
    """
    if sys.platform == "win32":  # handles cannot be sent along
        pipe.send(volume)
        return
    rest = {f.name: getattr(volume, f.name) for f in fields(volume) if f.name != "hu"}
    handle = _nameless_memory(volume.hu.nbytes)
    try:
        with mmap.mmap(handle, volume.hu.nbytes) as memory:
            np.copyto(np.frombuffer(memory, np.int16).reshape(volume.hu.shape), volume.hu)
        pipe.send(PassedVolume(type(volume), rest, volume.hu.shape))
        parent = os.getppid()  # which some systems want to know
        reduction.send_handle(pipe, handle, parent)
    finally:
        os.close(handle)


def receive_volume(pipe: Connection) -> Any:
    """Return the volume that was sent, or whatever else was.

    The voxels can be written to; nobody else sees it.

    Raises:
        EOFError: the sender is gone; and OSError.
    """
    answer = pipe.recv()
    if not isinstance(answer, PassedVolume):
        return answer
    handle = reduction.recv_handle(pipe)
    try:
        num_bytes = 2 * int(np.prod(answer.shape))
        memory = mmap.mmap(handle, num_bytes, access=mmap.ACCESS_COPY)
    finally:
        os.close(handle)
    hu = np.frombuffer(memory, np.int16).reshape(answer.shape)
    return answer.kind(hu=hu, **answer.rest)


def _nameless_memory(num_bytes: int) -> int:
    """Return the file descriptor of new memory.

    Raises:
        MemoryError: there is no room.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("volume")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    try:
        os.truncate(handle, num_bytes)
    except OSError as error:
        os.close(handle)
        raise MemoryError(f"{num_bytes} bytes of shared memory: {error}") from error
    return handle
