"""Slices and volumes that the figures show: chosen by rule and seed, never by hand.

Shapes:
    n: tested slices; z: slices of a volume; y, x: as in ``ct``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import theilslopes

from ubr_pretrain.ct import without_text
from ubr_pretrain.evidence_cells import Cell
from ubr_pretrain.evidence_data import EvidenceData
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.zones import ZONES

PAPER_SCORES = (-10.0, -5.0, 0.0, 5.0)
"""What the slices of the paper's Fig. 2 score."""

QUANTILES = (0.05, 0.35, 0.65, 0.95)
SLICES_OF_SCORE = 6
NUM_NORMAL = 8
NUM_ABNORMAL = 5
NORMAL_R = 0.99
"""The paper's rule: r(index, score) below it is abnormal."""

CLEAR_JUMP, LARGE_JUMP = 6.0, 0.1
"""What makes a curve abnormal is a step this many times the spread of all steps, and this share of
the range of its scores."""


@dataclass(frozen=True, eq=False)
class ShownSlice:
    """A slice in a figure.

    Attributes:
        hu: [y, x] as stored.
        pixel_mm_yx: row height and column width.
        score: of it.
        words: under it.
    """

    hu: ndarray
    pixel_mm_yx: tuple[float, float]
    score: float
    words: str


@dataclass(frozen=True, eq=False)
class ShownCurve:
    """A score curve in a figure.

    Attributes:
        words: what it is.
        z_mm: [z] below the first slice.
        scores: [z].
        r: of score and position, signed; None where undefined.
        odd_index: the slice that makes it abnormal; None for a normal one.
        reason: why that slice.
        odd_slice: that slice.
    """

    words: str
    z_mm: Float[ndarray, " z"]
    scores: Float[ndarray, " z"]
    r: float | None
    odd_index: int | None = None
    reason: str = ""
    odd_slice: ShownSlice | None = None


def choose_slices(
    data: EvidenceData, scores: Float[ndarray, " n"], rng: np.random.Generator
) -> list[tuple[str, list[ShownSlice]]]:
    """Return random test slices whose scores are near -10, -5, 0 and 5 (Fig. 2).

    Where the scores do not span that range, quantiles of the scores take the place of the four.

    Args:
        data: the volumes.
        scores: of the rows of ``data.test``.
        rng: of the choice.
    """
    low, high = np.quantile(scores, [0.01, 0.99])
    if low <= PAPER_SCORES[0] and high >= PAPER_SCORES[-1]:
        targets = [(f"score {target:g}", target) for target in PAPER_SCORES]
    else:
        values = np.quantile(scores, QUANTILES)
        targets = [
            (f"{q:.0%} quantile, {value:.2g}", float(value))
            for q, value in zip(QUANTILES, values, strict=True)
        ]
    table = data.test
    volumes = {volume.name: volume for volume in data.sets.test}
    rows = []
    for words, target in targets:
        gap = np.abs(scores - target)
        near = np.flatnonzero(gap <= max(0.01 * (high - low), np.sort(gap)[:40].max()))
        of_volume: dict[str, int] = {}
        for i in rng.permutation(near):  # one slice a volume
            of_volume.setdefault(table["volume"].iloc[i], int(i))
        shown = []
        for name, i in [*of_volume.items()][:SLICES_OF_SCORE]:
            words_of_slice = f"{scores[i]:.2g}  {ZONES[table['zone'].iloc[i]]}"
            index = int(table["slice_index"].iloc[i])
            shown.append(_show(data, volumes[name], index, float(scores[i]), words_of_slice))
        rows.append((words, shown))
    return rows


