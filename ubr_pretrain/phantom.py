"""Synthetic CT bodies with exact body parts, landmarks and lesions: draw, scan, render.

    rng = np.random.default_rng(7)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, region="chest", step_mm=5)
    phantom = render(subject, scan, size_px=128, lesion_kinds=[LesionKind.LUNG])

The data of the demo, the tests and the benchmarks, and quick enough to render while training.

Shapes:
    z: axial slices, superior -> inferior.
    y, x: pixels, as in ``ubr_pretrain.ct``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ubr_pretrain.ct import Volume
from ubr_pretrain.phantom_abnormalities import (
    ABNORMALITIES,
    Abnormality,
    pour_fluid,
    with_metal,
)
from ubr_pretrain.phantom_lesions import (
    LESION_MM,
    Lesion,
    LesionKind,
    host_slices,
    place_lesion,
)
from ubr_pretrain.phantom_painter import Canvas, Painter
from ubr_pretrain.phantom_scan import (
    REGIONS,
    Region,
    Scan,
    sample_region,
    sample_scan,
    without_slices,
)
from ubr_pretrain.phantom_scanner import Scanner, paint_couch
from ubr_pretrain.phantom_shapes import Floats, Frame
from ubr_pretrain.phantom_subject import Subject, sample_subject

__all__ = [
    "ABNORMALITIES",
    "BODY_PARTS",
    "REGIONS",
    "Abnormality",
    "Landmark",
    "Lesion",
    "LesionKind",
    "Phantom",
    "Region",
    "Scan",
    "Subject",
    "Volume",
    "render",
    "sample_phantom",
    "sample_scan",
    "sample_subject",
    "with_metal",
    "without_slices",
]

BODY_PARTS = ("head_neck", "chest", "abdomen", "pelvis", "legs")
"""Classes of a slice, superior to inferior; the abdomen runs from liver dome to iliac crest."""

BODY_PART_BOUNDS = ("lung_apex", "liver_dome", "iliac_crest", "pubic_symphysis_lower")
LOWER_ENDS = ("lung_base", "kidney_lower_pole", "pubic_symphysis_lower")
"""Landmarks that belong to the last slice which shows them; all others, to the first."""

SHARED_SLICE_SHARE = 0.5
"""How often a lesion is looked for in the key slice of the one before."""

FINE_PIXEL_MM = 1.3
"""Pictures with pixels above this are painted at twice their resolution and averaged down."""


@dataclass(frozen=True)
class Landmark:
    """A landmark that lies within a scan.

    Attributes:
        name: as in ``phantom_subject.LANDMARKS``.
        z_mm: its exact height, in the frame of ``Volume.z_mm``.
        index: the slice that shows it.
    """

    name: str
    z_mm: float
    index: int


@dataclass(frozen=True, eq=False)
class Phantom:
    """A rendered scan and all that is true of it.

    Attributes:
        volume: what a reader would return.
        tissues: uint8 [z, y, x], a ``phantom_tissues.Tissue`` per pixel (without lesions).
        classes: the body part of every slice.
        landmarks: those within the scan, superior to inferior.
        coordinate_mm: [z] height of every slice in the reference body: comparable between bodies.
        lesions: in the order in which they were asked for.
    """

    volume: Volume
    tissues: NDArray[np.uint8]
    classes: tuple[str, ...]
    landmarks: tuple[Landmark, ...]
    coordinate_mm: Floats
    lesions: tuple[Lesion, ...] = ()

    def reversed(self) -> Phantom:
        """Return the scan in the wrong order, its truth turned with it."""
        last, end_mm = self.volume.num_slices - 1, float(self.volume.z_mm[-1])
        return Phantom(
            volume=self.volume.reversed(),
            tissues=self.tissues[::-1],
            classes=self.classes[::-1],
            landmarks=tuple(
                replace(mark, z_mm=end_mm - mark.z_mm, index=last - mark.index)
                for mark in reversed(self.landmarks)
            ),
            coordinate_mm=self.coordinate_mm[::-1],
            lesions=tuple(
                replace(lesion, key_index=last - lesion.key_index) for lesion in self.lesions
            ),
        )


def render(
    subject: Subject,
    scan: Scan,
    size_px: int = 128,
    lesion_kinds: Sequence[LesionKind] = (),
    source: str = "phantom",
    lesion_mm: float = LESION_MM,
) -> Phantom:
    """Render a scan of a subject.

    The same subject, scan and size give the same voxels.

    Args:
        subject: who.
        scan: how.
        size_px: side of the square picture.
        lesion_kinds: lesions to place; one for which the scan has no room is left out.
        source: kept in the volume.
        lesion_mm: median long diameter of the lesions.

    Raises:
        ValueError: a picture of less than 16 pixels.
    """
    if size_px < 16:
        raise ValueError(f"size_px {size_px}: a body needs at least 16 pixels")
    pixel_mm = scan.fov_mm / size_px
    oversampling = 2 if pixel_mm > FINE_PIXEL_MM else 1
    canvas = Canvas(size_px * oversampling, pixel_mm / oversampling, scan.offset_mm, scan.turn_rad)
    painter = Painter(subject, scan.z_mm, canvas)
    couch = np.zeros((canvas.size_px, canvas.size_px), np.uint8)
    paint_couch(couch, scan, canvas, painter.lowest_px)
    labels = np.empty((len(scan.z_mm), *couch.shape), np.uint8)
    for index, z_mm in enumerate(scan.z_mm.tolist()):
        labels[index] = couch
        painter.paint(index, labels[index])
        pour_fluid(labels[index], subject, canvas, z_mm)
    tissues = labels[:, ::oversampling, ::oversampling]
    classes = body_parts(subject, scan.z_mm)

    lesions = _place_lesions(lesion_kinds, tissues, classes, subject, scan, pixel_mm, lesion_mm)

    scanner = Scanner(subject, scan, size_px, oversampling)
    hu = np.empty((len(scan.z_mm), size_px, size_px), np.int16)
    for index, z_mm in enumerate(scan.z_mm.tolist()):
        hu[index] = scanner.expose(labels[index], z_mm, lesions)
    first_mm = float(scan.z_mm[0])
    return Phantom(
        volume=Volume(hu, (scan.step_mm, pixel_mm, pixel_mm), scan.z_mm - first_mm, source),
        tissues=np.ascontiguousarray(tissues),
        classes=classes,
        landmarks=_landmarks(subject, scan),
        coordinate_mm=subject.to_reference(Frame.VISCERA, scan.z_mm),
        lesions=tuple(lesions),
    )


def _place_lesions(
    kinds: Sequence[LesionKind],
    tissues: NDArray[np.uint8],
    classes: Sequence[str],
    subject: Subject,
    scan: Scan,
    pixel_mm: float,
    lesion_mm: float,
) -> list[Lesion]:
    """Find room for lesions, every other one in the key slice of the one before if it fits."""
    rng = np.random.default_rng((scan.noise_seed, 1))
    lesions: list[Lesion] = []
    for kind in kinds:
        everywhere = host_slices(kind, classes)
        choices = [everywhere]
        if lesions and lesions[-1].key_index in everywhere and rng.random() < SHARED_SLICE_SHARE:
            choices = [[lesions[-1].key_index], everywhere]
        for slices in choices:
            lesion = place_lesion(
                kind, slices, tissues, scan.z_mm, pixel_mm, subject.hu, lesions, rng, lesion_mm
            )
            if lesion is not None:
                lesions.append(lesion)
                break
    return lesions


def body_parts(subject: Subject, z_mm: Floats) -> tuple[str, ...]:
    """Return the body part of slices at heights [n] of a subject.

    The slice that shows the lower end of the symphysis is the last one of the pelvis; at every
    other boundary the slice at the landmark is the first of the lower part.
    """
    marks_mm = subject.landmarks_mm
    bounds_mm = np.array([marks_mm[name] for name in BODY_PART_BOUNDS])
    bounds_mm[-1] = np.nextafter(bounds_mm[-1], np.inf)
    return tuple(BODY_PARTS[i] for i in np.searchsorted(bounds_mm, z_mm, side="right"))


def _landmarks(subject: Subject, scan: Scan) -> tuple[Landmark, ...]:
    found = []
    for name, mark_mm in subject.landmarks_mm.items():
        index = int(np.searchsorted(scan.z_mm, mark_mm))
        if name in LOWER_ENDS:
            index = int(np.searchsorted(scan.z_mm, mark_mm, side="right")) - 1
        inside = scan.z_mm[0] - scan.step_mm < mark_mm < scan.z_mm[-1] + scan.step_mm
        if (
            inside
            and 0 <= index < len(scan.z_mm)
            and abs(scan.z_mm[index] - mark_mm) < scan.step_mm
        ):
            found.append(Landmark(name, mark_mm - float(scan.z_mm[0]), index))
    return tuple(found)


def sample_phantom(
    rng: np.random.Generator,
    size_px: int = 128,
    region: Region | None = None,
    abnormality: Abnormality | None = None,
    lesion_kinds: Sequence[LesionKind] = (),
    step_mm: float | None = None,
    max_slices: int | None = None,
    subject: Subject | None = None,
    lesion_mm: float = LESION_MM,
) -> Phantom:
    """Draw a subject and a scan, and render it.

    Args:
        rng: source of randomness.
        size_px: side of the square picture.
        region: what is scanned; drawn where absent.
        abnormality: one of ``ABNORMALITIES``, or None.
        lesion_kinds: lesions to place.
        step_mm: slice interval; drawn where absent.
        max_slices: an upper limit, kept by a coarser interval.
        subject: who is scanned; drawn where absent.
        lesion_mm: median long diameter of the lesions.

    Raises:
        ValueError: an unknown region or abnormality, an impossible step, limit or size.
    """
    if abnormality is not None and abnormality not in ABNORMALITIES:
        raise ValueError(f"abnormality {abnormality!r} is not one of {', '.join(ABNORMALITIES)}")
    region = region or sample_region(rng)
    if subject is None:  # arms are not lifted beside a head that is scanned for itself
        subject = sample_subject(rng, arms_raised=False if region == "head_neck" else None)
    if abnormality == "ascites":
        subject = replace(subject, ascites=float(rng.uniform(0.5, 1.0)))
    elif abnormality == "effusion":
        subject = replace(subject, effusion=float(rng.uniform(0.35, 0.8)))
    elif abnormality == "metal":
        subject = with_metal(subject, rng)
    scan = sample_scan(subject, rng, region, step_mm, max_slices)
    if abnormality == "missing_slices":
        scan = without_slices(scan, rng)
    phantom = render(subject, scan, size_px, lesion_kinds, lesion_mm=lesion_mm)
    return phantom.reversed() if abnormality == "reversed" else phantom
