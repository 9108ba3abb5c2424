"""How long a comparison will take and how much disk it will need, from a trial of the real thing.

The trial is a training of a few iterations on a few of the images, launched as the cells will be
and as many at once, in a folder that is thrown away. All arms train the same network, so the first
stands for all.
"""

from __future__ import annotations

import heapq
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lesion_det.cells import CellKey, is_finished
from lesion_det.det_config import DetConfig
from lesion_det.grid_progress import iterations_done
from lesion_det.launch import LocalLauncher, Task, local_launcher
from lesion_det.plan import Plan, Question
from lesion_det.power import design_power
from lesion_det.prepared_images import PreparedImages
from lesion_det.ray_cluster import RayLauncher
from lesion_det.splits import read_splits
from ubr_pretrain.config import Config
from ubr_pretrain.ray_session import HERE
from ubr_pretrain.whole_file import write_atomically

TRIAL_ITERATIONS = 12
"""Evaluated and saved halfway and at the end; the first half warms up."""

TRIAL_IMAGES = 16
"""To learn from, and as many to evaluate."""


class Costs(Config):
    """What a trial has measured.

    Attributes:
        seconds_per_iteration: with drawing and logging.
        seconds_per_evaluated_image: reading, detecting, scoring.
        seconds_per_checkpoint: of writing one.
        seconds_around: a cell takes before its first iteration and after its last record.
        seconds_per_input: of decoding one for the cache.
        input_bytes: of one in the cache.
        checkpoint_bytes: of one.
    """

    seconds_per_iteration: float
    seconds_per_evaluated_image: float
    seconds_per_checkpoint: float
    seconds_around: float
    seconds_per_input: float
    input_bytes: float
    checkpoint_bytes: float

    def cell_seconds(self, config: DetConfig, num_judged: int, num_tested: int, done: int) -> float:
        """Return what a cell will take; every evaluation is taken to be the best so far.

        Args:
            config: of the cell.
            num_judged: images to validate on.
            num_tested: images to test on.
            done: iterations that it has already behind it.
        """
        left = config.iterations - done
        evaluations = math.ceil(left / config.eval_every)
        checkpoints = math.ceil(left / config.save_every) + evaluations
        return (
            self.seconds_around
            + left * self.seconds_per_iteration
            + (evaluations * num_judged + num_tested) * self.seconds_per_evaluated_image
            + checkpoints * self.seconds_per_checkpoint
        )


class Estimate(Config):
    """What a comparison will cost.

    Attributes:
        costs: of the trial.
        cells: seconds by the name of every cell that is not finished.
        workers: cells side by side.
        hours: of all cells, added up.
        hours_per_worker: cells are dealt to whoever is free.
        hours_to_decode: the inputs, before the first cell.
        disk_gb: of the cache and two checkpoints a cell.
    """

    costs: Costs
    cells: dict[str, float]
    workers: int
    hours: float
    hours_per_worker: tuple[float, ...]
    hours_to_decode: float
    disk_gb: float


def describe_plan(
    question: Question,
    plan: Plan,
    out: Path,
    launcher: LocalLauncher,
    workers: int,
    say: Callable[[str], None],
) -> Estimate:
    """Measure, and print every cell with its time; nothing is written into ``out``.

    Args:
        question: what is compared.
        plan: its cells.
        out: the folder of the comparison; may be absent.
        launcher: of the trial.
        workers: cells side by side.
        say: prints a line.

    Raises:
        ValueError: the trial failed, with its reason.
    """
    say(
        f"a trial first, in a folder that is deleted at once: {TRIAL_ITERATIONS} iterations on at "
        f"most {TRIAL_IMAGES} images, and as many to evaluate"
    )
    costs = measure_costs(next(iter(plan.configs.values())), launcher)
    estimate = make_estimate(plan, out, costs, workers)
    for key in plan.configs:
        done = iterations_done(out / "cells" / key.name)
        if key.name not in estimate.cells:
            say(f"finished before: {key.words}")
        else:
            what = f"would resume after iteration {done}" if done else "would train"
            say(f"{what} {key.words}: {_clock(estimate.cells[key.name])}")
    say(
        f"measured here, {launcher.jobs} at once (all arms cost the same): "
        f"{costs.seconds_per_iteration:.3g} s an iteration, "
        f"{costs.seconds_per_evaluated_image:.3g} s an evaluated image, "
        f"{costs.seconds_per_checkpoint:.3g} s a checkpoint, "
        f"{costs.seconds_around:.3g} s around a training"
    )
    say(
        f"{len(estimate.cells)} cells: {_clock(3600 * estimate.hours)} in all, "
        f"{_clock(3600 * estimate.hours_to_decode)} to decode the inputs, then "
        f"{_clock(3600 * max(estimate.hours_per_worker, default=0.0))} on {estimate.workers} "
        f"at once; audit and report not counted; {estimate.disk_gb:.3g} GB of disk"
    )
    truth = plan.ground_truth
    num_arms = len({key.arm for key in plan.configs})
    if num_arms > 1:
        lesions = Counter[int]()
        for image in truth.images:
            lesions[image.patient_index] += image.num_lesions
        counts = [count for count in lesions.values() if count]
        say(design_power(len(question.seeds), counts, math.comb(num_arms, 2)).words)
    return estimate


