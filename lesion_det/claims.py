"""The claims of the paper about the starts, and the verdict on each in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lesion_det.significance import ALPHA, PairDifference
from ubr_pretrain.config import Config

MIN_SEEDS = 3
"""Fewer runs an arm cannot tell a start from its luck."""

Verdict = Literal["supported", "not resolved", "contradicted"]

CLAIMS = (
    ("ubr", "random", "a UBR trunk is better than a random one"),
    ("imagenet", "ubr", "an ImageNet trunk is better than a UBR one"),
    ("ubr+imagenet", "imagenet", "ImageNet, then UBR, is better than ImageNet alone"),
)
"""The three claims of the paper's Fig. 3c: (better arm, worse arm, words)."""


class ClaimVerdict(Config):
    """One claim of the paper, judged by the pair that it speaks of.

    Attributes:
        claim: in words.
        better: the arm that is said to be.
        worse: the other one.
        verdict: "supported", "not resolved" or "contradicted".
        reason: the numbers that it rests on.
        difference: recall of ``better`` minus recall of ``worse``.
        p_holm: two-sided p after Holm's correction.
    """

    claim: str
    better: str
    worse: str
    verdict: Verdict
    reason: str
    difference: float | None
    p_holm: float | None


def judge_claims(pairs: Sequence[PairDifference], when: str = "") -> list[ClaimVerdict]:
    """Return a verdict on each claim whose two arms were compared.

    "supported": better by more than chance (Holm-corrected p < 0.05) over at least ``MIN_SEEDS``
    seeds; "contradicted": worse in the same way; else "not resolved", with the reason.

    Args:
        pairs: of one family, corrected.
        when: ends the words of the claim, " at iteration 2,500".
    """
    verdicts = []
    for better, worse, words in CLAIMS:
        for pair in pairs:
            if {pair.a, pair.b} == {better, worse}:
                judged = pair if pair.a == better else swapped(pair)
                verdict, reason = _verdict(judged)
                verdicts.append(
                    ClaimVerdict(
                        claim=words + when,
                        better=better,
                        worse=worse,
                        verdict=verdict,
                        reason=reason,
                        difference=judged.value,
                        p_holm=judged.p_holm,
                    )
                )
    return verdicts


def swapped(pair: PairDifference) -> PairDifference:
    """Return the same comparison, told from the other arm."""

    def negative(value: float | None) -> float | None:
        return None if value is None else -value

    return pair.model_copy(
        update={
            "a": pair.b,
            "b": pair.a,
            "per_seed": tuple(-difference for difference in pair.per_seed),
            "value": negative(pair.value),
            "low": negative(pair.high),
            "high": negative(pair.low),
        }
    )


def _verdict(pair: PairDifference) -> tuple[Verdict, str]:
    if pair.value is None or pair.p is None or pair.p_holm is None:
        return "not resolved", pair.note
    counted = f"{len(pair.seeds)} seed{'' if len(pair.seeds) == 1 else 's'}"
    numbers = f"p = {pair.p:.2g}, Holm-corrected {pair.p_holm:.2g}, {counted}"
    if pair.low is not None and pair.high is not None:
        numbers = f"95 % interval {100 * pair.low:+.1f} to {100 * pair.high:+.1f}, {numbers}"
    else:
        numbers = f"{pair.note}, {numbers}"
    if len(pair.seeds) < MIN_SEEDS:
        return "not resolved", f"{numbers}; a verdict needs {MIN_SEEDS}"
    if pair.p_holm >= ALPHA:
        alone = f"; below {ALPHA} only without the correction" if pair.p < ALPHA else ""
        return "not resolved", numbers + alone
    return ("supported" if pair.value > 0 else "contradicted"), numbers
