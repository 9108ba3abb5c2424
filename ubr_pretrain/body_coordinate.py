"""The body coordinate: fit a calibration on labelled scans; everything about it is imported here.

    calibration = fit_calibration(curves, read_landmarks("landmarks.csv"))
    calibration.coordinate(scores)        # 0 iliac crest ... 100 lung apex
    calibration.locate(scores, z_mm)      # where in this scan is the liver dome?

Shapes:
    n: marks, z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.calibration import (
    CalibratedLandmark,
    Calibration,
    LocatedLandmark,
    read_calibration,
    write_calibration,
)
from ubr_pretrain.landmarks import (
    LANDMARK_COORDINATES,
    TRUNK,
    LandmarkMark,
    known_zones,
    read_landmarks,
    require_head_first,
)
from ubr_pretrain.monotone_fit import monotone_fit
from ubr_pretrain.scoring import ScoreCurve
from ubr_pretrain.zones import ZoneThresholds, fit_thresholds

__all__ = [
    "LANDMARK_COORDINATES",
    "TRUNK",
    "CalibratedLandmark",
    "Calibration",
    "LandmarkMark",
    "LocatedLandmark",
    "fit_calibration",
    "read_calibration",
    "read_landmarks",
    "robust_slope",
    "write_calibration",
]

LEAST_SHARE_OF_SLOPE = 0.25
"""Between two landmarks the score grows at least by this share of the overall slope: landmarks that
bodies show in either order (lung base, upper pole of the kidney) must not stop the coordinate."""

LEAST_TRUNK_MM = 100.0
"""A scan that shows less of the trunk says little about the slope."""

LONG_TRUNK_MM = 300.0
"""A scan that shows as much tells the build of the patient."""

BODY_SIZE_SPREAD = 0.1
"""Of the logarithm of mm per unit between adults, and what a few volumes are shrunk to: their
own spread counts as that of three volumes more."""

PRIOR_VOLUMES = 3
MAX_PAIRS = 200
MAX_POINTS = 150


def fit_calibration(
    curves: Mapping[str, ScoreCurve], marks: Sequence[LandmarkMark], source: str = ""
) -> Calibration:
    """Fit a calibration on scans whose landmarks are known.

    Args:
        curves: of the scans, by name; those without a mark are left out.
        marks: of the same scans; those of other scans are left out.
        source: which volumes, in words; drawn up where absent.

    Raises:
        ValueError: a mark outside its scan, a scan whose scores fall along its landmarks, fewer
            than two landmarks, no slices on either side of a zone border, or no scan with enough
            of the trunk to tell the slope.
    """
    marks = [mark for mark in marks if mark.volume in curves]
    names = [name for name in LANDMARK_COORDINATES if any(m.landmark == name for m in marks)]
    if len(names) < 2:
        raise ValueError(f"{len(names)} landmarks in the scored volumes: a calibration needs two")
    volumes = list(dict.fromkeys(mark.volume for mark in marks))
    at_mark = np.array([_score_at_mark(curves[mark.volume], mark) for mark in marks])
    for volume in volumes:
        _refuse_falling(volume, [(m, s) for m, s in zip(marks, at_mark, strict=True)
                                 if m.volume == volume])  # fmt: skip
    place = np.array([names.index(mark.landmark) for mark in marks])
    coordinates = np.array([LANDMARK_COORDINATES[name] for name in names])
    counts = np.bincount(place)
    means = np.bincount(place, weights=at_mark) / counts
    scores = _increasing(means, coordinates, counts)

    def calibrated(score_sd: ndarray, coordinate_sd: ndarray) -> tuple[CalibratedLandmark, ...]:
        return tuple(
            CalibratedLandmark(
                name,
                float(scores[k]),
                float(score_sd[k]),
                float(coordinates[k]),
                float(coordinate_sd[k]),
                int(counts[k]),
            )
            for k, name in enumerate(names)
        )

    unknown = np.zeros(len(names))
    ladder = Calibration(
        landmarks=calibrated(unknown, unknown),
        thresholds=ZoneThresholds(0.0, 0.0),
        thresholds_sd=(0.0, 0.0),
        slope_per_mm=1.0,
        slope_sd=0.0,
        source="",
    )
    missed = ladder.coordinate(at_mark) - coordinates[place]
    coordinate_sd = _spread(missed, place)
    slopes = _slopes(ladder, [curves[v] for v in volumes], float(np.median(coordinate_sd)))
    units_per_mm, relative_sd, wander_sd, end_sd = slopes
    slope_per_mm = units_per_mm * ladder.score_per_unit
    thresholds, thresholds_sd = _thresholds(curves, marks, volumes)
    return Calibration(
        landmarks=calibrated(_spread(at_mark - scores[place], place), coordinate_sd),
        thresholds=thresholds,
        thresholds_sd=thresholds_sd,
        slope_per_mm=slope_per_mm,
        slope_sd=slope_per_mm * relative_sd,
        wander_sd=wander_sd,
        end_sd=end_sd,
        source=source or f"{len(marks)} landmarks of {len(volumes)} volumes",
    )


def robust_slope(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> tuple[float, float]:
    """Return slope and intercept of the Theil-Sen line of y on x, from evenly drawn points."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int))
    x, y = x[chosen], y[chosen]
    right, up = x[:, None] - x, y[:, None] - y
    slope = np.median(np.sort(up[right > 0] / right[right > 0]))
    return float(slope), float(np.median(y) - slope * np.median(x))


