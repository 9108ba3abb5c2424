"""How the store and a training grow with the number of volumes: 10, 100, 1000.

    python benchmarks/growth.py [growth.png]

Every number is taken in a fresh process. Memory is what the process wrote itself (anonymous pages,
their peak): pages of the store that lie in the cache are the system's to take back. What grows with
n volumes as n^p has p = 1 where a volume costs the same however many there are.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from generated import body, write_nifti
from table import Row, to_markdown

from ubr_pretrain.ct import InputSpec

COUNTS = (10, 100, 1000)
SLICES, SIDE_PX = 60, 96
SPEC = InputSpec(size_px=64, std=(64.0, 64.0, 64.0))
G, M = 12, 8
DRAWS = 300
AIM = 1.1
SAMPLE_S = 0.005


@dataclass(frozen=True)
class Growth:
    """What ``num_volumes`` cost.

    Attributes:
        num_volumes: of the cohort.
        find_s: to find them.
        build_s: to build their store from .nii.
        build_mb: peak memory of that.
        reopen_s: to find the store whole again, every SHA-256 compared.
        step_mb: peak memory of ``train_ubr.train``, the store mapped.
        step_s: median of its steps.
        gather_s: to gather the groups of ``DRAWS`` iterations from the mapped store, each slice of
        which was read before.
        store_mb: size of the store.
    """

    num_volumes: int
    find_s: float
    build_s: float
    build_mb: float
    reopen_s: float
    step_mb: float
    step_s: float
    gather_s: float
    store_mb: float


def rows() -> list[Row]:
    """Return what a volume and a slice cost among the most volumes, against the fewest."""
    return to_rows(measure())


def to_rows(grown: list[Growth]) -> list[Row]:
    """Return the comparisons of the last with the first."""
    few, many = grown[0], grown[-1]
    last, against = f"{many.num_volumes} volumes", f"{few.num_volumes} volumes"

    def row(what: str, cost: Callable[[Growth], float], unit: str, note: str = "") -> Row:
        return Row(f"{what}, {last}", cost(many), cost(few), unit, against, AIM, note)

    def power(cost: Callable[[Growth], float]) -> str:
        exponent = np.polyfit(
            np.log([g.num_volumes for g in grown]), np.log([cost(g) for g in grown]), 1
        )[0]
        return f"all together grow as n^{exponent:.2f}"

    per_volume = {
        "finding a volume": lambda g: g.find_s,
        "building the store of a volume": lambda g: g.build_s,
        "verifying a stored volume": lambda g: g.reopen_s,
    }
    return [
        *(
            row(what, lambda g, cost=cost: 1000 * cost(g) / g.num_volumes, "ms", power(cost))
            for what, cost in per_volume.items()
        ),
        row("a training step of train_ubr, the store mapped", lambda g: 1000 * g.step_s, "ms"),
        Row(
            f"gathering a slice of a step, {last}",
            1e6 * many.gather_s / (DRAWS * G * M),
            1e6 * few.gather_s / (DRAWS * G * M),
            "us",
            against,
            None,
            f"{DRAWS * G * M / many.gather_s:.0f} slices a second; few volumes lie in the "
            "processor's cache, and beyond 512 a map is opened again, so this has an upper end",
        ),
        row("memory of building the store", lambda g: g.build_mb, "MB"),
        row(
            "memory of training with train_ubr, the store mapped",
            lambda g: g.step_mb,
            "MB",
            f"the store has {many.store_mb:.0f} MB, against {few.store_mb:.0f}",
        ),
    ]


def measure() -> list[Growth]:
    """Return the costs for every count, each in fresh processes."""
    grown = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source.nii"
        write_nifti(body(SLICES, SIDE_PX, np.random.default_rng(0)), (5.0, 4.0, 4.0), source)
        for count in COUNTS:
            data, store = folder / f"data{count}", folder / f"store{count}"
            data.mkdir()
            for n in range(count):
                shutil.copyfile(source, data / f"{n:05d}.nii")
            costs = _apart(build, data, store) | _apart(train, data, store)
            grown.append(Growth(count, **costs))
            shutil.rmtree(data)
            shutil.rmtree(store)
    return grown


def build(data: Path, store: Path) -> dict[str, float]:
    """Build a store and find it whole."""
    from ubr_pretrain.slice_store import build_slice_store
    from ubr_pretrain.volumes import find_volumes

    began_s = time.perf_counter()
    entries = find_volumes([data])
    find_s = time.perf_counter() - began_s
    with _peak_mb() as peak:
        began_s = time.perf_counter()
        volumes, refused = build_slice_store(store, entries, SPEC, min_slices=M)
        build_s = time.perf_counter() - began_s
    assert len(volumes) == len(entries)
    assert not refused
    began_s = time.perf_counter()
    build_slice_store(store, entries, SPEC, min_slices=M)
    return {
        "find_s": find_s,
        "build_s": build_s,
        "build_mb": peak.mb,
        "reopen_s": time.perf_counter() - began_s,
        "store_mb": sum(v.file.stat().st_size for v in volumes) / 1e6,
    }


def train(data: Path, store: Path) -> dict[str, float]:
    """Train as ``train_ubr.py`` does from a store that is there, then gather alone."""
    import torch
    from training import STEPS, step_seconds

    from ubr_pretrain.groups import GroupSampler
    from ubr_pretrain.run_folder import RunFolder
    from ubr_pretrain.runtime import Ranks
    from ubr_pretrain.training_data import read_training_data
    from ubr_pretrain.ubr_config import Losses, Optimiser, UbrConfig

    torch.set_num_threads(1)
    config = UbrConfig(
        data=(data,),
        store=store,
        holdout_fraction=0.0,
        width=0.1,
        batch_norm=True,
        head_std=None,
        input=SPEC,
        g=G,
        m=M,
        losses=Losses(reduction="mean"),
        optimiser=Optimiser(name="adamw", lr=1e-3),
        iterations=STEPS,
        eval_every=10**6,
        save_every=10**6,
        residence="disk",
        device="cpu",
    )
    with _peak_mb() as peak:
        step_s, _ = step_seconds(config, store.with_name(f"run-{store.name}"), lambda: None)
    volumes = read_training_data(config, RunFolder(store.parent), Ranks(0, 1, torch.device("cpu")))
    sampler = GroupSampler([v.runs for v in volumes.training], G, M, seed=0)
    drawn = [sampler.draw(iteration) for iteration in range(DRAWS)]
    for volume in volumes.training:
        np.array(volume.slices)
    began_s = time.perf_counter()
    for groups in drawn:
        volumes.gather(groups)
    return {
        "step_mb": peak.mb,
        "step_s": step_s,
        "gather_s": time.perf_counter() - began_s,
    }


def draw(grown: list[Growth], picture: Path) -> None:
    """Draw cost and memory against the number of volumes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    counts = [g.num_volumes for g in grown]
    for name, what in (("find_s", "find"), ("build_s", "build"), ("reopen_s", "verify")):
        seconds.loglog(counts, [getattr(g, name) for g in grown], marker="o", label=what)
    seconds.set(xlabel="volumes", ylabel="seconds, all together")
    for name, what in (
        ("store_mb", "store on disk"),
        ("build_mb", "building"),
        ("step_mb", "steps"),
    ):
        memory.loglog(counts, [getattr(g, name) for g in grown], marker="o", label=what)
    memory.set(xlabel="volumes", ylabel="MB")
    for axes in (seconds, memory):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


def _apart(work: Callable[[Path, Path], dict[str, float]], *paths: Path) -> dict[str, Any]:
    """Run in a process of its own, whose memory nothing else has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *paths).result()


@contextmanager
def _peak_mb() -> Iterator[SimpleNamespace]:
    """Yield what will hold the peak of the anonymous memory of this process."""
    peak, ended = SimpleNamespace(mb=0.0), threading.Event()

    def watch() -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            kb = int(status.split("RssAnon:")[1].split()[0])
            peak.mb = max(peak.mb, kb / 1000)
            if ended.wait(SAMPLE_S):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def main() -> None:
    """Print the growth and the rows; draw them where a picture is named."""
    grown = measure()
    names = list(asdict(grown[0]))
    print("|", " | ".join(names), "|\n|", "---|" * len(names), sep="")
    for g in grown:
        print("|", " | ".join(f"{value:.4g}" for value in asdict(g).values()), "|")
    print("\n" + to_markdown(to_rows(grown)))
    if len(sys.argv) > 1:
        draw(grown, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
