"""Second stage of a self-correcting training: place the slices of scored volumes by robust lines.

Commands:
    score_volumes.py openkbp/ --checkpoint runs/first/checkpoints/best.safetensors --out scores
    place_slices.py scores --out placed.csv
    train_ubr.py --data openkbp/ --anchors placed.csv ... --out runs/second

A body lies along a line: score against position in millimetres. The line that most slices agree on
(Theil-Sen) corrects the others, and the next training takes what it says as anchors. A volume whose
line is not to be trusted is left out and named; it goes on learning from order and spacing alone.

Reference:
    "Self-correcting" regression as in Tang et al., Body Part Regression with Self-supervision,
    IEEE TMI 2021 (robust line through the scores of a first stage, then a second training).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.config import CommandParser, give_up
from ubr_pretrain.ubr_config import Losses

if TYPE_CHECKING:
    import pandas as pd
    from numpy import ndarray

MIN_SLICES, MIN_MM = 8, 80.0
"""A shorter volume has no line worth the name."""

MIN_R = 0.9
"""A line that explains less of the scores than this is not trusted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and place; return the exit code."""
    parser = CommandParser(
        prog="place_slices.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("scores", type=Path, help="folder written by score_volumes.py")
    parser.add_argument("--out", type=Path, required=True, help="table of anchors to write")
    a = parser.parse_args(argv)
    try:
        left_out = place_slices(a.scores, a.out, Losses())
    except (ValueError, OSError) as error:
        give_up(parser.prog, error)
    for line in left_out:
        print(line, file=sys.stderr)
    return 0


def place_slices(scores: Path, out: Path, scale: Losses) -> list[str]:
    """Write the places of all slices whose volume has a line to be trusted.

    Args:
        scores: folder with ``scores.csv`` (volume, slice_index, z_mm, score).
        out: table to write: volume, index_sup_to_inf, coordinate_mm.
        scale: its ``score_per_mm``, ``zero_mm`` and ``slope_tolerance`` say what a score means.

    Returns:
        A line for every volume that was left out.

    Raises:
        ValueError: no such table, a column is missing, ``out`` exists, or no volume was placed.
    """
    import pandas as pd

    from ubr_pretrain.number_table import read_number_table
    from ubr_pretrain.whole_file import write_atomically

    if out.exists():
        raise ValueError(f"--out {out}: exists")
    if not (scores / "scores.csv").is_file():
        raise ValueError(f"{scores}: holds no scores.csv")
    table = read_number_table(scores / "scores.csv", ["volume"], ["slice_index"], ["z_mm", "score"])
    placed: list[pd.DataFrame] = []
    left_out: list[str] = []
    for name, rows in table.groupby("volume"):
        try:
            coordinate_mm = line_mm(rows["z_mm"].to_numpy(), rows["score"].to_numpy(), scale)
        except ValueError as error:
            left_out.append(f"left out: {name}: {error}")
            continue
        placed.append(
            pd.DataFrame(
                {
                    "volume": name,
                    "index_sup_to_inf": rows["slice_index"],
                    "coordinate_mm": coordinate_mm.round(2),
                }
            )
        )
    if not placed and not left_out:
        raise ValueError(f"{scores / 'scores.csv'}: holds no scored volume")
    if not placed:
        raise ValueError(f"{scores}: no volume has a line to be trusted; {left_out[0]}")
    with write_atomically(out, "w") as file:
        pd.concat(placed).to_csv(file, index=False)
    print(f"{out}: {len(placed)} volumes placed, {len(left_out)} left out")
    return left_out


def line_mm(z_mm: ndarray, scores: ndarray, scale: Losses) -> ndarray:
    """Return the coordinates in mm that the Theil-Sen line through the scores gives the slices.

    Raises:
        ValueError: a volume too short, or a line too steep, too flat or too loose; the figure is
            named.
    """
    import numpy as np
    from scipy.stats import theilslopes

    extent_mm = float(np.ptp(z_mm))
    if len(z_mm) < MIN_SLICES or extent_mm < MIN_MM:
        raise ValueError(
            f"{len(z_mm)} slices over {extent_mm:.0f} mm; {MIN_SLICES} and {MIN_MM:.0f} mm needed"
        )
    said_mm = scores / scale.score_per_mm + scale.zero_mm
    slope = float(theilslopes(said_mm, z_mm).slope)
    offset_mm = np.median(said_mm - slope * z_mm)  # its own offset takes the two medians apart
    if abs(slope - 1) > scale.slope_tolerance:
        raise ValueError(f"its line runs {slope:.2f} mm per mm, not 1 +- {scale.slope_tolerance}")
    largest = np.abs(scores).max() or 1.0  # squares of absurd scores would overflow
    r = float(np.corrcoef(z_mm, scores / largest)[0, 1])
    if not r >= MIN_R:
        raise ValueError(f"r {r:.3f} < {MIN_R}")
    return np.asarray(offset_mm + slope * z_mm)


if __name__ == "__main__":
    raise SystemExit(main())
