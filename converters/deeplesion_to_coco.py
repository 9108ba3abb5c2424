"""Convert DeepLesion's table into one COCO file for each official split.

Commands::

    deeplesion_to_coco.py DL_info.csv --images Images_png --out coco
    deeplesion_to_coco.py DL_info.csv --images Images_png --check-images --out coco   # once, slow
    deeplesion_to_coco.py DL_info.csv --out coco          # csv only: images are not checked

Writes ``train.json``, ``val.json``, ``test.json`` and ``conversion.json`` into the folder. Exit
code 0: done; 1: done, and rows or images were refused (they are listed), or the disk is full and
none of the four is there; 2: refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from converters.deeplesion_row import MAX_OUTSIDE_PX
from ubr_pretrain.config import CommandParser, first_problem, give_up, refuse

if TYPE_CHECKING:
    from converters.conversion import Conversion

PROG = "deeplesion_to_coco.py"
LISTED = 3
"""Findings of each code printed; ``conversion.json`` has them all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parser().parse_args(argv)
    for flag in ("require_all", "checksums", "check_images"):
        if getattr(arguments, flag) and arguments.images is None:
            refuse(PROG, f"--{flag.replace('_', '-')} needs --images")
    out: Path = arguments.out
    if out.is_file():
        refuse(PROG, f"--out {out}: is a file, not a folder")
    if not arguments.overwrite and out.is_dir() and any(out.iterdir()):
        refuse(PROG, f"--out {out}: not empty; use --overwrite or a new folder")

    from converters.conversion import ConversionConfig, convert_deeplesion

    try:
        config = ConversionConfig(
            noisy=arguments.noisy,
            require_all=arguments.require_all,
            checksums=arguments.checksums,
            check_images=arguments.check_images,
            allow_leakage=arguments.allow_leakage,
            allow_other_counts=arguments.allow_other_counts,
            max_outside_px=arguments.max_outside_px,
        )
        conversion = convert_deeplesion(arguments.table, out, config, arguments.images)
    except ValidationError as error:
        refuse(PROG, first_problem(error))
    except (ValueError, OSError) as error:
        give_up(PROG, error)
    _print_conversion(conversion)
    images = arguments.images or "Images_png"
    print(f"next: compare_inits.py --coco {out} --images {images} --ubr UBR --out runs/compare")
    return 1 if conversion.refused else 0


def _parser() -> CommandParser:
    parser = CommandParser(prog=PROG, description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("table", type=Path, metavar="DL_info.csv", help="the official table, or a part of it")
    add("--images", type=Path, help="Images_png: key slices are looked for, their headers compared")
    add("--out", type=Path, required=True, help="folder for the JSON files")
    add("--noisy", choices=["keep", "drop"], default="keep", help="possibly noisy lesions")
    add("--require-all", action="store_true", help="a missing PNG is an error")
    add("--checksums", action="store_true", help="read their PNGs to the end, check every CRC")
    add(
        "--check-images",
        action="store_true",
        help="--checksums, and decode them, look at their values, audit the whole folder",
    )
    add("--allow-leakage", action="store_true", help="go on where a patient is in two splits")
    add("--allow-other-counts", action="store_true", help="go on where a full table is unofficial")
    add(
        "--max-outside-px",
        type=float,
        default=MAX_OUTSIDE_PX,
        help="clip boxes that leave their image by at most this, refuse the others",
    )
    add("--overwrite", action="store_true", help="replace the files of an earlier conversion")
    return parser


def _print_conversion(conversion: Conversion) -> None:
    from converters.defects import by_code, kind_rows
    from converters.printed_table import print_table

    splits = next(iter(conversion.counts.values()))
    print_table(
        ("DeepLesion", *splits, "all"),
        [
            (label, *(f"{count:,}" for count in tally.values()), f"{sum(tally.values()):,}")
            for label, tally in conversion.counts.items()
        ],
    )
    for line in conversion.official:
        print(line)
    if not conversion.images_checked:
        print("images were not checked (no --images): sizes are the table's")
    for what, findings in (
        ("refused", conversion.refused),
        ("missing", conversion.missing),
        ("noticed", conversion.noticed),
    ):
        if groups := by_code(findings):
            print()
            print_table((what, "", "count"), kind_rows(groups), num_text=2)
        for code, found in groups.items():
            for finding in found[:LISTED]:
                print(f"{what}: {finding}")
            if len(found) > LISTED:
                print(f"{what}: {code}  {len(found) - LISTED:,} more in conversion.json")


if __name__ == "__main__":
    sys.exit(main())
