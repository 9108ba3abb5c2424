"""The groups of rows that ``gpu.py`` measures, each in a process of its own.

What is ours is the command's own function on generated data, timed by the records that it writes.
Free of torch until a group is measured: ``gpu.py`` unpacks what it needs first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_chip import Chip, GpuRow
from gpu_sizes import Sizes

LAUNCHES_S = 0.012
"""Of a detector's step that is not arithmetic: anchors, matching, suppression; a guess."""

OURS_OF_BARE = 1.05
"""What a step of ours is predicted at, of bare."""

TITAN_X_S = 12 * 60.0
"""The paper's training on its Titan X; 4 ms a slice at scoring."""


def ubr_config(sizes: Sizes, ct: Path, **more: Any) -> Any:
    """Return a training of the regressor that neither validates nor saves on its way."""
    from ubr_pretrain.ct import InputSpec
    from ubr_pretrain.ubr_config import Optimiser, UbrConfig

    return UbrConfig(
        **{
            "data": (ct,),
            "store": ct.with_name(f"{ct.name}-store"),
            "holdout_fraction": 0.0,
            "width": sizes.width,
            "input": InputSpec(size_px=sizes.side_px, std=(64.0, 64.0, 64.0)),
            "g": sizes.g,
            "m": sizes.m,
            "optimiser": Optimiser(lr=1e-6),
            "iterations": sizes.warm + sizes.steps,
            "eval_every": 10**9,
            "save_every": 10**9,
            "device": sizes.device,
            "deterministic": not sizes.on_gpu,
            **more,
            "precision": more.get("precision", "fp32") if sizes.on_gpu else "fp32",
        }
    )


def our_ubr_step_s(config: Any, out: Path, warm: int) -> float:
    """Train as ``train_ubr.py`` does; return the seconds of a step by its own records."""
    from detector import recorded_step_s

    from ubr_pretrain.train_ubr import train

    assert train(config, out) == 0
    return recorded_step_s(out, warm)


def bare_ubr_step(
    config: Any, chip: Chip, precision: str, *, last: bool, compiled: bool
) -> tuple[Any, Callable[[], None]]:
    """Return the bare network, and forward, losses, backward and SGD on a resident batch."""
    import torch

    from ubr_pretrain.losses import ubr_loss
    from ubr_pretrain.optimiser import build_optimiser
    from ubr_pretrain.regressor import Regressor
    from ubr_pretrain.trunk import Trunk

    precision = chip.set_precision(precision)
    layout = torch.channels_last if last else torch.contiguous_format
    network = Regressor(Trunk(width=config.width)).to(chip.device, memory_format=layout).train()  # type: ignore[call-overload]
    optimiser = build_optimiser(network, config.optimiser)
    side = config.input.size_px
    x = torch.randn(config.g * config.m, 3, side, side, device=chip.device).to(memory_format=layout)
    backend = "inductor" if chip.on_gpu else "eager"
    forward = torch.compile(network, backend=backend) if compiled else network

    def step() -> None:
        with torch.autocast(chip.device.type, torch.bfloat16, enabled=precision == "bf16"):
            scores = forward(x)
        loss = ubr_loss(scores.float().view(config.g, config.m), config.losses, config.g)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        optimiser.step()

    return network, step