def _score_at_mark(curve: ScoreCurve, mark: LandmarkMark) -> float:
    """Return the mean score over the slices within which the landmark was read."""
    if not 0 <= mark.index < len(curve.scores):
        raise ValueError(
            f"{mark.volume}: {mark.landmark} at slice {mark.index}, "
            f"but the volume has {len(curve.scores)} slices"
        )
    reach = min(int(mark.uncertainty_slices), mark.index, len(curve.scores) - 1 - mark.index)
    return float(curve.scores[mark.index - reach : mark.index + reach + 1].mean())


def _refuse_falling(volume: str, marks: Sequence[tuple[LandmarkMark, float]]) -> None:
    require_head_first([mark for mark, _ in marks], volume)
    top = max(marks, key=lambda m: LANDMARK_COORDINATES[m[0].landmark])
    bottom = min(marks, key=lambda m: LANDMARK_COORDINATES[m[0].landmark])
    apart = LANDMARK_COORDINATES[top[0].landmark] - LANDMARK_COORDINATES[bottom[0].landmark]
    if apart >= 40 and top[1] >= bottom[1]:
        raise ValueError(
            f"{volume}: scores fall from {top[1]:.3g} at {top[0].landmark} to {bottom[1]:.3g} at "
            f"{bottom[0].landmark}; a regressor's scores grow towards the feet"
        )


def _increasing(
    means: Float[ndarray, " n"], coordinates: Float[ndarray, " n"], weights: ndarray
) -> Float[ndarray, " n"]:
    """Return the weighted least-squares scores that grow by ``LEAST_SHARE_OF_SLOPE`` at least."""
    down = -coordinates
    slope = float(np.polyfit(down, means, 1, w=np.sqrt(weights))[0])
    if slope <= 0:
        raise ValueError("the mean scores of the landmarks do not grow towards the feet")
    least = LEAST_SHARE_OF_SLOPE * slope * down
    return monotone_fit(means - least, weights) + least


def _spread(misses: Float[ndarray, " n"], place: ndarray) -> Float[ndarray, " k"]:
    """Return the root mean square of the misses at every landmark, shrunk to that of all."""
    counts = np.bincount(place)
    squares = np.bincount(place, weights=misses**2)
    free = max(1, len(misses) - len(counts))  # one mean a landmark was fitted
    pooled = squares.sum() / free
    return np.sqrt((squares + PRIOR_VOLUMES * pooled) / (counts + PRIOR_VOLUMES))


