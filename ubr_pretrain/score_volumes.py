"""Score every axial slice of CT volumes with a trained body-part regressor.

Commands:
    score_volumes.py scan.nii.gz --checkpoint runs/ubr/checkpoints/best.safetensors --out scores
    score_volumes.py ARCHIVE/ more.mha --checkpoint best.safetensors --out scores

It writes into ``--out``: ``scores.csv`` (one row a slice: volume, slice_index counted from the most
superior slice, z_mm below it, score), ``scores.json`` (one record a volume: r, rank correlation,
slope, direction, notes, or the reason why it was refused) and ``NAME.png`` (the curve beside
coronal and sagittal views). A volume that cannot be read is named and the rest goes on; the exit
code is then 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ubr_pretrain.config import CommandParser, refuse

SCHEMA_VERSION = 1
"""Of ``scores.json``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and score; return the exit code."""
    parser = CommandParser(
        prog="score_volumes.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files, folders, DICOM trees")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train_ubr.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--pictures", type=bool, default=True, help="draw NAME.png")
    parser.add_argument(
        "--with-paths", action="store_true", help="write the paths of the files into scores.json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results in --out")
    a = parser.parse_args(argv)

    from ubr_pretrain.checkpoint import CheckpointRefused

    try:
        return score_volumes(
            a.paths,
            a.checkpoint,
            a.out,
            device=a.device,
            pictures=a.pictures,
            with_paths=a.with_paths,
            overwrite=a.overwrite,
        )
    except (CheckpointRefused, ValueError) as error:
        refuse(parser.prog, str(error))


def score_volumes(
    paths: Sequence[Path],
    checkpoint: Path,
    out: Path,
    *,
    device: str = "auto",
    pictures: bool = True,
    with_paths: bool = False,
    overwrite: bool = False,
) -> int:
    """Score all volumes below ``paths`` into the folder ``out``.

    A DICOM series is named by a hash; ``with_paths`` adds its folder, which may name a patient.

    Returns:
        0, or 1 where a volume was refused.

    Raises:
        ValueError: nothing to score, results in the way, or a checkpoint that cannot be used.
    """
    import numpy as np
    import pandas as pd
    from rich.progress import track

    from ubr_pretrain.checkpoint import file_sha256, write_atomically
    from ubr_pretrain.ct import VolumeRefused
    from ubr_pretrain.figures import draw_scores
    from ubr_pretrain.network_input import resample_slices
    from ubr_pretrain.regressor import read_regressor
    from ubr_pretrain.runtime import start_ranks, to_json
    from ubr_pretrain.scoring import read_curve, score_slices
    from ubr_pretrain.volumes import SCORING_TILT_DEG, find_volumes, looks_like_hu

    trained = read_regressor(checkpoint)
    spec = trained.input_spec
    entries = find_volumes(paths)
    if not entries:
        raise ValueError(f"{' '.join(map(str, paths))}: no CT volume found")
    if (out / "scores.json").exists() and not overwrite:
        raise ValueError(f"--out {out}: holds scores; use --overwrite or another folder")
    out.mkdir(parents=True, exist_ok=True)

    records: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    with start_ranks(device) as ranks:
        regressor = trained.regressor.to(ranks.device)
        for entry in track(entries, "scoring", disable=not sys.stderr.isatty()):
            try:
                volume = entry.read(allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
            except VolumeRefused as refusal:
                print(refusal, file=sys.stderr)
                records.append({"volume": entry.name, "code": refusal.code, "cause": refusal.cause})
                continue
            slices = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)
            scores = score_slices(regressor, slices, spec, ranks.device)
            curve = read_curve(scores, volume.z_mm)
            doubt = looks_like_hu(volume)
            records.append(
                {
                    "volume": entry.name,
                    "subject": entry.subject,
                    "num_slices": volume.num_slices,
                    "spacing_mm_zyx": volume.spacing_mm_zyx,
                    "r": curve.r,
                    "rank_r": curve.rank_r,
                    "slope_per_mm": curve.slope_per_mm,
                    "direction": curve.direction,
                    "notes": [*volume.notes, *([doubt] if doubt else [])],
                }
            )
            tables.append(
                pd.DataFrame(
                    {
                        "volume": entry.name,
                        "slice_index": np.arange(volume.num_slices),
                        "z_mm": volume.z_mm.round(3),
                        "score": scores.round(6),
                    }
                )
            )
            if pictures:
                draw_scores(volume, curve, out / f"{entry.name}.png", entry.name)

    refused = [record for record in records if "code" in record]
    with write_atomically(out / "scores.csv", "w") as file:
        columns = ["volume", "slice_index", "z_mm", "score"]
        (pd.concat(tables) if tables else pd.DataFrame(columns=columns)).to_csv(file, index=False)
    if with_paths:
        records = [
            record | {"path": str(entry.path)}
            for record, entry in zip(records, entries, strict=True)
        ]
    summary = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint_sha256": file_sha256(checkpoint),
        "input_spec": spec.model_dump(mode="json"),
        "provenance": trained.provenance.model_dump(mode="json"),
        "volumes": records,
    }
    with write_atomically(out / "scores.json", "w") as file:
        file.write(to_json(summary, indent=1) + "\n")
    _print_table(records)
    print(f"{len(records) - len(refused)} volumes scored, {len(refused)} refused; see {out}")
    return 1 if refused else 0


def _print_table(records: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("volume", "slices", "r", "rank r", "direction or reason", box=None)
    for record in records:
        if "code" in record:
            table.add_row(record["volume"], "", "", "", f"{record['code']}  {record['cause']}")
            continue
        numbers = ["-" if record[k] is None else f"{record[k]:.4f}" for k in ("r", "rank_r")]
        direction = record["direction"].replace("_", " ")
        table.add_row(record["volume"], str(record["num_slices"]), *numbers, direction)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
