"""Which parts of the from-scratch recipe matter: the laptop recipe with one change at a time.

    python benchmarks/recipe.py --data ct/ more_ct/ phantoms/ct --holdout A B --out runs/recipe

Every variant is a run of ``train_ubr.py`` (resumable, same data, same groups of slices, same seed).
It writes ``recipe.md`` and ``recipe.png``: the order loss along training, and the rank correlation
of score and position over the held-out volumes.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ubr_pretrain.config import config_parser, parse_config
from ubr_pretrain.figures import save_figure
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.train_ubr import train
from ubr_pretrain.ubr_config import UbrConfig

NUM_PAIRS = 42
"""Terms of the order loss with the laptop preset's g = 6, m = 8; a sum is shown per pair."""

VARIANTS = {
    "laptop recipe": [],
    "paper: SGD 0.002, sums": [
        *("--optimiser.name", "sgd", "--optimiser.lr", "0.002", "--losses.reduction", "sum"),
        *("--optimiser.weight_decay", "0.0005", "--optimiser.max_grad_norm", "null"),
        *("--optimiser.schedule", "constant", "--optimiser.warmup", "0"),
    ],
    "release: SGD 0.002, means, twice the gap": [
        *("--optimiser.name", "sgd", "--optimiser.lr", "0.002", "--losses.logit_scale", "2"),
        *("--optimiser.weight_decay", "0.0005", "--optimiser.max_grad_norm", "null"),
        *("--optimiser.schedule", "constant", "--optimiser.warmup", "0", "--start_rule", "ends"),
    ],
    "sums": ["--losses.reduction", "sum"],
    "logit scale 2": ["--losses.logit_scale", "2"],
    "no batch norm": ["--batch_norm", "false"],
    "head std 0.001": ["--head_std", "0.001"],
    "input std 1": ["--input.std", "[1,1,1]"],
    "no warm-up": ["--optimiser.warmup", "0"],
    "whole image, no fixed field": ["--input.fov_mm", "null"],
    "no smallest interval": ["--min_interval_mm", "0"],
    "no views": [
        *("--augmentation.scale", "0", "--augmentation.shift", "0"),
        *("--augmentation.rotate_deg", "0", "--augmentation.flip", "0"),
        *("--augmentation.contrast", "0", "--augmentation.offset_hu", "0"),
        *("--augmentation.noise_hu", "0"),
    ],
    "sums, logit scale 2": ["--losses.reduction", "sum", "--losses.logit_scale", "2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--source_weights", nargs="*", default=[])
    parser.add_argument("--holdout", nargs="*", default=[])
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--size_px", type=int, default=48)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    flags = ["--preset", "laptop", "--data", *a.data, "--iterations", str(a.iterations)]
    flags += ["--input.size_px", str(a.size_px), "--eval_every", str(max(1, a.iterations // 3))]
    flags += ["--source_weights", *a.source_weights] if a.source_weights else []
    flags += ["--holdout", *a.holdout] if a.holdout else []
    histories = {}
    for name, changes in VARIANTS.items():
        folder = a.out / "".join(c if c.isalnum() else "_" for c in name)
        store = a.out / ("store_whole" if "whole" in name else "store")
        config, _ = parse_config(
            config_parser(UbrConfig, "recipe.py", "", "ubr"),
            UbrConfig,
            [*flags, "--store", str(store), *changes],
            presets="ubr",
        )
        if not (folder / "progress.png").is_file() or len(_of(folder, "train")) < a.iterations:
            try:
                train(config, folder)
            except FloatingPointError as error:
                print(f"{name}: {error}")
        histories[name] = (_of(folder, "train"), _of(folder, "val"))
        write_table(a.out / "recipe.md", histories)
        draw(a.out / "recipe.png", histories)


def _of(folder: Path, kind: str) -> list:
    return [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == kind]


def write_table(path: Path, histories: dict) -> None:
    lines = [
        "| variant | order loss, last 50 | held out: median rank r | mean r |",
        "|---|---|---|---|",
    ]
    for name, (steps, checks) in histories.items():
        if not checks:
            lines.append(f"| {name} | diverged after iteration {len(steps)} | - | - |")
            continue
        order = np.mean([r["order"] for r in steps[-50:]])
        order /= NUM_PAIRS if order > 5 else 1
        last = checks[-1]
        lines.append(
            f"| {name} | {order:.3f} | {last['rank_r_median']:.3f} | {last['r_mean']:.3f} |"
        )
    path.write_text("\n".join(lines) + "\n")


def draw(path: Path, histories: dict) -> None:
    figure = Figure(figsize=(11, 4.2))
    left, right = figure.subplots(1, 2)
    for i, (name, (steps, checks)) in enumerate(histories.items()):
        style = {"color": "black", "linewidth": 2} if i == 0 else {"color": f"C{i % 10}"}
        style |= {"linestyle": "-" if i < 10 else "--"}
        order = np.array([r["order"] for r in steps])
        if len(order) > 25:
            order = order / (NUM_PAIRS if order[0] > 5 else 1)
            left.plot(np.convolve(order, np.ones(25) / 25, "valid"), **style)
        if checks:
            at = [r["iteration"] for r in checks]
            right.plot(at, [r["rank_r_median"] for r in checks], "o-", label=name, **style)
    left.axhline(np.log(2), color="grey", linestyle=":")
    left.set(xlabel="iteration", ylabel="order loss a pair (dotted: ln 2)", ylim=(0.45, 0.8))
    right.set(xlabel="iteration", ylabel="rank correlation, median held-out volume", ylim=(-0.2, 1))
    right.legend(frameon=False, fontsize=7, loc="lower right")
    figure.tight_layout()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
