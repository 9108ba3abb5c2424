"""The five kinds of work that are killed, each as small as it can be and still do all that it does.

A work lies in a place of its own: what it writes is below that folder, what it reads is elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.kill.attempts import Command, run

NOTHING_YET = "before the first step"
AT_WORK = "between steps"
JUDGING = "in an evaluation"
ENDING = "after the last step"
"""How far a work had got; a step is an iteration, or a volume."""

VOLUMES = 12
"""That the regressor is trained on."""

STORED = 40
"""Volumes of the store."""

SCANS = 7
"""Volumes of the archive, one of them damaged, and a picture."""


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        kind: of the five.
        name: of this form of it.
        prepare: writes what it reads into a folder; called once a kind.
        command: is run, given that folder and a place.
        stage: says how far the work in a place has got.
        begin: puts into a place what is there before the first attempt, given the folder, too.
        child_processes: whether it starts some.
        forks_children: whether a fork of it may fork them, too; they import as much as it does.
    """

    kind: str
    name: str
    prepare: Callable[[Path], None]
    command: Callable[[Path, Path], Command]
    stage: Callable[[Path], str]
    begin: Callable[[Path, Path], None] = lambda data, place: None
    child_processes: bool = False
    forks_children: bool = False


def _write_cohort(data: Path, count: int) -> None:
    from tests.ubr_pretrain.tiny_cohort import write_tiny_cohort

    write_tiny_cohort(data / "ct", count)


# 1. The body-part regressor, its slice store inside of its run folder or beside it.


def _prepare_ubr(data: Path) -> None:
    from tests.ubr_pretrain.tiny_cohort import tiny_config
    from ubr_pretrain.config import config_to_yaml

    _write_cohort(data, VOLUMES)
    config = tiny_config(data / "ct", iterations=16, eval_every=8, save_every=5)
    (data / "ubr.yaml").write_text(config_to_yaml(config), "utf-8")


def _train_ubr(data: Path, place: Path) -> Command:
    flags = ["--config", str(data / "ubr.yaml"), "--out", str(place / "run")]
    return Command("ubr_pretrain.train_ubr", flags)


def _train_ubr_with_store(data: Path, place: Path) -> Command:
    module, flags = _train_ubr(data, place)
    return Command(module, [*flags, "--store", str(place / "store")])


def stage_of_training(run: Path) -> str:
    """Say how far a training has got."""
    from ubr_pretrain.journal import read_metrics

    records = read_metrics(run / "metrics.jsonl")
    if not records:
        return NOTHING_YET
    last, config = records[-1], yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    if last["kind"] == "train" and last["iteration"] % config["eval_every"] == 0:
        return JUDGING
    return ENDING if last["iteration"] == config["iterations"] else AT_WORK


def _stage_of_run(place: Path) -> str:
    return stage_of_training(place / "run")


# 2. The lesion detector.


def _prepare_det(data: Path) -> None:
    from tests.lesion_det.toy_slices import write_toy_deeplesion
    from tests.lesion_det.toy_training import flags, tiny

    toy = write_toy_deeplesion(data, {"train": 4, "val": 2, "test": 2})
    config = tiny(toy, iterations=18, test=(toy.coco / "test.json",))
    flags(config, data / "det")  # writes data/det.yaml


def _train_det(data: Path, place: Path) -> Command:
    flags = ["--config", str(data / "det.yaml"), "--out", str(place / "run")]
    return Command("lesion_det.train_det", flags)


# 3. The slice store, by two threads.


def _prepare_store(data: Path) -> None:
    _write_cohort(data, STORED)


def _build_store(data: Path, place: Path) -> Command:
    return Command("tests.kill.store_command", [str(data / "ct"), str(place / "store")])


def _stage_of_store(place: Path) -> str:
    done = len([*(place / "store").glob("*.json")])
    return NOTHING_YET if not done else AT_WORK if done < STORED else ENDING


# 4. The scoring of an archive: whole, one shard of two, and the gathering of both.


