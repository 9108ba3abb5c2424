"""Cut a stretch of the body out of CT scans and write it as NIfTI, every voxel at its old place.

Commands:
    crop_volumes.py scan.nii.gz --zone abdomen --out crops
    crop_volumes.py ARCHIVE/ --zone chest --zone abdomen --margin-mm 10 --out crops
    crop_volumes.py ARCHIVE/ --from lung_apex --to iliac_crest --out crops
    crop_volumes.py ARCHIVE/ --coordinate 0 56 --checkpoint best.safetensors --calibration cal.json

It writes into ``--out``: ``NAME_STRETCH.nii.gz`` for every scan that shows the stretch (columns to
the patient's left, rows to posterior, slices to superior, whole HU) and ``crops.csv``: which slices
were kept, counted from 0, the most superior one; z below it; body coordinates; and at which ends
the scan itself ends, so that the stretch may be incomplete. A scan that shows nothing of it, cannot
be read or cannot be said in NIfTI is named and skipped; the exit code is then 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.config import CommandParser, give_up, refuse

if TYPE_CHECKING:
    from ubr_pretrain.crop import BodyStretch
    from ubr_pretrain.scored_volume import ScoredVolume
    from ubr_pretrain.scorer import Scorer

COLUMNS = (
    "volume", "file", "num_slices", "first_slice", "last_slice", "first_z_mm", "last_z_mm",
    "first_coordinate", "last_coordinate", "ends_with_scan",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and crop; return the exit code."""
    parser = CommandParser(
        prog="crop_volumes.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="scans, folders, DICOM trees")
    add("--out", type=Path, required=True, help="folder of the crops")
    add(
        "--zone", action="append", type=str,
        help="head_neck, chest, abdomen, pelvis or legs; may be given again for a neighbour",
    )  # fmt: skip
    add("--from", type=str, help="landmark at one end, such as lung_apex")
    add("--to", type=str, help="landmark at the other end, such as iliac_crest")
    add("--coordinate", nargs=2, type=float, help="lowest and highest body coordinate")
    add("--margin-mm", type=float, default=0.0, help="added above and below")
    add("--checkpoint", type=Path, help="of train_ubr.py, instead of the weights of the package")
    add("--calibration", type=Path, help="of calibrate_scorer.py, for that checkpoint")
    add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    add("--overwrite", action="store_true", help="replace crops in --out")
    a = parser.parse_args(argv)
    if missing := [str(path) for path in a.paths if not path.exists()]:
        refuse(parser.prog, f"{', '.join(missing[:5])}: no such file or folder")

    try:
        stretch = _stretch(a.zone, a["from"], a.to, a.coordinate)

        from ubr_pretrain.scorer import read_scorer

        # the scores alone decide where to cut: their spread over views is not needed
        scorer = read_scorer(a.checkpoint, a.calibration, device=a.device, num_views=1)
        return crop_volumes(
            a.paths, stretch, scorer, a.out, margin_mm=a.margin_mm, overwrite=a.overwrite
        )
    except (OSError, ValueError) as error:
        give_up(parser.prog, error)


def _stretch(
    zones: Sequence[str] | None,
    one: str | None,
    other: str | None,
    coordinates: Sequence[float] | None,
) -> BodyStretch:
    """Return the one stretch that the flags name."""
    from ubr_pretrain.crop import stretch_of_coordinates, stretch_of_landmarks, stretch_of_zones

    if (one is None) != (other is None):
        raise ValueError("--from and --to: give both landmarks")
    if sum(choice is not None for choice in (zones, one, coordinates)) != 1:
        raise ValueError("give one of --zone, --from with --to, and --coordinate")
    if zones is not None:
        return stretch_of_zones(zones)
    if one is not None and other is not None:
        return stretch_of_landmarks(one, other)
    assert coordinates is not None
    return stretch_of_coordinates(*coordinates)


def crop_volumes(
    paths: Sequence[Path],
    stretch: BodyStretch,
    scorer: Scorer,
    out: Path,
    *,
    margin_mm: float = 0.0,
    overwrite: bool = False,
) -> int:
    """Crop all volumes below ``paths`` into the folder ``out``.

    Returns:
        0, or 1 where a volume was skipped.

    Raises:
        ValueError: nothing to crop, results in the way, no calibration, a negative margin.
        OSError: a crop cannot be written.
    """
    import pandas as pd
    from rich.progress import track

    from ubr_pretrain.crop import crop_slices, find_slices
    from ubr_pretrain.ct import VolumeRefused
    from ubr_pretrain.nifti_file import stored_grid, write_volume
    from ubr_pretrain.read_ahead import read_ahead
    from ubr_pretrain.volumes import SCORING_TILT_DEG, find_volumes
    from ubr_pretrain.whole_file import write_atomically

    if scorer.calibration is None:
        raise ValueError("--checkpoint: zones and body coordinates need its --calibration")
    entries = find_volumes(paths)
    if not entries:
        raise ValueError(f"{' '.join(map(str, paths))}: no CT volume found")
    files = {entry.name: f"{entry.name}_{stretch.name}.nii.gz" for entry in entries}
    in_the_way = [name for name in ("crops.csv", *files.values()) if (out / name).exists()]
    if in_the_way and not overwrite:
        raise ValueError(f"--out {out}: holds {in_the_way[0]}; use --overwrite or another folder")
    for name in in_the_way:  # a crop of an earlier run must not pass for one of this
        (out / name).unlink()

    rows: list[dict[str, Any]] = []
    coming = read_ahead(entries, allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
    for entry, volume in track(coming, "cropping", len(entries), disable=not sys.stderr.isatty()):
        try:
            if isinstance(volume, VolumeRefused):
                raise volume
            stored_grid(volume)  # before it is scored: can NIfTI say where its slices lie?
        except VolumeRefused as refusal:
            print(refusal, file=sys.stderr)
            continue
        scored = scorer.score_volume(volume, entry.name)
        slices = find_slices(stretch, scored, margin_mm)
        if slices is None:
            print(f"{entry.name}: shows nothing of {stretch.name}", file=sys.stderr)
            continue
        write_volume(crop_slices(volume, slices), out / files[entry.name])
        rows.append({"volume": entry.name, "file": files[entry.name], **_kept(slices, scored)})
    with write_atomically(out / "crops.csv", "w") as file:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(file, index=False)
    print(f"{len(rows)} volumes cropped, {len(entries) - len(rows)} skipped; see {out}")
    return 1 if len(rows) < len(entries) else 0


def _kept(slices: range, scored: ScoredVolume) -> dict[str, Any]:
    """Return what the table says of the slices that were kept."""
    first, last = slices.start, slices.stop - 1
    ends = (["top"] if first == 0 else []) + (["bottom"] if slices.stop == len(scored.z_mm) else [])
    assert scored.coordinate is not None
    return {
        "num_slices": len(slices),
        "first_slice": first,
        "last_slice": last,
        "first_z_mm": round(float(scored.z_mm[first]), 3),
        "last_z_mm": round(float(scored.z_mm[last]), 3),
        "first_coordinate": round(float(scored.coordinate[first]), 2),
        "last_coordinate": round(float(scored.coordinate[last]), 2),
        "ends_with_scan": " ".join(ends),
    }


if __name__ == "__main__":
    raise SystemExit(main())
