"""From the scores of a regressor to a place in the body, and back, with the uncertainty of both.

A calibration holds the mean score of named landmarks in labelled scans. The body coordinate of a
score is linear between neighbouring landmarks and follows the overall slope beyond the outermost:
0 at the iliac crest, 100 at the lung apex, growing towards the head, nearly linear in mm.

Shapes:
    n: scores, z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import TypeAdapter, ValidationError

from ubr_pretrain.bounded_file import MAX_NOTE_BYTES, require_at_most
from ubr_pretrain.config import first_problem
from ubr_pretrain.landmarks import LANDMARK_COORDINATES, TRUNK, ZONE_BOUNDS, ZONE_NAMES
from ubr_pretrain.monotone_fit import monotone_fit
from ubr_pretrain.rank_correlation import spearman
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically
from ubr_pretrain.zones import ZoneThresholds

SCHEMA_VERSION = 1
"""Of the calibration file."""

Zone = Literal["head_neck", "chest", "abdomen", "pelvis", "legs"]
assert get_args(Zone) == ZONE_NAMES


@dataclass(frozen=True)
class CalibratedLandmark:
    """The score of one landmark.

    Attributes:
        name: a key of ``LANDMARK_COORDINATES``.
        score: mean over the volumes that show it, made monotone along the body.
        score_sd: spread of the single volumes about it.
        coordinate: its place on the body coordinate.
        coordinate_sd: root mean square by which the coordinate that is read at the landmark of a
            single volume misses its place: bodies differ, and so do scores.
        num_volumes: how many volumes show it.
    """

    name: str
    score: float
    score_sd: float
    coordinate: float
    coordinate_sd: float
    num_volumes: int


@dataclass(frozen=True)
class LocatedLandmark:
    """Where a scan should show a landmark.

    Attributes:
        name: of the landmark.
        z_mm: below the first slice.
        slice_index: the nearest slice.
        coordinate: its place on the body coordinate.
        uncertainty_mm: one standard deviation of ``z_mm``.
    """

    name: str
    z_mm: float
    slice_index: int
    coordinate: float
    uncertainty_mm: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the scores of one regressor mean.

    Attributes:
        landmarks: superior -> inferior, scores strictly increasing.
        thresholds: scores between chest, abdomen and pelvis.
        thresholds_sd: spread of either threshold over pairs of calibrating volumes.
        slope_per_mm: score per mm of a typical body inside the trunk.
        slope_sd: spread of that over volumes.
        wander_sd: how far a scan's coordinates stray from their own straight line in the trunk,
            typical standard deviation over the calibrating volumes.
        end_sd: how far the coordinate at either end of a scan is off against the other, in units.
        uncertainty_scale: factor for the standard deviation of a slice's score over views.
        source: which volumes, in words.
    """

    landmarks: tuple[CalibratedLandmark, ...]
    thresholds: ZoneThresholds
    thresholds_sd: tuple[float, float]
    slope_per_mm: float
    slope_sd: float
    wander_sd: float = 0.0
    end_sd: float = 0.0
    uncertainty_scale: float = 1.0
    source: str

    def __post_init__(self) -> None:
        scores, coordinates = self._knots
        spreads = [sd for mark in self.landmarks for sd in (mark.score_sd, mark.coordinate_sd)]
        if not np.isfinite([*self.thresholds_sd, *astuple(self.thresholds), *spreads]).all():
            raise ValueError("a threshold or a standard deviation is not finite")
        if len(scores) < 2 or not (np.diff(scores) > 0).all():
            raise ValueError("landmarks: at least two, and their scores must increase")
        if not (np.diff(coordinates) < 0).all():
            raise ValueError("landmarks: coordinates must fall from superior to inferior")
        if not (0 < self.slope_per_mm < np.inf and 0 <= self.slope_sd < np.inf):
            raise ValueError(f"slope {self.slope_per_mm} +- {self.slope_sd} per mm must be > 0")
        for name in ("uncertainty_scale", "wander_sd", "end_sd"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} {getattr(self, name)} must be >= 0")
        if not self.thresholds.chest_abdomen <= self.thresholds.abdomen_pelvis:
            raise ValueError("thresholds: chest|abdomen must not lie below abdomen|pelvis")

    @property
    def _knots(self) -> tuple[ndarray, ndarray]:
        return (
            np.array([mark.score for mark in self.landmarks], float),
            np.array([mark.coordinate for mark in self.landmarks], float),
        )

    @property
    def _trunk(self) -> tuple[CalibratedLandmark, ...]:
        """The landmarks of the trunk; all of them where it shows fewer than two."""
        inside = tuple(m for m in self.landmarks if TRUNK[0] <= m.coordinate <= TRUNK[1])
        return inside if len(inside) > 1 else self.landmarks

    @property
    def score_per_unit(self) -> float:
        """Score per unit of the body coordinate in the trunk; positive."""
        top, bottom = self._trunk[0], self._trunk[-1]
        return (bottom.score - top.score) / (top.coordinate - bottom.coordinate)

    @property
    def trunk_sd(self) -> float:
        """Typical standard deviation of the coordinate at the landmarks of the trunk."""
        return float(np.median([mark.coordinate_sd for mark in self._trunk]))

    @property
    def mm_per_unit(self) -> float:
        """Millimetres per unit of the body coordinate in a typical body."""
        return self.score_per_unit / self.slope_per_mm

    def coordinate(self, scores: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Return the body coordinate of scores, strictly decreasing in the score."""
        scores = np.asarray(scores, float)
        knots, coordinates = self._knots
        beyond = np.minimum(scores - knots[0], 0) + np.maximum(scores - knots[-1], 0)
        return np.interp(scores, knots, coordinates) - beyond / self.score_per_unit

    def score_at(self, coordinate: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Return the scores at body coordinates: the inverse of ``coordinate``."""
        coordinate = np.asarray(coordinate, float)
        knots, coordinates = self._knots
        beyond = np.minimum(coordinate - coordinates[-1], 0)
        beyond = beyond + np.maximum(coordinate - coordinates[0], 0)
        inside = np.interp(coordinate, coordinates[::-1], knots[::-1])
        return inside - beyond * self.score_per_unit

    def coordinate_sd(
        self, scores: Float[ndarray, " n"], scores_sd: Float[ndarray, " n"] | None = None
    ) -> Float[ndarray, " n"]:
        """Return the standard deviation of the body coordinate of scores.

        The spread of the landmarks over the calibrating volumes, interpolated, and the slices' own
        uncertainty add in quadrature. Beyond the outermost landmarks the spread of the slope is
        added for every unit of distance.

        Args:
            scores: of slices.
            scores_sd: of every slice's score over views; None: not known, taken as 0.
        """
        scores = np.asarray(scores, float)
        knots, _ = self._knots
        spread = np.interp(scores, knots, [mark.coordinate_sd for mark in self.landmarks])
        beyond = np.maximum(knots[0] - scores, 0) + np.maximum(scores - knots[-1], 0)
        spread = spread + beyond / self.score_per_unit * (self.slope_sd / self.slope_per_mm)
        if scores_sd is None:
            return spread
        step = self.uncertainty_scale * np.asarray(scores_sd, float)
        # half the width of the interval score +- sd, seen through the map
        own = (self.coordinate(scores - step) - self.coordinate(scores + step)) / 2
        return np.hypot(spread, own)

    def zones(self, scores: Float[ndarray, " n"]) -> list[str]:
        """Return the zone of every score.

        Chest, abdomen and pelvis by the thresholds; head and neck above the lung apex, legs below
        the lower end of the symphysis.
        """
        bounds = self.score_at(np.array([LANDMARK_COORDINATES[name] for name in ZONE_BOUNDS]))
        chest_abdomen, abdomen_pelvis = (
            self.thresholds.chest_abdomen,
            self.thresholds.abdomen_pelvis,
        )
        edges = [
            min(float(bounds[0]), chest_abdomen),
            chest_abdomen,
            abdomen_pelvis,
            max(float(bounds[-1]), abdomen_pelvis),
        ]
        return [ZONE_NAMES[i] for i in np.digitize(np.asarray(scores, float), edges)]

    def locate(
        self, scores: Float[ndarray, " z"], z_mm: Float[ndarray, " z"]
    ) -> tuple[LocatedLandmark, ...]:
        """Return where a scan should show the calibrated landmarks that lie inside it.

        The scan's coordinates are made monotone first; a scan in the wrong order is read the way
        its scores run.

        Args:
            scores: of the slices.
            z_mm: of the slices, increasing.
        """
        coordinates = self.coordinate(scores)
        if len(coordinates) < 2 or np.ptp(coordinates) == 0:
            return ()
        falls = spearman(z_mm, coordinates) <= 0
        smooth = monotone_fit(coordinates, increasing=not falls)
        # a plateau becomes one point in its middle: the inverse is then a function
        values, first, count = np.unique(smooth, return_index=True, return_counts=True)
        middle_mm = np.array([np.mean(z_mm[i : i + n]) for i, n in zip(first, count, strict=True)])
        if len(values) < 2:
            return ()
        stray = float(np.sqrt(np.mean((coordinates - smooth) ** 2)))
        mm_per_unit = float(np.ptp(middle_mm) / np.ptp(values))
        found = []
        for mark in self.landmarks:
            if not values[0] <= mark.coordinate <= values[-1]:
                continue
            here_mm = float(np.interp(mark.coordinate, values, middle_mm))
            found.append(
                LocatedLandmark(
                    mark.name,
                    here_mm,
                    int(np.abs(z_mm - here_mm).argmin()),
                    mark.coordinate,
                    float(np.hypot(mark.coordinate_sd, stray)) * mm_per_unit,
                )
            )
        return tuple(found)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON, atomically."""
    with write_atomically(path, "w") as file:
        record = {"schema_version": SCHEMA_VERSION, **asdict(calibration)}
        file.write(to_json(record, indent=1) + "\n")


def read_calibration(path: Path) -> Calibration:
    """Read what ``write_calibration`` wrote.

    Raises:
        ValueError: no such file, not a calibration, from a newer version, or impossible values.
    """
    require_at_most(path, MAX_NOTE_BYTES)
    try:
        record = TypeAdapter(dict[str, object]).validate_json(path.read_bytes())
        version = record.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {version!r} is not the {SCHEMA_VERSION} read here")
        if unknown := set(record) - set(Calibration.__dataclass_fields__):
            raise ValueError(f"unknown field {sorted(unknown)[0]}")
        return TypeAdapter(Calibration).validate_python(record)
    except ValidationError as error:
        raise ValueError(f"{path}: not a calibration: {first_problem(error)}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a calibration: {error}") from error
