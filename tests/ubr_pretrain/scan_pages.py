"""A scan whose slices can be told by their brightness, and what was found in it."""

from dataclasses import replace

import numpy as np

from ubr_pretrain.anomalies import Anomaly
from ubr_pretrain.body_part import BodyPart
from ubr_pretrain.calibration import LocatedLandmark
from ubr_pretrain.ct import Volume
from ubr_pretrain.scan_views import SLICE_WINDOWS
from ubr_pretrain.scored_volume import ScoredVolume
from ubr_pretrain.scoring import read_curve

N, STEP_MM = 90, 4.0
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & co"


def grey_volume(num_slices: int = N, gap_after: int | None = None) -> Volume:
    """Return a volume whose slices are uniform, each brighter than the one above."""
    level_hu = np.linspace(-150, 230, num_slices).astype(np.int16)
    hu = np.broadcast_to(level_hu[:, None, None], (num_slices, 40, 50)).copy()
    z_mm = np.arange(num_slices) * STEP_MM
    if gap_after is not None:
        z_mm[gap_after + 1 :] += 40.0
    return Volume(hu, (STEP_MM, 5.0, 6.0), z_mm, "/archive/DOE^JANE/scan.nii")


def grey_of(volume: Volume, index: int, window: str = "soft tissue") -> float:
    """Return how bright a slice is on the page, 0..255."""
    limits = SLICE_WINDOWS[window]
    share = (int(volume.hu[index, 0, 0]) - limits.lower_hu) / (limits.upper_hu - limits.lower_hu)
    return 255 * min(max(share, 0), 1)


def scored(volume: Volume, name: str = "scan") -> ScoredVolume:
    z_mm, last = volume.z_mm, volume.num_slices - 1
    scores = z_mm / 30 - 3 + 0.05 * np.sin(z_mm / 20)
    coordinate = 70 - 6 * (scores + 3)
    return ScoredVolume(
        name=name,
        z_mm=z_mm,
        spacing_mm_zyx=volume.spacing_mm_zyx,
        scores=scores,
        scores_alone=scores,
        scores_sd=np.full(len(scores), 0.25),
        curve=read_curve(scores, z_mm),
        coordinate=coordinate,
        coordinate_sd=np.full(len(scores), 3.0),
        zones=tuple("chest" if c > 56 else "abdomen" if c > 0 else "pelvis" for c in coordinate),
        anomalies=(
            Anomaly("NONLINEAR", 20, 29, 0.9, "scores leave <b>the line</b>"),
            Anomaly("SPACING_MISMATCH", 0, last, 0.7, "the header says 4 mm"),
        ),
        body_part=BodyPart("ABDOMEN", "818981001", "Abdomen", 0.87, {"chest": 0.1, "abdomen": 1.0}),
        expected_step_mm=3.2,
        notes=("padding down to -3024 HU clipped to -1024",),
        landmarks=(LocatedLandmark("liver_dome", 70.0, 18, 56.0, 12.0),),
    )


def uncalibrated(volume: Volume) -> ScoredVolume:
    return replace(
        scored(volume), scores_sd=None, coordinate=None, coordinate_sd=None, zones=None,
        anomalies=(), body_part=None, expected_step_mm=None, landmarks=(), notes=(),
    )  # fmt: skip
