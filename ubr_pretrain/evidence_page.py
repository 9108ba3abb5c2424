"""The evidence as files to show: one self-contained HTML page, one JSON, figures as PNG and PDF."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ubr_pretrain.config import Config, config_to_yaml
from ubr_pretrain.evidence_cells import Cell
from ubr_pretrain.evidence_config import EvidenceConfig
from ubr_pretrain.evidence_data import EvidenceData
from ubr_pretrain.evidence_examples import NORMAL_R, ShownCurve, choose_curves, choose_slices
from ubr_pretrain.evidence_figures import (
    draw_curves,
    draw_histogram,
    draw_slices,
    draw_sweep,
    write_figures,
)
from ubr_pretrain.group_sweep import SweepPoint, make_sweep
from ubr_pretrain.runtime import generator
from ubr_pretrain.score_diagnosis import ScoreDiagnosis, diagnose
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.table1 import NEAR_MM, OrderOfTwo, Row, make_table1
from ubr_pretrain.web_page import page_environment
from ubr_pretrain.whole_file import write_atomically
from ubr_pretrain.zone_accuracy import calibrate
from ubr_pretrain.zones import ZONES

SCHEMA_VERSION = 1
_EXAMPLES = 31
"""A stream of random numbers."""

NONE = "—"


class AbnormalVolume(Config):
    """A volume of Fig. 4: what it is, its r, and the slice that makes it abnormal."""

    what: str
    r: float | None
    below_normal_r: bool
    slice_index: int
    reason: str


class Evidence(Config):
    """``evidence.json``.

    Attributes:
        schema_version: of this layout.
        sets: subjects, volumes and slices of every set.
        test_slices: of every zone.
        thresholds: that the two volumes set for row 4, first seed.
        rows: Table 1.
        order: every two rows, in the paper's order.
        diagnoses: what thresholds can do with the scores of rows 4 and 5.
        sweep: Fig. 3b.
        sweep_volumes: that every point of it was trained on.
        abnormal: the volumes shown in Fig. 4.
        test_r: of the test volumes, by row 4 and the first seed: median, lowest, and how many are
            below the paper's 0.99.
        facts: of every training: iterations, C, accuracy of pairs.
        seconds: wall time of all cells' last sessions.
        cpu_seconds: the same, of the processor.
        settings: the configuration, without the places of data.
        machine: versions and hardware.
    """

    schema_version: int
    sets: Mapping[str, Mapping[str, int]]
    test_slices: Mapping[str, int]
    thresholds: tuple[float, float]
    rows: tuple[Row, ...]
    order: tuple[OrderOfTwo, ...]
    diagnoses: tuple[ScoreDiagnosis, ...]
    sweep: tuple[SweepPoint, ...]
    sweep_volumes: int
    abnormal: tuple[AbnormalVolume, ...]
    test_r: Mapping[str, int | float]
    facts: Mapping[str, Mapping[str, Any]]
    seconds: float
    cpu_seconds: float
    settings: EvidenceConfig
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class WrittenEvidence:
    """What was written."""

    evidence: Evidence
    text_table: str


def write_evidence(
    out: Path, data: EvidenceData, cells: Mapping[str, Cell], machine: Mapping[str, Any]
) -> WrittenEvidence:
    """Write ``evidence.html``, ``evidence.json`` and ``figures/`` of a finished plan."""
    cell = cells[f"vgg16-seed{data.config.seeds[0]}"]
    scores = cell.arrays["scores"]
    thresholds = calibrate(data.calibrating, scores[data.calibrating["row"]], data.two)
    table = make_table1(data, cells)
    sweep = make_sweep(data, cells)
    tested = scores[data.test["row"]].astype(float)
    zones = data.test["zone"].to_numpy()
    normal, abnormal = choose_curves(data, cell)
    slices = choose_slices(data, tested, generator(data.config.draw_seed, _EXAMPLES))
    row4 = next(row for row in table.rows if row.number == 4)
    figures = {
        "fig2": draw_slices(slices),
        "fig3a": draw_histogram(tested, zones, thresholds, row4.by_distance),
        "fig3b": draw_sweep(sweep),
        "fig4": draw_curves(normal, abnormal, thresholds),
    }
    write_figures(figures, out / "figures")
    evidence = Evidence(
        schema_version=SCHEMA_VERSION,
        sets=data.sets.summary(),
        test_slices={zone: int((zones == k).sum()) for k, zone in enumerate(ZONES)},
        thresholds=(thresholds.chest_abdomen, thresholds.abdomen_pelvis),
        rows=table.rows,
        order=table.order,
        diagnoses=tuple(
            diagnose(data, row, [cells[f"{arch}-seed{seed}"] for seed in data.config.seeds])
            for row, arch in ((4, "vgg16"), (5, "alexnet"))
        ),
        sweep=sweep,
        sweep_volumes=len(data.swept),
        abnormal=tuple(_abnormal(curve) for curve in abnormal),
        test_r=_r_of_test(data.sets.test, scores),
        facts={name: cell.facts for name, cell in cells.items()},
        seconds=sum(cell.facts["seconds"] for cell in cells.values()),
        cpu_seconds=sum(cell.facts["cpu_seconds"] for cell in cells.values()),
        settings=data.config.model_copy(update={"data": (), "labels": None}),
        machine=machine,
    )
    pictures = {name: (out / "figures" / f"{name}.png").read_bytes() for name in figures}
    texts = {
        "evidence.json": evidence.model_dump_json(indent=1) + "\n",
        "evidence.html": render_page(
            evidence, pictures, "phantoms" if not data.config.data else ""
        ),
    }
    for name, text in texts.items():
        with write_atomically(out / name, "w") as file:
            file.write(text)
    return WrittenEvidence(evidence, text_table(evidence.rows))


def render_page(evidence: Evidence, pictures: Mapping[str, bytes], source: str) -> str:
    """Return the page; whatever comes from names or files is escaped.

    Args:
        evidence: the numbers.
        pictures: PNG of every figure.
        source: "phantoms", or "" for the user's data.
    """
    environment = page_environment("ubr_pretrain")
    environment.filters |= {"percent": percent, "points": points, "interval": interval_text}
    return environment.get_template("evidence.html.j2").render(
        e=evidence,
        source=source,
        settings=config_to_yaml(evidence.settings),
        recipe=recipe(evidence.settings),
        figures={
            name: f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
            for name, png in pictures.items()
        },
        groups={
            verdict: [pair for pair in evidence.order if pair.verdict == verdict]
            for verdict in ("as in the paper", "not told apart", "the other way round")
        },
        names={row.number: row.name for row in evidence.rows},
        zones=ZONES,
        near_mm=NEAR_MM,
        normal_r=NORMAL_R,
        ranking=[row.number for row in sorted(evidence.rows, key=lambda row: -row.accuracy)],
        paper_ranking=[row.number for row in sorted(evidence.rows, key=lambda row: -row.paper)],
    )


def recipe(config: EvidenceConfig) -> list[tuple[str, str, str]]:
    """Return (what, here, in the paper) for everything that decides how far a training gets."""
    ubr, lengths = config.ubr, config.baselines
    views = "none" if ubr.augmentation.is_identity else "random views of every group"
    loss = ubr.losses
    return [
        ("trunk", f"VGG-16 of width {ubr.width:g}, AlexNet of {config.alexnet_width:g}", "width 1"),
        ("input", f"{ubr.input.size_px} px, {_field(ubr.input.fov_mm)}", "whole image"),
        ("start", f"{ubr.init}{', batch norm' if ubr.batch_norm else ''}", "ImageNet"),
        ("optimiser", f"{ubr.optimiser.name}, {ubr.optimiser.lr:g}", "SGD, 0.002"),
        ("batch", f"g = {ubr.g}, m = {ubr.m}", "g = 12, m = 8"),
        ("losses", f"{loss.reduction}, sigmoid of {loss.logit_scale:g} x the gap", "sum, 1 x"),
        ("views", views, "none"),
        ("smallest interval", f"{ubr.min_interval_mm:g} mm", "none"),
        ("iterations of the regressors", f"{ubr.iterations}", "1500"),
        (
            "iterations of rows 1, 2 and 3",
            f"softmax {lengths.supervised}; pairs {lengths.order}, then position "
            f"{lengths.position}",
            "not stated",
        ),
        ("iterations of Fig. 3b", f"{config.sweep.iterations}", "not stated"),
    ]


def _field(fov_mm: float | None) -> str:
    return "whole image" if fov_mm is None else f"a field of {fov_mm:g} mm"


def text_table(rows: Sequence[Row]) -> str:
    """Return Table 1 as Markdown."""
    lines = [
        "| row | method | labelled | seeds | accuracy (%) | 95 % interval | over pairs | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seeds = " ".join(map(str, row.seeds))
        pairs = NONE
        if row.over_pairs is not None:
            low, high = row.over_pairs["min"], row.over_pairs["max"]
            mean, sd = row.over_pairs["mean"], row.over_pairs["sd"]
            pairs = f"{100 * mean:.1f} ± {100 * sd:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        lines.append(
            f"| {row.number} | {row.name} | {row.num_labelled_volumes} | {seeds} | "
            f"{100 * row.accuracy:.2f} ± {100 * row.sd_over_seeds:.2f} | "
            f"{interval_text(row.interval_95)} | {pairs} | {100 * row.paper:.2f} |"
        )
    return "\n".join(lines)


def percent(value: float | None, digits: int = 1) -> str:
    """Return 0.745 as ``74.5``."""
    return NONE if value is None else f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """Return a difference of 0.012 as ``+1.2``."""
    return f"{100 * value:+.1f}".replace("-", "−")  # noqa: RUF001


def interval_text(interval: Sequence[float] | None) -> str:
    """Return a 95 % interval in per cent."""
    return NONE if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _abnormal(curve: ShownCurve) -> AbnormalVolume:
    assert curve.odd_index is not None
    return AbnormalVolume(
        what=curve.words,
        r=curve.r,
        below_normal_r=curve.r is None or curve.r < NORMAL_R,
        slice_index=curve.odd_index,
        reason=curve.reason,
    )


def _r_of_test(volumes: Sequence[StoredVolume], scores: np.ndarray) -> dict[str, int | float]:
    """Return what r says of the test volumes; a curve without one counts as 0."""
    ends = np.cumsum([0, *(len(volume.z_mm) for volume in volumes)])
    r = np.array(
        [
            read_curve(scores[a:b], np.asarray(volume.z_mm)).r or 0.0
            for volume, a, b in zip(volumes, ends[:-1], ends[1:], strict=True)
        ]
    )
    return {
        "num": len(r),
        "median": float(np.median(r)),
        "lowest": float(r.min()),
        "num_below_normal": int((r < NORMAL_R).sum()),
    }
