"""What a begun run goes on from: its last checkpoint, if all that it counts on is still there.

A checkpoint notes what ``metrics.jsonl`` held when it was written and how good the best one was. A
run whose record or best checkpoint was lost since then would finish without a word, and without
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.run_folder import RunFolder, RunFolderRefused
from ubr_pretrain.runtime import Ranks

NOTHING_JUDGED = (None, -1.0)
"""The best so far, of a detector and of a regressor, as long as none was written."""

ADVICE = "put it back, or use --overwrite or a new folder"


def read_last(folder: RunFolder, kind: str, ranks: Ranks) -> dict[str, Any] | None:
    """Return the state that a run goes on from; None: it has no checkpoint yet.

    Lines and a best checkpoint from behind the last one are no fault: a kill leaves them there, and
    they are made again.

    Args:
        folder: of the run.
        kind: of its checkpoints.
        ranks: the first of them looks at what lies beside the checkpoint.

    Raises:
        CheckpointRefused: a checkpoint is damaged or of another kind.
        RunFolderRefused: ``metrics.jsonl`` or the best checkpoint is not what it was.
    """
    if not folder.last.is_file():
        return None
    state = read_checkpoint(folder.last, kind)
    if ranks.is_first:
        record = folder.path / "metrics.jsonl"
        if lost := _lost_of(record, state):
            at = f"{folder.last.name} of iteration {state['iteration']}"
            raise RunFolderRefused(f"{record}: {lost} when {at} was written; {ADVICE}")
        _require_best(folder, kind, state, record)
    return state


def _lost_of(record: Path, state: Mapping[str, Any]) -> str:
    """Return what a record lacks of what it held when a state was written, "" for nothing."""
    if "metrics" not in state:  # written before checkpoints noted it
        return ""
    held = state["metrics"]
    if not record.is_file():
        return f"is missing; it held {held['bytes']} bytes"
    text = record.read_bytes()
    if len(text) < held["bytes"]:
        return f"has {len(text)} bytes; it held {held['bytes']}"
    if hashlib.sha256(text[: held["bytes"]]).hexdigest() != held["sha256"]:
        return f"its first {held['bytes']} bytes are not those that it held"
    return ""


def _require_best(folder: RunFolder, kind: str, state: Mapping[str, Any], record: Path) -> None:
    """Refuse to go on without the best checkpoint that there was, or with one of another run."""
    if not folder.best.is_file():
        if state["best"] not in NOTHING_JUDGED:
            raise RunFolderRefused(
                f"{folder.best}: is missing; it was written before {folder.last.name} of "
                f"iteration {state['iteration']}; {ADVICE}"
            )
        return
    best = read_checkpoint(folder.best, kind)
    if _moment(best) > _moment(state):
        return
    if best["best"] != state["best"]:
        why = f"its score is {best['best']}, {folder.last.name} knows of {state['best']}"
    elif _lost_of(record, best):
        why = f"it was written beside another {record.name}"
    else:
        return
    raise RunFolderRefused(f"{folder.best}: is not the best of this run ({why}); {ADVICE}")


def _moment(state: Mapping[str, Any]) -> tuple[int, bool]:
    return state["iteration"], state.get("judged", True)
