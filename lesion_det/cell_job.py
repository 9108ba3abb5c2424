"""What runs in a process of its own, a child here or a job of a cluster: the training of one cell.

Free of torch, which is loaded once the process knows its GPU and its threads.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_det.det_config import DetConfig

TrainCell = Callable[[DetConfig, Path], int]
"""Trains one cell in its folder, resuming what is there; returns 0, or 128 + a signal."""


def train_cell(config: DetConfig, folder: Path) -> int:
    """Train one cell in this process, print why where it fails, and return its exit code."""
    from lesion_det.train_det import train
    from ubr_pretrain.run_folder import fault_words

    try:
        return train(config, folder).exit_code
    except OSError as error:
        traceback.print_exc()
        print(fault_words(error, folder), file=sys.stderr)
        return 1
    except (ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
        traceback.print_exc()
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1


@dataclass(frozen=True)
class CellJob:
    """A cell as submitit pickles it; it may be run again, and then continues."""

    train: TrainCell = train_cell

    def __call__(self, config: DetConfig, folder: Path) -> int:
        """Train one cell; return its exit code."""
        return self.train(config, folder)

    def checkpoint(self, config: DetConfig, folder: Path) -> Any:
        """Be queued again at the time limit; the training continues by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, config, folder)
