"""Train the lesion detector from one of the starts of the comparison.

Commands:
    train_det.py --coco coco/ --images Images_png/ --init random --out runs/random
    train_det.py --coco coco/ --images Images_png/ --init ubr --ubr ubr.safetensors --out runs/ubr
    train_det.py --preset laptop --train a.json --val b.json --images Images_png/ --out runs/quick
    torchrun --nproc-per-node 2 -m lesion_det.train_det --coco coco/ ... --out runs/random
    train_det.py --reproduce runs/random

The same command continues an interrupted run. It writes into ``--out``: ``config.yaml``,
``run.json``, ``weights.csv`` (every tensor and where it came from), ``train.log``,
``metrics.jsonl``, ``tb/``, ``inputs/`` (unless --cache), ``pictures/labels.png`` (what is learned),
``pictures/detections.png``, ``checkpoints/{last,best}.safetensors`` and, at the end,
``predictions_val.json`` (several files: ``predictions_val_1.json`` ...), ``metrics.json`` and, with
``--engine detectron2``, ``detectron2/{model.pth,config.yaml}`` for Detectron2's own tools.

Reference:
    Yan, Lu, Summers, ISBI 2018, section 3.3; the defaults are what the paper prints.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_det.det_config import PATHS, DetConfig
from ubr_pretrain.config import config_parser
from ubr_pretrain.reproduction import conclude, parse_run, require_same_inputs

if TYPE_CHECKING:  # torch and its friends are imported once the flags are right
    import torch

    from lesion_det.predictions import Predictions
    from ubr_pretrain.runtime import Ranks, StopRequest


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        exit_code: 0, or 128 + the signal that ended it early (the same command goes on).
        iteration: iterations done; 0 where a signal came before the first step.
        top5_recall: on the validation files at the last iteration; None before the end.
        best_top5_recall: the highest along the training.
    """

    exit_code: int
    iteration: int
    top5_recall: float | None
    best_top5_recall: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and train; return the exit code."""
    parser = config_parser(DetConfig, "train_det.py", (__doc__ or "").split("\n\n")[0], "det")
    config, rest = parse_run(parser, DetConfig, argv, "det", PATHS)

    from ubr_pretrain.run_folder import exit_code_of

    def run() -> int:
        exit_code = train(config, rest.out, **rest.how).exit_code
        return conclude(rest.reproduce, rest.out, exit_code)

    return exit_code_of(parser.prog, rest.out, run)


def train(
    config: DetConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    like: Path | None = None,
) -> TrainResult:
    """Train a detector in the folder ``out``; on the data of the run ``like`` or not at all.

    Raises:
        ValueError: impossible input: no data, a wrong weight file, a folder in use.
        FloatingPointError: a loss, gradient or weight is not finite; the images are named.
        MemoryError: the device is too small.
        OSError: the folder cannot be written any more.
        RankLost: another rank has died.
    """
    from ubr_pretrain.runtime import Stopped, set_precision, start_ranks, stop_on_signals

    with ExitStack() as stack:
        ranks = stack.enter_context(start_ranks(config.device))
        stop = stack.enter_context(stop_on_signals())
        if config.precision == "bf16" and ranks.device.type != "cuda":
            raise ValueError("precision bf16: needs CUDA (a CPU is 7 to 100 times slower in bf16)")
        set_precision(config.precision, ranks.device, deterministic=config.deterministic)
        if config.batch % ranks.world_size:
            raise ValueError(f"batch {config.batch}: cannot be shared by {ranks.world_size} ranks")
        try:
            return _train(config, out, (resume, overwrite, like), ranks, stop, stack)
        except Stopped:
            if ranks.is_first:
                print("stopped before the first step; the same command goes on", file=sys.stderr)
            return TrainResult(stop.exit_code, 0, None, None)


def _train(
    config: DetConfig,
    out: Path,
    how: tuple[bool, bool, Path | None],
    ranks: Ranks,
    stop: StopRequest,
    stack: ExitStack,
) -> TrainResult:
    import torch

    from lesion_det.curve_hits import hits_to_text
    from lesion_det.det_results import write_results
    from lesion_det.det_setup import describe_run, set_up, write_start
    from lesion_det.finished_files import finished_files
    from lesion_det.inference import detector_state, pooled_hits, pooled_recall, predict_all
    from lesion_det.initialization import weight_table_text
    from lesion_det.splits import require_same_audit
    from ubr_pretrain.begun_run import read_last
    from ubr_pretrain.checkpoint import write_checkpoint
    from ubr_pretrain.journal import Journal
    from ubr_pretrain.late_record import LateRecord
    from ubr_pretrain.long_steps import LongSteps
    from ubr_pretrain.optimiser import (
        build_optimiser,
        clip_gradients,
        load_optimiser,
        require_finite,
    )
    from ubr_pretrain.run_folder import RunFolder, open_run_folder
    from ubr_pretrain.runtime import enough_memory

    began_s, bf16 = time.monotonic(), config.precision == "bf16"
    lack = (
        f"batch of {config.batch} images of up to {config.input.max_px or 'any'} px; lower --batch "
        "or --input.max_px, or use more ranks"
    )
    with stop.at_once(), enough_memory(lack):  # until the first step nothing needs to be finished
        setup = set_up(config, out, ranks)
        splits, prepared, source = setup.splits, setup.prepared, setup.source
        detector, start = setup.detector, setup.start
        mine = range(ranks.rank, config.batch, ranks.world_size)
        optimiser = build_optimiser(detector, config.optimiser)

        # Folder: new, or where an interrupted run left off.
        folder, (resume, overwrite, like) = RunFolder(out), how
        if ranks.is_first:
            opened = open_run_folder(out, config, resume=resume, overwrite=overwrite, places=PATHS)
            folder = stack.enter_context(opened)
        ranks.wait()
        prepared.build([*setup.learned, *splits.held_out])
        source.require_trainable()
        iteration, best, recall, judged = 0, None, None, True
        if state := read_last(folder, "detector", ranks):
            require_same_audit(folder.last, state["audit"], setup.audit, folder.moved)
            detector.load_state_dict(state["detector"])
            load_optimiser(optimiser, state["optimizer"])
            iteration, best, recall = state["iteration"], state["best"], state["recall"]
            judged = state.get("judged", True)

    journal = Journal(out, iteration, config.iterations, enabled=ranks.is_first, judged=judged)
    stack.callback(journal.close)
    journal.say(
        f"{len(setup.learned)} images to learn from, {splits.num_judged} to "
        f"validate on; --init {config.init}; iteration {iteration} of {config.iterations}"
    )
    if ranks.is_first:
        for line in folder.moved:
            journal.say(f"moved: {line}")
        folder.note_moves(config)
        folder.update_manifest(status="running", **describe_run(setup, config, ranks))
        require_same_inputs(like, out)
        write_start(setup, out, anew=iteration == 0)
        if iteration == 0:
            journal.say(weight_table_text(setup.weights))

    def save(path: Path) -> None:
        require_finite(detector, iteration)
        state = detector_state(detector, config, start.provenance)
        done = {"iteration": iteration, "best": best, "recall": recall, "audit": setup.audit}
        state |= {"optimizer": optimiser.state_dict(), "judged": judged, **done}
        state["metrics"] = journal.written
        write_checkpoint(path, state, "detector")

    def told(step: tuple[int, float, str], numbers: dict[str, torch.Tensor]) -> None:
        """Write down a step, in the order of the steps; what is not finite ends all."""
        number, lr, names = step
        terms = {name: value.item() for name, value in numbers.items()}
        norm = terms.pop("gradient")
        total = sum(terms.values())
        if not (math.isfinite(total) and math.isfinite(norm)):
            what = "gradient" if math.isfinite(total) else "loss"
            raise FloatingPointError(
                f"iteration {number}: {what} not finite {terms}; images {names}"
            )
        journal.record(number, "train", {"loss": total, **terms, "lr": lr})
        journal.progress(number, f"loss {total:.3f}  top-5 recall {_percent(recall)}")

    answers: list[Predictions] | None = None

    def judge() -> bool:
        """Look at the validation files and keep the best; a signal leaves it for later."""
        nonlocal answers, recall, best, judged
        answers = predict_all(detector, splits.judged, prepared, ranks, stop, bf16=bf16)
        judged = answers is not None
        if answers is None:
            return False
        hits = pooled_hits(splits.judged, answers)
        recall = pooled_recall(hits)
        journal.record(iteration, "val", {"top5_recall": recall, "hits": hits_to_text(hits)})
        journal.say(f"{iteration}: validation, top-5 recall {_percent(recall)}")
        if recall is not None and (best is None or recall > best):
            best = recall
            if ranks.is_first:
                save(folder.best)
        return True

    late, steps = LateRecord(ranks, stop, told), LongSteps(detector, ranks, stop)
    gpu, stopping = ranks.device.type == "cuda", False
    if not judged:  # the run was stopped while it looked at them
        stopping = not judge()
        if ranks.is_first:
            save(folder.last)
    coming = range(iteration + 1, config.iterations + 1)
    batches = source.batches(coming, mine, config.workers, pinned=gpu)
    while not stopping and (batch := next(batches, None)) is not None:
        iteration, examples = batch
        lr = config.optimiser.lr_at(iteration, config.iterations, config.init)
        for group in optimiser.param_groups:
            group["lr"] = lr

        # Forward, four losses, backward. A rank's losses are means over its images.
        optimiser.zero_grad(set_to_none=True)
        with enough_memory(f"iteration {iteration}, {lack}"):
            with steps.step():
                with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
                    losses = detector.losses(
                        [e.hu.to(ranks.device, non_blocking=True) for e in examples],
                        [e.boxes_xyxy.to(ranks.device, non_blocking=True) for e in examples],
                        [example.seed for example in examples],
                    )
                loss = torch.stack(list(losses.values())).sum() / ranks.world_size
                loss.backward()  # type: ignore[no-untyped-call]
            if steps.given_up:
                iteration -= 1
                break
            ranks.sum_gradients(detector)
            norm = clip_gradients(detector, config.optimiser.max_grad_norm)
            terms = {name: term / ranks.world_size for name, term in losses.items()}
            gradient = {"gradient": norm / ranks.world_size}
            late.send((iteration, lr, source.names(iteration)), terms | gradient)
            optimiser.step()

        # Numbers of a GPU come one step late: before weights are judged or kept, wait for them.
        last_one, stopping = iteration == config.iterations, late.stopping
        judging = last_one or iteration % config.eval_every == 0
        saving = last_one or iteration % config.save_every == 0
        if judging or saving:
            late.drain()
        if judging:
            stopping = not judge() or stopping
        if ranks.is_first and saving:
            journal.sync()
            save(folder.last)

    late.drain()
    finished, test_answers = judged and iteration == config.iterations, None
    if ranks.is_first and not finished:
        journal.sync()
        save(folder.last)

    # The end: answers on every file, the numbers, pictures of hits and misses.
    if finished and answers is None:  # the run was cut off between its last checkpoint and here
        answers = predict_all(detector, splits.judged, prepared, ranks, stop, bf16=bf16)
    if finished and answers is not None:
        test_answers = predict_all(detector, splits.tested, prepared, ranks, stop, bf16=bf16)
    if answers is None or test_answers is None:
        if ranks.is_first:
            folder.update_manifest(status="interrupted", iteration=iteration)
        journal.say(f"stopped at iteration {iteration}; the same command continues")
        return TrainResult(stop.exit_code, iteration, None, best)
    if ranks.is_first:
        made, recalls = start.provenance, (recall, best)
        first = write_results(
            out, config, splits, prepared, detector, made, answers, test_answers, recalls
        )
        seconds = round(time.monotonic() - began_s, 1)
        ended = {"iteration": iteration, "seconds": seconds, "files_sha256": finished_files(out)}
        folder.update_manifest(status="finished", **ended)
        journal.say(
            f"next: evaluate_det.py --predictions {first} --coco {config.val_files[0]} "
            f"--out {out / 'evaluation'}"
        )
    return TrainResult(0, iteration, recall, best)


def _percent(recall: float | None) -> str:
    return "-" if recall is None else f"{100 * recall:.1f} %"


if __name__ == "__main__":
    raise SystemExit(main())