def choose_trial(
    device: str, jobs: int | None, num_cells: int, ray_address: str | None, on_slurm: bool
) -> tuple[LocalLauncher, int]:
    """Return what trains the trial, and how many cells will run side by side.

    Args:
        device: of the configuration.
        jobs: cells side by side on one machine; None: one a GPU, one where there is none.
        num_cells: of the comparison.
        ray_address: of the cluster that will train them; None: no cluster of Ray.
        on_slurm: whether every cell will be a job of its own.

    Raises:
        ValueError: no cluster of Ray at the address.
    """
    if on_slurm:
        return local_launcher(device, 1), num_cells
    if ray_address is None:
        launcher = local_launcher(device, jobs)
        return launcher, launcher.jobs
    at_once = min(num_cells, RayLauncher(ray_address, device, jobs).cells_at_once())
    return local_launcher(device, at_once if ray_address == HERE else 1), at_once


def make_estimate(plan: Plan, out: Path, costs: Costs, workers: int) -> Estimate:
    """Return what the unfinished cells of a plan will cost.

    Args:
        plan: all cells.
        out: the folder of the comparison; may be absent.
        costs: measured.
        workers: cells side by side.
    """
    splits, cells = plan.splits, {}
    num_tested = sum(len(truth.images) for truth in splits.tested)
    for key, config in plan.configs.items():
        folder = out / "cells" / key.name
        if not is_finished(folder):
            done = iterations_done(folder)
            cells[key.name] = costs.cell_seconds(config, splits.num_judged, num_tested, done)
    busy_s = [0.0] * workers
    for seconds in cells.values():
        heapq.heapreplace(busy_s, busy_s[0] + seconds)
    num_inputs = len(splits.learned) + len(splits.held_out) if cells else 0
    disk_bytes = num_inputs * costs.input_bytes + 2 * len(plan.configs) * costs.checkpoint_bytes
    return Estimate(
        costs=costs,
        cells=cells,
        workers=workers,
        hours=sum(cells.values()) / 3600,
        hours_per_worker=tuple(sorted((s / 3600 for s in busy_s), reverse=True)),
        hours_to_decode=num_inputs * costs.seconds_per_input / 3600,
        disk_gb=disk_bytes / 1e9,
    )


def measure_costs(config: DetConfig, launcher: LocalLauncher) -> Costs:
    """Train a few iterations on a few images, as many cells at once as the launcher has room for.

    Raises:
        ValueError: the trial failed, with its reason.
    """
    with tempfile.TemporaryDirectory(prefix="trial-") as name:
        folder = Path(name)
        trial = config.model_copy(
            update={
                "train": (_excerpt(config.train_files[0], folder / "train.json"),),
                "val": (_excerpt(config.val_files[0], folder / "val.json"),),
                "test": (),
                "label_fraction": 1.0,
                "iterations": TRIAL_ITERATIONS,
                "eval_every": TRIAL_ITERATIONS // 2,
                "save_every": TRIAL_ITERATIONS // 2,
                "cache": folder / "inputs",
            }
        )
        splits = read_splits(trial)
        inputs = [*splits.learned, *splits.held_out]
        began_s = time.monotonic()
        PreparedImages(trial.images, trial.input, trial.cache).build(inputs)
        decoding_s = time.monotonic() - began_s
        input_bytes = sum(f.stat().st_size for f in (folder / "inputs").iterdir()) / len(inputs)
        tasks = [Task(CellKey("trial", i), trial, folder / str(i)) for i in range(launcher.jobs)]
        began_s = time.time()
        measured = []
        for ending in launcher(tasks, lambda _: None):
            if ending.reason:
                raise ValueError(f"the trial training failed: {ending.reason}")
            seconds = time.time() - began_s
            measured.append(_read_trial(folder / str(ending.key.seed), seconds, splits.num_judged))
        return Costs(
            seconds_per_input=decoding_s / len(inputs),
            input_bytes=input_bytes,
            **{what: float(np.mean([m[what] for m in measured])) for what in measured[0]},
        )


def _read_trial(folder: Path, seconds: float, num_judged: int) -> dict[str, float]:
    """Return the costs of one trial from the times of its TensorBoard records."""
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    at_s = {event.step: event.wall_time for event in events.Scalars("train/loss")}
    judged_at_s = {event.step: event.wall_time for event in events.Scalars("val/top5_recall")}
    half, last = TRIAL_ITERATIONS // 2, TRIAL_ITERATIONS
    iteration_s = (at_s[last] - at_s[half + 1]) / (last - half - 1)
    image_s = (judged_at_s[last] - at_s[last]) / num_judged
    saved = list((folder / "checkpoints").iterdir())
    checkpoint_s = max(0.0, at_s[half + 1] - judged_at_s[half] - iteration_s) / len(saved)
    in_loop_s = last * iteration_s + 2 * num_judged * image_s + 2 * len(saved) * checkpoint_s
    return {
        "seconds_per_iteration": iteration_s,
        "seconds_per_evaluated_image": image_s,
        "seconds_per_checkpoint": checkpoint_s,
        "seconds_around": max(0.0, seconds - in_loop_s),
        "checkpoint_bytes": float(np.mean([file.stat().st_size for file in saved])),
    }


def _excerpt(coco: Path, path: Path) -> Path:
    """Write some images of a COCO file that have lesions, evenly spread, as a file of their own."""
    content: dict[str, Any] = json.loads(coco.read_text("utf-8"))
    labelled = {annotation["image_id"] for annotation in content["annotations"]}
    images = [image for image in content["images"] if image["id"] in labelled]
    places = np.linspace(0, len(images) - 1, min(TRIAL_IMAGES, len(images))).round().astype(int)
    content["images"] = [images[i] for i in np.unique(places)]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    content.pop("info", None)  # counts the whole
    with write_atomically(path, "w") as file:
        file.write(json.dumps(content, allow_nan=False))
    return path


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=math.ceil(seconds)))
