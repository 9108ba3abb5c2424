"""Measure a scorer on labelled volumes: order, straightness, zones, and landmarks in mm.

Commands:
    measure_scorer.py best.safetensors --volumes ct/ --landmarks ct/landmarks.csv
        --classes ct/slice_classes.csv --only held_out_1 held_out_2 --out measured

Every figure of a volume is learned from volumes of other subjects: the score of a landmark is its
mean over them, the zone thresholds come from two of them (every such pair in turn). ``--only``
names the volumes that are tested; the others still teach. It prints the tables and writes, into
``--out``, ``measured.json`` and ``curves.png`` (all curves, shifted so that landmarks agree).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.config import CommandParser, refuse

if TYPE_CHECKING:
    from ubr_pretrain.labelled_curves import LabelledCurve

SCHEMA_VERSION = 1
"""Of ``measured.json``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and measure; return the exit code."""
    parser = CommandParser(
        prog="measure_scorer.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("checkpoint", type=Path, help="of train_ubr.py")
    parser.add_argument(
        "--volumes", nargs="+", type=Path, required=True, help="files, folders, DICOM trees"
    )
    parser.add_argument(
        "--landmarks",
        type=Path,
        required=True,
        help="table of volume, landmark, index_sup_to_inf (counted from the most superior slice)",
    )
    parser.add_argument(
        "--classes", type=Path, required=True, help="table of volume, index_sup_to_inf, class"
    )
    parser.add_argument(
        "--only", nargs="*", type=str, default=[], help="volumes that are tested; none: all"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the results")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    a = parser.parse_args(argv)

    from ubr_pretrain.checkpoint import CheckpointRefused

    try:
        measure(
            a.checkpoint, a.volumes, a.landmarks, a.classes, only=a.only, out=a.out, device=a.device
        )
    except (CheckpointRefused, ValueError) as error:
        refuse(parser.prog, str(error))
    return 0


def measure(
    checkpoint: Path,
    volumes: Sequence[Path],
    landmarks: Path,
    classes: Path,
    *,
    only: Sequence[str] = (),
    out: Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Score the volumes, judge them by the tables, print, write and return the result.

    Raises:
        ValueError: tables or volumes that do not fit, or a checkpoint that cannot be used.
    """
    from ubr_pretrain.checkpoint import file_sha256, write_atomically
    from ubr_pretrain.measure_figures import draw_aligned_curves
    from ubr_pretrain.runtime import to_json

    curves = score_labelled(checkpoint, volumes, landmarks, classes, device)
    names = [curve.name for curve in curves]
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"--only {unknown[0]}: not among {', '.join(names)}")
    tested = list(only) or names
    result = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint_sha256": file_sha256(checkpoint),
        "tested": tested,
        **judge(curves, tested, seed),
    }
    print_result(result)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with write_atomically(out / "measured.json", "w") as file:
            file.write(to_json(result, indent=1) + "\n")
        draw_aligned_curves(curves, tested, out / "curves.png")
        print(f"see {out}")
    return result


def score_labelled(
    checkpoint: Path, volumes: Sequence[Path], landmarks: Path, classes: Path, device: str
) -> list[LabelledCurve]:
    """Score every volume that one of the two tables speaks of.

    Raises:
        ValueError: no such volume, a slice that it does not have, or one that cannot be read.
    """
    import numpy as np
    from rich.progress import track

    from ubr_pretrain.labelled_curves import LabelledCurve, read_classes, read_landmarks
    from ubr_pretrain.network_input import resample_slices
    from ubr_pretrain.regressor import read_regressor
    from ubr_pretrain.runtime import start_ranks
    from ubr_pretrain.scoring import score_slices
    from ubr_pretrain.volumes import SCORING_TILT_DEG, find_volumes

    marks, zones = read_landmarks(landmarks), read_classes(classes)
    entries = [e for e in find_volumes(volumes) if e.name in marks or e.name in zones]
    if not entries:
        raise ValueError(f"{landmarks} and {classes}: name no volume of --volumes")
    trained = read_regressor(checkpoint)
    spec = trained.input_spec
    curves = []
    with start_ranks(device) as ranks:
        regressor = trained.regressor.to(ranks.device)
        for entry in track(entries, "scoring", disable=not sys.stderr.isatty()):
            volume = entry.read(allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
            for index in (*marks.get(entry.name, {}).values(), *zones.get(entry.name, {})):
                if not 0 <= index < volume.num_slices:
                    raise ValueError(
                        f"{entry.name}: slice {index} is labelled, it has {volume.num_slices}"
                    )
            slices = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)
            named = zones.get(entry.name, {})
            curves.append(
                LabelledCurve(
                    entry.name,
                    entry.subject or entry.name,
                    volume.z_mm,
                    score_slices(regressor, slices, spec, ranks.device),
                    {mark: float(volume.z_mm[i]) for mark, i in marks.get(entry.name, {}).items()},
                    np.array([named.get(i, "") for i in range(volume.num_slices)]),
                )
            )
    return curves


