"""How far off a landmark is found in a volume by the score that it has in other subjects.

Shapes:
    v: volumes; z: slices of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ubr_pretrain.labelled_curves import LabelledCurve

HEADLINE = ("lung_apex", "liver_dome", "iliac_crest")
"""Both ends of the body coordinate and the border of chest and abdomen."""


@dataclass(frozen=True)
class LandmarkError:
    """One landmark of one volume.

    Attributes:
        volume: its name.
        landmark: its name.
        expected_score: what the landmark scores elsewhere.
        score: what it scores here, on the smooth curve.
        error_mm: place found minus place marked, positive towards the feet.
        outside: whether the place found lies beyond the volume's ends.
        num_subjects: how many others the expected score was learned from.
    """

    volume: str
    landmark: str
    expected_score: float
    score: float
    error_mm: float
    outside: bool
    num_subjects: int


def landmark_errors(
    curves: Sequence[LabelledCurve],
    tested: Sequence[str],
    expected: Mapping[str, float] | None = None,
    slope_per_mm: float | None = None,
) -> list[LandmarkError]:
    """Find every landmark of the tested volumes.

    Args:
        curves: all volumes; those of other subjects say what a landmark scores (the mean over
            subjects, each of which counts once).
        tested: names of the volumes in which to look.
        expected: the score of every landmark, where it is known already; then ``curves`` teach
            nothing.
        slope_per_mm: of a curve beyond its ends; the median over the other subjects where absent.

    Raises:
        ValueError: scores that do not grow from superior to inferior.
    """
    errors = []
    for curve in (c for c in curves if c.name in tested):
        others = [c for c in curves if c.subject != curve.subject]
        slope = typical_slope(others or [curve]) if slope_per_mm is None else slope_per_mm
        for landmark, index in curve.marks.items():
            z_mm = float(curve.z_mm[index])
            if expected is None:
                seen = scores_by_subject(others, landmark)
                if not seen:
                    continue
                wanted, num = float(np.mean(list(seen.values()))), len(seen)
            elif landmark in expected:
                wanted, num = expected[landmark], 0
            else:
                continue
            found = curve.place_of(wanted, slope)
            errors.append(
                LandmarkError(
                    curve.name,
                    landmark,
                    wanted,
                    float(curve.smooth[index]),
                    found - z_mm,
                    not curve.z_mm[0] <= found <= curve.z_mm[-1],
                    num,
                )
            )
    return errors


def scores_by_subject(curves: Sequence[LabelledCurve], landmark: str) -> dict[str, float]:
    """Return the score of a landmark in every subject that shows it, averaged over its volumes."""
    scores: dict[str, list[float]] = {}
    for curve in curves:
        if landmark in curve.marks:
            score = float(curve.smooth[curve.marks[landmark]])
            scores.setdefault(curve.subject, []).append(score)
    return {subject: float(np.mean(values)) for subject, values in scores.items()}


def typical_slope(curves: Sequence[LabelledCurve]) -> float:
    """Return the median over volumes of the score's growth per mm inside the trunk of the body.

    Raises:
        ValueError: it is not positive, so scores do not tell superior from inferior.
    """
    slopes = []
    for curve in curves:
        inside = curve.in_trunk if np.count_nonzero(curve.in_trunk) > 2 else slice(None)
        if len(curve.z_mm[inside]) > 2:
            slopes.append(float(np.polyfit(curve.z_mm[inside], curve.scores[inside], 1)[0]))
    slope = float(np.median(slopes)) if slopes else 0.0
    if not slope > 0:
        raise ValueError(f"scores grow by {slope:.4g} per mm: they must grow towards the feet")
    return slope


def aligned_places(curves: Sequence[LabelledCurve]) -> tuple[dict[str, float], dict[str, float]]:
    """Shift volumes so that their landmarks agree best; nothing is stretched.

    Least squares of ``z_mm(volume, landmark) = offset(volume) + place(landmark)``; volumes that no
    chain of common landmarks joins lie side by side as chance has it.

    Returns:
        (place of every landmark in mm, its mean zero; offset of every volume with a landmark).
    """
    marks = [
        (curve.name, landmark, z) for curve in curves for landmark, z in curve.marks_mm.items()
    ]
    names = sorted({name for name, _, _ in marks})
    landmarks = sorted({landmark for _, landmark, _ in marks})
    design = np.zeros((len(marks), len(names) + len(landmarks)))
    for row, (name, landmark, _) in zip(design, marks, strict=True):
        row[names.index(name)] = row[len(names) + landmarks.index(landmark)] = 1
    # the smallest of the solutions, which differ by a common shift
    solution = np.linalg.lstsq(design, np.array([z for _, _, z in marks]), rcond=None)[0]
    offsets, places = solution[: len(names)], solution[len(names) :]
    shift = places.mean() if len(places) else 0.0
    return (
        dict(zip(landmarks, (places - shift).tolist(), strict=True)),
        dict(zip(names, (offsets + shift).tolist(), strict=True)),
    )
