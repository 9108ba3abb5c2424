"""Audit someone else's DeepLesion COCO files against the official table.

Commands::

    audit_coco.py train.json val.json test.json --table DL_info.csv --out audit
    audit_coco.py theirs.json --table DL_info.csv --split val --images Images_png

Writes ``audit.json`` (every defect) and ``audit.md`` (counts, examples, what to do). Exit code 0:
clean; 1: defects were found, harmless ones too, or the disk is full; 2: refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ubr_pretrain.config import CommandParser, give_up, refuse

if TYPE_CHECKING:
    from converters.coco_audit import Audit

PROG = "audit_coco.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parser().parse_args(argv)
    out: Path = arguments.out
    if out.is_file():
        refuse(PROG, f"--out {out}: is a file, not a folder")
    if not arguments.overwrite and out.is_dir() and any(out.iterdir()):
        refuse(PROG, f"--out {out}: not empty; use --overwrite or a new folder")

    from converters.audit_report import print_audit, write_audit
    from converters.coco_audit import audit_coco

    audit: Audit
    try:
        audit = audit_coco(arguments.json, arguments.table, arguments.images, arguments.split)
        write_audit(out, audit)
    except (ValueError, OSError) as error:
        give_up(PROG, error)
    print_audit(audit)
    print(f"{out / 'audit.md'}, {out / 'audit.json'}")
    return 1 if audit.defects else 0


def _parser() -> CommandParser:
    parser = CommandParser(prog=PROG, description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("json", type=Path, nargs="+", metavar="THEIRS.json", help="one file a split, or one of all")
    add("--table", type=Path, required=True, help="DL_info.csv, or the part of it they should hold")
    add("--images", type=Path, help="Images_png: PNGs and their neighbours are looked for as well")
    add(
        "--split",
        nargs="+",
        choices=["train", "val", "test", "all"],
        help="of every file, in order (default: by info.split, file name, then images)",
    )
    add("--out", type=Path, default=Path("audit"), help="folder for audit.json and audit.md")
    add("--overwrite", action="store_true", help="replace the files of an earlier audit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
