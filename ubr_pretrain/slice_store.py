"""Volumes decoded once: square int16 slices at the network's size, memory-mapped.

A volume is two files, ``<name>-<key>.npy`` (int16 HU [z, S, S]) and ``<name>-<key>.json`` (runs,
positions, subject, SHA-256). The key covers the source file's path, size and time and the geometry
of the ``InputSpec``, so an interrupted build goes on where it stopped, and a changed file is read
again. The JSON is written last: what has one is complete.

Shapes:
    z: slices of a volume; S: ``InputSpec.size_px``.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from ubr_pretrain.checkpoint import write_atomically
from ubr_pretrain.ct import InputSpec, Volume, VolumeRefused, contiguous_runs
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.runtime import to_json
from ubr_pretrain.volumes import VolumeEntry, looks_like_hu


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
    """

    name: str
    subject: str
    path: Path
    file: Path
    z_mm: tuple[float, ...]
    step_mm: float
    sha256: str

    @cached_property
    def slices(self) -> Int16[ndarray, "z S S"]:
        """The slices in HU, memory-mapped."""
        return np.load(self.file, mmap_mode="r")

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
) -> tuple[list[StoredVolume], list[Refusal]]:
    """Decode what is not yet in ``folder``; return what can be trained on and what was refused.

    A refused volume does not end the build: it becomes a ``Refusal``.

    Args:
        folder: where the files go.
        entries: the volumes, in any order.
        spec: its ``size_px`` and ``fov_mm`` set the geometry.
        min_slices: a volume without a run of this many slices is refused (E-FEW).
        say: told of every refusal, and every 25 volumes how far it got.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored: list[StoredVolume] = []
    refused: list[Refusal] = []
    for count, entry in enumerate(entries, start=1):
        try:
            stored.append(_store(folder, entry, spec, min_slices))
        except VolumeRefused as refusal:
            refused.append(Refusal(entry.name, refusal.code, refusal.cause))
            say(f"refused: {refusal}")
        if count % 25 == 0:
            say(f"slice store: {count} volumes read")
    return stored, refused


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
    known = {v.name for v in volumes} | {v.subject for v in volumes}
    if unknown := sorted(set(holdout) - known):
        raise ValueError(f"holdout {unknown[0]!r}: no such volume or subject in the data")
    named = {v.subject for v in volumes if v.name in holdout or v.subject in holdout}
    drawn = {s for s in {v.subject for v in volumes} - named if _chance(seed, s) < fraction}
    training = [v for v in volumes if v.subject not in named | drawn]
    if not training:
        raise ValueError(f"no volume left to train on ({len(volumes)} in all, all held out)")
    return training, [v for v in volumes if v.subject in named | drawn]


def _chance(seed: int, subject: str) -> float:
    digest = hashlib.sha256(f"{seed} {subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _store(folder: Path, entry: VolumeEntry, spec: InputSpec, min_slices: int) -> StoredVolume:
    key = _key(entry, spec)
    slices_file = folder / f"{entry.name}-{key}.npy"
    record_file = slices_file.with_suffix(".json")
    if not record_file.is_file():
        _decode(entry, spec, slices_file, record_file)
    record = json.loads(record_file.read_text("utf-8"))
    volume = StoredVolume(
        entry.name,
        entry.subject,
        entry.path,
        slices_file,
        tuple(record["z_mm"]),
        record["step_mm"],
        record["sha256"],
    )
    longest = max(len(run) for run in volume.runs)
    if longest < min_slices:
        raise VolumeRefused(
            "E-FEW", entry.path, f"its longest run has {longest} slices, m = {min_slices} needed"
        )
    return volume


def _decode(entry: VolumeEntry, spec: InputSpec, slices_file: Path, record_file: Path) -> None:
    volume: Volume = entry.read()
    if doubt := looks_like_hu(volume):
        raise VolumeRefused("E-NOHU", entry.path, doubt, "training needs Hounsfield units")
    if volume.hu.min() == volume.hu.max():
        raise VolumeRefused("E-NOHU", entry.path, f"every voxel is {volume.hu.min()} HU")
    slices = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)
    with write_atomically(slices_file) as file:
        np.save(file, slices)
    record = {
        "name": entry.name,
        "subject": entry.subject,
        "num_slices": volume.num_slices,
        "step_mm": volume.spacing_mm_zyx[0],
        "z_mm": volume.z_mm.tolist(),
        "notes": list(volume.notes),
        "sha256": hashlib.sha256(slices.tobytes()).hexdigest(),
    }
    with write_atomically(record_file, "w") as file:
        file.write(to_json(record, indent=1) + "\n")


def _key(entry: VolumeEntry, spec: InputSpec) -> str:
    """Return what identifies the source bytes and the geometry they are resampled to."""
    path = entry.path
    files = [*entry.files] or [path]
    if path.is_dir() and not entry.files:  # PNG slices, and the table that states their spacing
        files = [*path.glob("*"), *path.parent.parent.glob("DL_info*.csv")]
    elif path.suffix in (".mhd", ".nhdr"):  # a header whose voxels lie beside it
        files = [*path.parent.glob(f"{glob.escape(path.stem)}.*")]
    stamp = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(files) if p.is_file()]
    text = f"{stamp} {entry.phase} {spec.size_px} {spec.fov_mm}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
