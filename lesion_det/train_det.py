"""Train the lesion detector from one of the starts of the comparison.

Commands:
    train_det.py --coco coco/ --images Images_png/ --init random --out runs/random
    train_det.py --coco coco/ --images Images_png/ --init ubr --ubr ubr.safetensors --out runs/ubr
    train_det.py --preset laptop --train a.json --val b.json --images Images_png/ --out runs/quick
    torchrun --nproc-per-node 2 -m lesion_det.train_det --coco coco/ ... --out runs/random

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

from lesion_det.det_config import PATHS, DetConfig
from ubr_pretrain.config import config_parser, parse_config, refuse


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        exit_code: 0, or 128 + the signal that ended it early (a checkpoint to go on from is there).
        iteration: iterations done.
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
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--resume", action="store_true", help="fail if there is nothing to resume")
    parser.add_argument("--overwrite", action="store_true", help="delete the run that is there")
    config, rest = parse_config(parser, DetConfig, argv, presets="det")

    from ubr_pretrain.runtime import RankLost

    try:
        return train(config, rest.out, resume=rest.resume, overwrite=rest.overwrite).exit_code
    except ValueError as error:
        refuse(parser.prog, str(error))
    except (FloatingPointError, MemoryError, RankLost) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def train(
    config: DetConfig, out: Path, *, resume: bool = False, overwrite: bool = False
) -> TrainResult:
    """Train a detector in the folder ``out``.

    Raises:
        ValueError: impossible input: no data, a wrong weight file, a folder in use.
        FloatingPointError: a loss is not finite; the iteration, terms and images are named.
        MemoryError: the device is too small.
        RankLost: another rank has died.
    """
    import torch
    from torch.nn.utils import clip_grad_norm_

    from lesion_det.batches import BatchSource
    from lesion_det.curve_hits import hits_to_text
    from lesion_det.detector import head_tensors, state_sha256
    from lesion_det.detectron2_files import write_detectron2
    from lesion_det.engine import build_detector
    from lesion_det.inference import (
        detector_state,
        pooled_hits,
        pooled_recall,
        predict,
        write_answers,
    )
    from lesion_det.initialization import (
        make_start,
        weight_table,
        weight_table_csv,
        weight_table_text,
    )
    from lesion_det.pictures import draw_detections, draw_labels
    from lesion_det.prepared_images import PreparedImages
    from lesion_det.splits import data_sha256, labelled_images, read_splits, require_same_audit
    from ubr_pretrain.checkpoint import read_checkpoint, write_atomically, write_checkpoint
    from ubr_pretrain.journal import Journal
    from ubr_pretrain.late_record import LateRecord
    from ubr_pretrain.optimiser import build_optimiser, load_optimiser
    from ubr_pretrain.run_folder import RunFolder, open_run_folder
    from ubr_pretrain.runtime import (
        describe_machine,
        seed_everything,
        set_precision,
        start_ranks,
        stop_on_signals,
        to_json,
    )

    began_s = time.monotonic()
    with ExitStack() as stack:
        ranks = stack.enter_context(start_ranks(config.device))
        stop = stack.enter_context(stop_on_signals())
        bf16 = config.precision == "bf16"
        if bf16 and ranks.device.type != "cuda":
            raise ValueError("precision bf16: needs CUDA (a CPU is 7 to 100 times slower in bf16)")
        set_precision(config.precision, ranks.device, deterministic=config.deterministic)
        if config.batch % ranks.world_size:
            raise ValueError(f"batch {config.batch}: cannot be shared by {ranks.world_size} ranks")

        # Data: which images are learned from, in which order, and which are judged.
        splits = read_splits(config)
        prepared = PreparedImages(config.images, config.input, config.cache or out / "inputs")
        learned = labelled_images(splits.learned, config.label_fraction, config.seed)
        source = BatchSource(learned, prepared, config)
        mine = range(ranks.rank, config.batch, ranks.world_size)

        # Network: the arm's trunk; RPN and head from a generator of their own, alike in all arms.
        seed_everything(config.seed, deterministic=config.deterministic)
        start = make_start(config)
        detector = build_detector(
            config.engine, start.trunk, start.input_spec, config.detector, config.seed
        )
        detector.to(ranks.device).train()
        weights = weight_table(start, detector.state_dict(), f"drawn, seed {config.seed}")
        audit = {
            "order_sha256": source.order_sha256(config.iterations),
            "trunk_sha256": state_sha256(start.tensors),
            "head_sha256": state_sha256(head_tensors(detector.state_dict())),
            "source_sha256": start.source_sha256,
            **{f"{what}_sha256": digest for what, digest in data_sha256(config, splits).items()},
        }
        ranks.require_equal(audit, "data and start")
        optimiser = build_optimiser(detector, config.optimiser)

        # Folder: new, or where an interrupted run left off.
        folder = RunFolder(out)
        if ranks.is_first:
            opened = open_run_folder(out, config, resume=resume, overwrite=overwrite, places=PATHS)
            folder = stack.enter_context(opened)
        ranks.wait()
        prepared.build([*learned, *splits.held_out], stop=lambda: stop.signal is not None)
        source.require_trainable()
        iteration, best, recall, answers = 0, None, None, None
        if folder.last.is_file():
            state = read_checkpoint(folder.last, "detector")
            require_same_audit(folder.last, state["audit"], audit, folder.moved)
            detector.load_state_dict(state["detector"])
            load_optimiser(optimiser, state["optimizer"])
            iteration, best, recall = state["iteration"], state["best"], state["recall"]
        journal = Journal(out, iteration, config.iterations, enabled=ranks.is_first)
        stack.callback(journal.close)
        journal.say(
            f"{len(learned)} images to learn from, {splits.num_judged} to "
            f"validate on; --init {config.init}; iteration {iteration} of {config.iterations}"
        )
        if ranks.is_first:
            for line in folder.moved:
                journal.say(f"moved: {line}")
            folder.note_moves(config)
            folder.update_manifest(
                status="running",
                machine=describe_machine(ranks.device),
                world_size=ranks.world_size,
                arm=config.init,
                schedule=config.optimiser.schedule,
                input_spec=start.input_spec.model_dump(mode="json"),
                provenance=start.provenance.model_dump(mode="json"),
                audit=audit,
            )
            if iteration == 0:
                with write_atomically(out / "weights.csv", "w") as file:
                    file.write(weight_table_csv(weights))
                journal.say(weight_table_text(weights))
                draw_labels(source, out / "pictures" / "labels.png")

        def save(path: Path) -> None:
            state = detector_state(detector, config, start.provenance)
            done = {"iteration": iteration, "best": best, "recall": recall, "audit": audit}
            state |= {"optimizer": optimiser.state_dict(), **done}
            write_checkpoint(path, state, "detector")

        def told(step: tuple[int, float, str], numbers: dict[str, torch.Tensor]) -> None:
            """Write down a step, in the order of the steps; a loss that is not finite ends all."""
            number, lr, names = step
            terms = {name: value.item() for name, value in numbers.items()}
            total = sum(terms.values())
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"iteration {number}: loss not finite {terms}; images {names}; the last "
                    f"checkpoint is {folder.last}"
                )
            journal.record(number, "train", {"loss": total, **terms, "lr": lr})
            journal.progress(number, f"loss {total:.3f}  top-5 recall {_percent(recall)}")

        late, gpu = LateRecord(ranks, stop, told), ranks.device.type == "cuda"
        coming = range(iteration + 1, config.iterations + 1)
        for iteration, examples in source.batches(coming, mine, config.workers, pinned=gpu):
            lr = config.optimiser.lr_at(iteration, config.iterations, config.init)
            for group in optimiser.param_groups:
                group["lr"] = lr

            # Forward, four losses, backward. A rank's losses are means over its images.
            optimiser.zero_grad(set_to_none=True)
            try:
                with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
                    losses = detector.losses(
                        [e.hu.to(ranks.device, non_blocking=True) for e in examples],
                        [e.boxes_xyxy.to(ranks.device, non_blocking=True) for e in examples],
                        [example.seed for example in examples],
                    )
                loss = torch.stack(list(losses.values())).sum() / ranks.world_size
                loss.backward()  # type: ignore[no-untyped-call]
            except torch.OutOfMemoryError as error:
                raise MemoryError(
                    f"iteration {iteration}: out of GPU memory; lower --batch or --input.max_px, "
                    "or use more ranks"
                ) from error
            ranks.sum_gradients(detector)
            if config.optimiser.max_grad_norm is not None:
                clip_grad_norm_(detector.parameters(), config.optimiser.max_grad_norm)
            terms = {name: term / ranks.world_size for name, term in losses.items()}
            late.send((iteration, lr, source.names(iteration)), terms)
            optimiser.step()

            # Numbers of a GPU come one step late: before weights are judged or kept, wait for them.
            last_one, stopping = iteration == config.iterations, late.stopping
            judging = last_one or iteration % config.eval_every == 0
            saving = last_one or iteration % config.save_every == 0 or stopping
            if judging or saving:
                late.drain()

            # Every so often, and at the end: the recall on the validation files; keep the best.
            if judging:
                answers = [predict(detector, t, prepared, ranks, bf16=bf16) for t in splits.judged]
                hits = pooled_hits(splits.judged, answers)
                recall = pooled_recall(hits)
                judged = {"top5_recall": recall, "hits": hits_to_text(hits)}
                journal.record(iteration, "val", judged)
                journal.say(f"{iteration}: validation, top-5 recall {_percent(recall)}")
                if recall is not None and (best is None or recall > best):
                    best = recall
                    if ranks.is_first:
                        save(folder.best)

            # Every so often, at a signal, and at the end: a checkpoint to go on from.
            if ranks.is_first and saving:
                journal.sync()
                save(folder.last)
            if stopping:
                break

        if iteration < config.iterations:
            if ranks.is_first:
                folder.update_manifest(status="interrupted", iteration=iteration)
            journal.say(f"stopped at iteration {iteration}; the same command continues")
            return TrainResult(stop.exit_code, iteration, None, best)

        # The end: answers on every file, the numbers, pictures of hits and misses.
        if answers is None:  # the run was cut off between its last checkpoint and here
            answers = [predict(detector, t, prepared, ranks, bf16=bf16) for t in splits.judged]
        test_answers = [predict(detector, t, prepared, ranks, bf16=bf16) for t in splits.tested]
        if ranks.is_first:
            first = write_answers(out, "val", answers)
            write_answers(out, "test", test_answers)
            metrics = {
                "arm": config.init,
                "seed": config.seed,
                "iteration": iteration,
                "top5_recall": recall,
                "best_top5_recall": best,
                "test_top5_recall": pooled_recall(pooled_hits(splits.tested, test_answers)),
                "num_lesions": sum(truth.num_lesions for truth in splits.judged),
            }
            with write_atomically(out / "metrics.json", "w") as file:
                file.write(to_json(metrics, indent=2) + "\n")
            if config.engine == "detectron2":
                write_detectron2(
                    out / "detectron2", detector_state(detector, config, start.provenance)
                )
            draw_detections(splits.judged, answers, prepared, out / "pictures" / "detections.png")
            folder.update_manifest(
                status="finished",
                iteration=iteration,
                seconds=round(time.monotonic() - began_s, 1),
            )
            journal.say(
                f"next: evaluate_det.py --predictions {first} --coco {config.val_files[0]} "
                f"--out {out / 'evaluation'}"
            )
        return TrainResult(0, iteration, recall, best)


def _percent(recall: float | None) -> str:
    return "-" if recall is None else f"{100 * recall:.1f} %"


if __name__ == "__main__":
    raise SystemExit(main())
