"""Which body part a scan examines, in the words of DICOM: proposed, never written into a file.

The term is the one whose nominal stretch of the body agrees best with what was scanned, by length
of the intersection over that of the union. Terms are words of the standard, so a scan of the whole
head, neck and chest, for which it has none, gets the nearest that exists.

Shapes:
    z: slices of a volume.

Reference:
    DICOM PS3.16, Annex L, Table L-1 (defined terms of Body Part Examined with SNOMED CT codes) and
    CID 4031 "Common Anatomic Regions". Values are CS, at most 16 characters: the standard's term
    for neck to pelvis is NECKCHESTABDPELV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtri

from ubr_pretrain.landmarks import LANDMARK_COORDINATES, ZONE_BOUNDS, ZONE_NAMES
from ubr_pretrain.monotone_fit import monotone_fit

VERTEX = LANDMARK_COORDINATES["vertex"]
SKULL_BASE = 133.0
"""About 12 cm of cervical spine above C7/T1."""

NECK_END = LANDMARK_COORDINATES["lung_apex"]
CHEST_TOP = LANDMARK_COORDINATES["C7_T1"]
CHEST_END = LANDMARK_COORDINATES["lung_base"]
ABDOMEN_TOP = LANDMARK_COORDINATES["liver_dome"]
PELVIS_TOP = LANDMARK_COORDINATES["iliac_crest"]
PELVIS_END = LANDMARK_COORDINATES["pubic_symphysis_lower"]
MID_THIGH = -100.0
"""Where scans of the whole body usually end."""

SOLE = -250.0

REGIONS: dict[str, tuple[str, str, float, float]] = {
    "HEAD": ("69536005", "Head", VERTEX, SKULL_BASE),
    "NECK": ("45048000", "Neck", SKULL_BASE, NECK_END),
    "HEADNECK": ("774007", "Head and Neck", VERTEX, NECK_END),
    "CHEST": ("816094009", "Chest", CHEST_TOP, CHEST_END),
    "ABDOMEN": ("818981001", "Abdomen", ABDOMEN_TOP, PELVIS_TOP),
    "PELVIS": ("816092008", "Pelvis", PELVIS_TOP, PELVIS_END),
    "NECKCHEST": ("417437006", "Neck and Chest", SKULL_BASE, CHEST_END),
    "NECKCHESTABDOMEN": ("416152001", "Neck, Chest and Abdomen", SKULL_BASE, PELVIS_TOP),
    "NECKCHESTABDPELV": ("416319003", "Neck, Chest, Abdomen and Pelvis", SKULL_BASE, PELVIS_END),
    "CHESTABDOMEN": ("416550000", "Chest and Abdomen", CHEST_TOP, PELVIS_TOP),
    "CHESTABDPELVIS": ("416775004", "Chest, Abdomen and Pelvis", CHEST_TOP, PELVIS_END),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis", ABDOMEN_TOP, PELVIS_END),
    "PELVISLOWEXTREMT": ("1231522001", "Pelvis and lower extremities", PELVIS_TOP, SOLE),
    "LOWERLIMB": ("61685007", "Lower limb", PELVIS_END, SOLE),
    "WHOLEBODY": ("38266002", "Entire body", VERTEX, MID_THIGH),
}
"""Defined term: SNOMED CT code, its meaning, upper and lower end on the body coordinate."""

_TERMS = tuple(REGIONS)
_UPPER = np.array([region[2] for region in REGIONS.values()])
_LOWER = np.array([region[3] for region in REGIONS.values()])

_ZONE_EDGES = (VERTEX, *(LANDMARK_COORDINATES[name] for name in ZONE_BOUNDS), SOLE)

LEAST_EXTENT = 10.0
"""Scans below some 40 mm, single slices above all, are named after that much of their surroundings:
without an extent every region that holds them would agree equally little."""

NUM_QUANTILES = 25
"""Of either end of the scan, for the confidence."""


@dataclass(frozen=True)
class BodyPart:
    """A proposal for Body Part Examined (0018,0015) and Anatomic Region Sequence (0008,2218).

    Attributes:
        body_part_examined: defined term, a CS of at most 16 characters.
        code_value: of the anatomic region, coding scheme SCT (SNOMED CT).
        code_meaning: of the same.
        confidence: 0..1, the probability that the same term is proposed for the true coordinates.
        covered: share of every zone (head_neck, chest, abdomen, pelvis, legs) inside the scan.
    """

    body_part_examined: str
    code_value: str
    code_meaning: str
    confidence: float
    covered: dict[str, float]


def propose_body_part(
    coordinates: Float[ndarray, " z"],
    coordinates_sd: Float[ndarray, " z"],
    z_mm: Float[ndarray, " z"],
) -> BodyPart:
    """Propose the body part that a scan examines.

    The ends of the scan are those of the monotone curve nearest to the coordinates, so that single
    stray slices do not count; which way the slices run does not matter. For the confidence both
    ends vary independently by their standard deviation and by how far slices stray from the curve.

    Args:
        coordinates: body coordinate of every slice.
        coordinates_sd: their standard deviation.
        z_mm: positions, increasing; slices that lie far apart count for more.

    Raises:
        ValueError: no slices, or values that are not finite.
    """
    if len(coordinates) == 0 or not (
        np.isfinite(coordinates).all() and np.isfinite(coordinates_sd).all()
    ):
        raise ValueError("a body part needs at least one slice, and finite coordinates")
    ends, ends_sd = _ends(coordinates, coordinates_sd, z_mm)
    chosen = int(_best_terms(np.array(ends[0]), np.array(ends[1])))
    quantiles = ndtri((np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES)
    tops, bottoms = np.meshgrid(
        ends[0] + ends_sd[0] * quantiles, ends[1] + ends_sd[1] * quantiles, indexing="ij"
    )
    confidence = float(np.mean(_best_terms(tops, bottoms) == chosen))
    covered = {
        name: round(max(0.0, min(ends[0], upper) - max(ends[1], lower)) / (upper - lower), 3)
        for name, upper, lower in zip(ZONE_NAMES, _ZONE_EDGES, _ZONE_EDGES[1:], strict=False)
    }
    term = _TERMS[chosen]
    return BodyPart(term, *REGIONS[term][:2], round(confidence, 3), covered)


def _ends(
    coordinates: Float[ndarray, " z"],
    coordinates_sd: Float[ndarray, " z"],
    z_mm: Float[ndarray, " z"],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the upper and the lower end of a scan, and their standard deviations."""
    if len(coordinates) == 1:
        only, only_sd = float(coordinates[0]), float(coordinates_sd[0])
        return (only, only), (only_sd, only_sd)
    thickness_mm = np.gradient(z_mm)
    fits = [
        monotone_fit(coordinates, thickness_mm, increasing=increasing)
        for increasing in (False, True)
    ]
    down, up = (float(np.sum(thickness_mm * (fit - coordinates) ** 2)) for fit in fits)
    smooth, sd = fits[0], coordinates_sd
    if up < down:
        smooth, sd = fits[1][::-1], coordinates_sd[::-1]
    stray = np.sqrt(min(down, up) / thickness_mm.sum())  # a curve in disorder has no sure ends
    ends_sd = np.hypot(sd[[0, -1]], stray)
    return (float(smooth[0]), float(smooth[-1])), (float(ends_sd[0]), float(ends_sd[1]))


def _best_terms(tops: ndarray, bottoms: ndarray) -> ndarray:
    """Return the index of the term that agrees best with scans from ``tops`` to ``bottoms``."""
    half = np.maximum(np.abs(tops - bottoms), LEAST_EXTENT)[..., np.newaxis] / 2
    middle = (tops + bottoms)[..., np.newaxis] / 2
    upper, lower = middle + half, middle - half
    shared = np.minimum(upper, _UPPER) - np.maximum(lower, _LOWER)  # negative: apart
    union = np.maximum(upper, _UPPER) - np.minimum(lower, _LOWER)
    return np.asarray(np.argmax(shared / union, axis=-1))
