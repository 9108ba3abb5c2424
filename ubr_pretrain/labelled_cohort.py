"""Who is in which set: unlabelled, test, labelled, and the two volumes that set the thresholds.

Sets are drawn by subject, and no subject is in two of them: that is checked, not assumed.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.evidence_config import SetSizes
from ubr_pretrain.slice_classes import read_slice_classes
from ubr_pretrain.slice_store import Refusal, StoredVolume, build_slice_store
from ubr_pretrain.spreadsheet import harmless
from ubr_pretrain.volumes import VolumeEntry, find_volumes
from ubr_pretrain.whole_file import write_atomically
from ubr_pretrain.zone_accuracy import calibration_pairs

Labels = Mapping[str, pd.DataFrame]
"""By name of the volume: index_sup_to_inf, class, zone of its labelled slices."""


@dataclass(frozen=True)
class Cohort:
    """Every volume that could be read, decoded once, with the labels there are.

    Attributes:
        volumes: sorted by name.
        labels: of some of them.
        entries: where each came from, by name.
        refused: what could not be read.
    """

    volumes: tuple[StoredVolume, ...]
    labels: Labels
    entries: Mapping[str, VolumeEntry]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True)
class EvidenceSets:
    """The volumes of the four sets.

    Raises:
        ValueError: a subject is in two sets.
    """

    unlabelled: tuple[StoredVolume, ...]
    test: tuple[StoredVolume, ...]
    labelled: tuple[StoredVolume, ...]
    two: tuple[StoredVolume, ...]

    def __post_init__(self) -> None:
        for (a, first), (b, second) in combinations(self.items(), 2):
            shared = {v.subject for v in first} & {v.subject for v in second}
            if shared:
                raise ValueError(f"subject {min(shared)} is in the sets {a} and {b}")
        if len(self.two) != 2:
            raise ValueError(f"{len(self.two)} volumes set the thresholds: two are needed")

    def items(self) -> Iterator[tuple[str, tuple[StoredVolume, ...]]]:
        """Yield the name and volumes of every set."""
        yield from vars(self).items()

    def summary(self) -> dict[str, dict[str, int]]:
        """Return subjects, volumes and slices of every set."""
        return {
            name: {
                "subjects": len({v.subject for v in volumes}),
                "volumes": len(volumes),
                "slices": sum(len(v.z_mm) for v in volumes),
            }
            for name, volumes in self.items()
        }


def read_cohort(
    data: Sequence[Path],
    tables: Sequence[Path],
    store: Path,
    spec: InputSpec,
    say: Callable[[str], None],
) -> Cohort:
    """Decode the volumes below ``data`` and fit the slice classes to them.

    Args:
        data: files, folders or DICOM trees.
        tables: of slice classes.
        store: folder of the decoded slices.
        spec: their geometry.
        say: told what was refused, and how far it got.

    Raises:
        ValueError: no volume, a label beyond the last slice, classes out of order.
    """
    found = find_volumes(data)
    entries = {entry.name: entry for entry in found}
    stored, refused = build_slice_store(store, found, spec, min_slices=1, say=say)
    if not stored:
        raise ValueError(f"{' '.join(map(str, data))}: no CT volume that can be read")
    lengths = {volume.name: len(volume.z_mm) for volume in stored}
    labels: dict[str, pd.DataFrame] = {}
    table = read_slice_classes(tables)
    for name in sorted(set(table["volume"]) & set(lengths)):
        rows = table[table["volume"] == name]
        rows = rows.sort_values("index_sup_to_inf", ignore_index=True)
        if rows["index_sup_to_inf"].iloc[-1] >= lengths[name]:
            raise ValueError(
                f"{tables[0]}: labels slice {rows['index_sup_to_inf'].iloc[-1]} of {name}, which "
                f"has {lengths[name]} (counted from 0, superior to inferior)"
            )
        labels[name] = rows
    if unknown := table["volume"].nunique() - len(labels):
        say(f"{unknown} labelled volumes are not in the data")
    volumes = tuple(sorted(stored, key=lambda volume: volume.name))
    return Cohort(volumes, labels, entries, tuple(refused))


def slice_table(volumes: Sequence[StoredVolume], labels: Labels) -> pd.DataFrame:
    """Return the labelled slices of the three zones, one row each, in the order of ``volumes``.

    Returns:
        Columns volume, subject, slice_index, z_mm, class, zone, and row: the slice's place among
        all slices of ``volumes`` laid end to end.
    """
    parts = []
    before = 0
    for volume in volumes:
        rows = labels.get(volume.name)
        if rows is not None:
            index = rows["index_sup_to_inf"].to_numpy()
            parts.append(
                pd.DataFrame(
                    {
                        "volume": volume.name,
                        "subject": volume.subject,
                        "slice_index": index,
                        "z_mm": np.asarray(volume.z_mm)[index],
                        "class": rows["class"],
                        "zone": rows["zone"],
                        "row": before + index,
                    }
                )
            )
        before += len(volume.z_mm)
    if not parts:
        raise ValueError("none of these volumes has a labelled slice")
    table = pd.concat(parts, ignore_index=True)
    return table[table["zone"] >= 0].reset_index(drop=True)


def draw_sets(cohort: Cohort, sizes: SetSizes, min_slices: int, seed: int) -> EvidenceSets:
    """Draw the sets by subject: first the two volumes, then test, labelled, and unlabelled.

    The two volumes are of two subjects and show both borders of zones. Volumes of a subject stay
    together, but of the two subjects only the two volumes are used, and of the unlabelled
    subjects only volumes with a run of ``min_slices``.

    Args:
        cohort: all volumes.
        sizes: subjects of every set.
        min_slices: what a training group needs.
        seed: of the draw.

    Raises:
        ValueError: there are not enough subjects of a kind.
    """
    rng = np.random.default_rng(seed)
    of_subject: dict[str, list[StoredVolume]] = defaultdict(list)
    for volume in cohort.volumes:
        of_subject[volume.subject].append(volume)
    total = len(of_subject)
    slices = slice_table(cohort.volumes, cohort.labels)
    pair = calibration_pairs(slices, 1, rng)[0]
    two = tuple(volume for volume in cohort.volumes if volume.name in pair)
    free = set(of_subject) - {volume.subject for volume in two}

    def drawn(name: str, size: float, able: set[str]) -> list[str]:
        wanted = int(size * total) if size < 1 else int(size)
        able = able & free
        if not 0 < wanted <= len(able):
            raise ValueError(
                f"sets.{name}: {wanted} subjects wanted, {len(able)} left that can serve "
                f"({total} in all)"
            )
        chosen = rng.choice(sorted(able), wanted, replace=False).tolist()
        free.difference_update(chosen)
        return sorted(chosen)

    with_zones = set(slices["subject"])
    long_enough = {
        subject: [v for v in volumes if max(len(run) for run in v.runs) >= min_slices]
        for subject, volumes in of_subject.items()
    }
    labelled_names = set(slices["volume"])
    chosen: dict[str, Any] = {
        name: tuple(
            volume
            for subject in drawn(name, size, with_zones)
            for volume in of_subject[subject]
            if volume.name in labelled_names
        )
        for name, size in (("test", sizes.test), ("labelled", sizes.labelled))
    }
    trainable = {subject for subject, volumes in long_enough.items() if volumes}
    unlabelled = drawn("unlabelled", sizes.unlabelled, trainable)
    chosen["unlabelled"] = tuple(v for subject in unlabelled for v in long_enough[subject])
    return EvidenceSets(two=two, **chosen)


def write_sets(sets: EvidenceSets, path: Path) -> None:
    """Write who is in which set: columns set, volume, subject, slices."""
    rows = [
        (name, volume.name, harmless(volume.subject), len(volume.z_mm))
        for name, volumes in sets.items()
        for volume in volumes
    ]
    with write_atomically(path, "w") as file:
        pd.DataFrame(rows, columns=["set", "volume", "subject", "slices"]).to_csv(file, index=False)
