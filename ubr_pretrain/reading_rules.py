"""What a reader of CT volumes accepts, and what the caller knows that a file lacks."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ubr_pretrain.checksums import read_checksums
from ubr_pretrain.ct import VolumeRefused

SCORING_TILT_DEG = 30.0
"""The furthest a CT gantry tilts: each tilted slice can still be scored, at its true distance."""

MAX_SPACING_MM = 50.0
"""No CT has pixels or slice intervals above this; two scout views read as a stack have 375 mm."""

MIN_SPACING_MM = 0.001
"""Microscopes begin here; a damaged exponent gives less."""

MAX_SIDE_PX = 4096
"""Largest accepted side of one slice (ultra-high-resolution CT has 2048)."""

SPACING_HINT = "if it is known, in Python: read_volume(..., spacing_mm_zyx=(z, y, x))"
"""What can be done about a file without a spacing: no command has a flag for these rules."""

_AXIS_OF_LETTER = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


class ReadingRules(BaseModel):
    """Limits of a reader, and the facts that stand in where a file states none.

    Attributes:
        spacing_mm_zyx: slice interval, row height, column width; used only where the file (or the
            ``DL_info.csv`` of a PNG folder) states none.
        orientation: three letters of L/R, P/A, S/I: where the x, y and z index of the file grow
            to, such as ``LPS``; used only where the file states none.
        allow_gaps: keep uneven slice positions (``Volume.z_mm`` is true, ``Volume.runs`` shows
            them) instead of refusing them.
        max_oblique_deg: largest angle between the slice direction and the head-feet axis.
        max_tilt_deg: largest angle between the slice direction and the slice normal (gantry tilt).
            The default is what training takes; ``SCORING_TILT_DEG`` is what scoring may take.
        max_bytes: ceiling of the decoded voxels, and of anything decompressed.
        stride_mm: read one slice per so many millimetres (``SparseVolume``); the first and last
            of every run without a gap always; None: every slice.
        checksums: a list of SHA-256 sums (``checksums.py``) that every file is held against first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm_zyx: tuple[float, float, float] | None = None
    orientation: str | None = None
    allow_gaps: bool = False
    max_oblique_deg: float = Field(default=10.0, ge=0.0, le=45.0)
    max_tilt_deg: float = Field(default=5.0, ge=0.0, le=45.0)
    max_bytes: int = Field(default=4_000_000_000, gt=0)
    stride_mm: float | None = Field(default=None, gt=0.0, le=MAX_SPACING_MM)
    checksums: Path | None = None

    @field_validator("spacing_mm_zyx")
    @classmethod
    def _possible_spacing(
        cls, spacing: tuple[float, float, float] | None
    ) -> tuple[float, float, float] | None:
        if spacing is not None and (fault := spacing_fault(spacing)):
            raise ValueError(fault)
        return spacing

    @field_validator("checksums")
    @classmethod
    def _a_list_of_sums(cls, checksums: Path | None) -> Path | None:
        if checksums is not None:
            read_checksums(checksums)
        return checksums

    @field_validator("orientation")
    @classmethod
    def _one_letter_an_axis(cls, orientation: str | None) -> str | None:
        if orientation is None:
            return None
        letters = orientation.upper()
        if sorted(_AXIS_OF_LETTER.get(letter, -1) for letter in letters) != [0, 1, 2]:
            raise ValueError(f"orientation {orientation!r}: one letter each of L/R, P/A, S/I")
        return letters


def spacing_fault(spacing_mm: tuple[float, ...]) -> str | None:
    """Say what is wrong with a spacing, or return None."""
    if all(math.isfinite(s) and MIN_SPACING_MM <= s <= MAX_SPACING_MM for s in spacing_mm):
        return None
    shown = ", ".join(f"{s:g}" for s in spacing_mm)
    rule = f"> 0 and <= {MAX_SPACING_MM:g}, {MIN_SPACING_MM:g} at least"
    return f"spacing {shown} mm: every value must be {rule}"


def check_spacing(path: Path, spacing_mm: tuple[float, ...]) -> None:
    """Refuse a spacing that no CT has.

    Raises:
        VolumeRefused: E-SPACING.
    """
    if fault := spacing_fault(spacing_mm):
        raise VolumeRefused("E-SPACING", path, fault)
