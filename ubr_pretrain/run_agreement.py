"""How far two runs agree: their metrics line by line, weights tensor by tensor, their answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.checkpoint import checkpoint_kind, read_checkpoint
from ubr_pretrain.config import config_differences
from ubr_pretrain.journal import read_metrics

if TYPE_CHECKING:
    from torch import Tensor

GPU_TOLERANCE = 0.01
"""Where a GPU computed: of a number, relative; of a tensor, of its Euclidean norm."""

WEIGHTS = {"ubr": "regressor", "detector": "detector"}
"""Where a checkpoint of a kind has its weights."""

NO_VALUE = "nothing"

MAX_WORDS = 60
"""Of a value that is shown, in characters."""


@dataclass(frozen=True)
class Finding:
    """One thing that was compared.

    Attributes:
        what: the file.
        equal: whether it is equal.
        words: how much was compared, or what differs first.
    """

    what: str
    equal: bool
    words: str

    def __str__(self) -> str:
        """Return the line that is printed."""
        return f"{'equal' if self.equal else 'DIFFERS'}: {self.what}: {self.words}"


def differences_of_machines(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for every version, processor or the like that is another one now."""
    there, here = before.get("machine", {}), now.get("machine", {})
    return [f"other {line}" for line in config_differences(there, here)]


def tolerance_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Return 0 where two runs, given their manifests, have to agree bit for bit: on CPUs."""
    devices = {manifest.get("machine", {}).get("device", "cpu") for manifest in (before, now)}
    return 0.0 if devices == {"cpu"} else GPU_TOLERANCE


def compare_runs(run: Path, again: Path, tolerance: float) -> list[Finding]:
    """Return what of two runs is equal: the metrics, the weights, the answers.

    Args:
        run: the folder of the run.
        again: that of its reproduction.
        tolerance: see ``tolerance_of``.

    Raises:
        CheckpointRefused: a checkpoint is damaged.
    """
    before, now = (read_metrics(folder / "metrics.jsonl") for folder in (run, again))
    findings = [compare_metrics(before, now, tolerance)]
    names = {
        file.name
        for folder in (run, again)
        for file in (folder / "checkpoints").glob("*.safetensors")
    }
    findings += [_compare_weights(run, again, name, tolerance) for name in sorted(names)]
    answers = {
        file.name
        for folder in (run, again)
        for pattern in ("metrics.json", *(["predictions_*.json"] if tolerance == 0 else []))
        for file in folder.glob(pattern)
    }
    findings += [_compare_answers(run, again, name, tolerance) for name in sorted(answers)]
    return findings


def compare_metrics(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], tolerance: float
) -> Finding:
    """Compare ``metrics.jsonl``, record by record; it has no word of the clock.

    Args:
        before: records of the run.
        now: of its reproduction.
        tolerance: relative, of a number; 0: equal to the last bit, texts too.
    """
    unequal, first = 0, ""
    nothing: Mapping[str, Any] = {}
    for there, here in zip_longest(before, now, fillvalue=nothing):
        told = next(_differences(there, here, tolerance), None)
        if told is None:
            continue
        unequal += 1
        step = there or here
        first = first or f"first at iteration {step['iteration']}, {step['kind']}: {told}"
    if unequal:
        return Finding("metrics.jsonl", False, f"{first} ({unequal} of {len(before)} lines)")
    return Finding("metrics.jsonl", True, f"{len(before)} lines")


def _differences(there: Any, here: Any, tolerance: float, key: str = "") -> Iterator[str]:
    """Yield ``key VALUE in the run, VALUE now`` for every leaf that differs."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in dict.fromkeys([*there, *here]):
            old, new = there.get(name, NO_VALUE), here.get(name, NO_VALUE)
            yield from _differences(old, new, tolerance, f"{key}.{name}".lstrip("."))
    elif not _close(there, here, tolerance):
        yield f"{key} {_short(there)} in the run, {_short(here)} now"


def _short(value: Any) -> str:
    words = str(value)
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}..."


def _close(there: Any, here: Any, tolerance: float) -> bool:
    if there == here or tolerance == 0 or NO_VALUE in (there, here):
        return bool(there == here)
    if isinstance(there, int | float) and isinstance(here, int | float):
        return math.isclose(there, here, rel_tol=tolerance)
    return isinstance(there, str) and isinstance(here, str)  # which volume is worst, which is hit


def _compare_weights(run: Path, again: Path, name: str, tolerance: float) -> Finding:
    what = f"checkpoints/{name}"
    for folder, words in ((run, "the run has none"), (again, "the reproduction has none")):
        if not (folder / what).is_file():
            return Finding(what, False, words)
    before, now = (_read_weights(folder / what) for folder in (run, again))
    return compare_weights(what, before, now, tolerance)


def _read_weights(file: Path) -> Mapping[str, Tensor]:
    kind = checkpoint_kind(file)
    return read_checkpoint(file, kind)[WEIGHTS[kind]]


def compare_weights(
    what: str, before: Mapping[str, Tensor], now: Mapping[str, Tensor], tolerance: float
) -> Finding:
    """Compare tensor by tensor.

    Args:
        what: the file.
        before: tensors of the run.
        now: of its reproduction.
        tolerance: of the norm of a tensor; 0: bit for bit.
    """
    told = [
        f"{name} {words}"
        for name in dict.fromkeys([*before, *now])
        if (words := _tensor_difference(before.get(name), now.get(name), tolerance))
    ]
    if told:
        return Finding(what, False, f"first {told[0]} ({len(told)} of {len(before)} tensors)")
    return Finding(what, True, f"{len(before)} tensors")


def _tensor_difference(there: Tensor | None, here: Tensor | None, tolerance: float) -> str:
    """Return how two tensors differ, nothing where they do not."""
    import torch

    if there is None or here is None:
        return f"is in {'the run' if here is None else 'the reproduction'} alone"
    if (there.dtype, there.shape) != (here.dtype, here.shape):
        return (
            f"{there.dtype} {tuple(there.shape)} in the run, {here.dtype} {tuple(here.shape)} now"
        )
    if torch.equal(there, here):
        return ""
    old, new = there.double().flatten(), here.double().flatten()
    apart = (old - new).abs()
    if tolerance and there.is_floating_point() and apart.norm() <= tolerance * old.norm():
        return ""
    worst = int(apart.argmax())
    return f"by up to {apart[worst]:.3g}: {old[worst]:.9g} in the run, {new[worst]:.9g} now"


def _compare_answers(run: Path, again: Path, name: str, tolerance: float) -> Finding:
    for folder, words in ((run, "the run has none"), (again, "the reproduction has none")):
        if not (folder / name).is_file():
            return Finding(name, False, words)
    before, now = (json.loads((folder / name).read_text("utf-8")) for folder in (run, again))
    told = next(_differences(before, now, tolerance), None)
    return Finding(name, told is None, told or "all of it")
