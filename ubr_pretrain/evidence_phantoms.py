"""The synthetic cohort of the paper's evidence, rendered in parts that survive an interruption."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2

from ubr_pretrain.evidence_config import Phantoms
from ubr_pretrain.phantom_volumes import write_cohort

SUBJECTS_OF_PART = 20
ABNORMAL_SEED = 999
"""Part number of the abnormal volumes; the others count from 0."""

PARTS_OF_SEED = 1000


@dataclass(frozen=True)
class _Part:
    """So many subjects in a folder of their own; it is whole once its tables are written."""

    folder: Path
    seed: int
    num_subjects: int
    abnormal: bool

    @property
    def table(self) -> Path:
        return self.folder / "slice_classes.csv"


def render_phantoms(
    folder: Path, num_subjects: int, settings: Phantoms, say: Callable[[str], None]
) -> tuple[list[Path], Path | None]:
    """Render what is not yet there.

    Args:
        folder: of the cohort.
        num_subjects: normal subjects, one volume each.
        settings: seed, size, length, number of abnormal volumes, processes.
        say: told how far it got.

    Returns:
        The folders of the normal subjects, and that of the abnormal ones (None without any).

    Raises:
        ValueError: more subjects than seeds are kept free for.
    """
    numbers = range(-(-num_subjects // SUBJECTS_OF_PART))
    if len(numbers) > ABNORMAL_SEED:
        raise ValueError(f"{num_subjects} phantoms: at most {ABNORMAL_SEED * SUBJECTS_OF_PART}")
    first_seed = settings.seed * PARTS_OF_SEED
    normal = [
        _Part(
            folder / f"part_{number:03d}",
            first_seed + number,
            min(SUBJECTS_OF_PART, num_subjects - number * SUBJECTS_OF_PART),
            abnormal=False,
        )
        for number in numbers
    ]
    odd = _Part(folder / "abnormal", first_seed + ABNORMAL_SEED, settings.abnormal, abnormal=True)
    parts = [*normal, odd] if settings.abnormal else normal
    waiting = [part for part in parts if not part.table.is_file()]
    if waiting:
        say(f"rendering {sum(part.num_subjects for part in waiting)} phantoms")
    for done, _ in enumerate(_rendered(waiting, settings), start=1):
        if done % 5 == 0 or done == len(waiting):
            say(f"phantoms: {done} of {len(waiting)} parts rendered")
    return [part.folder for part in normal], odd.folder if settings.abnormal else None


def _rendered(parts: list[_Part], settings: Phantoms) -> Iterable[None]:
    if settings.workers == 1:
        for part in parts:
            _render(part, settings)
            yield
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and locks
    with ProcessPoolExecutor(settings.workers, spawn, _one_thread) as pool:
        for future in as_completed([pool.submit(_render, part, settings) for part in parts]):
            future.result()
            yield


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _render(part: _Part, settings: Phantoms) -> None:
    shutil.rmtree(part.folder, ignore_errors=True)  # a part without its tables was cut off
    num_abnormal = part.num_subjects if part.abnormal else 0
    cohort = write_cohort(
        part.folder, part.num_subjects, part.seed, settings.size_px, num_abnormal,
        max_slices=settings.max_slices,
    )  # fmt: skip
    for _ in cohort:
        pass
