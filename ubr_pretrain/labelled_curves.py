"""Score curves of volumes in which people marked landmarks and named the zone of every slice.

Shapes:
    z: slices of a volume, superior -> inferior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import isotonic_regression

from ubr_pretrain.zones import ZONES

SMOOTHING_MM = 4.0
"""Standard deviation of the Gaussian that takes the noise of single slices out of a curve."""


@dataclass(frozen=True, eq=False)
class LabelledCurve:
    """The scores of one volume beside what is known of its slices.

    Attributes:
        name: of the volume.
        subject: whose it is.
        z_mm: [z] position of every slice below the first.
        scores: [z].
        landmarks_mm: place of every marked landmark on ``z_mm``.
        zones: [z] class of every slice; "" where none was given.
        scores_sd: [z] spread over the views of a slice, where several were scored.
    """

    name: str
    subject: str
    z_mm: Float[ndarray, " z"]
    scores: Float[ndarray, " z"]
    landmarks_mm: Mapping[str, float]
    zones: ndarray
    scores_sd: Float[ndarray, " z"] | None = None

    @cached_property
    def fit(self) -> Float[ndarray, " z"]:
        """The smooth curve that never falls."""
        return monotone_fit(self.scores, self.z_mm)

    @property
    def in_trunk(self) -> ndarray:
        """[z] which slices lie in chest, abdomen or pelvis."""
        return np.isin(self.zones, ZONES)

    def score_at(self, z_mm: float) -> float:
        """Return the smooth curve's score at a place."""
        return float(np.interp(z_mm, self.z_mm, self.fit))

    def place_of(self, score: float, slope_per_mm: float) -> float:
        """Return where on ``z_mm`` the smooth curve passes ``score``.

        The middle of the stretch, where it keeps that score for a while; beyond the ends of the
        volume the curve goes on as a line of ``slope_per_mm``.
        """
        z, fit = self.z_mm, self.fit
        if score < fit[0]:
            return float(z[0] + (score - fit[0]) / slope_per_mm)
        if score > fit[-1]:
            return float(z[-1] + (score - fit[-1]) / slope_per_mm)
        first, end = (int(np.searchsorted(fit, score, side)) for side in ("left", "right"))
        if end > first:
            return float((z[first] + z[end - 1]) / 2)
        share = (score - fit[first - 1]) / (fit[first] - fit[first - 1])
        return float(z[first - 1] + share * (z[first] - z[first - 1]))


def monotone_fit(
    scores: Float[ndarray, " z"], z_mm: Float[ndarray, " z"], smoothing_mm: float = SMOOTHING_MM
) -> Float[ndarray, " z"]:
    """Return the scores, smoothed by a Gaussian, as the nearest curve that never falls."""
    if smoothing_mm > 0:
        weights = np.exp(-0.5 * ((z_mm[:, None] - z_mm) / smoothing_mm) ** 2)
        scores = weights @ scores / weights.sum(axis=1)
    return np.asarray(isotonic_regression(scores).x)


def read_landmarks(path: Path) -> dict[str, dict[str, int]]:
    """Return {volume: {landmark: slice, counted superior -> inferior}}.

    Raises:
        ValueError: a column is missing, or a landmark is marked twice in a volume.
    """
    table = _read(path, ("volume", "landmark", "index_sup_to_inf"))
    twice = table[table.duplicated(["volume", "landmark"])]
    if len(twice):
        raise ValueError(f"{path}: {twice.iloc[0]['landmark']} is marked twice in "
                         f"{twice.iloc[0]['volume']}")  # fmt: skip
    return {
        str(volume): dict(zip(rows["landmark"], rows["index_sup_to_inf"].astype(int), strict=True))
        for volume, rows in table.groupby("volume")
    }


def read_classes(path: Path) -> dict[str, dict[int, str]]:
    """Return {volume: {slice, counted superior -> inferior: class}}.

    Raises:
        ValueError: a column is missing.
    """
    table = _read(path, ("volume", "index_sup_to_inf", "class"))
    return {
        str(volume): dict(zip(rows["index_sup_to_inf"].astype(int), rows["class"], strict=True))
        for volume, rows in table.groupby("volume")
    }


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"volume": str})
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such table") from error
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path}: not a table of comma-separated values ({error})") from error
    if missing := [name for name in columns if name not in table.columns]:
        raise ValueError(f"{path}: lacks the column {missing[0]}")
    return table
