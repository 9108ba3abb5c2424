"""A calibration and scans that are known exactly: one unit is 4 mm, one mm scores 0.03."""

from dataclasses import replace

import numpy as np

from ubr_pretrain.body_coordinate import LANDMARK_COORDINATES, CalibratedLandmark, Calibration
from ubr_pretrain.zones import ZoneThresholds

MM_PER_UNIT = 4.0
SCORE_PER_MM = 0.03


def score_of(coordinate):
    return SCORE_PER_MM * MM_PER_UNIT * (50.0 - np.asarray(coordinate, float))


def known_calibration(**changes):
    calibration = Calibration(
        landmarks=tuple(
            CalibratedLandmark(name, float(score_of(place)), 0.5, place, 4.0, 8)
            for name, place in LANDMARK_COORDINATES.items()
        ),
        thresholds=ZoneThresholds(float(score_of(56)), float(score_of(0))),
        thresholds_sd=(0.2, 0.2),
        slope_per_mm=SCORE_PER_MM,
        slope_sd=0.1 * SCORE_PER_MM,
        wander_sd=2.0,
        end_sd=4.0,
        source="exact",
    )
    return replace(calibration, **changes)


def rescaled(calibration, factor, offset):
    """Return the calibration of a regressor whose scores are factor * score + offset."""
    return replace(
        calibration,
        landmarks=tuple(
            replace(m, score=factor * m.score + offset, score_sd=factor * m.score_sd)
            for m in calibration.landmarks
        ),
        thresholds=ZoneThresholds(
            factor * calibration.thresholds.chest_abdomen + offset,
            factor * calibration.thresholds.abdomen_pelvis + offset,
        ),
        thresholds_sd=tuple(factor * sd for sd in calibration.thresholds_sd),
        slope_per_mm=factor * calibration.slope_per_mm,
        slope_sd=factor * calibration.slope_sd,
    )


def known_scan(top, bottom, step_mm=5.0, build=1.0, noise_mm=0.0, seed=0):
    """Return scores and positions of a scan between two body coordinates.

    ``build``: mm of this body over those of the average one.
    """
    z_mm = np.arange(0.0, (top - bottom) * MM_PER_UNIT * build + 1e-6, step_mm)
    noise = np.random.default_rng(seed).normal(0, noise_mm, len(z_mm)) * SCORE_PER_MM
    return score_of(top - z_mm / (MM_PER_UNIT * build)) + noise, z_mm