def ubr_step(sizes: Sizes, folder: Path) -> Iterator[GpuRow]:
    """The regressor's step, data included, against its bare work, the best of all ways."""
    from generated import write_ct

    chip = Chip(sizes.device)
    ct = write_ct(folder / "ct", sizes.volumes, sizes.slices, sizes.side_px)
    config = ubr_config(sizes, ct)
    shape = (sizes.g * sizes.m, 3, sizes.side_px, sizes.side_px)
    ways = [(p, last, False) for p in ("fp32", "tf32", "bf16") for last in (False, True)]
    ways += [("tf32", True, True), ("bf16", True, True)]
    bare_ms: dict[str, float] = {}
    expected_ms: dict[str, float] = {}
    for precision, last, compiled in ways:
        network, step = bare_ubr_step(config, chip, precision, last=last, compiled=compiled)
        name = f"{precision}{', channels last' if last else ''}{', compiled' if compiled else ''}"
        predicted = 1e3 * chip.predicted_s(network, shape, precision, "step")
        expected_ms[precision] = predicted
        bare_ms[name] = 1e3 * chip.timed_s(step, sizes.steps // 4 or 1, sizes.warm)
        reached = chip.reached(network, shape, precision, "step", bare_ms[name] / 1e3)
        yield GpuRow(f"bare UBR step, {name}", "ms", predicted, bare_ms[name], reached)
    best = min(bare_ms, key=lambda name: bare_ms[name])
    for precision, compiled in (("fp32", False), ("tf32", False), ("bf16", False), ("bf16", True)):
        of_precision = min(ms for name, ms in bare_ms.items() if name.startswith(precision))
        chosen = ubr_config(sizes, ct, precision=precision, compile=compiled and chip.on_gpu)
        out = folder / f"run-{precision}-{compiled}"
        ours = 1e3 * our_ubr_step_s(chosen, out, sizes.warm)
        name = f"UBR step, data included, {precision}{', compiled' if compiled else ''}"
        predicted = OURS_OF_BARE * expected_ms[precision]
        reason = f"bare is {of_precision / expected_ms[precision]:.2f} of its own prediction"
        bound = bare_ms[best] if precision == "bf16" else of_precision
        against = f"bare, best of all: {best}" if precision == "bf16" else "bare, its precision"
        yield GpuRow(name, "ms", predicted, ours, reason, against, bound, 1.11)


def paper_training(sizes: Sizes, folder: Path) -> Iterator[GpuRow]:
    """The paper's whole training, start, validation and checkpoints included."""
    from generated import write_ct

    from ubr_pretrain.regressor import Regressor
    from ubr_pretrain.train_ubr import train
    from ubr_pretrain.trunk import Trunk

    chip = Chip(sizes.device)
    ct = write_ct(folder / "ct", sizes.volumes, sizes.slices, sizes.side_px)
    shape = (sizes.g * sizes.m, 3, sizes.side_px, sizes.side_px)
    whole = {"iterations": sizes.paper_iterations, "holdout_fraction": 0.2}
    kept = {"eval_every": 250, "save_every": 50}
    for precision in ("bf16", "tf32"):
        config = ubr_config(sizes, ct, precision=precision, **whole, **kept)
        step_s = chip.predicted_s(Regressor(Trunk(width=sizes.width)), shape, precision, "step")
        began_s = time.perf_counter()
        assert train(config, folder / precision) == 0
        ours = time.perf_counter() - began_s
        reason = "predicted as its steps alone: no start, validation, checkpoint"
        what = f"the paper's {sizes.paper_iterations} iterations, {precision}, wall time"
        predicted = sizes.paper_iterations * step_s
        yield GpuRow(what, "s", predicted, ours, reason, "the aim, 15 s", 15.0, 1.0)
        yield GpuRow(what, "s", predicted, ours, reason, "the paper's Titan X", TITAN_X_S, 1.0)


def scoring(sizes: Sizes, folder: Path) -> Iterator[GpuRow]:
    """A volume in memory scored as the commands do, resizing included, against the bare network."""
    import numpy as np
    import torch
    from generated import FIELD_MM, body, write_ct

    from ubr_pretrain.ct import Volume
    from ubr_pretrain.scorer import read_scorer
    from ubr_pretrain.train_ubr import train

    chip = Chip(sizes.device)
    ct = write_ct(folder / "ct", 2, sizes.slices, sizes.side_px)
    assert train(ubr_config(sizes, ct, iterations=1), folder / "run") == 0
    checkpoint = folder / "run" / "checkpoints" / "last.safetensors"
    scorer = read_scorer(checkpoint, None, device=sizes.device, num_views=1)
    hu = body(sizes.scan_slices, sizes.scan_px, np.random.default_rng(1))
    pixel_mm = FIELD_MM / sizes.scan_px
    volume = Volume(hu, (1.0, pixel_mm, pixel_mm))
    ours = chip.timed_s(lambda: scorer.score_volume(volume, "generated"), 3, 1) / len(hu)
    network = scorer.trained.regressor
    batch = torch.randn(min(256, len(hu)), 3, sizes.side_px, sizes.side_px, device=chip.device)
    batch = batch.to(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode():
            network(batch)

    predicted = chip.predicted_s(network, batch.shape, "fp32", "forward") / len(batch)
    bare_s = chip.timed_s(bare, 10, 2) / len(batch)
    reached = chip.reached(network, batch.shape, "fp32", "forward", bare_s * len(batch))
    yield GpuRow("bare forward, fp32", "ms a slice", 1e3 * predicted, 1e3 * bare_s, reached)
    what = f"scoring a volume of {sizes.scan_slices} x {sizes.scan_px} px, {1 / ours:.0f} slices/s"
    reason = "predicted as the network alone; resizing is the processor's"
    figures = what, "ms a slice", 1e3 * predicted, 1e3 * ours, reason
    yield GpuRow(*figures, "bare forward", 1e3 * bare_s, 1.11)
    yield GpuRow(*figures, "the paper's Titan X", 4.0, 1.0)


def detector_step(sizes: Sizes, folder: Path) -> Iterator[GpuRow]:
    """The detector's step against bare, torchvision's loop, Detectron2's, in all precisions."""
    import detector
    import torch
    from generated import write_lesions

    from ubr_pretrain.trunk import Trunk

    chip = Chip(sizes.device)
    coco, images = write_lesions(folder, max(16, *sizes.growing_images), sizes.detector_px)
    trunk = Trunk(width=sizes.width)
    head = torch.nn.Sequential(
        torch.nn.Linear(trunk.out_channels * 49, sizes.fc_dim),
        torch.nn.Linear(sizes.fc_dim, sizes.fc_dim),
    )

    def asked(precision: str, batch: int = 2) -> detector.Sizes:
        return detector.Sizes(
            width=sizes.width,
            side_px=sizes.detector_px,
            fc_dim=sizes.fc_dim,
            batch=batch,
            steps=sizes.detector_steps,
            warm=sizes.warm,
            workers=sizes.workers,
            device=sizes.device,
            precision=precision if sizes.on_gpu else "fp32",
        )

    def predicted_ms(precision: str, batch: int) -> float:
        shape = (batch, 3, sizes.detector_px, sizes.detector_px)
        rois = (32 * batch, trunk.out_channels * 49)
        parts_s = chip.predicted_s(trunk, shape, precision, "step")
        parts_s += chip.predicted_s(head, rois, precision, "step")
        return 1e3 * (parts_s + LAUNCHES_S)

    for precision in ("fp32", "tf32", "bf16"):
        one = asked(precision)
        config = detector.config_of(one, coco, images)
        chip.set_precision(precision)
        one = replace(one, precision=precision)  # for its words; a CPU computes what it can
        bare = 1e3 * detector.bare_step_s(config, one)
        name, predicted = f"detector step, {one.words}", predicted_ms(precision, 2)
        reason = f"{1e3 * LAUNCHES_S:.0f} ms of the prediction are a guess for small kernels"
        yield GpuRow(f"bare {name}", "ms", predicted, bare, reason)
        ours = 1e3 * detector.our_step_s(config, one, folder / precision)
        reason = f"bare is {bare / predicted:.2f} of its own prediction"
        predicted *= OURS_OF_BARE
        yield GpuRow(name, "ms", predicted, ours, reason, detector.BARE, bare, 1.11)
        chip.set_precision(precision)
        theirs = 1e3 * detector.reference_step_s(config, one)
        yield GpuRow(name, "ms", predicted, ours, reason, detector.TORCHVISION, theirs, 1.0)
        if detector.has_detectron2() and precision != "bf16":
            theirs = 1e3 * detector.detectron2_step_s(config, one)
            yield GpuRow(name, "ms", predicted, ours, reason, detector.DETECTRON2, theirs, 1.0)
    chip.set_precision("bf16")
    first = 0.0
    for batch in sizes.growing_images:
        one = asked("bf16", batch)
        bare = 1e3 * detector.bare_step_s(detector.config_of(one, coco, images), one) / batch
        first = first or bare
        what = f"bare detector step, bf16, an image of {batch}"
        predicted, against = predicted_ms("bf16", batch) / batch, "a batch of one"
        yield GpuRow(what, "ms", predicted, bare, "small kernels are shared", against, first, 1.1)


def memory(sizes: Sizes, folder: Path) -> Iterator[GpuRow]:
    """Peak memory of the device against the number of volumes, resident and not."""
    from generated import write_ct

    from ubr_pretrain.regressor import Regressor
    from ubr_pretrain.train_ubr import train
    from ubr_pretrain.trunk import Trunk

    chip = Chip(sizes.device)
    network = Regressor(Trunk(width=sizes.width))
    shape = (sizes.g * sizes.m, 3, sizes.side_px, sizes.side_px)
    predicted = chip.predicted_step_mb(network, shape)
    slices_mb = sizes.growing_slices * sizes.side_px**2 * 2 / 1e6
    first: dict[str, float] = {}
    for volumes in sizes.growing_volumes:
        ct = write_ct(folder / f"ct{volumes}", volumes, sizes.growing_slices, sizes.side_px)
        for residence in ("device", "disk"):
            config = ubr_config(sizes, ct, iterations=3, residence=residence)
            out = folder / f"run-{residence}-{volumes}"
            peak = chip.peak_mb(lambda config=config, out=out: train(config, out))  # type: ignore[misc]
            store = volumes * slices_mb if residence == "device" else 0.0
            beyond = peak - store
            before = first.setdefault(residence, beyond)
            what = f"peak memory beyond {store:.0f} MB of slices, {residence}, {volumes} volumes"
            against = f"{sizes.growing_volumes[0]} volumes"
            reason = "predicted from weights and activations, no workspace"
            yield GpuRow(what, "MB", predicted, beyond, reason, against, before, 1.05)


def growth(sizes: Sizes, folder: Path) -> Iterator[GpuRow]:
    """A step of the regressor, by the slice, against the number of its groups."""
    from generated import write_ct

    from ubr_pretrain.regressor import Regressor
    from ubr_pretrain.trunk import Trunk

    chip = Chip(sizes.device)
    ct = write_ct(folder / "ct", sizes.volumes, sizes.slices, sizes.side_px)
    network, paper_s = Regressor(Trunk(width=sizes.width)), 0.0
    for groups in sizes.growing_groups:
        config = ubr_config(sizes, ct, g=groups, precision="bf16")
        num_slices = groups * sizes.m
        shape = (num_slices, 3, sizes.side_px, sizes.side_px)
        predicted = chip.predicted_s(network, shape, "bf16", "step") / num_slices
        ours = our_ubr_step_s(config, folder / f"run{groups}", sizes.warm) / num_slices
        reached = chip.reached(network, shape, "bf16", "step", ours * num_slices)
        paper_s = ours if groups <= sizes.g else paper_s
        what = f"UBR step, bf16, a slice of {groups} x {sizes.m}"
        figures = 1e3 * predicted, 1e3 * ours, reached
        yield GpuRow(what, "ms", *figures, "up to the paper's size", 1e3 * paper_s, 1.1)


GROUPS: dict[str, Callable[[Sizes, Path], Iterator[GpuRow]]] = {
    "ubr": ubr_step,
    "paper": paper_training,
    "scoring": scoring,
    "detector": detector_step,
    "memory": memory,
    "growth": growth,
}