def _prepare_scoring(data: Path) -> None:
    from tests.ubr_pretrain.archives import write_archive, write_toy_checkpoint

    write_archive(data / "ct")
    write_toy_checkpoint(data / "ubr.safetensors")
    for number in (1, 2):
        run(_score_shard(number)(data, data / "shards"))


def _score(data: Path, place: Path, *more: str) -> Command:
    weights = ["--checkpoint", str(data / "ubr.safetensors"), "--device", "cpu"]
    flags = ["--pixel-mm", "1", "--threads", "1", *more, "--out", str(place / "scores")]
    return Command("ubr_pretrain.score_volumes", [str(data / "ct"), *weights, *flags])


def _score_whole(data: Path, place: Path) -> Command:
    return _score(data, place, "--format", "csv", "json", "parquet")


def _score_shard(number: int) -> Callable[[Path, Path], Command]:
    return lambda data, place: _score(data, place, "--pictures", "false", "--shard", f"{number}/2")


def _gather(data: Path, place: Path) -> Command:
    flags = [str(place / "scores"), "--format", "parquet", "csv", "json"]
    return Command("ubr_pretrain.gather_scores", flags)


def _copy_shards(data: Path, place: Path) -> None:
    shutil.copytree(data / "shards" / "scores", place / "scores")


def _stage_of_scoring(place: Path) -> str:
    done, folder = set[str](), place / "scores"
    for journal in folder.glob("**/scores.jsonl"):
        for line in journal.read_bytes().splitlines()[1:]:
            if line.endswith(b"}"):
                done.add(json.loads(line)["name"])
    if len(done) == SCANS or any(folder.glob("*/complete.json")):
        return ENDING
    return AT_WORK if done else NOTHING_YET


# 5. The comparison of starts, one cell after another or two side by side.


def _prepare_grid(data: Path) -> None:
    from lesion_det.compare_inits import OF_A_CELL
    from tests.lesion_det.toy_comparison import toy_config, write_toy_data

    coco, images = write_toy_data(data, num_train=4, num_val=4)
    settings = {"iterations": 20, "eval_every": 10, "save_every": 4, "batch": 1}
    config = toy_config(coco, images).model_copy(update=settings)
    text = config.model_dump_json(exclude={*OF_A_CELL, "external"})
    (data / "grid.yaml").write_text(text, "utf-8")  # JSON is YAML


def _compare(jobs: int, seeds: int) -> Callable[[Path, Path], Command]:
    def command(data: Path, place: Path) -> Command:
        cells = ["--inits", "random", "--seeds", *map(str, range(seeds)), "--jobs", str(jobs)]
        flags = ["--config", str(data / "grid.yaml"), *cells, "--out", str(place / "grid")]
        return Command("lesion_det.compare_inits", flags)

    return command


def _stage_of_grid(place: Path) -> str:
    stages = {stage_of_training(run) for run in (place / "grid" / "cells").glob("*-seed?")}
    if not stages - {NOTHING_YET}:
        return NOTHING_YET
    for stage in (JUDGING, AT_WORK):
        if stage in stages:
            return stage
    return AT_WORK if NOTHING_YET in stages else ENDING


WORKS = (
    Work("ubr", "store inside", _prepare_ubr, _train_ubr, _stage_of_run),
    Work("ubr", "store beside", _prepare_ubr, _train_ubr_with_store, _stage_of_run),
    Work("detector", "alone", _prepare_det, _train_det, _stage_of_run),
    Work("store", "two threads", _prepare_store, _build_store, _stage_of_store),
    Work(
        "scoring", "whole", _prepare_scoring, _score_whole, _stage_of_scoring, child_processes=True
    ),
    Work(
        *("scoring", "a shard", _prepare_scoring, _score_shard(1), _stage_of_scoring),
        child_processes=True,
    ),
    Work("scoring", "gathering", _prepare_scoring, _gather, _stage_of_scoring, _copy_shards),
    *(
        Work(
            *("grid", name, _prepare_grid, command, _stage_of_grid),
            child_processes=True,
            forks_children=True,
        )
        for name, command in (("two cells", _compare(2, 2)), ("a cell", _compare(1, 1)))
    ),
)
KINDS = tuple(dict.fromkeys(work.kind for work in WORKS))
