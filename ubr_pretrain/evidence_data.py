"""The question, who answers it, and the slices that are judged.

``judged`` volumes are those of the test set, the labelled set and the two volumes, laid end to end;
the arrays of an answer run over their slices, or over the rows of ``EvidenceData.test``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ubr_pretrain.evidence_config import EvidenceConfig
from ubr_pretrain.evidence_phantoms import render_phantoms
from ubr_pretrain.labelled_cohort import (
    Cohort,
    EvidenceSets,
    draw_sets,
    read_cohort,
    slice_table,
)
from ubr_pretrain.runtime import generator
from ubr_pretrain.slice_store import StoredVolume, data_sha256
from ubr_pretrain.starting_trunk import with_input_of_start
from ubr_pretrain.ubr_config import UbrConfig
from ubr_pretrain.zone_accuracy import calibration_pairs

_PAIRS = 20
"""A stream of random numbers."""

SPARE = 1.05
"""So many phantoms are rendered for one that is needed: some are too short, or show no zone."""


@dataclass(frozen=True, eq=False)
class EvidenceData:
    """The question and the slices that answer it.

    Attributes:
        config: what is asked.
        cohort: all volumes and labels.
        sets: who is in which set.
        abnormal: volumes for Fig. 4 that are in no set.
        store: folder of decoded slices.
        device: where networks run.
    """

    config: EvidenceConfig
    cohort: Cohort
    sets: EvidenceSets
    abnormal: tuple[StoredVolume, ...]
    store: Path
    device: torch.device

    @cached_property
    def sha256(self) -> str:
        """Hash of which slices of whom there are."""
        return data_sha256([*self.cohort.volumes, *self.abnormal])

    @property
    def judged(self) -> tuple[StoredVolume, ...]:
        """Volumes that the regressors score."""
        return (*self.sets.test, *self.sets.labelled, *self.sets.two)

    @cached_property
    def test(self) -> pd.DataFrame:
        """Tested slices; ``row`` counts the slices of ``judged``."""
        return slice_table(self.sets.test, self.cohort.labels)

    @cached_property
    def calibrating(self) -> pd.DataFrame:
        """Slices of the labelled set and the two volumes; ``row`` counts those of ``judged``."""
        table = slice_table(self.judged, self.cohort.labels)
        return table[~table["volume"].isin(self.test["volume"])].reset_index(drop=True)

    @property
    def two(self) -> tuple[str, str]:
        """Names of the two volumes that set the thresholds."""
        first, second = self.sets.two
        return first.name, second.name

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of volumes that might have been drawn instead, in random order."""
        rng = generator(self.config.draw_seed, _PAIRS)
        pairs = calibration_pairs(self.calibrating, self.config.pairs, rng)
        return [pairs[i] for i in rng.permutation(len(pairs))]

    @cached_property
    def position_pairs(self) -> list[tuple[str, str]]:
        """The two volumes, then other pairs, that row 3 is fine-tuned with."""
        others = [pair for pair in self.pairs if set(pair) != set(self.two)]
        return [self.two, *others[: self.config.baselines.position_pairs - 1]]

    @cached_property
    def swept(self) -> tuple[StoredVolume, ...]:
        """Unlabelled volumes that are long enough for every m of the sweep."""
        longest = max(self.config.sweep.m)
        volumes = tuple(
            v for v in self.sets.unlabelled if max(len(run) for run in v.runs) >= longest
        )
        if not volumes:
            raise ValueError(f"sweep.m: no unlabelled volume has a run of {longest} slices")
        return volumes

    def ubr_config(self, volumes: Sequence[StoredVolume], seed: int, **changes: Any) -> UbrConfig:
        """Return the training of a regressor on ``volumes`` and nobody else."""
        ubr = self.config.ubr.model_copy(update=changes)
        paths = tuple(sorted({volume.path for volume in volumes}))
        found = {e.subject for e in self.cohort.entries.values() if e.path in paths}
        others = found - {volume.subject for volume in volumes}  # series of others in a folder
        update = {
            "data": paths,
            "holdout": tuple(sorted(others)),
            "holdout_fraction": 0.0,
            "store": self.store,
            "seed": seed,
            "eval_every": ubr.iterations,  # no choice by validation: the last weights count
        }
        return with_input_of_start(ubr.model_copy(update=update))


def read_evidence(
    config: EvidenceConfig, out: Path, device: torch.device, say: Callable[[str], None]
) -> EvidenceData:
    """Read the cohort, or render one, and draw its sets.

    Args:
        config: what is asked.
        out: phantoms and decoded slices go below it.
        device: where networks will run.
        say: told how far it got.

    Raises:
        ValueError: data or labels that cannot be used, or too few subjects.
    """
    spec, store = config.ubr.input, out / "slices"
    abnormal: tuple[StoredVolume, ...] = ()
    if config.labels is not None:
        cohort = read_cohort(config.data, [config.labels], store, spec, say)
    else:
        counts = list(config.sets.model_dump().values())
        if min(counts) < 1:
            raise ValueError(f"sets {counts}: a share needs data; phantoms are counted")
        num_subjects = math.ceil(SPARE * (sum(counts) + 2))
        parts, odd = render_phantoms(out / "phantoms", num_subjects, config.phantoms, say)
        tables = [part / "slice_classes.csv" for part in parts]
        cohort = read_cohort(parts, tables, store, spec, say)
        if odd is not None:
            others = read_cohort([odd], [odd / "slice_classes.csv"], store, spec, say)
            abnormal = others.volumes
            cohort = replace(cohort, entries={**cohort.entries, **others.entries})
    sets = draw_sets(cohort, config.sets, config.ubr.m, config.draw_seed)
    return EvidenceData(config, cohort, sets, abnormal, store, device)
