"""What any run needs from the machine: a device, seeds, a process group, a clean way to stop."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

RANK_TIMEOUT_S = 600.0
"""A rank silent this long (decoding its share of a cohort included) has died; the others stop."""

Precision = Literal["fp32", "tf32", "bf16"]


class RankLost(RuntimeError):  # noqa: N818
    """Another rank does not answer: its process has died, or its machine is out of reach."""


class RanksDiffer(ValueError):  # noqa: N818
    """The ranks were given what must be equal and is not."""


@dataclass(frozen=True)
class Ranks:
    """This process among its peers: one process, or those that torchrun started.

    Attributes:
        rank: of this process among all.
        world_size: how many there are.
        device: that this one computes on.
        local_rank: of this process among those of its machine.
        num_local: how many its machine has.
    """

    rank: int
    world_size: int
    device: torch.device
    local_rank: int = 0
    num_local: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every rank got here.

        Raises:
            RankLost: one never will; so do all methods that need the others.
        """
        if self.world_size > 1:
            with self._others():
                dist.barrier()

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor`` by its sum over the ranks; a GPU is not waited for."""
        if self.world_size > 1:
            with self._others():
                dist.all_reduce(tensor)

    def sum_gradients(self, module: torch.nn.Module) -> None:
        """Replace every gradient by its sum over the ranks, in one message.

        Each rank divides its loss by the global number of terms, so the sum is the gradient that
        one process with the whole batch would have.
        """
        if self.world_size == 1:
            return
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.add_up(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))  # in its own memory format

    def gather_objects(self, value: Any) -> list[Any]:
        """Return every rank's ``value``, in rank order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self._others():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            cause = str(error).strip().splitlines()[0]
            raise RankLost(
                f"rank {self.rank} of {self.world_size} stops: another rank has died or is out of "
                f"reach ({cause})"
            ) from error

    def require_equal(self, value: Any, what: str) -> None:
        """Stop all ranks where they do not agree on ``value``.

        Raises:
            RanksDiffer: naming ``what`` and the ranks' values.
        """
        values = self.gather_objects(value)
        if any(other != values[0] for other in values):
            raise RanksDiffer(f"the ranks do not agree on {what}: {values}")


@contextmanager
def start_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join torchrun's process group where there is one, choose the device, and leave at the end.

    Args:
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: it is none of these, or is not there.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device}: no CUDA device is available")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", wanted, re.ASCII):
        raise ValueError(f"device {device}: must be auto, cpu, cuda or cuda:N")
    if wanted == "cuda":
        wanted = f"cuda:{local_rank}"
    chosen = torch.device(wanted)
    if chosen.type == "cuda" and not (chosen.index or 0) < torch.cuda.device_count():
        raise ValueError(f"device {wanted}: there are {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size == 1:
        yield Ranks(0, 1, chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=RANK_TIMEOUT_S))
    try:
        yield Ranks(dist.get_rank(), world_size, chosen, local_rank, num_local)
    except (RankLost, Stopped):
        raise  # taking leave would wait for the one that is gone
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def set_precision(precision: Precision, device: torch.device, *, deterministic: bool) -> None:
    """Choose the arithmetic of a GPU; bf16 is left to autocast.

    fp32 means float32: torch by itself lets cuDNN round the factors of convolutions to the 10 bits
    of TF32.

    Args:
        precision: what is asked for.
        device: that computes.
        deterministic: see ``seed_everything``, which sets it.

    Raises:
        ValueError: the device cannot do it.
    """
    if device.type != "cuda":
        if precision == "tf32":
            raise ValueError("precision tf32: needs CUDA (a CPU computes in float32: fp32)")
        if not deterministic:
            raise ValueError(
                "deterministic false: needs CUDA (a CPU has no kernels to choose from)"
            )
        return
    if precision != "fp32" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f"precision {precision}: {torch.cuda.get_device_name(device)} has no such arithmetic "
            "(compute capability 8.0 is needed)"
        )
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def seed_everything(seed: int, *, deterministic: bool = True) -> None:
    """Seed Python, NumPy and torch, and keep cuDNN to deterministic kernels.

    Args:
        seed: of all.
        deterministic: False lets cuDNN try its kernels and take the fastest, which need not be the
            same in the next run.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries below draw from it)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def generator(*key: int) -> np.random.Generator:
    """Return a generator for a counter such as (seed, iteration, group).

    Counter-based: what is drawn at iteration k does not depend on how the run got there, so a
    resumed run and any number of ranks draw the same.
    """
    return np.random.default_rng(np.random.SeedSequence(list(key)))


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""SIGUSR1: what schedulers are asked to send before the time is over (sbatch --signal=USR1@60)."""


class Stopped(BaseException):
    """A signal came where nothing had to be finished first; no fault, so no ``Exception``."""


class StopRequest:
    """SIGTERM, SIGINT or SIGUSR1 asked the run to end; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal (this object is the handler)."""
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end this block wherever it stands, for work that leaves nothing half done.

        Raises:
            Stopped: a signal came, now or before.
        """
        before, self._at_once = self._at_once, True
        try:
            if self.signal is not None:
                raise Stopped
            yield
        finally:
            self._at_once = before

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 138 after SIGUSR1; 0 where nothing came."""
        return 128 + self.signal if self.signal else 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn signals into a flag that the loop looks at once an iteration, or see ``at_once``."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def giving_way() -> Iterator[None]:
    """End this block early at a signal, after whoever waits for signals was told of it."""
    handlers = {n: signal.getsignal(n) for n in STOP_SIGNALS}

    def hand_on(number: int, frame: FrameType | None) -> None:
        told = handlers[signal.Signals(number)]
        assert callable(told)
        told(number, frame)
        raise Stopped

    try:
        for number, handler in handlers.items():
            if callable(handler):  # else the system ends this process, and nobody waits
                signal.signal(number, hand_on)
        yield
    except Stopped:
        pass
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Say what to change where a GPU is too small.

    Args:
        advice: what was asked of it, and what would take less.

    Raises:
        MemoryError: with the advice, where there is not enough.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"out of GPU memory: {advice}") from error


def to_json(value: Any, indent: int | None = None) -> str:
    """Dump JSON in which a NaN is an error, never a bare ``NaN``."""
    return json.dumps(value, indent=indent, allow_nan=False, default=str)
