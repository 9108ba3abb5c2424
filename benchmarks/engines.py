"""Two comparisons of the same arms and seeds, one by each engine: do they find as much?

    python benchmarks/engines.py runs/torchvision runs/detectron2 --val coco/val.json

Prints the recall of every cell, the difference of the engines over the common seeds with its 95 %
interval (patients bootstrapped, seeds by their t), and until which iteration the two losses of a
cell agree to 1e-6: from there on a proposal was ranked otherwise, and the trainings part.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lesion_det.ground_truth import GroundTruth, read_ground_truth
from lesion_det.metrics import TOP_K
from lesion_det.predictions import read_predictions
from lesion_det.significance import ArmHits, draw_patients, pair_difference
from lesion_det.topk_recall import lesion_ranks
from ubr_pretrain.journal import read_metrics


def main() -> None:
    """Read two folders of ``compare_inits.py`` and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs=2, type=Path, help="of compare_inits.py")
    parser.add_argument("--val", type=Path, required=True, help="COCO file that both answered")
    arguments = parser.parse_args()
    truth = read_ground_truth(arguments.val)
    first, second = (cells_of(folder) for folder in arguments.folders)
    patients = np.concatenate(
        [np.full(image.num_lesions, image.patient_index, np.int64) for image in truth.images]
    )
    draws = draw_patients(patients, np.random.default_rng(0))
    print("| start | seeds | first, % | second, % | difference, points | losses agree until |")
    print("|---|---|---|---|---|---|")
    for arm in sorted({arm for arm, _ in first.keys() & second.keys()}):
        seeds = tuple(sorted(s for a, s in first.keys() & second.keys() if a == arm))
        hits = [
            np.stack([hits_of(cells[arm, seed], truth) for seed in seeds])
            for cells in (first, second)
        ]
        a, b = (ArmHits(seeds, found, patients) for found in hits)
        pair = pair_difference("second", b, "first", a, draws)
        agree = [str(parting(first[arm, seed], second[arm, seed])) for seed in seeds]
        shares = [", ".join(f"{100 * row.mean():.1f}" for row in found) for found in hits]
        assert pair.value is not None
        interval = "" if pair.low is None else f" ({100 * pair.low:+.1f} to {100 * pair.high:+.1f})"
        print(
            f"| {arm} | {', '.join(map(str, seeds))} | {shares[0]} | {shares[1]} "
            f"| {100 * pair.value:+.1f}{interval} | {', '.join(agree)} |"
        )


def cells_of(folder: Path) -> dict[tuple[str, int], Path]:
    """Return the finished cells with all labels: (arm, seed) -> folder."""
    found = {}
    for predictions in sorted(folder.glob("cells/*/predictions_val.json")):
        arm, _, seed = predictions.parent.name.rpartition("-seed")
        if seed.isdigit():
            found[arm, int(seed)] = predictions.parent
    return found


def hits_of(cell: Path, truth: GroundTruth) -> np.ndarray:
    """Return which lesions the best five detections found, bool [L]."""
    return lesion_ranks(truth, read_predictions(cell / "predictions_val.json")).hits(TOP_K)


def parting(first: Path, second: Path) -> int:
    """Return the last iteration up to which two losses agree to 1e-6."""
    pairs = zip(*(losses_of(cell) for cell in (first, second)), strict=True)
    for iteration, (a, b) in enumerate(pairs):
        if abs(a - b) > 1e-6 * abs(a):
            return iteration
    return len(losses_of(first))


def losses_of(cell: Path) -> list[float]:
    """Return the loss of every iteration."""
    records = read_metrics(cell / "metrics.jsonl")
    return [record["loss"] for record in records if record["kind"] == "train"]


if __name__ == "__main__":
    main()
