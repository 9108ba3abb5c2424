"""Volumes decoded once: square int16 slices at the network's size, memory-mapped.

Every volume is two files (`SliceFiles`), named by a key that covers the source file's path, size
and time and the geometry of the ``InputSpec``: an interrupted build goes on where it stopped, a
changed file is read again, a damaged one is decoded again. A slice takes 2 S^2 bytes (32,768 at
128 px). Threads decode the volumes; memory holds one volume a thread, however many there are.

Shapes:
    z: slices of a volume; S: ``InputSpec.size_px``.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from ubr_pretrain.blank_rows import DAMAGED
from ubr_pretrain.ct import InputSpec, Volume, VolumeRefused, contiguous_runs
from ubr_pretrain.doubts import doubt_of
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.slice_files import (
    SliceFiles,
    forget_maps,
    map_slices,
    remove_abandoned,
    source_key,
)
from ubr_pretrain.store_reader import store_reader
from ubr_pretrain.store_room import promised_slices, require_room
from ubr_pretrain.volumes import VolumeEntry
from ubr_pretrain.whole_file import sync_entries

THREADS = max(2, min(8, os.cpu_count() or 1))
"""Volumes that are decoded at once, and held in memory meanwhile; one may wait for the disk."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredVolume:
    """One volume of the store.

    Attributes:
        name: as found in the data, unique.
        subject: who it shows; subjects are never split between training and validation.
        path: the file or folder it was read from.
        file: the ``.npy``.
        z_mm: position of every slice below the first.
        step_mm: slice interval.
        sha256: of the slices.
        notes: what the reader found worth saying.
    """

    name: str
    subject: str
    path: Path
    file: Path
    z_mm: tuple[float, ...]
    step_mm: float
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def slices(self) -> Int16[ndarray, "z S S"]:
        """The slices in HU, memory-mapped."""
        return map_slices(self.file)

    @property
    def runs(self) -> tuple[range, ...]:
        """Index ranges of constant z step."""
        return contiguous_runs(np.asarray(self.z_mm), self.step_mm)


@dataclass(frozen=True)
class Refusal:
    """A volume that is not in the store, and why."""

    name: str
    code: str
    cause: str


def build_slice_store(
    folder: Path,
    entries: Iterable[VolumeEntry],
    spec: InputSpec,
    *,
    min_slices: int,
    say: Callable[[str], None] = lambda _: None,
    progress: bool = False,
    hashed: bool = True,
    threads: int = THREADS,
) -> tuple[list[StoredVolume], list[Refusal]]:
    """Decode what is not yet in ``folder``; return what can be trained on and what was refused.

    A refused volume does not end the build: it becomes a ``Refusal``. What is there already is read
    once and compared with its SHA-256 (about a second a GB and thread, or what the disk takes), and
    decoded again where it differs. A volume under two names is one subject's, never split.

    Args:
        folder: where the files go.
        entries: the volumes, in any order.
        spec: its ``size_px`` and ``fov_mm`` set the geometry.
        min_slices: a volume without a run of this many slices is refused (E-FEW).
        say: told of every refusal, of damage, and of the size of the store.
        progress: show how far it got, and the time left.
        hashed: False where another process has just compared the SHA-256: lengths are enough.
        threads: that decode at once; the result does not depend on it.

    Raises:
        ValueError: the disk is too small, or the folder cannot be written.
    """
    began_s, volumes = time.monotonic(), list(entries)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        with _workers(threads) as pool:
            found = pool.map(partial(_look_up, folder, spec, hashed), volumes)
            states = [*_shown(found, len(volumes), "volumes looked up", progress)]
            for state in states:
                if isinstance(state, _Absent) and state.fault:
                    say(f"{state.files.slices}: {state.fault}; decoded again")
            absent = [n for n, state in enumerate(states) if isinstance(state, _Absent)]
            num_slices = promised_slices([volumes[n] for n in absent])
            require_room(folder, num_slices, spec)
            with store_reader(folder, num_slices, threads if absent else 0) as read:
                decoded = pool.map(partial(_decode, spec, read), [states[n] for n in absent])
                shown = _shown(decoded, len(absent), "volumes decoded", progress)
                for n, state in zip(absent, shown, strict=True):
                    states[n] = state
        if absent:
            sync_entries(folder)
    except OSError as error:
        free = disk_usage(folder).free / 1e9 if folder.is_dir() else 0.0
        raise ValueError(
            f"{folder}: cannot be written ({error.strerror}; {free:.1f} GB are free)"
        ) from error
    forget_maps()
    stored: list[StoredVolume] = []
    refused: list[Refusal] = []
    for entry, state in zip(volumes, states, strict=True):
        assert not isinstance(state, _Absent)
        if isinstance(state, StoredVolume) and (short := _too_short(state, min_slices)):
            state = short
        if isinstance(state, StoredVolume):
            stored.append(state)
            for note in state.notes:
                if note.startswith(DAMAGED):
                    say(f"{state.name}: {note}")
        else:
            refused.append(Refusal(entry.name, state.code, state.cause))
            say(f"refused: {state}")
    num_slices, slice_bytes = sum(len(v.z_mm) for v in stored), 2 * spec.size_px**2
    say(
        f"slice store {folder}: {num_slices} slices of {slice_bytes} bytes, "
        f"{num_slices * slice_bytes / 1e9:.2f} GB; {len(absent)} of {len(volumes)} volumes decoded "
        f"in {time.monotonic() - began_s:.1f} s"
    )
    return _with_one_subject(stored, say), refused


