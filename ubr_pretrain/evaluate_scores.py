"""Evaluate the scores of labelled volumes: order, linearity, and the zone of every slice.

Commands:
    score_volumes.py ct/ --checkpoint best.safetensors --out scores
    evaluate_scores.py scores --labels ct/slice_classes.csv --out evaluation

``--labels`` has the columns volume, index_sup_to_inf, class; slices of other classes than chest,
abdomen and pelvis are left out of the zone accuracy, as in the paper. It writes ``evaluation.json``
and ``zones.png`` (score histogram of every zone with the thresholds; accuracy against the distance
to the nearest border). The paper's tables and figures are ``evaluate_ubr.py``'s.

Reference:
    Yan, Lu, Summers, ISBI 2018, Table 1 row "UBR, 2 volumes" and Fig. 3a.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.config import CommandParser, give_up

if TYPE_CHECKING:
    import pandas as pd


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and evaluate; return the exit code."""
    parser = CommandParser(
        prog="evaluate_scores.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
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
    except (ValueError, OSError) as error:
        give_up(parser.prog, error)
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
            pair that shows both borders of zones in turn (at most ``MAX_PAIRS``), and the mean is
            given.
        seed: of the draw of pairs and of the bootstrap.

    Raises:
        ValueError: tables that do not fit, or no volumes that can calibrate.
    """
    import numpy as np

    from ubr_pretrain.evidence_figures import draw_zones
    from ubr_pretrain.runtime import to_json
    from ubr_pretrain.whole_file import write_atomically
    from ubr_pretrain.zone_accuracy import (
        MAX_PAIRS,
        accuracy_by_distance,
        calibration_pairs,
        clustered_interval,
        confusion_matrix,
        distance_to_border,
        recall_of_zones,
        try_pair,
    )

    rng = np.random.default_rng(seed)
    volumes, slices, coverage = _read_tables(scores, labels)
    print(coverage)
    pairs = [tuple(calibrate)] if calibrate else calibration_pairs(slices, MAX_PAIRS, rng)
    trials = [try_pair(slices, pair) for pair in pairs]
    accuracies = np.array([trial.correct.mean() for trial in trials])
    shown = trials[int(np.argsort(accuracies)[len(accuracies) // 2])]  # the median pair
    table, correct, thresholds = shown.table, shown.correct, shown.thresholds
    confusion = confusion_matrix(table["zone"].to_numpy(), shown.predicted)
    by_distance = accuracy_by_distance(distance_to_border(table), correct)
    interval = clustered_interval(correct.astype(float), table["subject"].to_numpy(str), rng)
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
            "calibrated_on": list(shown.pair),
            "thresholds": [thresholds.chest_abdomen, thresholds.abdomen_pelvis],
            "accuracy": float(correct.mean()),
            "accuracy_interval_95": interval and [round(end, 4) for end in interval],
            "recall": recall_of_zones(confusion),
            "confusion_rows_true": confusion.tolist(),
            "by_distance": by_distance,
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(out / "evaluation.json", "w") as file:
        file.write(to_json(result, indent=1) + "\n")
    draw_zones(
        table["score"].to_numpy(), table["zone"].to_numpy(), thresholds, by_distance,
        out / "zones.png",
    )  # fmt: skip
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

    from ubr_pretrain.number_table import read_number_table
    from ubr_pretrain.slice_classes import read_slice_classes, require_head_first
    from ubr_pretrain.zones import ZONES

    try:
        records = json.loads((scores / "scores.json").read_text("utf-8"))["volumes"]
        volumes = pd.DataFrame([record for record in records if "code" not in record])
        subjects = volumes[["volume", "subject"]] if len(volumes) else None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{scores / 'scores.json'}: not JSON of scores ({error})") from error
    if subjects is None:
        raise ValueError(f"{scores / 'scores.json'}: holds no scored volume")
    numbers = ["z_mm", "score"]
    scored = read_number_table(scores / "scores.csv", ["volume"], ["slice_index"], numbers)
    scored = scored[["volume", "slice_index", *numbers]]  # it may hold zones of its own
    known_classes = read_slice_classes([labels])
    require_head_first(known_classes, str(labels))
    named = known_classes[known_classes["volume"].isin(subjects["volume"])]
    merged = named.merge(
        scored,
        how="left",
        left_on=["volume", "index_sup_to_inf"],
        right_on=["volume", "slice_index"],
        validate="one_to_one",
    ).merge(subjects, on="volume")
    if (absent := merged["score"].isna()).any():
        name, index = merged.loc[absent, ["volume", "index_sup_to_inf"]].iloc[0]
        num_slices = int((scored["volume"] == name).sum())
        raise ValueError(f"{labels}: slice {index} of {name} is labelled, it has {num_slices}")
    labelled, known = len(merged), merged["volume"].nunique()
    merged = merged[merged["zone"] >= 0]
    coverage = (
        f"{known} of {len(volumes)} scored volumes are labelled, "
        f"{known_classes['volume'].nunique() - known} labelled ones are not scored; {len(merged)} "
        f"of their {labelled} "
        f"labelled slices are {', '.join(ZONES)}, the rest is not counted"
    )
    if merged["volume"].nunique() < 3:
        raise ValueError(
            f"{labels}: zones need two volumes to calibrate on and one to test; {coverage}"
        )
    return volumes, merged.reset_index(drop=True), coverage


if __name__ == "__main__":
    raise SystemExit(main())
