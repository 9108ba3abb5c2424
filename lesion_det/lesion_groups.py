"""Groups of lesions that recall is broken down by: coarse type, size, slice interval.

Every lesion is in exactly one group of each kind, and a group without lesions is left out.

Shapes:
    L: lesions, as ``lesion_ranks`` orders them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int64

from converters.lesions import LESION_TYPES
from lesion_det.ground_truth import GroundTruth

Groups = Mapping[str, Bool[np.ndarray, " L"]]
"""Which lesions a group has, by its name."""


def groups_by_type(ground_truth: GroundTruth) -> Groups:
    """Return DeepLesion's coarse types; the lesions of its training split are all "unknown"."""
    types: Int64[np.ndarray, " L"] = np.concatenate(
        [image.lesion_types for image in ground_truth.images]
    )
    return {
        LESION_TYPES.get(number, f"type {number}"): types == number
        for number in np.unique(types).tolist()
    }


def groups_by_size(ground_truth: GroundTruth) -> Groups:
    """Return groups by the long diameter in mm; 10 and 30 mm belong to "10-30 mm"."""
    mm = np.concatenate([image.long_diameters_mm for image in ground_truth.images])
    return _occurring({"< 10 mm": mm < 10, "10-30 mm": (mm >= 10) & (mm <= 30), "> 30 mm": mm > 30})


def groups_by_interval(ground_truth: GroundTruth) -> Groups:
    """Return groups by the slice interval; 1 mm is in the first, 2.5 mm in the second.

    DeepLesion has about as many lesions at 1 mm as at 5 mm, and 2 % between.
    """
    images = ground_truth.images
    mm = np.repeat([i.spacing_mm_zyx[0] for i in images], [i.num_lesions for i in images])
    return _occurring(
        {"<= 1 mm": mm <= 1, "1-2.5 mm": (mm > 1) & (mm <= 2.5), "> 2.5 mm": mm > 2.5}
    )


def _occurring(groups: Groups) -> Groups:
    return {name: members for name, members in groups.items() if members.any()}
