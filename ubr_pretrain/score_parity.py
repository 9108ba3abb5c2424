"""Compare scores with those that DeepLesion's authors published for its key slices.

Commands:
    score_parity.py DL_info.csv --images Images_png --out parity
    score_parity.py DL_info.csv --images Images_png --checkpoint best.safetensors

The third value of ``Normalized_lesion_location`` was predicted by the authors' own body-part
regressor, so the rank correlation is a check that needs no annotation. Each slice is scored twice:
from its HU with the table's pixel size, and as an 8-bit picture (-175..275 HU) without one. Slices
whose pixels are not at hand, and rows without a location, are counted and left out. It prints the
correlations with intervals over patients and writes, into ``--out``, ``parity.json``,
``parity.csv`` (a row a slice) and ``parity.png``.

Reference:
    Yan et al., "DeepLesion", J. Med. Imaging 5(3), 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ubr_pretrain.config import CommandParser, give_up, refuse
from ubr_pretrain.pretrained import NUM_VIEWS

SCHEMA_VERSION = 1
"""Of ``parity.json``."""

WAYS = {"hu": "HU with pixel size", "grey": "8-bit picture, pixel size assumed"}
"""How a slice is brought."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and compare; return the exit code."""
    parser = CommandParser(
        prog="score_parity.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("table", type=Path, help="DL_info.csv, in whole or in part")
    parser.add_argument("--images", type=Path, required=True, help="the folder Images_png")
    parser.add_argument(
        "--checkpoint", type=Path, default=None, help="of train_ubr.py; none: that of the package"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the results")
    parser.add_argument("--views", type=int, default=NUM_VIEWS, help="views of a slice, averaged")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="of the resampled patients")
    a = parser.parse_args(argv)
    if a.seed < 0:
        refuse(parser.prog, f"--seed {a.seed}: must be >= 0")
    try:
        compare_scores(
            a.table,
            a.images,
            a.checkpoint,
            out=a.out,
            num_views=a.views,
            device=a.device,
            seed=a.seed,
        )
    except (OSError, ValueError) as error:
        give_up(parser.prog, error)
    return 0


def compare_scores(
    table: Path,
    images: Path,
    checkpoint: Path | None = None,
    *,
    out: Path | None = None,
    num_views: int = NUM_VIEWS,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Score the key slices and compare; print, write and return the result.

    Raises:
        ValueError: a table, folder or checkpoint that cannot be used, or fewer than three slices.
    """
    from collections import Counter
    from dataclasses import asdict

    import numpy as np
    import pandas as pd

    from ubr_pretrain.ct import VolumeRefused
    from ubr_pretrain.images import SOFT_TISSUE, array_to_image
    from ubr_pretrain.key_slices import read_key_slices
    from ubr_pretrain.measure_figures import draw_parity
    from ubr_pretrain.network_input import resample_slices
    from ubr_pretrain.pretrained import read_pretrained
    from ubr_pretrain.regressor import read_regressor
    from ubr_pretrain.runtime import start_ranks, to_json
    from ubr_pretrain.score_agreement import score_agreement
    from ubr_pretrain.view_scores import score_views
    from ubr_pretrain.whole_file import write_atomically

    if not images.is_dir():
        raise ValueError(f"--images {images}: no such folder")
    listed, left_out = read_key_slices(table)
    trained = read_pretrained().trained if checkpoint is None else read_regressor(checkpoint)
    spec = trained.input_spec
    there = []
    squares: dict[str, list[Any]] = {way: [] for way in WAYS}
    missing: Counter[str] = Counter()
    for key_slice in listed:
        try:
            hu, pixel_mm_yx = key_slice.read(images)
        except VolumeRefused as refusal:
            missing["no pixels at hand" if refusal.code == "E-MISSING" else refusal.code] += 1
            continue
        there.append(key_slice)
        window = (hu - SOFT_TISSUE.lower_hu) / (SOFT_TISSUE.upper_hu - SOFT_TISSUE.lower_hu)
        grey = array_to_image(np.rint(255 * np.clip(window, 0, 1)).astype(np.uint8))
        for way, image, spacing in (("hu", hu, pixel_mm_yx), ("grey", grey.hu, grey.pixel_mm_yx)):
            squares[way].append(resample_slices(image[np.newaxis], spacing, spec)[0])
    told = [f"{count} rows: {why}" for why, count in left_out.items()]
    told += [f"{count} slices: {why}" for why, count in missing.items()]
    coverage = f"{len(there)} of {len(listed)} key slices" + (
        f" (left out: {'; '.join(told)})" if told else ""
    )
    print(coverage)
    if len(there) < 3:
        raise ValueError(f"{table}: a correlation needs three slices, here are {coverage}")

    rows = pd.DataFrame([asdict(key_slice) for key_slice in there])
    rows = rows[["name", "patient", "location", "lesion_type"]]
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "num_views": num_views,
        "left_out": dict(left_out) | dict(missing),
    }
    with start_ranks(device) as ranks:
        regressor = trained.regressor.to(ranks.device)
        for way, name in WAYS.items():
            scores, sd = score_views(
                regressor, np.stack(squares[way]), spec, ranks.device, num_views
            )
            rows[f"score_{way}"], rows[f"score_{way}_sd"] = scores, sd
            agreement = score_agreement(
                scores,
                rows["location"].to_numpy(float),
                rows["patient"].tolist(),
                np.random.default_rng(seed),
            )
            result[way] = asdict(agreement)
            print(
                f"{name}: Spearman {agreement.spearman:.4f}{_shown(agreement.spearman_interval_95)}"
                f", Pearson {agreement.pearson:.4f}{_shown(agreement.pearson_interval_95)}; "
                f"{agreement.num_slices} slices of {agreement.num_patients} patients"
            )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with write_atomically(out / "parity.json", "w") as file:
            file.write(to_json(result, indent=1) + "\n")
        with write_atomically(out / "parity.csv", "w") as file:
            rows.round(6).to_csv(file, index=False)
        draw_parity(rows, out / "parity.png")
        print(f"see {out}")
    return result


def _shown(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
