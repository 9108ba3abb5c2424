"""The report's first chapter: how the body-part regressor behind the trunk was trained."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_det.curve_figures import draw_ubr_training
from ubr_pretrain.bounded_file import MAX_NOTE_BYTES, require_at_most
from ubr_pretrain.journal import read_metrics

MAX_CURVES = 6
"""Score curves embedded; the others are counted."""

MAX_VOLUMES = 200
"""Rows of scored volumes, the doubtful ones first of all; a page of thousands does not scroll."""

SHOWN = ("volume", "num_slices", "r", "rank_r", "direction", "code", "cause")
"""Of a record; its slices are many."""

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class EmbeddedImage:
    """A picture inside the page."""

    caption: str
    data_uri: str


@dataclass(frozen=True)
class UbrChapter:
    """What is shown of the regressor; every part may be missing.

    Attributes:
        pictures: given by the user, phantom contact sheets for instance.
        facts: numbers of the run, in words.
        training_svg: loss and held-out rank correlation.
        scores: what is shown of the volumes of ``scores.json``, in its order: where there are many,
            those that were refused and those whose scores follow their place least.
        num_scored: how many there were.
        curves: score curves beside their volumes.
        num_curves: how many there were.
    """

    pictures: tuple[EmbeddedImage, ...] = ()
    facts: tuple[str, ...] = ()
    training_svg: str = ""
    scores: tuple[Mapping[str, Any], ...] = ()
    num_scored: int = 0
    curves: tuple[EmbeddedImage, ...] = ()
    num_curves: int = 0


def read_ubr_chapter(
    ubr_run: Path | None, scores: Path | None, pictures: Sequence[Path]
) -> UbrChapter | None:
    """Gather the chapter; None where nothing was given.

    Args:
        ubr_run: run folder of ``train_ubr.py``.
        scores: folder that ``score_volumes.py`` wrote.
        pictures: images to show first.

    Raises:
        ValueError: a folder or picture is not what it should be.
    """
    if ubr_run is None and scores is None and not pictures:
        return None
    records: list[dict[str, Any]] = []
    facts: tuple[str, ...] = ()
    if ubr_run is not None:
        records = read_metrics(ubr_run / "metrics.jsonl")
        if not records:
            raise ValueError(f"--ubr-run {ubr_run}: no metrics.jsonl of a training there")
        facts = _facts(ubr_run, records)
    volumes: list[dict[str, Any]] = []
    curves: list[Path] = []
    if scores is not None:
        if not (scores / "scores.json").is_file():
            raise ValueError(f"--scores {scores}: no scores.json there")
        volumes = json.loads((scores / "scores.json").read_text("utf-8"))["volumes"]
        curves = sorted(scores.glob("*.png"))
    return UbrChapter(
        pictures=tuple(embed_image(picture) for picture in pictures),
        facts=facts,
        training_svg=draw_ubr_training(records) if records else "",
        scores=_most_doubtful(volumes),
        num_scored=len(volumes),
        curves=tuple(embed_image(curve) for curve in curves[:MAX_CURVES]),
        num_curves=len(curves),
    )


def _most_doubtful(volumes: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return what is shown of at most ``MAX_VOLUMES`` volumes, in their order."""
    rank_r = [v.get("rank_r") or 0.0 for v in volumes]
    chosen = sorted(range(len(volumes)), key=lambda i: ("code" not in volumes[i], rank_r[i]))
    shown = [volumes[i] for i in sorted(chosen[:MAX_VOLUMES])]
    return tuple({name: v[name] for name in SHOWN if name in v} for v in shown)


def embed_image(path: Path) -> EmbeddedImage:
    """Read a picture into a data URI.

    Raises:
        ValueError: no such file, or neither PNG nor JPEG.
    """
    kind = IMAGE_TYPES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        raise ValueError(f"{path}: no such PNG or JPEG picture")
    require_at_most(path, MAX_NOTE_BYTES)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return EmbeddedImage(path.stem.replace("_", " "), f"data:{kind};base64,{data}")


def _facts(run: Path, records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    manifest: dict[str, Any] = {}
    if (run / "run.json").is_file():
        manifest = json.loads((run / "run.json").read_text("utf-8"))
    facts = []
    if "num_training" in manifest:
        facts.append(
            f"{manifest['num_training']} volumes to train on, "
            f"{manifest.get('num_validation', 0)} held out, "
            f"{len(manifest.get('refused', []))} refused"
        )
    facts.append(f"{records[-1]['iteration']} iterations")
    if "seconds" in manifest:
        facts.append(f"{manifest['seconds'] / 60:.1f} minutes (last session)")
    validated = [r for r in records if r.get("kind") == "val" and "rank_r_median" in r]
    if validated:
        last = validated[-1]
        facts.append(f"held-out rank correlation: median {last['rank_r_median']:.3f}")
        if "rank_r_worst" in last:
            facts.append(f"worst {last['rank_r_worst']:.3f}")
    return tuple(facts)