def _slopes(
    ladder: Calibration, curves: Sequence[ScoreCurve], coordinate_sd: float
) -> tuple[float, float, float, float]:
    """Return units per mm in the trunk, its relative spread, and how scans wander, in units.

    The slope of a scan that shows L units of the trunk misses the typical one by the build of the
    patient and by what either end is off: variance = build^2 + 2 (end / L)^2. The build is learned
    from scans that show much of the trunk, the ends from all; both are shrunk to what is expected.
    """
    slopes, lengths, wanders = [], [], []
    for curve in curves:
        coordinates = ladder.coordinate(curve.scores)
        inside = (coordinates >= TRUNK[0]) & (coordinates <= TRUNK[1])
        if inside.sum() < 3 or np.ptp(curve.z_mm[inside]) < LEAST_TRUNK_MM:
            continue
        slope, intercept = robust_slope(curve.z_mm[inside], coordinates[inside])
        if slope < 0:
            rest = coordinates[inside] - intercept - slope * curve.z_mm[inside]
            slopes.append(-slope)
            lengths.append(float(np.ptp(curve.z_mm[inside])))
            wanders.append(float(np.sqrt(np.mean(rest**2))))
    if not slopes:
        raise ValueError(f"no labelled volume shows {LEAST_TRUNK_MM:g} mm of the trunk")
    lengths_mm = np.array(lengths)
    # long scans tell the typical slope better: twice as long counts as four scans
    typical = _weighted_median(np.log(slopes), lengths_mm**2)
    misses = np.log(slopes) - typical
    long = lengths_mm >= LONG_TRUNK_MM
    squares = float(np.sum(misses[long] ** 2)) + PRIOR_VOLUMES * BODY_SIZE_SPREAD**2
    build = np.sqrt(squares / (int(long.sum()) + PRIOR_VOLUMES))
    seen = np.exp(typical) * lengths_mm
    ends = np.maximum(misses**2 - build**2, 0) * seen**2 / 2
    end_sd = np.sqrt((ends.sum() + PRIOR_VOLUMES * coordinate_sd**2) / (len(ends) + PRIOR_VOLUMES))
    return float(np.exp(typical)), float(build), float(np.median(wanders)), float(end_sd)


def _weighted_median(values: Float[ndarray, " n"], weights: Float[ndarray, " n"]) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, 0.5)])


def _thresholds(
    curves: Mapping[str, ScoreCurve], marks: Sequence[LandmarkMark], volumes: Sequence[str]
) -> tuple[ZoneThresholds, tuple[float, float]]:
    """Return the thresholds set on all volumes and their spread over those set on two."""
    scores: dict[str, ndarray] = {}
    zones: dict[str, ndarray] = {}
    for volume in volumes:
        curve = curves[volume]
        known = known_zones([m for m in marks if m.volume == volume], len(curve.scores))
        labelled = np.array([zone is not None for zone in known])
        scores[volume] = curve.scores[labelled]
        zones[volume] = np.array([zone for zone in known if zone is not None], int)

    def fitted(chosen: Sequence[str]) -> ZoneThresholds:
        return fit_thresholds(
            np.concatenate([scores[v] for v in chosen]), np.concatenate([zones[v] for v in chosen])
        )

    both = [
        pair
        for pair in combinations(volumes, 2)
        if len({*zones[pair[0]].tolist(), *zones[pair[1]].tolist()}) == 3
    ]
    every = max(1, -(-len(both) // MAX_PAIRS))
    pairs = [fitted(pair) for pair in both[::every]]
    spread = [
        float(np.std([getattr(pair, border) for pair in pairs])) if pairs else 0.0
        for border in ("chest_abdomen", "abdomen_pelvis")
    ]
    return fitted(volumes), (spread[0], spread[1])
