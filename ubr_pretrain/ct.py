"""The input convention that both sides of a transfer share: Hounsfield units, windows, volumes.

Shapes:
    z: axial slices, superior -> inferior.
    y: rows, anterior -> posterior.
    x: columns, the patient's right -> left (so a picture shows the patient's right on its left).

Reference:
    Yan, Lu, Summers, "Unsupervised Body Part Regression via Spatially Self-ordering Convolutional
    Neural Networks", ISBI 2018; input values from the authors' released code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from ubr_pretrain.printable import printable

AIR_HU = -1024
"""Outside the scanned field, and the lowest value kept (stored paddings go down to -3024)."""

MAX_HU = 3071
"""Top of the 12-bit scale on which CT scanners store HU."""

BURNED_IN = "text may be burned into the pixels"
"""The note on a DICOM series that says so (BurnedInAnnotation YES); no picture is made of it."""

INT16 = np.iinfo(np.int16)
"""HU are kept as such numbers, and a window lies among them."""

STEP_TOLERANCE = 0.05
"""Two neighbouring slices belong to one run where their step is within 5 % of the slice spacing."""


class Window(BaseModel):
    """A range of HU that is stretched linearly onto 0..1; values outside are clipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lower_hu: float = -175.0
    upper_hu: float = 275.0

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if not self.lower_hu < self.upper_hu:
            raise ValueError(
                f"window {self.lower_hu}..{self.upper_hu}: lower_hu must be < upper_hu"
            )
        if self.lower_hu < INT16.min or self.upper_hu > INT16.max:
            raise ValueError(
                f"window {self.lower_hu:g}..{self.upper_hu:g}: HU lie in {INT16.min}..{INT16.max}"
            )
        return self


class InputSpec(BaseModel):
    """How HU become a network's input; it travels with every weight file.

    The input is ``(scale * clip((hu - lower_hu) / (upper_hu - lower_hu), 0, 1) - mean) / std``, the
    grey value repeated over three channels (so that conv1 fits a detector that sees three slices).

    Attributes:
        window: the HU range that is kept.
        scale: the grey value of ``window.upper_hu``.
        mean: subtracted, per channel, in grey values.
        std: divided by, per channel, in grey values.
        size_px: side of the square slice that the body-part regressor reads.
        fov_mm: the square covers this many millimetres around the image centre, so that a body has
            one size whatever the field of view; None: the whole image (the paper).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Window = Window()
    scale: float = 255.0
    mean: tuple[float, float, float] = (50.0, 50.0, 50.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size_px: int = 128
    fov_mm: float | None = None

    @model_validator(mode="after")
    def _possible(self) -> InputSpec:
        if not self.scale > 0 or not all(s > 0 for s in self.std):
            raise ValueError(f"scale {self.scale} and std {self.std} must be > 0")
        if not np.isfinite([self.scale, *self.mean, *self.std]).all():
            raise ValueError(f"scale, mean {self.mean}, std {self.std}: not all finite")
        if self.fov_mm is not None and not 0 < self.fov_mm < np.inf:
            raise ValueError(f"fov_mm {self.fov_mm} must be > 0")
        if self.size_px < 32:
            raise ValueError(f"size_px {self.size_px}: conv5 of VGG-16 needs at least 32 pixels")
        if self.size_px > 4096:  # a checkpoint could claim it, and no memory would do
            raise ValueError(f"size_px {self.size_px}: no CT slice has more than 4096")
        return self


IMAGENET_INPUT = InputSpec(scale=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What torchvision's ImageNet weights were trained on (VGG16_Weights), with the CT window."""


class VolumeRefused(ValueError):  # noqa: N818  (a refusal is the field's word, not an error of ours)
    """A volume that cannot be read without the risk of a wrong result.

    Attributes:
        code: one of the ``E-...`` codes of the fault catalogue.
        path: the file or folder.
        cause: what is wrong, with the value found and the rule.
        hint: what the user can do.
    """

    def __init__(self, code: str, path: Any, cause: str, hint: str = "") -> None:
        cause = printable(cause)
        self.code, self.path, self.cause, self.hint = code, str(path), cause, hint
        shown = (code, printable(self.path, len(self.path)), cause, hint)
        super().__init__("  ".join(part for part in shown if part))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.path, self.cause, self.hint)


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT scan, always superior -> inferior.

    Attributes:
        hu: int16 [z, y, x], clipped to ``AIR_HU`` from below.
        spacing_mm_zyx: slice interval, row height, column width. For slices at uneven positions
            the first is the median step.
        z_mm: float64 [z], distance of every slice below the first one, strictly increasing, along
            the slice normal.
        source: the file or folder it came from.
        notes: what the reader changed or noticed (slices dropped, axes flipped, in-plane oddities).
        affine_lps: float64 [4, 4], from (z, y, x, 1) of a voxel of ``hu`` to (left, posterior,
            superior, 1) in mm of the patient; None where the source states no position, or where
            no such matrix holds for all slices.
    """

    hu: NDArray[np.int16]
    spacing_mm_zyx: tuple[float, float, float]
    z_mm: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    source: str = ""
    notes: tuple[str, ...] = ()
    affine_lps: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16 or 0 in self.hu.shape:
            raise ValueError(
                f"{self.source}: hu is {self.hu.dtype}{self.hu.shape}, not int16 [z, y, x]"
            )
        if len(self.spacing_mm_zyx) != 3 or not all(
            np.isfinite(s) and s > 0 for s in self.spacing_mm_zyx
        ):
            raise ValueError(f"{self.source}: spacing {self.spacing_mm_zyx} mm is not positive")
        if self.z_mm.size == 0:
            object.__setattr__(
                self, "z_mm", np.arange(len(self.hu), dtype=np.float64) * self.spacing_mm_zyx[0]
            )
        if self.z_mm.shape != (len(self.hu),) or not np.all(np.diff(self.z_mm) > 0):
            raise ValueError(f"{self.source}: z_mm must increase, one position a slice")

    @property
    def num_slices(self) -> int:
        """Number of axial slices."""
        return len(self.hu)

    @cached_property
    def runs(self) -> tuple[range, ...]:
        """Index ranges of slices at one constant step: no gap lies inside a run."""
        return contiguous_runs(self.z_mm, self.spacing_mm_zyx[0])

    def reversed(self) -> Volume:
        """Return the same slices in the opposite order (what a wrong header would make of it)."""
        z_mm = self.z_mm[-1] - self.z_mm[::-1]
        return replace(self, hu=self.hu[::-1], z_mm=z_mm, affine_lps=None)


def without_text(volume: Volume) -> Volume:
    """Return what may be drawn of a volume: its slices, or air where text may be in them."""
    if BURNED_IN not in volume.notes:
        return volume
    return replace(volume, hu=np.full_like(volume.hu, AIR_HU))


def contiguous_runs(z_mm: NDArray[np.float64], step_mm: float) -> tuple[range, ...]:
    """Split slice positions where a step is not ``step_mm`` within ``STEP_TOLERANCE``.

    Args:
        z_mm: [z] increasing positions.
        step_mm: the constant slice interval.

    Returns:
        Index ranges that cover all slices, in order; a slice with a foreign step on both sides is
        a run of one.
    """
    broken = np.abs(np.diff(z_mm) - step_mm) > STEP_TOLERANCE * step_mm
    edges = [0, *(np.flatnonzero(broken) + 1).tolist(), len(z_mm)]
    return tuple(range(a, b) for a, b in pairwise(edges) if b > a)
