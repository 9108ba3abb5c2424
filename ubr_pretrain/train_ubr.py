"""Train the body-part regressor on unlabelled CT volumes.

Commands:
    train_ubr.py --data scans/ --out runs/ubr
    train_ubr.py --preset laptop --data ct/ more_ct/ --holdout PATIENT7 --out runs/ubr
    train_ubr.py --init external --external vgg16.pth --external_input imagenet --data ct/ --out ubr
    torchrun --nproc-per-node 4 -m ubr_pretrain.train_ubr --data scans/ --out runs/ubr
    train_ubr.py --reproduce runs/ubr

The same command continues an interrupted run. It writes into ``--out``: ``config.yaml``,
``run.json``, ``train.log``, ``metrics.jsonl``, ``tb/``, ``batch.png`` (slices as the network sees
them), ``progress.png``, ``manifest.csv`` (who was trained on, held out or refused) and
``checkpoints/{last,best}.safetensors``.

Reference:
    Yan, Lu, Summers, ISBI 2018; the defaults are what the paper prints.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.config import config_parser, refuse
from ubr_pretrain.reproduction import conclude, parse_run, require_same_inputs
from ubr_pretrain.ubr_config import PATHS, UbrConfig

if TYPE_CHECKING:  # torch and its friends are imported once the flags are right
    import torch

    from ubr_pretrain.run_folder import RunFolder
    from ubr_pretrain.runtime import Ranks, StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and train; return the exit code."""
    parser = config_parser(UbrConfig, "train_ubr.py", (__doc__ or "").split("\n\n")[0], "ubr")
    config, rest = parse_run(parser, UbrConfig, argv, "ubr", PATHS)
    if not config.data:
        refuse(parser.prog, "--data: name at least one file or folder")
    if missing := [path for path in config.data if not path.exists()]:
        refuse(parser.prog, f"--data {missing[0]}: no such file or folder")

    from ubr_pretrain.run_folder import exit_code_of

    def run() -> int:
        exit_code = train(config, rest.out, **rest.how)
        return conclude(rest.reproduce, rest.out, exit_code)

    return exit_code_of(parser.prog, rest.out, run)


def train(
    config: UbrConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    like: Path | None = None,
) -> int:
    """Train a regressor in the folder ``out``; on the data of the run ``like`` or not at all.

    Returns:
        0; 1 where volumes were refused (they are named in ``manifest.csv``); 128 + the signal
        where one ended the run early, with a checkpoint to go on from.

    Raises:
        ValueError: impossible input: no data, a wrong weight file, a folder in use.
        FloatingPointError: a loss, gradient or weight is not finite; the iteration and the volumes
            are named.
        MemoryError: the device is too small.
        OSError: the folder cannot be written any more.
        RankLost: another rank has died.
    """
    from ubr_pretrain.run_folder import RunFolder, open_run_folder
    from ubr_pretrain.runtime import Stopped, set_precision, start_ranks, stop_on_signals
    from ubr_pretrain.starting_trunk import with_input_of_start

    config = with_input_of_start(config)
    with start_ranks(config.device) as ranks, stop_on_signals() as stop:
        set_precision(config.precision, ranks.device, deterministic=config.deterministic)
        if config.g % ranks.world_size:
            raise ValueError(f"g = {config.g} groups cannot be shared by {ranks.world_size} ranks")
        opened = open_run_folder(out, config, resume=resume, overwrite=overwrite)
        try:
            with opened if ranks.is_first else nullcontext(RunFolder(out)) as folder:
                return _train(config, folder, ranks, stop, like)
        except Stopped:
            if ranks.is_first:
                print("stopped before the first step; the same command goes on", file=sys.stderr)
            return stop.exit_code


