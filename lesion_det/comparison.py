"""The comparison as one frozen record: what ran, what did not and why, numbers, verdicts.

It is gathered from the run folders of the cells (arm x seed), so that a comparison that was
interrupted, or finished on several days, is read like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lesion_det.cells import BOOTSTRAP_SEED, Cell, CellAnswers, CellKey
from lesion_det.ground_truth import GroundTruth
from lesion_det.metrics import TOP_K
from lesion_det.significance import (
    CLAIMS,
    ArmHits,
    ClaimVerdict,
    Interval,
    PairDifference,
    all_pairs,
    judge_claims,
    pooled_recall,
)
from lesion_det.topk_recall import lesion_ranks
from ubr_pretrain.config import Config
from ubr_pretrain.runtime import generator


class Spread(Config):
    """One number over the seeds of an arm; sd is None below two seeds."""

    mean: float | None
    sd: float | None


class ArmResult(Config):
    """One start over its seeds.

    Attributes:
        arm: the start.
        not_run: why no cell of it was tried; "" where some were.
        cells: one a seed.
        pooled: recall over all finished seeds and lesions with its interval.
        spreads: mean and sd over the finished seeds of every metric.
        weights: the rows of ``weights.csv`` of one cell.
    """

    arm: str
    not_run: str = ""
    cells: tuple[Cell, ...] = ()
    pooled: Interval = Interval(value=None, low=None, high=None, note="nothing finished")
    spreads: Mapping[str, Spread] = {}
    weights: tuple[Mapping[str, str], ...] = ()

    @property
    def finished(self) -> tuple[Cell, ...]:
        """The cells that count."""
        return tuple(cell for cell in self.cells if cell.status == "finished")


class AuditRow(Config):
    """One thing that must be equal in all arms, or is declared to differ.

    Attributes:
        what: in words.
        values: by arm.
        equal: whether they are equal.
        required: whether a difference forbids the comparison.
    """

    what: str
    values: Mapping[str, str]
    equal: bool
    required: bool = True


class EarlyLook(Config):
    """Recall of a claim's two arms at the first evaluation; shown, not tested."""

    better: str
    worse: str
    iteration: int
    per_seed: tuple[float, ...]


class Comparison(Config):
    """Everything that the report says about the detectors.

    Attributes:
        title: of the report.
        data: file names, hashes and counts.
        settings: the common configuration as YAML; paths are reduced to names.
        audit: made before training.
        arms: in the order asked for.
        pairs: all pairs of arms with a finished cell.
        claims: verdicts on the paper's claims whose arms were compared.
        untested: the claims that were not, with the reason.
        early: the same pairs at the first evaluation.
        versions: of the software.
    """

    title: str
    data: Mapping[str, str]
    settings: str
    audit: tuple[AuditRow, ...]
    arms: tuple[ArmResult, ...]
    pairs: tuple[PairDifference, ...]
    claims: tuple[ClaimVerdict, ...]
    untested: Mapping[str, str]
    early: tuple[EarlyLook, ...]
    versions: Mapping[str, Any]

    @property
    def faults(self) -> tuple[Cell, ...]:
        """Cells that were tried and did not finish."""
        return tuple(c for arm in self.arms for c in arm.cells if c.status != "finished")


def summarise_arm(
    arm: str, cells: Sequence[CellAnswers], ground_truth: GroundTruth, rng: np.random.Generator
) -> tuple[ArmResult, ArmHits | None]:
    """Average the finished cells of one arm; also return which lesions they found."""
    done = [answers for answers in cells if answers.predictions is not None]
    everything = tuple(answers.cell for answers in cells)
    weights = next((answers.weights for answers in cells if answers.weights), ())
    if not done:
        return ArmResult(arm=arm, cells=everything, weights=weights), None
    ranks = [lesion_ranks(ground_truth, a.predictions) for a in done if a.predictions is not None]
    hits = ArmHits(
        tuple(answers.cell.seed for answers in done),
        np.stack([r.hits(TOP_K) for r in ranks]),
        ranks[0].patient_index,
    )
    columns = [a.cell.metrics.scalars() for a in done if a.cell.metrics is not None]
    result = ArmResult(
        arm=arm,
        cells=everything,
        pooled=pooled_recall(hits, rng),
        spreads={name: _spread([column[name] for column in columns]) for name in columns[0]},
        weights=weights,
    )
    return result, hits


def _spread(values: Sequence[float | None]) -> Spread:
    defined = [value for value in values if value is not None]
    if not defined:
        return Spread(mean=None, sd=None)
    sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
    return Spread(mean=float(np.mean(defined)), sd=sd)


def compare_arms(
    arms: Sequence[str],
    cells: Mapping[CellKey, CellAnswers],
    not_run: Mapping[str, str],
    ground_truth: GroundTruth,
) -> dict[str, Any]:
    """Return the fields of ``Comparison`` that follow from the cells.

    Args:
        arms: in the order to be shown.
        cells: of every arm that was tried, those of the largest fraction of labels first.
        not_run: why the others were not.
        ground_truth: of the validation images.
    """
    rng = generator(BOOTSTRAP_SEED)
    results, hits = [], {}
    whole = max(key.fraction for key in cells)
    compared: dict[str, list[CellAnswers]] = {}
    for key, answers in cells.items():
        if key.fraction == whole:
            compared.setdefault(key.arm, []).append(answers)
    for arm, of_arm in compared.items():
        result, found = summarise_arm(arm, of_arm, ground_truth, rng)
        results.append(result)
        if found is not None:
            hits[arm] = found
    pairs = all_pairs(hits, rng)
    results += [ArmResult(arm=arm, not_run=reason) for arm, reason in not_run.items()]
    results.sort(key=lambda result: arms.index(result.arm))
    return {
        "arms": tuple(results),
        "pairs": tuple(pairs),
        "claims": tuple(judge_claims(pairs)),
        "untested": _untested(hits),
        "early": tuple(_early_looks({result.arm: result.finished for result in results})),
    }


def _untested(compared: Collection[str]) -> dict[str, str]:
    """Return the claims that need an arm with no finished cell."""
    return {
        words: f"no finished cell of {' or '.join(lacking)}"
        for better, worse, words in CLAIMS
        if (lacking := [arm for arm in (better, worse) if arm not in compared])
    }


def _early_looks(finished: Mapping[str, Sequence[Cell]]) -> list[EarlyLook]:
    looks = []
    for better, worse, _ in CLAIMS:
        of_seed = {cell.seed: dict(cell.curve) for cell in finished.get(worse, ())}
        pairs = [
            (dict(c.curve), of_seed[c.seed]) for c in finished.get(better, ()) if c.seed in of_seed
        ]
        shared = [set(a) & set(b) for a, b in pairs]
        iterations = sorted(set.intersection(*shared)) if shared else []
        if len(iterations) < 2:  # the first evaluation is also the last: nothing is early
            continue
        first = iterations[0]
        differences = [(a[first], b[first]) for a, b in pairs]
        looks.append(
            EarlyLook(
                better=better,
                worse=worse,
                iteration=first,
                per_seed=tuple(a - b for a, b in differences if a is not None and b is not None),
            )
        )
    return looks
