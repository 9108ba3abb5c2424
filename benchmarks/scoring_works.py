"""The works that ``scoring.py`` measures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from table import Row, in_turn

from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.hu_networks import random_slices, relative_difference
from ubr_pretrain.network_backend import ScoreNetwork, build_network, computes_bf16
from ubr_pretrain.nifti_file import write_volume
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.pretrained import read_pretrained
from ubr_pretrain.read_ahead import read_ahead
from ubr_pretrain.regressor import Regressor, TrainedRegressor
from ubr_pretrain.scorer import Scorer, read_scorer
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.volumes import VolumeEntry, find_volumes

SIDE_PX, NUM_SLICES, NUM_VOLUMES, REPEATS = 512, 300, 12, 3
NETWORK_SLICES = 128
PAPER_MS = 4.0
"""A slice of VGG-16 on the paper's Titan X."""

CPU = torch.device("cpu")


def write_scans(folder: Path) -> None:
    """Write one large compressed scan, and a cohort of smaller ones."""
    rng = np.random.default_rng(0)
    subject = sample_subject(rng)
    body = render(subject, sample_scan(subject, rng, region="trunk", max_slices=60), size_px=256)
    small = body.volume.hu
    noise = rng.integers(-12, 13, (8, SIDE_PX, SIDE_PX), np.int16)  # no scan compresses without it
    large = np.empty((NUM_SLICES, SIDE_PX, SIDE_PX), np.int16)
    for z, hu in enumerate(large):
        hu[:] = small[z * len(small) // NUM_SLICES].repeat(2, 0).repeat(2, 1) + noise[z % 8]
    np.maximum(large, -1024, out=large)
    pixel_mm = body.volume.spacing_mm_zyx[1] / 2
    place = np.array([[0, 0, pixel_mm, 0], [0, pixel_mm, 0, 0], [-2.0, 0, 0, 0], [0, 0, 0, 1.0]])
    volume = Volume(large, (2.0, pixel_mm, pixel_mm), affine_lps=place)
    write_volume(volume, folder / "large" / "scan.nii.gz")
    half = Volume(
        large[::4].copy(), (8.0, pixel_mm, pixel_mm), affine_lps=place @ np.diag([4, 1, 1, 1])
    )
    for number in range(NUM_VOLUMES):
        write_volume(half, folder / "cohort" / f"{number:02d}.nii.gz")


def volume_rows(folder: Path) -> list[Row]:
    (large,), cohort = find_volumes([folder / "large"]), find_volumes([folder / "cohort"])
    made: list[Row] = []
    for num_views in (1, 3):
        scorer = read_scorer(device="cpu", num_views=num_views)
        views = f"{num_views} view{'s' * (num_views > 1)}"
        ours, decode, forward = in_turn(
            partial(score_all, scorer, [large]),
            large.read,
            partial(bare_network, scorer, NUM_SLICES * num_views),
            repeats=REPEATS,
        )
        made += bounds(
            f"one volume, {NUM_SLICES} x {SIDE_PX} x {SIDE_PX}, gzip, {views}",
            ours,
            decode,
            forward,
            scorer,
        )
    scorer = read_scorer(device="cpu")
    num_slices = sum(entry.read().num_slices for entry in cohort)
    ours, longer, decode, forward = in_turn(
        lambda: score_all(scorer, cohort),
        lambda: score_all(scorer, 3 * cohort),
        lambda: [entry.read() for entry in cohort],
        lambda: bare_network(scorer, num_slices * scorer.num_views),
        repeats=1,
    )
    what = f"{len(cohort)} volumes, {num_slices} slices in all, {scorer.num_views} views"
    made += bounds(f"{what}, start of two readers included", ours, decode, forward, scorer)
    made += bounds(f"{what}, after as many others", (longer - ours) / 2, decode, forward, scorer)
    return made


def bounds(what: str, ours: float, decode: float, forward: float, scorer: Scorer) -> list[Row]:
    """Hold a wall time against the longer work, and against all work spread over the cores."""
    threads = scorer.network.threads
    shared = max(forward, (decode + forward * threads) / threads)
    return [
        Row(
            what,
            ours,
            max(decode, forward),
            "s",
            "max(decode, bare network)",
            1.1,
            f"decode alone {decode:.2f} s, bare network alone {forward:.2f} s on {threads} threads",
        ),
        Row(what, ours, shared, "s", f"both works over {threads} cores", 1.1),
    ]


def score_all(scorer: Scorer, entries: Sequence[VolumeEntry]) -> None:
    for entry, outcome in read_ahead(entries, watch=scorer.watch):
        assert isinstance(outcome, Volume)
        scorer.score_volume(outcome, entry.name)


def bare_network(scorer: Scorer, num_slices: int) -> None:
    """Run the trunk and its head on slices that need nothing more, as our threads run it."""
    network, regressor = scorer.network, scorer.trained.regressor
    size = scorer.trained.input_spec.size_px
    ready = torch.zeros(32, 3, size, size).contiguous(memory_format=torch.channels_last)

    def run(part: slice) -> None:
        with torch.inference_mode():
            regressor(ready[: part.stop - part.start])

    for future in [network.submit(run, part) for part in network.parts(num_slices)]:
        future.result()


def network_rows() -> list[Row]:
    """Compare the back-ends on the packaged scorer, and on one of full width."""
    torch.manual_seed(0)
    wide = TrainedRegressor(
        Regressor(Trunk(), None).eval().requires_grad_(False),
        InputSpec(),
        read_pretrained().trained.provenance,
    )
    made = []
    for what, trained, num_slices in (
        ("packaged scorer", read_pretrained().trained, NETWORK_SLICES),
        ("width 1, 128 px", wide, 16),
    ):
        networks, starts_s = build_all(trained)
        hu = random_slices(trained.input_spec, (num_slices, 1, *[trained.input_spec.size_px] * 2))
        works = [forward(network, hu[:, 0]) for network in networks]
        ms = [1e3 * s / num_slices for s in in_turn(*works, repeats=REPEATS)]
        for network, work, one, start_s in zip(
            networks[1:], works[1:], ms[1:], starts_s[1:], strict=True
        ):
            off = relative_difference(works[0](), work())
            note = f"its start took {start_s:.1f} s, PyTorch's {starts_s[0]:.1f} s; "
            note += f"scores are off by {off:.1g} of the largest"
            made.append(
                Row(f"{what}, {network.backend}", one, ms[0], "ms a slice", "torch", None, note)
            )
    return made


def build_all(trained: TrainedRegressor) -> tuple[list[ScoreNetwork], list[float]]:
    """Return the networks that are installed, PyTorch first, and the seconds that each took.

    Compiling takes half a minute and is measured by ``--compiled`` alone.
    """
    networks, seconds = [], []
    for backend, package in (
        ("torch", "torch"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        *([("bf16", "torch")] if computes_bf16(CPU) else []),
        *([("compiled", "torch")] if "--compiled" in sys.argv else []),
    ):
        if find_spec(package) is None:
            continue
        began_s = time.perf_counter()
        networks.append(build_network(trained, CPU, backend))  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - began_s)
    return networks, seconds


def forward(network: ScoreNetwork, hu: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: side_by_side(network, lambda part: network.scores(hu[part]), hu)


def side_by_side(
    network: ScoreNetwork, scores: Callable[[slice], torch.Tensor], hu: torch.Tensor
) -> torch.Tensor:
    futures = [network.submit(scores, part) for part in network.parts(len(hu))]
    return torch.cat([future.result() for future in futures])


def paper_rows() -> list[Row]:
    """Hold the packaged scorer against the paper's time for a slice."""
    made = []
    volume = np.zeros((NETWORK_SLICES, 256, 256), np.int16)
    for num_views in (1, 3):
        scorer = read_scorer(device="cpu", num_views=num_views)
        (seconds,) = in_turn(
            lambda: list(scorer.watch.scores(volume, (1.5, 1.5))),  # noqa: B023
            repeats=REPEATS,
        )
        made.append(
            Row(
                f"packaged scorer, {num_views} view{'s' * (num_views > 1)}, resampling included",
                1e3 * seconds / len(volume),
                PAPER_MS,
                "ms a slice",
                "the paper's VGG-16 on a Titan X",
                1.0,
                f"{scorer.network.threads} threads",
            )
        )
    return made
