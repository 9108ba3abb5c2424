"""Which body part a scan examines, in the words of DICOM: proposed, never written into a file."""

from __future__ import annotations

from dataclasses import dataclass


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
