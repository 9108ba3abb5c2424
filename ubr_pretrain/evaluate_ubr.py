"""Evaluate the scores of labelled volumes: order, linearity, and the zone of every slice.

Commands:
    score_volumes.py ct/ --checkpoint best.safetensors --out scores
    evaluate_ubr.py scores --labels ct/slice_classes.csv --out evaluation

``--labels`` has the columns volume, index_sup_to_inf, class; slices of other classes than chest,
abdomen and pelvis are left out of the zone accuracy, as in the paper. It writes ``evaluation.json``
and ``zones.png`` (score histogram of every zone with the thresholds; accuracy against the distance
to the nearest border).

Reference:
    Yan, Lu, Summers, ISBI 2018, Table 1 row "UBR, 2 volumes" and Fig. 3a.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.config import CommandParser, refuse

if TYPE_CHECKING:
    import pandas as pd

MAX_PAIRS = 200
"""Pairs of calibration volumes tried for the spread; all of them where there are fewer."""
NUM_RESAMPLES = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and evaluate; return the exit code."""
    parser = CommandParser(
        prog="evaluate_ubr.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("scores", type=Path, help="folder written by score_volumes.py")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="table of volume, index_sup_to_inf (counted from the most superior slice), class",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--calibrate", nargs="*", type=str, default=[], help="volumes that set the thresholds"
    )
    parser.add_argument("--seed", type=int, default=0, help="of pairs and resamples")
    a = parser.parse_args(argv)
    try:
        evaluate(a.scores, a.labels, a.out, calibrate=a.calibrate, seed=a.seed)
    except (ValueError, FileNotFoundError) as error:
        refuse(parser.prog, str(error))
    return 0


