"""Measure a scorer on labelled volumes: order, straightness, zones, landmarks in mm, uncertainty.

Commands:
    measure_scorer.py best.safetensors --volumes ct/ --landmarks ct/landmarks.csv
        --classes ct/slice_classes.csv --only held_out_1 held_out_2 --out measured
    measure_scorer.py best.safetensors --calibration calibration.json --volumes ...

Every figure of a volume is learned from volumes of other subjects: the score of a landmark is its
mean over them, the zone thresholds come from two of them (every pair in turn), the uncertainty from
all of them. ``--only`` names the volumes that are tested; the others still teach. With
``--calibration`` that file says what scores mean, and nothing is learned here. It prints the tables
and writes, into ``--out``, ``measured.json`` and ``curves.png`` (all curves, shifted so that their
landmarks agree).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.config import CommandParser, give_up
from ubr_pretrain.pretrained import NUM_VIEWS

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
        nargs="+",
        type=Path,
        required=True,
        help="tables of volume, landmark, index_sup_to_inf (counted from the most superior slice)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        type=Path,
        required=True,
        help="tables of volume, index_sup_to_inf, class",
    )
    parser.add_argument(
        "--only", nargs="*", type=str, default=[], help="volumes that are tested; none: all"
    )
    parser.add_argument(
        "--calibration", type=Path, default=None, help="of calibrate_scorer.py, same checkpoint"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the results")
    parser.add_argument(
        "--views", type=int, default=NUM_VIEWS, help="views of a slice, averaged; 1: the slice"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    a = parser.parse_args(argv)
    try:
        measure(
            a.checkpoint,
            a.volumes,
            a.landmarks,
            a.classes,
            only=a.only,
            calibration=a.calibration,
            out=a.out,
            num_views=a.views,
            device=a.device,
        )
    except (OSError, ValueError) as error:
        give_up(parser.prog, error)
    return 0


def measure(
    checkpoint: Path,
    volumes: Sequence[Path],
    landmarks: Sequence[Path],
    classes: Sequence[Path],
    *,
    only: Sequence[str] = (),
    calibration: Path | None = None,
    out: Path | None = None,
    num_views: int = NUM_VIEWS,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Score the volumes, judge them by the tables; print, write and return the result.

    Args:
        checkpoint: of the regressor.
        volumes: files and folders; volumes that no table names are left out.
        landmarks: tables of landmarks.
        classes: tables of slice classes.
        only: names of the tested volumes; none: all.
        calibration: of the same regressor.
        out: folder of the results.
        num_views: views of a slice.
        device: where the regressor runs.
        seed: of the draw of calibration pairs, where there are too many.

    Raises:
        ValueError: tables or volumes that do not fit, or a checkpoint that cannot be used.
    """
    import numpy as np

    from ubr_pretrain.calibration import read_calibration
    from ubr_pretrain.checkpoint import file_sha256
    from ubr_pretrain.measure_figures import draw_aligned_curves
    from ubr_pretrain.runtime import to_json
    from ubr_pretrain.scorer_judgement import judge
    from ubr_pretrain.whole_file import write_atomically

    meaning = None if calibration is None else read_calibration(calibration)
    curves = score_labelled(checkpoint, volumes, landmarks, classes, num_views, device)
    names = [curve.name for curve in curves]
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"--only {unknown[0]}: not among {', '.join(names)}")
    tested = list(only) or names
    result = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint_sha256": file_sha256(checkpoint),
        "calibrated_on": "other subjects" if meaning is None else meaning.source,
        "num_views": num_views,
        "tested": tested,
        **judge(curves, tested, meaning, np.random.default_rng(seed)),
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
    checkpoint: Path,
    volumes: Sequence[Path],
    landmarks: Sequence[Path],
    classes: Sequence[Path],
    num_views: int,
    device: str,
) -> list[LabelledCurve]:
    """Score, as users do, every volume that one of the tables speaks of.

    Raises:
        ValueError: no such volume, a slice that it does not have, or one that cannot be read.
    """
    import numpy as np
    from rich.progress import track

    from ubr_pretrain.ct import VolumeRefused
    from ubr_pretrain.labelled_curves import LabelledCurve
    from ubr_pretrain.landmarks import read_landmark_tables
    from ubr_pretrain.read_ahead import read_ahead
    from ubr_pretrain.scorer import read_scorer
    from ubr_pretrain.slice_classes import OTHER, read_slice_classes, require_head_first
    from ubr_pretrain.volumes import SCORING_TILT_DEG, find_volumes

    marks: dict[str, dict[str, int]] = {}
    for mark in read_landmark_tables(landmarks):
        marks.setdefault(mark.volume, {})[mark.landmark] = mark.index
    table = read_slice_classes(classes)
    require_head_first(table, " ".join(map(str, classes)))
    named = {
        str(volume): rows.set_index("index_sup_to_inf")["zone"]
        for volume, rows in table.groupby("volume")
    }
    entries = [e for e in find_volumes(volumes) if e.name in marks or e.name in named]
    if not entries:
        tables = " ".join(map(str, (*landmarks, *classes)))
        raise ValueError(f"{tables}: name no volume of --volumes")
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--volumes hold two volumes of the name {twice[0]}")
    scorer = read_scorer(checkpoint, device=device, num_views=num_views)
    curves = []
    coming = read_ahead(entries, allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
    for entry, volume in track(coming, "scoring", len(entries), disable=not sys.stderr.isatty()):
        if isinstance(volume, VolumeRefused):
            raise volume
        zones = np.full(volume.num_slices, OTHER)
        known = named.get(entry.name)
        labelled = [] if known is None else known.index.tolist()
        marked = marks.get(entry.name, {})
        for index in (*marked.values(), *labelled):
            if index >= volume.num_slices:
                raise ValueError(
                    f"{entry.name}: slice {index} is labelled, it has {volume.num_slices}"
                )
        if known is not None:
            zones[labelled] = known.to_numpy()
        scored = scorer.score_volume(volume, entry.name)
        curves.append(
            LabelledCurve(
                entry.name,
                entry.subject or entry.name,
                scored.z_mm,
                scored.scores,
                marked,
                zones,
                scored.scores_sd,
            )
        )
    return curves


def print_result(result: Mapping[str, Any]) -> None:
    """Print what ``judge`` found."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)

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
    s, doubt = result["summary"], result["uncertainty"]
    console.print(
        f"direction right on {s['right_direction']} of {s['num_volumes']}; trunk |r| median "
        f"{cell(s['trunk_abs_r_median'], 4)}, worst {cell(s['trunk_abs_r_worst'], 4)}\n"
        f"zone accuracy {cell(s['zone_accuracy_mean'], 4)} (sd {cell(s['zone_accuracy_sd'], 4)} "
        f"over {s['zone_calibrations']} calibrations)\n"
        f"landmark error, median: {cell(s['headline_error_mm_median'], 1)} mm over lung apex, "
        f"liver dome and iliac crest; {cell(s['landmark_error_mm_median'], 1)} mm over all"
    )
    if doubt is not None and "reason" in doubt:
        console.print(f"uncertainty not judged: {doubt['reason']}")
    elif doubt is not None:
        console.print(
            f"95 % intervals hold {cell(doubt['coverage_95'], 3)} of {doubt['num_landmarks']} "
            f"landmarks of {doubt['num_subjects']} subjects, scale {cell(doubt['scale'], 2)}; "
            f"median sd {cell(doubt['sd_median'], 1)}, median miss {cell(doubt['off_median'], 1)} "
            "of the body coordinate"
        )


if __name__ == "__main__":
    raise SystemExit(main())