def _train(
    config: UbrConfig, folder: RunFolder, ranks: Ranks, stop: StopRequest, like: Path | None
) -> int:
    import torch

    from ubr_pretrain.begun_run import read_last
    from ubr_pretrain.checkpoint import write_checkpoint
    from ubr_pretrain.collapse import CollapseWatch
    from ubr_pretrain.compiled_network import compiled
    from ubr_pretrain.figures import draw_batch, draw_training
    from ubr_pretrain.journal import Journal, read_metrics
    from ubr_pretrain.late_record import LateRecord
    from ubr_pretrain.long_steps import LongSteps
    from ubr_pretrain.losses import ubr_loss
    from ubr_pretrain.machine import describe_machine
    from ubr_pretrain.network_input import network_input
    from ubr_pretrain.optimiser import (
        build_optimiser,
        clip_gradients,
        load_optimiser,
        require_finite,
    )
    from ubr_pretrain.regressor import regressor_state
    from ubr_pretrain.runtime import Stopped, enough_memory, seed_everything
    from ubr_pretrain.starting_regressor import build_regressor
    from ubr_pretrain.training_batches import TrainingBatches
    from ubr_pretrain.training_data import read_training_data
    from ubr_pretrain.validation import validate

    began_s = time.monotonic()
    lack = (
        f"g * m = {config.g} * {config.m} = {config.g * config.m} slices of {config.input.size_px} "
        "px a step; lower --g or --m, use --precision bf16, --residence host, or more ranks"
    )
    with stop.at_once(), enough_memory(lack):  # until the first step nothing needs to be finished
        # Data: decode once, split by subject, and give every rank its share of the groups.
        data = read_training_data(config, folder, ranks)
        ranks.require_equal(data.sha256, "the training data")
        batches = TrainingBatches(data, config, ranks)

        # Network and optimiser: equal on all ranks because the seed is; then the last checkpoint.
        seed_everything(config.seed, deterministic=config.deterministic)
        regressor, provenance = build_regressor(config, data, ranks)
        network = compiled(regressor, ranks.device) if config.compile else regressor
        optimiser = build_optimiser(regressor, config.optimiser, config.optimiser.bias_lr_factor)
        iteration, best, judged = 0, -1.0, True
        if state := read_last(folder, "ubr", ranks):
            if state["provenance"]["data_sha256"] != data.sha256:
                raise ValueError(f"{folder.last}: was written for other training data")
            regressor.load_state_dict(state["regressor"])
            load_optimiser(optimiser, state["optimiser"])
            iteration, best, judged = state["iteration"], state["best"], state.get("judged", True)

    if ranks.is_first:
        folder.update_manifest(
            status="running",
            machine=describe_machine(ranks.device),
            seed=config.seed,
            world_size=ranks.world_size,
            residence=batches.residence,
            data_sha256=data.sha256,
            init=provenance.init,
            source=provenance.source,
            source_sha256=provenance.source_sha256,
            num_training=len(data.training),
            num_validation=len(data.validation),
            refused=[vars(refusal) for refusal in data.refused],
        )
        require_same_inputs(like, folder.path)
    with (
        Journal(
            folder.path, iteration, config.iterations, enabled=ranks.is_first, judged=judged
        ) as journal,
        closing(batches.of(range(iteration + 1, config.iterations + 1))) as coming,
    ):
        journal.say(
            f"{len(data.training)} volumes to train on, {len(data.validation)} held out, "
            f"{len(data.refused)} refused; iteration {iteration} of {config.iterations}"
        )
        if provenance.source and config.start is None:
            journal.say(f"starts from {provenance.source}, through {config.transfer_through}")
        watch = CollapseWatch(config)

        def save(path: Path) -> None:
            require_finite(regressor, iteration)
            made = provenance.model_copy(update={"iterations": provenance.iterations + iteration})
            state = regressor_state(regressor, config.input, made)
            done = {"iteration": iteration, "best": best, "judged": judged}
            state |= done | {"metrics": journal.written, "optimiser": optimiser.state_dict()}
            write_checkpoint(path, state, "ubr")

        def told(
            step: tuple[int, float, tuple[str, ...]], numbers: dict[str, torch.Tensor]
        ) -> None:
            """Write down a step, in the order of the steps; what is not finite ends all."""
            number, lr, volumes = step
            std = numbers.pop("scores").float().std().item()
            terms = {name: value.item() for name, value in numbers.items()}
            norm, record = terms.pop("gradient"), {"loss": terms.pop("loss"), "score_std": std}
            record |= {"lr": lr, **terms}
            if not (math.isfinite(record["loss"]) and math.isfinite(norm)):
                what = "gradient" if math.isfinite(record["loss"]) else "loss"
                raise FloatingPointError(
                    f"iteration {number}: the {what} is not finite ({record}); volumes "
                    f"{', '.join(volumes)}"
                )
            journal.record(number, "train", record)
            journal.progress(number, f"loss {record['loss']:.4f}  order {record['order']:.4f}")
            if warning := watch.look(number, std, record["order"]):
                journal.say(warning)

        def judge() -> None:
            """Look at the held-out volumes and keep the best; a signal leaves it for later."""
            nonlocal best, judged
            judged = True
            try:
                if ranks.is_first and data.validation:
                    with stop.at_once():
                        result = validate(regressor, data.validation, config, ranks.device)
                    journal.record(iteration, "val", result)
                    journal.say(
                        f"{iteration}: rank correlation of the held out: median "
                        f"{result['rank_r_median']:.3f}, worst {result['rank_r_worst']:.3f} "
                        f"({result['worst_volume']})"
                    )
                    if result["r_mean"] > best:
                        best = result["r_mean"]
                        save(folder.best)
                    metrics = read_metrics(folder.path / "metrics.jsonl")
                    draw_training(metrics, folder.progress_picture)
            except Stopped:
                judged = False
            judged = all(ranks.gather_objects(judged))
            late.agree()

        regressor.train()
        late = LateRecord(ranks, stop, told)
        steps = LongSteps(regressor, ranks, stop, compiled=config.compile)
        if not judged:  # the run was stopped while it looked at them
            judge()
            if ranks.is_first:
                save(folder.last)
        while iteration < config.iterations and not late.stopping:
            batch = next(coming)  # g groups of m slices; this rank has its share of them
            iteration = batch.iteration
            if iteration == 1 and ranks.is_first:
                draw_batch(batch.hu, batch.drawable, config.input, folder.path / "batch.png")

            lr = config.optimiser.lr_at(iteration, config.iterations)
            for group in optimiser.param_groups:
                group["lr"] = lr * group["lr_factor"]

            # Forward, the losses, backward, step.
            with enough_memory(f"iteration {iteration}, {lack}"):
                with steps.step():
                    with torch.autocast(
                        ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"
                    ):
                        scores = network(network_input(batch.hu.flatten(0, 1), config.input))
                    scores = scores.float().view(batch.z_mm.shape)
                    loss = ubr_loss(
                        scores, config.losses, config.g, batch.z_mm, batch.known_mm, batch.known
                    )
                    optimiser.zero_grad(set_to_none=True)
                    loss.total.backward()  # type: ignore[no-untyped-call]
                if steps.given_up:
                    iteration -= 1
                    break
                ranks.sum_gradients(regressor)
                norm = clip_gradients(regressor, config.optimiser.max_grad_norm) / ranks.world_size
                all_scores = scores.new_zeros(config.g, config.m)
                all_scores[batches.mine.start :: ranks.world_size] = scores.detach()
                numbers = {"scores": all_scores, "gradient": norm, **loss.named()}
                late.send((iteration, lr, batch.volumes), numbers)
                optimiser.step()

            # Numbers of a GPU come one step late: before weights are judged or kept, wait for them.
            at_end = iteration == config.iterations
            validating = at_end or iteration % config.eval_every == 0
            saving = at_end or iteration % config.save_every == 0
            if validating or saving:
                late.drain()
            if validating:
                judge()

            # Every so often, and at the end: a checkpoint to go on from.
            if ranks.is_first and saving:
                journal.sync()
                save(folder.last)

        late.drain()
        finished = judged and iteration == config.iterations
        if ranks.is_first:
            if not finished:
                journal.sync()
                save(folder.last)
            elif not folder.best.is_file():
                save(folder.best)  # nothing was held out: the last is the best we know
            folder.update_manifest(
                status="finished" if finished else "interrupted",
                iteration=iteration,
                seconds=round(time.monotonic() - began_s, 1),
            )
        if finished:
            journal.say(f"next: score_volumes.py SCANS --checkpoint {folder.best} --out scores")
        else:
            journal.say(f"stopped after iteration {iteration}; the same command continues")
    if not finished:
        return stop.exit_code
    return 1 if data.refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
