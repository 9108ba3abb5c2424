"""Numbers and the answer of a comparison in the words of its report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lesion_det.claims import MIN_SEEDS
from lesion_det.comparison import Comparison, Spread
from lesion_det.significance import ALPHA, Interval, PairDifference

NONE = "—"
"""Printed where a number is undefined."""

MINUS = "\N{MINUS SIGN}"

ARM_WORDS: Mapping[str, str] = {
    "random": "trunk drawn at random",
    "ubr": "trunk of a body-part regressor that was trained from scratch",
    "imagenet": "trunk trained on ImageNet",
    "ubr+imagenet": "ImageNet, then trained as a body-part regressor, then the detector",
    "ubr-stats": "control: every layer redrawn with the UBR trunk's mean and sd",
    "imagenet-stats": "control: every layer redrawn with the ImageNet trunk's mean and sd",
}
OTHER_ARM = "trunk of others, from a file"


def percent(value: float | None) -> str:
    """Return 0.745 as ``74.5 %``."""
    return NONE if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Return 0.745 as ``74.5``, for a column in per cent."""
    return NONE if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """Return 0.012 as ``+1.2``."""
    if value is None:
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def spread_text(spread: Spread | None) -> str:
    """Return mean and standard deviation over seeds in per cent."""
    if spread is None or spread.mean is None:
        return NONE
    sd = "" if spread.sd is None else f" ± {100 * spread.sd:.1f}"
    return f"{100 * spread.mean:.1f}{sd}"


def p_text(p: float | None) -> str:
    """Return a p value with two digits."""
    return NONE if p is None else ("< 0.001" if p < 0.001 else f"{p:.2g}")


def bounds(interval: Interval) -> str:
    """Return a 95 % interval in per cent, or why there is none."""
    if interval.low is None or interval.high is None:
        return interval.note or "undefined"
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def point_bounds(pair: Interval) -> str:
    """Return the 95 % interval of a difference in points, or why there is none."""
    if pair.low is None or pair.high is None:
        return pair.note or "undefined"
    return f"{points(pair.low)} to {points(pair.high)}"


def with_minus(text: str) -> str:
    """Return a sentence in which negative numbers have the sign of print."""
    return re.sub(r"(?<!\S)-(?=\d)", MINUS, text)


def listed(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def counted(count: int, what: str) -> str:
    """Return "1 seed" or "3 seeds"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def progress(comparison: Comparison) -> str:
    """Return how many cells are in which state, "" where all have finished."""
    states = Counter(cell.status for cell in comparison.cells)
    if not comparison.faults:
        return ""
    total = sum(states.values())
    others = [f"{states[s]} {s}" for s in ("failed", "interrupted", "not started") if states[s]]
    return f"{states['finished']} of {counted(total, 'training')} finished, {listed(others)}"


def answer(comparison: Comparison) -> list[str]:
    """Return the result in a few sentences."""
    return [_what(comparison), *_verdicts(comparison), *_beyond_the_claims(comparison)]


def _what(comparison: Comparison) -> str:
    compared = [arm for arm in comparison.arms if arm.finished]
    if not compared:
        return "No training has finished yet; there is nothing to compare."
    seeds = {len(arm.finished) for arm in compared}
    each = f"{counted(min(seeds), 'seed')} each" if len(seeds) == 1 else "unequal numbers of seeds"
    names = [
        f"{arm.arm} ({ARM_WORDS.get(arm.arm, OTHER_ARM).removeprefix('trunk ')})"
        for arm in compared
    ]
    trained, judged = (comparison.data.get(key, NONE) for key in ("trained on", "judged on"))
    starts = counted(len(compared), "start")
    return (
        f"The same lesion detector was trained from {starts} of its trunk: {listed(names)}; "
        f"{each}. Training: {trained}. Judged on: {judged}. The measure is the share of "
        "the annotated lesions that one of the five best detections of a slice hits."
    )


def _verdicts(comparison: Comparison) -> list[str]:
    if not comparison.pairs:
        return ["Two starts with a finished training are needed before anything can be said."]
    sentences = []
    for claim in comparison.claims:
        pair = find_pair(comparison.pairs, claim.better, claim.worse)
        difference = f"{points(claim.difference)} points"
        if pair is not None and pair.low is not None and pair.high is not None:
            ends = (pair.low, pair.high) if pair.a == claim.better else (-pair.high, -pair.low)
            difference += f", 95 % interval {points(ends[0])} to {points(ends[1])}"
        if pair is not None and (pair.p or 1.0) < ALPHA <= (pair.p_holm or 0.0):
            difference += f"; clear alone, but not after the correction for {pair.family} pairs"
        text = f"{claim.claim[0].upper()}{claim.claim[1:]}: {claim.verdict} ({difference})."
        if pair is not None and len(pair.seeds) < MIN_SEEDS:
            text += f" A verdict needs {MIN_SEEDS} seeds of both starts."
        if claim.verdict == "not resolved":
            text += f" {_what_could_be_seen(comparison, claim.better, claim.worse)}"
        sentences.append(text)
    if comparison.untested:
        sentences.append(f"Not tested, for want of an arm: {'; '.join(comparison.untested)}.")
    return sentences


def _what_could_be_seen(comparison: Comparison, a: str, b: str) -> str:
    """Return the smallest difference that was in reach: as measured, else as assumed."""
    plain = "That is neither a yes nor a no:"
    power = comparison.power
    if power is None:
        return "That is neither a yes nor a no."
    for pair in power.measured:
        if {pair.a, pair.b} == {a, b}:
            return f"{plain} by the measured spread, {_seen_from(pair.smallest_difference)}."
    if power.smallest_difference is None:
        return f"{plain} {power.words}."
    return f"{plain} by the assumptions below, {_seen_from(power.smallest_difference)}."


def _seen_from(difference: float) -> str:
    """Say from where a true difference is seen; recalls cannot differ by more than 100 points."""
    if difference >= 1:
        return "no difference that recalls can have is seen in four of five repetitions"
    return (
        f"a true difference is seen in four of five repetitions only from {100 * difference:.1f} "
        "points"
    )


def _beyond_the_claims(comparison: Comparison) -> list[str]:
    judged = [{claim.better, claim.worse} for claim in comparison.claims]
    others = [pair for pair in comparison.pairs if {pair.a, pair.b} not in judged]
    clear = [
        f"{pair.a} {MINUS} {pair.b} {points(pair.value)} points ({point_bounds(pair)})"
        for pair in others
        if pair.p_holm is not None and pair.p_holm < ALPHA
    ]
    if clear:
        return [f"Other pairs that differ by more than chance: {'; '.join(clear)}."]
    return ["No other pair differs by more than chance."] if others else []


def find_pair(pairs: Sequence[PairDifference], a: str, b: str) -> PairDifference | None:
    """Return the comparison of two arms, whichever way round it was made."""
    return next((pair for pair in pairs if {pair.a, pair.b} == {a, b}), None)
