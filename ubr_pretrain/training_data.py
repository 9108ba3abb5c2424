"""The volumes of one training: decoded once, split by subject, written down by name."""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from ubr_pretrain.anchors import read_anchors
from ubr_pretrain.folder_names import lesion_tables
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.slice_store import (
    THREADS,
    Refusal,
    StoredVolume,
    build_slice_store,
    data_sha256,
    split_by_subject,
)
from ubr_pretrain.spreadsheet import harmless
from ubr_pretrain.ubr_config import UbrConfig
from ubr_pretrain.volumes import find_volumes
from ubr_pretrain.whole_file import write_atomically


@dataclass(frozen=True)
class TrainingData:
    """Who is trained on, who is held out, and what could not be read.

    Attributes:
        training: never shares a subject with ``validation``.
        validation: may be empty.
        refused: volumes that are left out, with the reason.
        weights: relative chance of every training volume; None: all equal.
        known_mm: coordinates of the slices of anchored training volumes, by name.
    """

    training: list[StoredVolume]
    validation: list[StoredVolume]
    refused: list[Refusal]
    weights: list[float] | None
    known_mm: dict[str, Float[ndarray, " z"]]

    def smallest_intervals(self, min_interval_mm: float) -> list[int]:
        """Return for every training volume how many slices ``min_interval_mm`` are, at least 1."""
        return [max(1, math.ceil(min_interval_mm / v.step_mm)) for v in self.training]

    @cached_property
    def sha256(self) -> str:
        """Hash of which slices of whom are trained on, and of their anchors."""
        slices = data_sha256(self.training)
        if not self.known_mm:
            return slices
        anchors = b"".join(
            name.encode() + place.astype("<f8").tobytes()
            for name, place in sorted(self.known_mm.items())
        )
        return hashlib.sha256(slices.encode() + anchors).hexdigest()

    def gather(self, groups: Sequence[tuple[int, Int[ndarray, " m"]]]) -> Groups:
        """Return the slices of drawn groups and what is known of their place."""
        volumes = [(self.training[v], indices) for v, indices in groups]
        unknown = np.full(len(groups[0][1]), np.nan)
        known_mm = [
            self.known_mm[v.name][i] if v.name in self.known_mm else unknown for v, i in volumes
        ]
        return Groups(
            *(
                torch.from_numpy(np.stack(arrays).astype(np.float32))
                for arrays in (
                    [v.slices[i] for v, i in volumes],
                    [np.asarray(v.z_mm)[i] for v, i in volumes],
                    known_mm,
                )
            )
        )


@dataclass(frozen=True)
class Groups:
    """Groups of slices of a training step.

    Attributes:
        hu: the slices.
        z_mm: position of every slice in its volume.
        known_mm: its coordinate in the reference body, NaN where not known.
    """

    hu: Float[Tensor, "g m S S"]
    z_mm: Float[Tensor, "g m"]
    known_mm: Float[Tensor, "g m"]


def read_training_data(config: UbrConfig, folder: RunFolder, ranks: Ranks) -> TrainingData:
    """Decode every volume once, each rank its share, and write ``manifest.csv``.

    Raises:
        ValueError: no volume was found, all were refused, or all are held out.
    """

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    cohort = find_volumes(config.data, say if ranks.is_first else lambda _: None)
    entries = [e for e in cohort if config.allow_leakage or not _is_for_evaluation(e.path)]
    where = config.store or folder.path / "slices"
    if ranks.is_first:
        for reason, count in cohort.skipped.items():
            say(f"skipped {count} files: {reason}")
        for refusal in cohort.passed_over:
            say(f"skipped: {refusal}")
        if left_out := len(cohort) - len(entries):
            say(f"left out {left_out} volumes of DeepLesion's validation and test patients")
    if not entries:
        raise ValueError(f"--data {' '.join(map(str, config.data))}: no CT volume to train on")
    shares = entries[ranks.rank :: ranks.world_size]
    finer = config.input.model_copy(update={"size_px": config.input.size_px * config.oversample})
    volumes, refused = build_slice_store(
        where,
        shares,
        finer,
        min_slices=config.m,
        say=say,
        progress=ranks.is_first,
        threads=max(1, THREADS // ranks.num_local),
    )
    if ranks.world_size > 1:  # read what the others stored, but not again what they refused
        known = {r.name: r for part in ranks.gather_objects(refused) for r in part}
        rest = [entry for entry in entries if entry.name not in known]
        if ranks.num_local < ranks.world_size:  # a store on a disk of this machine's own is whole
            if ranks.local_rank == 0:
                build_slice_store(where, rest, finer, min_slices=config.m, say=say)
            ranks.wait()
        volumes, more = build_slice_store(where, rest, finer, min_slices=config.m, hashed=False)
        known |= {refusal.name: refusal for refusal in more}
        refused = [known[entry.name] for entry in entries if entry.name in known]
    if not volumes:
        raise ValueError(f"all {len(refused)} volumes were refused; first: {refused[0].cause}")
    training, validation = split_by_subject(
        volumes, config.holdout, config.holdout_fraction, config.seed
    )
    if ranks.is_first:
        _write_manifest(folder, training, validation, refused)
    positions = {volume.name: volume.z_mm for volume in training}
    known_mm = read_anchors(config.anchors, positions) if config.anchors else {}
    return TrainingData(training, validation, refused, _weights(config, training), known_mm)


def _is_for_evaluation(path: Path) -> bool:
    """Whether a folder of slices shows a patient of DeepLesion's validation or test split."""
    patient = path.name.partition("_")[0]
    tables = lesion_tables(path.parent) if path.parent.name == "Images_png" else []
    return any(patient in _evaluation_patients(table) for table in tables)


@cache
def _evaluation_patients(table: Path) -> frozenset[str]:
    rows = pd.read_csv(table, dtype=str, usecols=["File_name", "Train_Val_Test"])
    kept = rows.loc[rows["Train_Val_Test"].isin(["2", "3"]), "File_name"]
    return frozenset(kept.str.partition("_")[0])


def _write_manifest(
    folder: RunFolder,
    training: Sequence[StoredVolume],
    validation: Sequence[StoredVolume],
    refused: Sequence[Refusal],
) -> None:
    rows = [(v.name, v.subject, "train", v.sha256, "") for v in training]
    rows += [(v.name, v.subject, "validation", v.sha256, "") for v in validation]
    rows += [(r.name, "", "refused", "", f"{r.code} {r.cause}") for r in refused]
    table = pd.DataFrame(rows, columns=["volume", "subject", "use", "sha256", "reason"])
    with write_atomically(folder.path / "manifest.csv", "w") as file:
        table.map(harmless).to_csv(file, index=False)


def _weights(config: UbrConfig, training: Sequence[StoredVolume]) -> list[float] | None:
    """Return the chance of every volume that draws the entries of ``data`` as often as asked."""
    if not config.source_weights:
        return None
    sources = [
        next(i for i, top in enumerate(config.data) if top in (volume.path, *volume.path.parents))
        for volume in training
    ]
    volumes_of = Counter(sources)
    return [config.source_weights[source] / volumes_of[source] for source in sources]