def judge(curves: Sequence[LabelledCurve], tested: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return the records of the tested volumes and landmarks, and their summary."""
    from dataclasses import asdict

    import numpy as np

    from ubr_pretrain.landmark_errors import landmark_errors

    records = [_volume_record(curve) for curve in curves if curve.name in tested]
    zones = zone_accuracy(curves, tested, np.random.default_rng(seed))
    for record in records:
        record["zone_accuracy"] = zones["per_volume"].get(record["volume"])
    errors = landmark_errors(curves, tested)
    off_mm: dict[str, list[float]] = {}
    for error in errors:
        off_mm.setdefault(error.landmark, []).append(abs(error.error_mm))
    trunk = [r["trunk_abs_r"] for r in records if r["trunk_abs_r"] is not None]
    return {
        "volumes": records,
        "landmarks": [asdict(error) for error in errors],
        "landmark_error_mm": {
            name: {"median": float(np.median(values)), "num": len(values)}
            for name, values in sorted(off_mm.items())
        },
        "summary": {
            "right_direction": sum(r["direction"] == "superior_to_inferior" for r in records),
            "num_volumes": len(records),
            "trunk_abs_r_median": float(np.median(trunk)) if trunk else None,
            "trunk_abs_r_worst": min(trunk) if trunk else None,
            "zone_accuracy_mean": zones["mean"],
            "zone_accuracy_sd": zones["sd"],
            "calibration_pairs": zones["num_pairs"],
            "landmark_error_mm_median": _median_mm(errors),
            "headline_error_mm_median": _median_mm(errors, headline=True),
        },
    }


def _volume_record(curve: LabelledCurve) -> dict[str, Any]:
    import numpy as np

    from ubr_pretrain.scoring import read_curve

    whole = read_curve(curve.scores, curve.z_mm)
    trunk = read_curve(curve.scores[curve.in_trunk], curve.z_mm[curve.in_trunk])
    fall = float((np.maximum.accumulate(curve.scores) - curve.scores).max())
    return {
        "volume": curve.name,
        "subject": curve.subject,
        "num_slices": len(curve.scores),
        "direction": whole.direction,
        "abs_r": None if whole.r is None else abs(whole.r),
        "abs_rank_r": None if whole.rank_r is None else abs(whole.rank_r),
        "trunk_slices": int(curve.in_trunk.sum()),
        "trunk_abs_r": None if trunk.r is None else abs(trunk.r),
        "trunk_abs_rank_r": None if trunk.rank_r is None else abs(trunk.rank_r),
        "max_fall_back": fall,
        "max_fall_back_mm": fall / whole.slope_per_mm
        if whole.slope_per_mm is not None and whole.slope_per_mm > 0
        else None,
    }


def zone_accuracy(
    curves: Sequence[LabelledCurve], tested: Sequence[str], rng: Any
) -> dict[str, Any]:
    """Classify the tested volumes by thresholds from every pair of volumes of other subjects."""
    import numpy as np
    import pandas as pd

    from ubr_pretrain.evaluate_ubr import _calibration_pairs, _classify
    from ubr_pretrain.zones import ZONES

    slices = pd.concat(
        pd.DataFrame(
            {
                "volume": curve.name,
                "subject": curve.subject,
                "score": curve.scores[curve.in_trunk],
                "zone": [ZONES.index(zone) for zone in curve.zones[curve.in_trunk]],
            }
        )
        for curve in curves
    ).reset_index(drop=True)
    accuracies, by_volume = [], []
    for pair in _calibration_pairs(slices, rng):
        trial = _classify(slices, pair)
        chosen = trial["table"]["volume"].isin(tested).to_numpy()
        if chosen.any():
            correct = pd.Series(trial["correct"][chosen])
            accuracies.append(float(correct.mean()))
            names = trial["table"].loc[chosen, "volume"].to_numpy()
            by_volume.append(correct.groupby(names).mean())
    per_volume = pd.concat(by_volume, axis=1).mean(axis=1) if by_volume else pd.Series(dtype=float)
    return {
        "mean": float(np.mean(accuracies)) if accuracies else None,
        "sd": float(np.std(accuracies)) if accuracies else None,
        "num_pairs": len(accuracies),
        "per_volume": per_volume.to_dict(),
    }


def _median_mm(errors: Sequence[Any], headline: bool = False) -> float | None:
    import numpy as np

    from ubr_pretrain.landmark_errors import HEADLINE

    off = [abs(e.error_mm) for e in errors if not headline or e.landmark in HEADLINE]
    return float(np.median(off)) if off else None


def print_result(result: Mapping[str, Any]) -> None:
    """Print what ``judge`` found."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)

    def cell(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    table = Table(
        "volume", "slices", "direction", "|r|", "rank r", "trunk |r|", "rank r", "falls back mm",
        "zones", box=None,
    )  # fmt: skip
    for r in result["volumes"]:
        correlations = ("abs_r", "abs_rank_r", "trunk_abs_r", "trunk_abs_rank_r")
        table.add_row(
            r["volume"],
            str(r["num_slices"]),
            r["direction"].replace("_", " "),
            *(cell(r[key], 4) for key in correlations),
            cell(r["max_fall_back_mm"], 1),
            cell(r["zone_accuracy"], 3),
        )
    console.print(table)
    table = Table("landmark", "volumes", "median mm", "found minus marked, mm", box=None)
    for name, found in result["landmark_error_mm"].items():
        each = ", ".join(
            f"{e['volume']} {e['error_mm']:+.0f}{' (outside)' if e['outside'] else ''}"
            for e in result["landmarks"]
            if e["landmark"] == name
        )
        table.add_row(name, str(found["num"]), cell(found["median"], 1), each)
    console.print(table)
    s = result["summary"]
    console.print(
        f"direction right on {s['right_direction']} of {s['num_volumes']}; trunk |r| median "
        f"{cell(s['trunk_abs_r_median'], 4)}, worst {cell(s['trunk_abs_r_worst'], 4)}\n"
        f"zone accuracy {cell(s['zone_accuracy_mean'], 4)} (sd {cell(s['zone_accuracy_sd'], 4)} "
        f"over {s['calibration_pairs']} pairs of calibration volumes)\n"
        f"landmark error, median: {cell(s['headline_error_mm_median'], 1)} mm over lung apex, "
        f"liver dome and iliac crest; {cell(s['landmark_error_mm_median'], 1)} mm over all"
    )


if __name__ == "__main__":
    raise SystemExit(main())
