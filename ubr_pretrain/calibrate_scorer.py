"""Calibrate a scorer: what do the scores of a checkpoint mean?

Commands:
    calibrate_scorer.py best.safetensors --volumes ct/ --landmarks ct/landmarks.csv
        --out calibration.json
    calibrate_scorer.py best.safetensors --volumes ct/ phantoms/ct
        --landmarks ct/landmarks.csv phantoms/ct/landmarks.csv --out calibration.json
    score_volumes.py scan.nii.gz --checkpoint best.safetensors --calibration calibration.json
        --out scores

A table of landmarks has the columns volume, landmark, index_sup_to_inf (counted from the most
superior slice) and, if known, uncertainty_slices. Volumes that no table names are not read. It
writes ``--out``, from which come body coordinates, zones, anomalies and the proposed body part. A
volume that cannot be read is named and the rest goes on; the exit code is then 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.config import CommandParser, give_up

if TYPE_CHECKING:
    from ubr_pretrain.calibration import Calibration


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and calibrate; return the exit code."""
    parser = CommandParser(
        prog="calibrate_scorer.py",
        description=(__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, help="of train_ubr.py")
    for flag, what in (
        ("--volumes", "files, folders, DICOM trees"),
        ("--landmarks", "their tables"),
    ):
        parser.add_argument(flag, nargs="+", action="extend", type=Path, required=True, help=what)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the calibration")
    parser.add_argument(
        "--uncertainty_scale",
        type=float,
        default=1.0,
        help="factor for the spread of a slice's score over its views (measured on held-out data)",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace --out")
    a = parser.parse_args(argv)
    try:
        return calibrate_scorer(
            a.checkpoint,
            a.volumes,
            a.landmarks,
            a.out,
            uncertainty_scale=a.uncertainty_scale,
            device=a.device,
            overwrite=a.overwrite,
        )
    except (ValueError, OSError) as error:
        give_up(parser.prog, error)


def calibrate_scorer(
    checkpoint: Path,
    volumes: Sequence[Path],
    landmarks: Sequence[Path],
    out: Path,
    *,
    uncertainty_scale: float = 1.0,
    device: str = "auto",
    overwrite: bool = False,
) -> int:
    """Score the labelled volumes, fit a calibration and write it.

    Returns:
        0, or 1 where a volume was refused.

    Raises:
        ValueError: a table, a checkpoint or marks that cannot be used, or ``out`` in the way.
    """
    from dataclasses import replace

    from rich.progress import track

    from ubr_pretrain.body_coordinate import fit_calibration, write_calibration
    from ubr_pretrain.ct import VolumeRefused
    from ubr_pretrain.landmarks import read_landmark_tables
    from ubr_pretrain.read_ahead import read_ahead
    from ubr_pretrain.scorer import read_scorer
    from ubr_pretrain.volumes import SCORING_TILT_DEG, find_volumes

    if out.exists() and not overwrite:
        raise ValueError(f"--out {out}: exists; use --overwrite or another file")
    if not 0 < uncertainty_scale < float("inf"):
        raise ValueError(f"--uncertainty_scale {uncertainty_scale} must be > 0")
    marks = read_landmark_tables(landmarks)
    labelled = {mark.volume for mark in marks}
    entries = [entry for entry in find_volumes(volumes) if entry.name in labelled]
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--volumes hold two volumes of the name {twice[0]}")
    if missing := sorted(labelled - set(names)):
        raise ValueError(
            f"--landmarks name {len(missing)} volumes that --volumes lack, first {missing[0]}"
        )
    scorer = read_scorer(checkpoint, device=device)
    curves, refused = {}, 0
    coming = read_ahead(entries, allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
    for entry, volume in track(coming, "scoring", len(entries), disable=not sys.stderr.isatty()):
        if isinstance(volume, VolumeRefused):
            print(volume, file=sys.stderr)
            refused += 1
            continue
        curves[entry.name] = scorer.score_volume(volume, entry.name).curve
    source = f"{len(curves)} labelled volumes of {len(landmarks)} tables of landmarks"
    calibration = fit_calibration(curves, marks, source)
    write_calibration(replace(calibration, uncertainty_scale=uncertainty_scale), out)
    _print_table(calibration)
    print(f"next: score_volumes.py SCAN --checkpoint {checkpoint} --calibration {out} --out scores")
    return 1 if refused else 0


def _print_table(calibration: Calibration) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("landmark", "volumes", "score", "+-", "coordinate", "+-", box=None)
    for mark in calibration.landmarks:
        numbers = (mark.score, mark.score_sd, mark.coordinate, mark.coordinate_sd)
        table.add_row(mark.name, str(mark.num_volumes), *(f"{number:.2f}" for number in numbers))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    thresholds, sd = calibration.thresholds, calibration.thresholds_sd
    print(
        f"chest|abdomen {thresholds.chest_abdomen:.2f} (sd {sd[0]:.2f} over pairs of volumes), "
        f"abdomen|pelvis {thresholds.abdomen_pelvis:.2f} (sd {sd[1]:.2f})\n"
        f"{calibration.mm_per_unit:.2f} mm per unit of the body coordinate, spread "
        f"{100 * calibration.slope_sd / calibration.slope_per_mm:.0f} %; "
        f"a scan strays {calibration.wander_sd * calibration.mm_per_unit:.0f} mm from its line"
    )


if __name__ == "__main__":
    raise SystemExit(main())
