"""One scored scan as one HTML file: score curve, views, the axial slice under the pointer.

The file loads nothing and can be mailed: pictures are inside, the script is ours, and its content
security policy forbids any other script and any request. It holds no path and no DICOM identifier.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ubr_pretrain.body_coordinate import robust_slope
from ubr_pretrain.ct import Volume
from ubr_pretrain.scan_views import body_views, slice_sheets
from ubr_pretrain.scored_volume import ScoredVolume, zone_runs
from ubr_pretrain.web_page import page_environment, read_inline
from ubr_pretrain.whole_file import write_atomically

DIRECTIONS = {
    "superior_to_inferior": "head to feet",
    "inferior_to_superior": "feet to head",
    "undetermined": "undetermined",
}
COORDINATE_STEPS = (1, 2, 5, 10, 20, 25, 50, 100)
MAX_COORDINATE_TICKS = 8


@dataclass(frozen=True)
class Fact:
    """One figure of the header; ``odd`` ones are drawn in the colour of anomalies."""

    term: str
    value: str
    remarks: tuple[str, ...] = ()
    odd: bool = False


def write_scan_page(volume: Volume, scored: ScoredVolume, path: Path) -> None:
    """Write the page of one scored scan, atomically.

    Raises:
        ValueError: the scores are not those of the volume: another number of slices.
    """
    with write_atomically(path, "w") as file:
        file.write(scan_page(volume, scored))


def scan_page(volume: Volume, scored: ScoredVolume) -> str:
    """Return the page; whatever comes from names, notes or messages is escaped.

    Raises:
        ValueError: as in `write_scan_page`.
    """
    if len(scored.scores) != volume.num_slices:
        raise ValueError(
            f"{scored.name}: {len(scored.scores)} scores for {volume.num_slices} slices"
        )
    sheets = slice_sheets(volume)
    scan = scan_record(scored) | {
        "tile_px": sheets.tile_px,
        "columns": sheets.columns,
        "per_sheet": sheets.per_sheet,
    }
    template = page_environment("ubr_pretrain").get_template("scan_page.html.j2")
    return template.render(
        name=scored.name,
        num_slices=volume.num_slices,
        facts=header_facts(scored),
        views=body_views(volume),
        sheets=sheets,
        anomalies=scan["anomalies"],
        landmarks=scan["landmarks"],
        notes=scored.notes,
        has_coordinate=scored.coordinate is not None,
        has_zones=scored.zones is not None,
        has_spread=scored.scores_sd is not None,
        has_line=scan["line"] is not None,
        scan=scan,
        style=read_inline("ubr_pretrain", "scan_page.css"),
        script=read_inline("ubr_pretrain", "scan_page.js"),
    )


def scan_record(scored: ScoredVolume) -> dict[str, Any]:
    """Return what the script draws, as plain values."""
    return {
        "z_mm": _rounded(scored.z_mm, 3),
        "step_mm": round(float(scored.spacing_mm_zyx[0]), 4),
        "scores": _rounded(scored.scores, 5),
        "scores_sd": _rounded(scored.scores_sd, 5),
        "coordinate": _rounded(scored.coordinate, 2),
        "coordinate_sd": _rounded(scored.coordinate_sd, 2),
        "coordinate_ticks": coordinate_ticks(scored),
        "zones": None if scored.zones is None else zone_runs(scored.zones),
        "line": _line(scored),
        "landmarks": [
            {
                "name": mark.name.replace("_", " "),
                "slice": mark.slice_index,
                "z_mm": round(mark.z_mm, 2),
                "uncertainty_mm": round(mark.uncertainty_mm, 1),
            }
            for mark in sorted(scored.landmarks, key=lambda mark: mark.z_mm)
        ],
        "anomalies": [
            {
                "code": anomaly.code,
                "first_slice": anomaly.first_slice,
                "last_slice": anomaly.last_slice,
                "message": anomaly.message,
                "where": _where(anomaly.first_slice, anomaly.last_slice, len(scored.scores)),
            }
            for anomaly in scored.anomalies
        ],
    }


def _where(first: int, last: int, num_slices: int) -> str:
    if (first, last) == (0, num_slices - 1):
        return "the whole scan"
    return f"slice {first}" if first == last else f"slices {first} to {last}"


def _line(scored: ScoredVolume) -> dict[str, float] | None:
    if len(scored.scores) < 3:
        return None
    slope, intercept = robust_slope(scored.z_mm, scored.scores)
    return {"slope": slope, "intercept": intercept}


def coordinate_ticks(scored: ScoredVolume) -> list[dict[str, float]]:
    """Return round body coordinates inside the scan and the scores they belong to."""
    if scored.coordinate is None or np.ptp(scored.coordinate) == 0:
        return []
    order = np.argsort(scored.coordinate, kind="stable")
    coordinate, scores = scored.coordinate[order], scored.scores[order]
    step = next(
        (s for s in COORDINATE_STEPS if np.ptp(coordinate) / s <= MAX_COORDINATE_TICKS),
        COORDINATE_STEPS[-1],
    )
    ticks = np.arange(np.ceil(coordinate[0] / step), np.floor(coordinate[-1] / step) + 1) * step
    return [
        {"coordinate": float(tick), "score": float(np.interp(tick, coordinate, scores))}
        for tick in ticks
    ]


def header_facts(scored: ScoredVolume) -> list[Fact]:
    """Return the figures on top of the page."""
    curve, codes = scored.curve, {anomaly.code for anomaly in scored.anomalies}
    facts = []
    if scored.body_part is not None:
        part = scored.body_part
        covered = ", ".join(
            f"{zone.replace('_', ' and ')} {100 * share:.0f} %"
            for zone, share in part.covered.items()
            if share >= 0.005
        )
        facts.append(
            Fact(
                "Proposed body part",
                part.body_part_examined,
                (
                    f"confidence {100 * part.confidence:.0f} %; proposed, nothing is written "
                    "into the file",
                    f"{part.code_meaning}, SNOMED CT {part.code_value}",
                    *([f"covers {covered}"] if covered else []),
                ),
            )
        )
    facts.append(
        Fact(
            "Direction of the slices",
            DIRECTIONS[curve.direction],
            () if "REVERSED" not in codes else ("the header says otherwise",),
            odd="REVERSED" in codes,
        )
    )
    r, rank_r = ("undefined" if x is None else f"{x:.4f}" for x in (curve.r, curve.rank_r))
    facts.append(
        Fact(
            "Correlation of score and z", f"r = {r}", (f"rank r = {rank_r}",), "NONLINEAR" in codes
        )
    )
    dz, dy, dx = scored.spacing_mm_zyx
    expected = "the scores give no estimate"
    if scored.expected_step_mm is not None:
        change = 100 * (scored.expected_step_mm / dz - 1)
        signed = f"{change:+.0f}".replace("-", "\N{MINUS SIGN}")
        expected = f"the scores suggest {scored.expected_step_mm:.2f} mm ({signed} %)"
    facts.append(
        Fact(
            "Slice spacing (header)",
            f"{dz:.4g} mm",
            (expected,),
            odd=bool({"GAP", "SPACING_MISMATCH"} & codes),
        )
    )
    extent_mm = float(scored.z_mm[-1] - scored.z_mm[0]) + dz
    facts.append(
        Fact(
            "Extent",
            f"{len(scored.scores)} slices, {extent_mm:.0f} mm",
            (f"pixels {dy:.3g} x {dx:.3g} mm",),
            odd="TOO_SHORT" in codes,
        )
    )
    return facts


def _rounded(values: Float[ndarray, " z"] | None, decimals: int) -> list[float] | None:
    return None if values is None else np.round(values, decimals).tolist()
