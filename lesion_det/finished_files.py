"""Which files of a finished run a comparison counts on, and whether they have changed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ubr_pretrain.checkpoint import file_sha256

COUNTED_ON = ("metrics.jsonl", "predictions_val.json", "weights.csv")
"""The learning curve, the answers, and where every tensor came from."""


def finished_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run that a comparison counts on, by its name."""
    files = (folder / name for name in COUNTED_ON)
    return {file.name: file_sha256(file) for file in files if file.is_file()}


def require_unchanged(folder: Path, at_the_end: Mapping[str, str]) -> None:
    """Refuse a run whose files were edited, mixed up, cut or lost after it finished.

    Args:
        folder: of the run.
        at_the_end: what ``finished_files`` returned then.

    Raises:
        ValueError: naming the file.
    """
    now = finished_files(folder)
    for name, digest in at_the_end.items():
        if name not in now:
            raise ValueError(f"{folder / name}: is missing")
        if now[name] != digest:
            raise ValueError(
                f"{folder / name}: SHA-256 {now[name][:12]}, was {digest[:12]} when the training "
                "finished: edited, cut or of another cell"
            )