def choose_curves(data: EvidenceData, cell: Cell) -> tuple[list[ShownCurve], list[ShownCurve]]:
    """Return normal and abnormal curves (Fig. 4).

    Normal: the longest test volumes whose r is normal. Abnormal: of the abnormal phantoms the
    first of every kind; where there are none, the test volumes with the lowest r.
    """
    volumes = data.sets.test
    curves = _split(cell.arrays["scores"], volumes)
    known = [
        (v, s, read_curve(s, np.asarray(v.z_mm)).r) for v, s in zip(volumes, curves, strict=True)
    ]
    normal = [item for item in known if item[2] is not None and item[2] >= NORMAL_R]
    normal.sort(key=lambda item: -item[0].z_mm[-1])
    shown = [ShownCurve(v.name, np.asarray(v.z_mm), s, r) for v, s, r in normal[:NUM_NORMAL]]
    if data.abnormal:
        kinds = abnormal_kinds(data.abnormal)
        odd_scores = _split(cell.arrays["abnormal"], data.abnormal)
        first: dict[str, tuple[StoredVolume, ndarray]] = {}
        for kind, volume, scores in zip(kinds, data.abnormal, odd_scores, strict=True):
            first.setdefault(kind, (volume, scores))
        chosen = [(kind.replace("_", " "), v, s) for kind, (v, s) in first.items()]
    else:
        low = sorted((item for item in known if item[2] is not None), key=lambda item: item[2] or 0)
        chosen = [(v.name, v, s) for v, s, r in low[:NUM_ABNORMAL] if (r or 0) < NORMAL_R]
    return shown, [_odd_curve(data, *item) for item in chosen[:NUM_ABNORMAL]]


def abnormal_kinds(volumes: Sequence[StoredVolume]) -> list[str]:
    """Return what is abnormal about phantoms, as the table beside them says."""
    kinds: dict[str, str] = {}
    for table in {Path(volume.path).parent / "manifest.csv" for volume in volumes}:
        with table.open(encoding="utf-8", newline="") as file:
            kinds |= {row["volume"]: row["abnormality"] for row in csv.DictReader(file)}
    return [kinds[volume.name] for volume in volumes]


def odd_slice(scores: Float[ndarray, " z"], z_mm: Float[ndarray, " z"]) -> tuple[int, str]:
    """Return the slice that makes a curve abnormal, and why.

    A curve that falls: its first slice. A step that stands out among the steps: the slice behind
    it. Else the slice that lies farthest from the robust line through all.
    """
    slope, intercept, _, _ = theilslopes(scores, z_mm)
    if slope < 0:
        return 0, "scores fall"
    steps = np.diff(scores)
    beyond = steps - slope * np.diff(z_mm)
    usual = 1.4826 * float(np.median(np.abs(beyond - np.median(beyond))))
    jump = int(np.argmax(np.abs(beyond)))
    if np.abs(beyond[jump]) > max(CLEAR_JUMP * usual, LARGE_JUMP * np.ptp(scores)):
        return jump + 1, f"jumps by {steps[jump]:+.2g}"
    residual = scores - intercept - slope * z_mm
    worst = int(np.argmax(np.abs(residual)))
    return worst, f"{residual[worst]:+.2g} off the line"


def _odd_curve(data: EvidenceData, words: str, volume: StoredVolume, scores: ndarray) -> ShownCurve:
    z_mm = np.asarray(volume.z_mm)
    index, reason = odd_slice(scores, z_mm)
    r = read_curve(scores, z_mm).r
    shown = _show(data, volume, index, float(scores[index]), words)
    return ShownCurve(words, z_mm, scores, r, index, reason, shown)


def _show(
    data: EvidenceData, volume: StoredVolume, index: int, score: float, words: str
) -> ShownSlice:
    read = without_text(data.cohort.entries[volume.name].read())
    return ShownSlice(read.hu[index], read.spacing_mm_zyx[1:], score, words)


def _split(scores: ndarray, volumes: Sequence[StoredVolume]) -> list[ndarray]:
    """Cut scores that run over volumes laid end to end; what lies behind them is left out."""
    ends = np.cumsum([len(volume.z_mm) for volume in volumes])
    return np.split(scores[: ends[-1]], ends[:-1])
