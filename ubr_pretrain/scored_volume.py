"""A scored CT volume or slice: where in the body it lies, and what is odd about the scan.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.scoring import ScoreCurve

if TYPE_CHECKING:
    import pandas as pd

    from ubr_pretrain.anomalies import Anomaly
    from ubr_pretrain.body_part import BodyPart
    from ubr_pretrain.calibration import LocatedLandmark

SCHEMA_VERSION = 2
"""Of the records below; ``schemas/scores.schema.json`` describes them."""


@dataclass(frozen=True, eq=False)
class ScoredVolume:
    """The scores of one volume and what they mean.

    Attributes:
        name: of the volume, free of what DICOM says of the patient.
        z_mm: distance of every slice below the first, along the slice normal.
        spacing_mm_zyx: slice interval, row height, column width, as the header states them.
        scores: of the regressor, each led by its neighbours within some 15 mm
            (``scoring.smooth_scores``); they grow from superior to inferior.
        scores_alone: as every slice got it without its neighbours.
        scores_sd: their standard deviation over the test-time views, calibrated; None: one view.
        curve: correlation, slope and direction of the scores.
        coordinate: body coordinate, 0 at the iliac crest and 100 at the lung apex, growing
            upward; None where the scorer has no calibration.
        coordinate_sd: its uncertainty, one standard deviation.
        zones: head_neck, chest, abdomen, pelvis or legs, one a slice.
        anomalies: what is odd, and which slices it concerns.
        body_part: proposed, in the words of DICOM.
        expected_step_mm: the slice interval that the scores suggest, to hold against the header's.
        landmarks: where the calibrated landmarks lie that the scan shows.
        notes: what the reader changed or noticed.
        read_index: the slices that were read, where the scores of the others are interpolated;
            None: all were read.
    """

    name: str
    z_mm: Float[ndarray, " z"]
    spacing_mm_zyx: tuple[float, float, float]
    scores: Float[ndarray, " z"]
    scores_alone: Float[ndarray, " z"]
    scores_sd: Float[ndarray, " z"] | None
    curve: ScoreCurve
    coordinate: Float[ndarray, " z"] | None = None
    coordinate_sd: Float[ndarray, " z"] | None = None
    zones: tuple[str, ...] | None = None
    anomalies: tuple[Anomaly, ...] = ()
    body_part: BodyPart | None = None
    expected_step_mm: float | None = None
    landmarks: tuple[LocatedLandmark, ...] = ()
    notes: tuple[str, ...] = ()
    read_index: tuple[int, ...] | None = None

    def to_record(self) -> dict[str, Any]:
        """Return plain values for JSON (``schemas/scores.schema.json``), numbers rounded."""
        read = {} if self.read_index is None else {"read_slices": list(self.read_index)}
        return {
            "volume": self.name,
            "num_slices": len(self.scores),
            "spacing_mm_zyx": [round(float(s), 6) for s in self.spacing_mm_zyx],
            "r": self.curve.r,
            "rank_r": self.curve.rank_r,
            "slope_per_mm": self.curve.slope_per_mm,
            "direction": self.curve.direction,
            "expected_step_mm": self.expected_step_mm,
            "body_part": None if self.body_part is None else asdict(self.body_part),
            "zones": None if self.zones is None else zone_runs(self.zones),
            "landmarks": [asdict(landmark) for landmark in self.landmarks],
            "anomalies": [asdict(anomaly) for anomaly in self.anomalies],
            "notes": list(self.notes),
            **read,
            "slices": {
                "z_mm": _rounded(self.z_mm, 3),
                "score": _rounded(self.scores, 8),
                "score_alone": _rounded(self.scores_alone, 8),
                "score_sd": _rounded(self.scores_sd, 6),
                "coordinate": _rounded(self.coordinate, 3),
                "coordinate_sd": _rounded(self.coordinate_sd, 3),
            },
        }

    def to_table(self) -> pd.DataFrame:
        """Return one row a slice: volume, slice_index, z_mm, score and what else is known."""
        return record_to_table(self.to_record())


@dataclass(frozen=True)
class ScoredImage:
    """The score of one slice and what it means; fields as in ``ScoredVolume``.

    Attributes:
        name: of the slice.
        pixel_mm_yx: row height, column width, as stated or assumed (a note says so).
        score: of the regressor.
        score_sd: its uncertainty; None: one view.
        coordinate: body coordinate; None where the scorer has no calibration.
        coordinate_sd: its uncertainty.
        zone: head_neck, chest, abdomen, pelvis or legs.
        notes: what was assumed.
    """

    name: str
    pixel_mm_yx: tuple[float, float]
    score: float
    score_sd: float | None
    coordinate: float | None = None
    coordinate_sd: float | None = None
    zone: str | None = None
    notes: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return plain values for JSON (``schemas/scores.schema.json``), numbers rounded."""
        return {
            "image": self.name,
            "pixel_mm_yx": [round(float(s), 6) for s in self.pixel_mm_yx],
            "score": round(self.score, 6),
            "score_sd": _round(self.score_sd, 6),
            "coordinate": _round(self.coordinate, 3),
            "coordinate_sd": _round(self.coordinate_sd, 3),
            "zone": self.zone,
            "notes": list(self.notes),
        }


def record_to_table(record: dict[str, Any]) -> pd.DataFrame:
    """Return one row a slice of a record of ``ScoredVolume.to_record``."""
    import pandas as pd  # a third of a second that only a table is worth

    columns: dict[str, Any] = slice_columns(record)
    columns |= {name: pd.array(columns[name], "Float64") for name in record["slices"]}
    zone, interpolated = columns.pop("zone"), columns.pop("interpolated")
    if "read_slices" in record:
        columns["interpolated"] = interpolated
    return pd.DataFrame({**columns, "zone": zone})


def slice_columns(record: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of that table in plain values, None where a value is not known."""
    num_slices = record["num_slices"]
    unknown = [None] * num_slices
    zones = unknown
    if record["zones"] is not None:
        zones = [
            run["zone"]
            for run in record["zones"]
            for _ in range(run["first_slice"], run["last_slice"] + 1)
        ]
    read = set(record.get("read_slices", range(num_slices)))
    return {
        "volume": [record["volume"]] * num_slices,
        "slice_index": list(range(num_slices)),
        "interpolated": [index not in read for index in range(num_slices)],
        **{n: unknown if values is None else values for n, values in record["slices"].items()},
        "zone": zones,
    }


def zone_runs(zones: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the runs of equal zones, superior -> inferior, by first and last slice."""
    runs: list[dict[str, Any]] = []
    first = 0
    for zone, slices in groupby(zones):
        last = first + sum(1 for _ in slices) - 1
        runs.append({"zone": zone, "first_slice": first, "last_slice": last})
        first = last + 1
    return runs


def _rounded(values: Float[ndarray, " z"] | None, decimals: int) -> list[float] | None:
    return None if values is None else np.round(values, decimals).tolist()


def _round(value: float | None, decimals: int) -> float | None:
    return None if value is None else round(value, decimals)
