"""Recall of an arm by lesion type, size and slice interval, over all its seeds.

Shapes:
    S: seeds; L: lesions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from lesion_det.ground_truth import GroundTruth
from lesion_det.lesion_groups import Groups, groups_by_interval, groups_by_size, groups_by_type
from lesion_det.significance import ArmHits, Interval, draw_patients, recall_interval
from ubr_pretrain.config import Config
from ubr_pretrain.runtime import generator

Kind = Literal["type", "size", "interval"]

KIND_WORDS: Mapping[Kind, str] = {
    "type": "lesion type",
    "size": "long diameter",
    "interval": "slice interval",
}


class GroupOfArms(Config):
    """One group of lesions in all arms.

    Attributes:
        kind: what the lesions are grouped by.
        name: of the group: "lung", "10-30 mm".
        num_lesions: in the group.
        num_patients: who have them.
        recall: top-5 recall of every arm over its seeds, with its 95 % interval; the group's
            patients are resampled.
    """

    kind: Kind
    name: str
    num_lesions: int
    num_patients: int
    recall: Mapping[str, Interval]


def break_down(
    hits: Mapping[str, ArmHits], ground_truth: GroundTruth, seed: int
) -> list[GroupOfArms]:
    """Return every group that has lesions; none where no arm has finished.

    Args:
        hits: of every arm with a finished cell.
        ground_truth: of the lesions.
        seed: of the draws of the patients; the arms share those of a group.
    """
    if not hits:
        return []
    patients = next(iter(hits.values())).patient_index
    kinds: Mapping[Kind, Groups] = {
        "type": groups_by_type(ground_truth),
        "size": groups_by_size(ground_truth),
        "interval": groups_by_interval(ground_truth),
    }
    rows = []
    for kind, groups in kinds.items():
        for name, members in groups.items():
            draws = draw_patients(patients[members], generator(seed))
            rows.append(
                GroupOfArms(
                    kind=kind,
                    name=name,
                    num_lesions=int(members.sum()),
                    num_patients=len(np.unique(patients[members])),
                    recall={
                        arm: recall_interval(
                            ArmHits(found.seeds, found.hits[:, members], patients[members]), draws
                        )
                        for arm, found in hits.items()
                    },
                )
            )
    return rows