def _with_one_subject(
    volumes: Sequence[StoredVolume], say: Callable[[str], None]
) -> list[StoredVolume]:
    """Give volumes that hold the same slices one subject, and it to all others of either."""
    first_of: dict[str, StoredVolume] = {}
    other_name: dict[str, str] = {}

    def subject(volume: StoredVolume) -> str:
        name = volume.subject
        while name in other_name:
            name = other_name[name]
        return name

    for volume in volumes:
        first = first_of.setdefault(volume.sha256, volume)
        if first is not volume:
            kept, dropped = subject(first), subject(volume)
            say(f"{volume.name} holds the same slices as {first.name}: both of subject {kept}")
            other_name |= {dropped: kept} if kept != dropped else {}
    return [replace(volume, subject=subject(volume)) for volume in volumes]


def data_sha256(volumes: Sequence[StoredVolume]) -> str:
    """Return a hash of which slices of whom are trained on, whatever the order of the volumes."""
    lines = sorted(f"{v.subject} {v.name} {v.sha256}" for v in volumes)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def split_by_subject(
    volumes: Sequence[StoredVolume], holdout: Sequence[str], fraction: float, seed: int
) -> tuple[list[StoredVolume], list[StoredVolume]]:
    """Return (training, validation) volumes; all volumes of a subject fall on one side.

    Args:
        volumes: all of them.
        holdout: names of volumes or subjects that are always held out.
        fraction: of the other subjects, drawn by a hash of ``seed`` and the subject, so that adding
            a volume moves no other across.
        seed: of the split.

    Raises:
        ValueError: a name of ``holdout`` is not in the data, or nothing is left to train on.
    """
    held, known = set(holdout), {v.name for v in volumes} | {v.subject for v in volumes}
    if unknown := sorted(held - known):
        raise ValueError(f"holdout {unknown[0]!r}: no such volume or subject in the data")
    named = {v.subject for v in volumes if v.name in held or v.subject in held}
    drawn = {s for s in {v.subject for v in volumes} - named if _chance(seed, s) < fraction}
    training = [v for v in volumes if v.subject not in named | drawn]
    if not training:
        raise ValueError(f"no volume left to train on ({len(volumes)} in all, all held out)")
    return training, [v for v in volumes if v.subject in named | drawn]


def _chance(seed: int, subject: str) -> float:
    digest = hashlib.sha256(f"{seed} {subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@contextmanager
def _workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield threads that begin nothing more once the block has ended, by an error for instance."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _shown(results: Iterable[Result], count: int, what: str, progress: bool) -> Iterator[Result]:
    """Pass results on, with a bar that shows how many there were."""
    if not progress or not count:
        yield from results
        return
    with closing(ProgressLine(count)) as line:
        for number, result in enumerate(results, start=1):
            line.show(number, what)
            yield result


@dataclass(frozen=True)
class _Absent:
    """A volume that is to be decoded, and what is wrong with the slices that are there."""

    entry: VolumeEntry
    files: SliceFiles
    fault: str | None = None


def _look_up(
    folder: Path, spec: InputSpec, hashed: bool, entry: VolumeEntry
) -> StoredVolume | _Absent | VolumeRefused:
    try:
        key = source_key(entry, spec)
    except OSError as error:
        return VolumeRefused("E-MISSING", entry.path, f"cannot be read: {error}")
    files = SliceFiles(folder / f"{entry.name}-{key}.npy")
    record = files.read_record()
    if record is None:
        return _Absent(entry, files)
    if fault := files.fault(record, spec.size_px, hashed=hashed):
        return _Absent(entry, files, fault)
    return _volume(entry, files, record)


def _decode(
    spec: InputSpec, read: Callable[..., Volume], absent: _Absent
) -> StoredVolume | VolumeRefused:
    entry = absent.entry
    try:
        volume = read(entry)
    except VolumeRefused as refusal:
        return refusal
    if doubt := doubt_of(volume):
        return VolumeRefused("E-NOHU", entry.path, doubt, "training needs Hounsfield units")
    slices = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)
    record = {
        "name": entry.name,
        "subject": entry.subject,
        "num_slices": volume.num_slices,
        "step_mm": volume.spacing_mm_zyx[0],
        "z_mm": volume.z_mm.tolist(),
        "notes": list(volume.notes),
    }
    del volume  # other threads need the memory while the disk writes
    return _volume(entry, absent.files, absent.files.write(slices, record))


def _volume(entry: VolumeEntry, files: SliceFiles, record: Mapping[str, Any]) -> StoredVolume:
    return StoredVolume(
        entry.name,
        entry.subject,
        entry.path,
        files.slices,
        tuple(record["z_mm"]),
        record["step_mm"],
        record["sha256"],
        tuple(record.get("notes", ())),
    )


def _too_short(volume: StoredVolume, min_slices: int) -> VolumeRefused | None:
    longest = max(len(run) for run in volume.runs)
    if longest >= min_slices:
        return None
    cause = f"its longest run has {longest} slices, m = {min_slices} needed"
    return VolumeRefused("E-FEW", volume.path, cause)
