"""One synthetic scan: what of the body is covered, how it is sliced, which scanner makes it.

Shapes:
    n: slices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from ubr_pretrain.phantom_shapes import Floats, Frame
from ubr_pretrain.phantom_subject import Subject

Region = Literal["head_neck", "chest", "abdomen", "pelvis", "trunk", "whole", "random"]
REGIONS: tuple[Region, ...] = get_args(Region)

Couch = Literal["none", "arc", "flat", "trapezoid"]

REGION_SPANS_MM: dict[Region, tuple[tuple[float, float], tuple[float, float]]] = {
    "head_neck": ((0, 110), (285, 345)),
    "chest": ((235, 282), (500, 570)),
    "abdomen": ((430, 470), (675, 760)),
    "pelvis": ((640, 690), (870, 960)),
    "trunk": ((235, 290), (865, 930)),
    "whole": ((0, 20), (1000, 1100)),
    "random": ((0, 800), (0, 0)),
}
"""Where scans of a region begin and end, in mm of the reference body; random ones have a length."""

REGION_SHARES = (0.12, 0.18, 0.16, 0.1, 0.2, 0.1, 0.14)
SLICE_STEPS_MM = (0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.75, 4.25, 5.0, 6.0, 8.0)
SHORTEST_SCAN_MM = 60.0
LOWEST_MM = 1105.0
BORE_MM = 500.0
"""The usual full field of view of a scanner."""


@dataclass(frozen=True, eq=False)
class Scan:
    """How a subject is scanned.

    Attributes:
        z_mm: [n] heights of the slices in the subject, mm below the vertex plane, increasing.
        step_mm: slice interval; ``z_mm`` may have gaps of several intervals.
        fov_mm: side of the square picture.
        offset_mm: x and y of the body's origin from the picture's centre.
        turn_rad: rotation of the body about the long axis.
        couch: shape of the table.
        couch_mm: gap between the lowest skin and the table.
        kernel_mm: Gaussian blur of the reconstruction, standard deviation.
        sharpen: 0 for a soft kernel; edges are enhanced by this share.
        noise_hu: standard deviation of the noise at 1 mm pixels in a slim subject.
        grain_mm: correlation length of the noise.
        streaks: strength of the horizontal streaks of shoulders and hips.
        round_field: outside the inscribed circle nothing was reconstructed.
        shift_hu: calibration error of the scanner.
        noise_seed: what makes the noise of this scan.
    """

    z_mm: Floats
    step_mm: float
    fov_mm: float
    offset_mm: tuple[float, float] = (0.0, 0.0)
    turn_rad: float = 0.0
    couch: Couch = "arc"
    couch_mm: float = 4.0
    kernel_mm: float = 0.7
    sharpen: float = 0.0
    noise_hu: float = 12.0
    grain_mm: float = 0.8
    streaks: float = 0.3
    round_field: bool = False
    shift_hu: float = 0.0
    noise_seed: int = 0

    def __post_init__(self) -> None:
        if len(self.z_mm) == 0 or not np.all(np.diff(self.z_mm) > 0):
            raise ValueError("scan: z_mm must hold at least one height, and increase")
        if not (self.step_mm > 0 and self.fov_mm > 0):
            raise ValueError(
                f"scan: step {self.step_mm} mm and field of view {self.fov_mm} mm must be > 0"
            )


def sample_region(rng: np.random.Generator) -> Region:
    """Draw what is scanned, as often as hospitals scan it."""
    return REGIONS[rng.choice(len(REGIONS), p=REGION_SHARES)]


def sample_scan(
    subject: Subject,
    rng: np.random.Generator,
    region: Region | None = None,
    step_mm: float | None = None,
    max_slices: int | None = None,
) -> Scan:
    """Draw a scan of a subject.

    Args:
        subject: who is scanned.
        rng: source of randomness.
        region: what is covered; drawn where absent.
        step_mm: slice interval; drawn where absent.
        max_slices: an upper limit, kept by a coarser interval.

    Raises:
        ValueError: an unknown region, or a step or limit that is not positive.
    """
    region = region or sample_region(rng)
    if region not in REGIONS:
        raise ValueError(f"region {region!r} is not one of {', '.join(REGIONS)}")
    if step_mm is None:
        step_mm = float(rng.choice(SLICE_STEPS_MM))
    if not step_mm > 0 or (max_slices is not None and max_slices < 2):
        raise ValueError(f"step {step_mm} mm must be > 0 and max_slices {max_slices} at least 2")
    start_mm, length_mm = _span(subject, rng, region)
    if max_slices is not None:
        step_mm = max(step_mm, length_mm / max_slices)
    num_slices = max(2, int(length_mm / step_mm))
    head = region == "head_neck"
    return Scan(
        z_mm=start_mm + step_mm * np.arange(num_slices, dtype=np.float64),
        step_mm=step_mm,
        fov_mm=float(rng.uniform(230, 500)) if head else _body_fov_mm(subject, rng),
        offset_mm=(float(rng.normal(0, 10)), float(rng.normal(0 if head else -8, 14))),
        turn_rad=float(np.deg2rad(rng.normal(0, 2.5))),
        couch=rng.choice(get_args(Couch), p=[0.15, 0.4, 0.2, 0.25]),
        couch_mm=float(rng.uniform(1, 25)),
        kernel_mm=float(rng.uniform(0.45, 1.1)),
        sharpen=float(rng.choice([0.0, rng.uniform(0.3, 1.2)], p=[0.7, 0.3])),
        noise_hu=float(np.exp(rng.normal(np.log(13), 0.5))),
        grain_mm=float(rng.uniform(0.5, 1.2)),
        streaks=float(rng.uniform(0, 1.2)),
        round_field=bool(rng.random() < 0.25),
        shift_hu=float(rng.normal(0, 4)),
        noise_seed=int(rng.integers(2**63)),
    )


def _span(subject: Subject, rng: np.random.Generator, region: Region) -> tuple[float, float]:
    """Draw where a scan of a region starts in the subject, and how long it is, in mm."""
    starts, ends = REGION_SPANS_MM[region]
    start, end = rng.uniform(*starts), rng.uniform(*ends)
    if region == "random":
        end = min(start + rng.uniform(120, 500), LOWEST_MM)
    first, last = subject.to_body(Frame.VISCERA, np.array([start, end]))
    return float(first), max(float(last - first), SHORTEST_SCAN_MM)


def _body_fov_mm(subject: Subject, rng: np.random.Generator) -> float:
    """Draw a field of view: mostly fitted to the trunk, sometimes too small or the full bore."""
    if rng.random() < 0.2:
        return BORE_MM if rng.random() < 0.7 else float(rng.uniform(BORE_MM, 700))
    trunk_mm = 316 * float(subject.width.mean()) + 40 * subject.fat_scale + 90 * subject.belly
    return float(np.clip(trunk_mm * rng.uniform(0.92, 1.35), 280, 560))


def without_slices(scan: Scan, rng: np.random.Generator, share: float = 0.2) -> Scan:
    """Return the scan with a stretch of slices missing from its middle.

    Args:
        scan: at least five slices.
        rng: source of randomness.
        share: of the slices, how many are missing.

    Raises:
        ValueError: too few slices, or a share that leaves none.
    """
    num = len(scan.z_mm)
    missing = max(1, round(share * num))
    if num < 5 or missing > num - 4:
        raise ValueError(f"cannot take {missing} slices out of the middle of {num}")
    first = int(rng.integers(2, num - missing - 1))
    return replace(scan, z_mm=np.delete(scan.z_mm, slice(first, first + missing)))
