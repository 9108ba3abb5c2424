"""How the arms compare along the training: every evaluation, and the time to x % of the best.

The paper says that ImageNet+UBR is ahead early, and shows its curves at 2.5K and 5K iterations. The
three claims are judged there; everywhere else differences are shown with their intervals, without
a test.

Two questions, two families of tests. "Does the start change the result?" is asked of all pairs at
the end; "is it ahead early?" of all pairs at the early evaluations together, since a reader who
picks the most striking early difference has looked at all of them. Each family keeps its own level
of 5 %: an early verdict does not depend on how long the training went on, and the verdict at the
end does not depend on how often it was looked at on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, groupby

import numpy as np

from lesion_det.cells import Cell, CellAnswers
from lesion_det.claims import ClaimVerdict, judge_claims
from lesion_det.significance import ArmHits, PairDifference, PatientDraws, correct, pair_difference
from ubr_pretrain.config import Config

EARLY_ITERATIONS = (2500, 5000)
"""Where the paper's Fig. 3c shows the lead of ImageNet+UBR."""

SHARES_OF_BEST = (0.9, 0.95, 0.99)


class CurvePoint(Config):
    """The arms at one evaluation along the training.

    Attributes:
        iteration: of the evaluation.
        early: whether the claims are judged here.
        pairs: those whose common seeds were all evaluated here; ``p_holm`` is over the pairs of
            all early points together, None at other points.
        claims: empty unless early.
    """

    iteration: int
    early: bool
    pairs: tuple[PairDifference, ...]
    claims: tuple[ClaimVerdict, ...] = ()


class TimeTo(Config):
    """When the mean recall of an arm first reaches a share of a best mean recall.

    Attributes:
        arm: the start.
        share: 0.9, 0.95 or 0.99.
        of_own: iteration of the first evaluation at that share of the arm's own best;
            None where it found nothing.
        of_best_arm: the same of the best mean of all arms; None where it is never reached.
    """

    arm: str
    share: float
    of_own: int | None
    of_best_arm: int | None


def curve_points(
    compared: Mapping[str, Sequence[CellAnswers]], draws: PatientDraws
) -> list[CurvePoint]:
    """Return every evaluation at which some pair of arms can be compared.

    Args:
        compared: the finished cells of every arm.
        draws: of the patients of the validation images.
    """
    at: dict[int, list[PairDifference]] = {}
    for earlier, later in combinations(compared, 2):
        hits = {arm: {a.cell.seed: a.curve_hits for a in compared[arm]} for arm in (later, earlier)}
        seeds = [seed for seed in hits[later] if seed in hits[earlier]]
        evaluated = [set(hits[arm][seed]) for arm in hits for seed in seeds]
        for iteration in sorted(set.intersection(*evaluated)) if evaluated else ():
            a, b = (
                ArmHits(
                    tuple(seeds),
                    np.stack([hits[arm][seed][iteration] for seed in seeds]),
                    draws.patient_index,
                )
                for arm in (later, earlier)
            )
            at.setdefault(iteration, []).append(pair_difference(later, a, earlier, b, draws))
    iterations = sorted(at)
    early = early_iterations(iterations)
    family = iter(correct([pair for i in early for pair in at[i]]))
    points = []
    for i in iterations:
        pairs = tuple(next(family) for _ in at[i]) if i in early else tuple(at[i])
        claims = judge_claims(pairs, f" at iteration {i:,}") if i in early else ()
        points.append(CurvePoint(iteration=i, early=i in early, pairs=pairs, claims=tuple(claims)))
    return points


def early_iterations(iterations: Sequence[int]) -> tuple[int, ...]:
    """Return where the early claims are judged.

    The paper's 2,500 and 5,000 where there are such evaluations before the end, otherwise the
    first two before the end.
    """
    before_end = sorted(iterations)[:-1]
    return tuple(i for i in before_end if i in EARLY_ITERATIONS) or tuple(before_end[:2])


def early_words(points: Sequence[CurvePoint]) -> str:
    """Say what "early" means in this comparison."""
    early = [f"{point.iteration:,}" for point in points if point.early]
    if not early:
        return "nothing is early: no evaluation before the end is shared by the seeds of two arms"
    where = f"early: iteration{'s' if len(early) > 1 else ''} {' and '.join(early)}"
    if all(point.iteration in EARLY_ITERATIONS for point in points if point.early):
        return f"{where}, where the paper shows its curves"
    return f"{where}, the first before the end, as none of 2,500 and 5,000 was evaluated"


def times_to(finished: Mapping[str, Sequence[Cell]]) -> list[TimeTo]:
    """Return when each arm's mean recall over its seeds reaches shares of the best.

    Args:
        finished: the finished cells of every arm.
    """
    means = {arm: curve for arm, cells in finished.items() if (curve := _mean_curve(cells))}
    best = max((max(curve.values()) for curve in means.values()), default=0.0)
    return [
        TimeTo(
            arm=arm,
            share=share,
            of_own=_first_with(curve, share * max(curve.values())),
            of_best_arm=_first_with(curve, share * best),
        )
        for arm, curve in means.items()
        for share in SHARES_OF_BEST
    ]


def _first_with(curve: Mapping[int, float], recall: float) -> int | None:
    """Return the first iteration with that recall; nothing reaches a share of nothing."""
    return next((i for i in curve if curve[i] >= recall > 0), None)


def _mean_curve(cells: Sequence[Cell]) -> dict[int, float]:
    """Return the mean recall at the evaluations that all cells share, in their order."""
    points = sorted(point for cell in cells for point in dict(cell.curve).items())
    curve = {}
    for iteration, group in groupby(points, key=lambda point: point[0]):
        recalls = [recall for _, recall in group]
        defined = [recall for recall in recalls if recall is not None]
        if len(defined) == len(cells):
            curve[iteration] = float(np.mean(defined))
    return curve
