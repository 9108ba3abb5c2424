"""A finished run, trained once more and compared with what it was: ``--reproduce RUN_DIR``.

The same settings, seed and data give, with the same versions, processor and number of threads on a
CPU, the same numbers bit for bit; another number of threads adds in another order. A GPU adds some
sums in an order that no setting fixes (the gradient of RoIAlign), so there
``run_agreement.GPU_TOLERANCE`` holds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from pydantic import BaseModel

from ubr_pretrain.config import Model, config_differences, parse_config, read_config, refuse

DATA_FILES = {
    "train_sha256": "the COCO files that it learned from",
    "val_sha256": "the COCO files that it was validated on",
    "test_sha256": "the COCO files that it was tested on",
    "images_sha256": "the slices",
    "source_sha256": "the weights that it started from",
}
"""Hashes of files in a manifest; those of what is drawn differ with the versions."""


class NotReproducible(ValueError):  # noqa: N818
    """No run, an unfinished one, or not the data it was trained on."""


def parse_run(
    parser: ArgumentParser,
    model: type[Model],
    argv: Sequence[str] | None,
    presets: str,
    places: Collection[str],
) -> tuple[Model, argparse.Namespace]:
    """Parse the flags of a training, or those of the run that is to be trained once more.

    Args:
        parser: of the configuration; gets the flags of the run folder.
        model: of the configuration.
        argv: the arguments.
        presets: see ``parse_config``.
        places: keys that say where something lies on this machine, and so may be given anew.

    Returns:
        The configuration, and the other arguments; ``how`` are those of ``train``.
    """
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--resume", action="store_true", help="fail if there is nothing to resume")
    parser.add_argument("--overwrite", action="store_true", help="delete the run that is there")
    parser.add_argument(
        "--reproduce",
        type=Path,
        metavar="RUN_DIR",
        help="train that finished run once more, into RUN_DIR-reproduced unless --out is given, "
        "and compare; exit code 0: weights, metrics and evaluation are equal, 1: they are not",
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--reproduce", type=Path)
    finder.add_argument("--out", type=Path)
    try:
        asked = finder.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # the parser itself says it better
        return parse_config(parser, model, arguments, presets)
    run: Path | None = asked.reproduce
    try:
        if run is None:
            config, rest = parse_config(parser, model, arguments, presets)
        else:
            before = _read_finished(run, model, parser.prog)
            out = asked.out or run.resolve().with_name(f"{run.resolve().name}-reproduced")
            _require_apart(run, out)
            arguments = [f"--config={run / 'config.yaml'}", *arguments, f"--out={out}"]
            config, rest = parse_config(parser, model, arguments, presets)
            _require_same_settings(run, before, config, {*places, "device"})
    except NotReproducible as error:
        refuse(parser.prog, f"--reproduce {error}")
    if rest.resume and not (rest.out / "config.yaml").is_file():
        refuse(parser.prog, f"--resume: nothing to resume in {rest.out} (no config.yaml there)")
    rest.how = {"resume": rest.resume, "overwrite": rest.overwrite, "like": run}
    return config, rest


def _read_finished(run: Path, model: type[Model], prog: str) -> Model:
    if not (run / "config.yaml").is_file():
        raise NotReproducible(f"{run}: is no folder of a run (no config.yaml there)")
    try:
        config = read_config(run / "config.yaml", model)
    except ValueError as error:
        raise NotReproducible(f"{run}: is no run of this version of {prog} ({error})") from error
    manifest = _read_manifest(run)
    if manifest.get("status") != "finished":
        raise NotReproducible(f"{run}: did not finish (run.json: {manifest.get('status')})")
    for name in ("metrics.jsonl", "checkpoints/last.safetensors"):
        if not (run / name).is_file():
            raise NotReproducible(f"{run}: lacks its {name}")
    ranks, here = manifest.get("world_size", 1), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks != here:
        raise NotReproducible(
            f"{run}: was trained by {ranks} processes, here are {here}; start as many by torchrun"
        )
    return config


def _read_manifest(run: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((run / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NotReproducible(f"{run}: its run.json cannot be read ({error})") from error
    if not isinstance(manifest, dict):
        raise NotReproducible(f"{run}: its run.json is not a JSON object")
    return manifest


def _require_same_settings(
    run: Path, before: BaseModel, now: BaseModel, places: Collection[str]
) -> None:
    told = config_differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
    if other := [line for line in told if line.partition(": ")[0] not in places]:
        raise NotReproducible(f"{run}: its settings cannot be changed: {other[0]}")


def _require_apart(run: Path, out: Path) -> None:
    there, here = run.resolve(), out.resolve()
    if there == here or there in here.parents or here in there.parents:
        raise NotReproducible(f"{run}: --out {out} is the same folder or inside it; name another")


def require_same_inputs(run: Path | None, again: Path) -> None:
    """Refuse to train on what is not the data of the run, or against weights that are damaged.

    Args:
        run: the folder of the run; None: nothing is reproduced.
        again: that of its reproduction, its ``run.json`` and ``manifest.csv`` written.

    Raises:
        NotReproducible: naming the first volume, or what else is not the same.
        CheckpointRefused: a checkpoint of the run is damaged.
    """
    from ubr_pretrain.checkpoint import checkpoint_kind, read_checkpoint

    if run is None:
        return
    before, now = _volumes(run), _volumes(again)
    if now and not before:
        raise NotReproducible(f"{run}: lacks its manifest.csv, which says what its data were")
    for name in dict.fromkeys([*before, *now]):
        there, here = before.get(name), now.get(name)
        if here is None:
            raise NotReproducible(f"{run}: volume {name} is not in the data any more")
        if there is None:
            raise NotReproducible(f"{run}: volume {name} was not in the data of the run")
        for what, old, new in zip(("subject", "use", "SHA-256"), there, here, strict=True):
            if old != new:
                raise NotReproducible(
                    f"{run}: volume {name} is not what it was: {what} {old or '-'} in the run, "
                    f"{new or '-'} now"
                )
    hashes, found = _hashes(_read_manifest(run)), _hashes(_read_manifest(again))
    for key, digest in found.items():
        what = DATA_FILES.get(key, "anchors or slices")
        if key not in hashes:
            raise NotReproducible(f"{run}: its run.json does not say what {what} were ({key})")
        if hashes[key] != digest:
            raise NotReproducible(f"{run}: {what} are not those of the run ({key} differs)")
    for checkpoint in _checkpoints(run):
        read_checkpoint(checkpoint, checkpoint_kind(checkpoint))


def _volumes(run: Path) -> dict[str, tuple[str, str, str]]:
    """Return (subject, use, SHA-256) by volume, as far as there is such a table."""
    file = run / "manifest.csv"
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as rows:
        return {r["volume"]: (r["subject"], r["use"], r["sha256"]) for r in csv.DictReader(rows)}


def _hashes(manifest: Mapping[str, Any]) -> dict[str, Any]:
    known = {**manifest, **manifest.get("audit", {})}
    return {key: known[key] for key in ("data_sha256", *DATA_FILES) if key in known}


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.safetensors"))


def conclude(run: Path | None, again: Path, exit_code: int) -> int:
    """Compare a run with its reproduction, say what was found, and note it in ``run.json``.

    Args:
        run: the folder of the run; None: nothing was reproduced.
        again: that of its reproduction.
        exit_code: of the training.

    Returns:
        0: equal; 1: not; ``exit_code`` where nothing was reproduced or a signal ended it early.

    Raises:
        NotReproducible: a manifest is damaged.
        CheckpointRefused: a checkpoint is.
    """
    from ubr_pretrain.run_agreement import (
        GPU_TOLERANCE,
        compare_runs,
        differences_of_machines,
        tolerance_of,
    )
    from ubr_pretrain.run_folder import RunFolder

    if run is None or exit_code > 1:
        return exit_code
    if os.environ.get("RANK", "0") != "0":
        return 0
    before, now = _read_manifest(run), _read_manifest(again)
    others = differences_of_machines(before, now)
    tolerance = tolerance_of(before, now)
    findings = compare_runs(run, again, tolerance)
    equal = all(finding.equal for finding in findings)
    how = f"within {GPU_TOLERANCE:.0%}, as a GPU computed" if tolerance else "bit for bit"
    verdict = f"equal {how}" if equal else f"not equal {how}"
    for line in others or ["the same versions, code, processor and threads"]:
        print(line)
    for finding in sorted(findings, key=lambda finding: finding.equal):
        print(finding)
    print(f"{again} reproduces {run}: {verdict}")
    told = {"equal": equal, "how": how, "machine": others, "findings": [*map(str, findings)]}
    RunFolder(again).update_manifest(reproduction=told)
    return 0 if equal else 1
