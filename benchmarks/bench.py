"""Ratios against what must be done anyway, both sides in turn in one run.

    python benchmarks/bench.py            # writes benchmarks/results.md and results.json

A ratio of 1.00 means that nothing is lost around the bare work; medians over the repeats.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from inputs import measure, write_phantoms

from ubr_pretrain.augmentation import augment_groups
from ubr_pretrain.checkpoint import write_atomically
from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.groups import GroupSampler
from ubr_pretrain.losses import ubr_loss
from ubr_pretrain.network_input import network_input, resample_slices
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.regressor import Regressor
from ubr_pretrain.runtime import describe_machine, generator
from ubr_pretrain.scoring import score_slices
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.ubr_config import Augmentation, Losses
from ubr_pretrain.volumes import read_volume

REPEATS = 7
SPEC = InputSpec(std=(64.0, 64.0, 64.0), fov_mm=512.0, size_px=64)
VIEWS = Augmentation(scale=0.15, shift=0.06, rotate_deg=6, flip=0.5, contrast=0.1, noise_hu=20)
G, M = 6, 8


def in_turn(ours: Callable[[], object], bare: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of both, measured A B A B after a warm-up of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        for work, kept in zip((ours, bare), seconds, strict=True):
            began_s = time.perf_counter()
            work()
            if repeat:
                kept.append(time.perf_counter() - began_s)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def phantom(seed: int, size_px: int) -> Volume:
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng)
    return render(
        subject, sample_scan(subject, rng, region="trunk", max_slices=120), size_px=size_px
    ).volume


def training_step() -> tuple[float, float]:
    """Draw, view, window, forward, both losses, backward, step; against the network's share."""
    volumes = [phantom(seed, 128) for seed in range(4)]
    store = [resample_slices(v.hu, v.spacing_mm_zyx[1:], SPEC) for v in volumes]
    sampler = GroupSampler([v.runs for v in volumes], G, M, seed=0)
    network = Regressor(Trunk(width=0.25, batch_norm=True), None)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    iteration = iter(range(10**9))

    def ours() -> None:
        k = next(iteration)
        stacked = np.stack([store[v][i] for v, i in sampler.draw(k)]).astype(np.float32)
        views = [generator(0, 2, k, i) for i in range(G)]
        hu = augment_groups(torch.from_numpy(stacked), VIEWS, views)
        step(network_input(hu.flatten(0, 1), SPEC))

    def step(x: torch.Tensor) -> None:
        loss = ubr_loss(network(x).view(G, M), Losses(reduction="mean"), G)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        optimiser.step()

    resident = torch.randn(G * M, 3, SPEC.size_px, SPEC.size_px)
    return in_turn(ours, lambda: step(resident))


def scoring() -> tuple[float, float]:
    """Window and score a stored volume; against the bare network on resident slices."""
    volume = phantom(1, 128)
    slices = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], SPEC)
    network = Regressor(Trunk(width=0.25), None).eval()
    resident = torch.randn(len(slices), 3, SPEC.size_px, SPEC.size_px)

    def bare() -> None:
        with torch.inference_mode():
            for part in resident.split(64):
                network(part)

    return in_turn(lambda: score_slices(network, slices, SPEC, torch.device("cpu")), bare)


def reading() -> tuple[float, float]:
    """read_volume with all its checks; against SimpleITK alone, on a compressed NIfTI."""
    volume = phantom(2, 256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        image = sitk.GetImageFromArray(volume.hu[::-1])
        image.SetSpacing([float(s) for s in volume.spacing_mm_zyx[::-1]])
        sitk.WriteImage(image, str(path))
        return in_turn(
            lambda: read_volume(path), lambda: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        )


def detector_inputs() -> tuple[float, float]:
    """An input of the detector from the warm cache; against decoding its PNGs (see inputs.py)."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        rates = measure(images, write_phantoms(images), images / "cache")
    return 1 / rates["reading_images_per_s"], 1 / rates["decoding_images_per_s"]


def phantom_rates() -> dict[int, float]:
    """Return rendered slices a second at 128 and 256 pixels."""
    rates = {}
    for size_px in (128, 256):
        began_s, count = time.perf_counter(), 0
        for seed in range(3):
            count += phantom(seed, size_px).num_slices
        rates[size_px] = count / (time.perf_counter() - began_s)
    return rates


def main() -> None:
    torch.set_num_threads(1)
    rows = {
        "UBR training step, width 0.25, 48 slices of 64 px": training_step(),
        "scoring a stored volume, width 0.25, 64 px": scoring(),
        "read_volume of a .nii.gz, against SimpleITK alone": reading(),
        "an input of 512 px from the warm cache, against decoding its PNGs": detector_inputs(),
    }
    rates = phantom_rates()
    machine = describe_machine(torch.device("cpu"))
    lines = ["| what | ours, s | bare, s | ours / bare |", "|---|---|---|---|"]
    lines += [f"| {name} | {a:.4f} | {b:.4f} | {a / b:.2f} |" for name, (a, b) in rows.items()]
    lines += ["", "| phantom | slices a second, one core |", "|---|---|"]
    lines += [f"| {size} px | {rate:.0f} |" for size, rate in rates.items()]
    lines += ["", f"torch {machine['packages']['torch']}, {machine['platform']}, one thread"]
    here = Path(__file__).parent
    with write_atomically(here / "results.md", "w") as file:
        file.write("\n".join(lines) + "\n")
    with write_atomically(here / "results.json", "w") as file:
        record = {"seconds": rows, "phantom_slices_per_s": rates, "machine": machine}
        file.write(json.dumps(record, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