def evaluate(
    scores: Path, labels: Path, out: Path, *, calibrate: Sequence[str] = (), seed: int = 0
) -> dict[str, Any]:
    """Evaluate a folder of scores; write and return the results.

    Args:
        scores: folder with ``scores.csv`` and ``scores.json``.
        labels: table of slice classes.
        out: folder of the results.
        calibrate: volumes that set the thresholds and are left out of the accuracy; none: every
            pair that shows all three zones in turn (at most ``MAX_PAIRS``), and the mean is given.
        seed: of the draw of pairs and of the bootstrap.

    Raises:
        ValueError: tables that do not fit, or no volumes that can calibrate.
    """
    import numpy as np

    from ubr_pretrain.checkpoint import write_atomically
    from ubr_pretrain.figures import draw_zones
    from ubr_pretrain.runtime import to_json
    from ubr_pretrain.zones import ZONES

    rng = np.random.default_rng(seed)
    volumes, slices, coverage = _read_tables(scores, labels)
    print(coverage)
    pairs = [tuple(calibrate)] if calibrate else _calibration_pairs(slices, rng)
    trials = [_classify(slices, pair) for pair in pairs]
    accuracies = np.array([trial["correct"].mean() for trial in trials])
    shown = trials[int(np.argsort(accuracies)[len(accuracies) // 2])]  # the median pair
    r = volumes["r"].dropna().abs()
    result: dict[str, Any] = {
        "num_volumes": len(volumes),
        "abs_r_median": float(r.median()),
        "abs_r_worst": float(r.min()),
        "directions": volumes["direction"].value_counts().to_dict(),
        "num_labelled_slices": len(slices),
        "calibration_pairs": len(pairs),
        "accuracy_mean": float(accuracies.mean()),
        "accuracy_sd_over_pairs": float(accuracies.std()),
        "median_pair": {
            "calibrated_on": list(shown["pair"]),
            "thresholds": [shown["thresholds"].chest_abdomen, shown["thresholds"].abdomen_pelvis],
            "accuracy": float(shown["correct"].mean()),
            "accuracy_interval_95": _interval(shown["table"], shown["correct"], rng),
            "recall": {
                zone: float(shown["correct"][shown["table"]["zone"] == k].mean())
                for k, zone in enumerate(ZONES)
                if (shown["table"]["zone"] == k).any()
            },
            "confusion_rows_true": shown["confusion"].tolist(),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(out / "evaluation.json", "w") as file:
        file.write(to_json(result, indent=1) + "\n")
    draw_zones(shown["table"], shown["thresholds"], shown["correct"], out / "zones.png")
    median = result["median_pair"]
    print(
        f"|r| median {result['abs_r_median']:.4f}, worst {result['abs_r_worst']:.4f} over "
        f"{len(volumes)} volumes\nzone accuracy {result['accuracy_mean']:.4f} "
        f"(sd {result['accuracy_sd_over_pairs']:.4f} over {len(pairs)} calibrations); median "
        f"calibration {median['accuracy']:.4f}, 95 % interval {median['accuracy_interval_95']}"
    )
    return result


def _read_tables(scores: Path, labels: Path) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the volumes, the slices of the three zones with their scores, and who is covered."""
    import json

    import pandas as pd

    from ubr_pretrain.zones import ZONES

    records = json.loads((scores / "scores.json").read_text("utf-8"))["volumes"]
    volumes = pd.DataFrame([record for record in records if "code" not in record])
    table = pd.read_csv(labels)
    if missing := {"volume", "index_sup_to_inf", "class"} - set(table.columns):
        raise ValueError(f"{labels}: lacks the column {sorted(missing)[0]}")
    scored = pd.read_csv(scores / "scores.csv", dtype={"volume": str})
    table["volume"] = table["volume"].astype(str)
    merged = table.merge(
        scored,
        left_on=["volume", "index_sup_to_inf"],
        right_on=["volume", "slice_index"],
        validate="one_to_one",
    ).merge(volumes[["volume", "subject"]], on="volume")
    labelled, known = len(merged), merged["volume"].nunique()
    merged = merged[merged["class"].isin(ZONES)].copy()
    coverage = (
        f"{known} of {len(volumes)} scored volumes are labelled; {len(merged)} of their {labelled} "
        f"labelled slices are {', '.join(ZONES)}, the rest is not counted"
    )
    if merged["volume"].nunique() < 3:
        raise ValueError(
            f"{labels}: zones need two volumes to calibrate on and one to test; {coverage}"
        )
    merged["zone"] = merged["class"].map({zone: k for k, zone in enumerate(ZONES)})
    return volumes, merged.reset_index(drop=True), coverage


def _calibration_pairs(slices: pd.DataFrame, rng: Any) -> list[tuple[str, ...]]:
    """Return pairs of volumes of two subjects that show all three zones together."""
    from itertools import combinations

    zones = slices.groupby("volume")["zone"].agg(set)
    subject = slices.groupby("volume")["subject"].first()
    pairs: list[tuple[str, ...]] = [
        pair
        for pair in combinations(sorted(zones.index), 2)
        if len(zones[pair[0]] | zones[pair[1]]) == 3 and subject[pair[0]] != subject[pair[1]]
    ]
    if not pairs:
        raise ValueError("no two volumes of two subjects show all three zones together")
    if len(pairs) > MAX_PAIRS:
        pairs = [pairs[i] for i in sorted(rng.choice(len(pairs), MAX_PAIRS, replace=False))]
    return pairs


def _classify(slices: pd.DataFrame, pair: tuple[str, ...]) -> dict[str, Any]:
    """Set the thresholds on ``pair`` and classify the slices of all other subjects."""
    import numpy as np

    from ubr_pretrain.zones import fit_thresholds

    inside = slices["volume"].isin(pair)
    if unknown := set(pair) - set(slices["volume"]):
        raise ValueError(f"--calibrate {sorted(unknown)[0]}: no such labelled volume")
    same = slices["subject"].isin(slices.loc[inside, "subject"])
    known, table = slices[inside], slices[~same]
    if table.empty:
        raise ValueError("no labelled volume is left to test on")
    thresholds = fit_thresholds(known["score"].to_numpy(), known["zone"].to_numpy())
    predicted = thresholds.classify(table["score"].to_numpy())
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (table["zone"].to_numpy(), predicted), 1)
    return {
        "pair": pair,
        "thresholds": thresholds,
        "table": table,
        "correct": predicted == table["zone"].to_numpy(),
        "confusion": confusion,
    }


def _interval(table: pd.DataFrame, correct: Any, rng: Any) -> list[float] | None:
    """Return the 95 % percentile interval of the accuracy, subjects resampled; None for one."""
    import numpy as np

    subjects, codes = np.unique(table["subject"].to_numpy(dtype=str), return_inverse=True)
    if len(subjects) < 2:
        return None
    right = np.bincount(codes, weights=correct)
    total = np.bincount(codes)
    draws = rng.integers(len(subjects), size=(NUM_RESAMPLES, len(subjects)))
    accuracy = right[draws].sum(axis=1) / total[draws].sum(axis=1)
    return [round(float(q), 4) for q in np.quantile(accuracy, [0.025, 0.975])]


if __name__ == "__main__":
    raise SystemExit(main())
