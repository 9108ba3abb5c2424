"""What work has left on the disk: how whole it is after a kill, and what it says at the end."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.kill.works import AT_WORK, Work

START_UP = "in the start-up"
RESUMING = "taking up what is there"

NOT_COMPARED = re.compile(r"train\.log|.*\.log|\.lock|jobs\.json")
"""Files that tell of how often a work was begun."""

HALF = {
    ".safetensors": "a checkpoint",
    ".npy": "a stored volume",
    ".png": "a picture",
    ".csv": "a table",
    ".parquet": "a table",
    ".md": "a table",
    ".html": "a report",
}
"""What a half-written file is to become, by its suffix; JSON and YAML aside."""

MEASURED_ONCE = "filter_drift.safetensors"
"""Of an arm's first finished cell: of another, too, if a report was made while that was killed."""

TABLES = ("scores.json", "metrics.json", "comparison.json", "gathered.json", "complete.json")
MINUTES = re.compile(r'<td class="n">[\d.]*</td><td></td></tr>')
"""The end of a row of the report: wall time, and no reason why the cell failed."""


def stage_at_death(work: Work, place: Path, began_s: float, changes: float) -> str:
    """Say what a work was doing when it was killed.

    Args:
        work: that was killed.
        place: where it lies.
        began_s: of the last attempt.
        changes: that this attempt had made to files.
    """
    for part in _half_written(place):
        if part.stat().st_mtime >= began_s:
            name = part.name[1:].rsplit(".", 2)[0]
            of_json = "a table" if name in TABLES or "predictions" in name else "a record"
            return f"writing {HALF.get(Path(name).suffix, of_json)}"
    for journal in place.rglob("*.jsonl"):
        content = journal.read_bytes()
        if content and not content.endswith(b"\n"):
            return "writing a line"
    if not changes:
        return START_UP
    stage = work.stage(place)
    journals = [*place.rglob("metrics.jsonl")]
    if stage == AT_WORK and journals and max(map(_written_s, journals)) < began_s:
        return RESUMING
    return stage


def damages(place: Path) -> list[str]:
    """Say what is not whole although it bears its final name, and what of a training is lost."""
    from ubr_pretrain.checkpoint import CheckpointRefused, checkpoint_kind, read_checkpoint

    found = []
    for file in sorted(place.rglob("*")):
        if not file.is_file() or file.name.startswith("."):
            continue
        try:
            if file.suffix == ".safetensors":
                read_checkpoint(file, checkpoint_kind(file))
            elif file.suffix == ".json":
                _require_slices(file, json.loads(file.read_bytes()))
            elif file.suffix == ".yaml":
                yaml.safe_load(file.read_text("utf-8"))
        except (CheckpointRefused, ValueError) as error:
            found.append(f"{file.relative_to(place)}: {error}")
        if file.suffix == ".png" and not file.read_bytes().endswith(b"IEND\xaeB`\x82"):
            found.append(f"{file.relative_to(place)}: cut")
        if file.suffix == ".parquet" and not file.read_bytes().endswith(b"PAR1"):
            found.append(f"{file.relative_to(place)}: cut")
    for metrics in place.rglob("metrics.jsonl"):
        found += _lost_steps(metrics.parent)
    return found


def _require_slices(record: Path, told: Any) -> None:
    """Refuse a record of the slice store whose slices are not there as they were."""
    if isinstance(told, dict) and {"z_mm", "sha256"} <= told.keys():
        from ubr_pretrain.slice_files import SliceFiles

        if fault := SliceFiles(record.with_suffix(".npy")).fault(told, 32, hashed=True):
            raise ValueError(fault)


def _lost_steps(run: Path) -> Iterator[str]:
    """At most the steps since the last checkpoint, one interval, are to be done again."""
    from ubr_pretrain.checkpoint import checkpoint_kind, read_checkpoint
    from ubr_pretrain.journal import read_metrics

    records, last = read_metrics(run / "metrics.jsonl"), run / "checkpoints" / "last.safetensors"
    kept = read_checkpoint(last, checkpoint_kind(last))["iteration"] if last.is_file() else 0
    done = max((record["iteration"] for record in records), default=0)
    every = yaml.safe_load((run / "config.yaml").read_text("utf-8"))["save_every"]
    if done - kept > every:
        yield f"{run.name}: {done} steps done, {kept} kept, although {every} make a checkpoint"


def outcome(place: Path) -> dict[str, Any]:
    """Return what a finished work says, file by file, but for clocks and the place itself."""
    files: dict[str, Any] = {}
    for file in sorted(place.rglob("*")):
        name = str(file.relative_to(place))
        if file.is_dir():
            if file.name == "tb":
                files[name] = _board(file)
            continue
        if not NOT_COMPARED.fullmatch(file.name) and file.parent.name != "tb":
            files[name] = _content(file, place)
    return files


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return what is more, less, or other than it should be."""
    more = {name for name in found.keys() - wanted.keys() if Path(name).name != MEASURED_ONCE}
    lines = [f"{name}: should not be there" for name in sorted(more)]
    lines += [f"{name}: missing" for name in sorted(wanted.keys() - found.keys())]
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            lines.append(f"{name}: {_where(found[name], wanted[name])}")
    return lines


def _where(found: Any, wanted: Any) -> str:
    """Say in which of their entries two contents differ first."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                return f"{key}: {_where(found.get(key), wanted.get(key))}"
    return f"{str(found)[:200]}, not {str(wanted)[:200]}"


def _content(file: Path, place: Path) -> Any:
    if file.suffix == ".safetensors":  # its own hash: safetensors writes metadata in any order
        from safetensors import safe_open

        with safe_open(file, framework="pt") as checkpoint:
            return checkpoint.metadata()["sha256"]
    if file.name == "inputs.int16":
        return _inputs(file.parent)
    if file.name == "index.jsonl":
        return None  # with its pixels
    content = file.read_bytes().replace(str(place).encode(), b"PLACE")
    if file.name == "run.json":
        return _without_clock(json.loads(content))
    if file.name == "comparison.json":
        return _without_clock(json.loads(content))
    if file.name == "scores.jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        return [lines[0], {line["name"]: line for line in lines[1:]}]
    if file.name == "complete.json":  # a refused scan is tried, and written down, again
        return {k: v for k, v in json.loads(content).items() if k != "journal_bytes"}
    if file.name == "cells.csv":
        rows = [line.split(",") for line in content.decode().splitlines()]
        clock = rows[0].index("seconds")
        return [[*row[:clock], *row[clock + 1 :]] for row in rows]
    if file.name == "report.html":
        content = MINUTES.sub("", content.decode()).encode()
    return hashlib.sha256(content).hexdigest()


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if key != "seconds"}
    return [_without_clock(item) for item in value] if isinstance(value, list) else value


def _inputs(cache: Path) -> dict[str, str]:
    """Return the pixels of every input of a cache, wherever they lie in it."""
    from pydantic import ValidationError

    from lesion_det.input_cache import Entry

    pixels, inputs = (cache / "inputs.int16").read_bytes(), {}
    for line in (cache / "index.jsonl").read_bytes().splitlines():
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:  # in the middle of which a process was killed
            continue
        own = pixels[entry.offset : entry.offset + entry.num_bytes]
        inputs[entry.key] = hashlib.sha256(own).hexdigest()
    return inputs


def _board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def _half_written(place: Path) -> list[Path]:
    return [*place.rglob(".*.part")]


def _written_s(file: Path) -> float:
    return file.stat().st_mtime
