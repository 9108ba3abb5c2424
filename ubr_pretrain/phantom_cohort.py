"""``make_phantoms.py``: writes a cohort of synthetic CT volumes, and a synthetic DeepLesion.

    make_phantoms.py OUT --subjects 24 --seed 0 --matrix 128
    make_phantoms.py OUT --subjects 24 --deeplesion --lesion-patients 40 --pictures

Writes ``OUT/phantoms.json`` (what was asked); ``OUT/ct/*.nii.gz`` with ``manifest.csv``,
``slice_classes.csv``, ``landmarks.csv`` and ``slice_coordinates.csv``; with ``--labels``
``OUT/labels/*.nii.gz``, the tissue of every voxel, and ``tissues.json``; ``OUT/deeplesion`` in the
official layout; ``OUT/pictures/*.png``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ubr_pretrain.ct import Volume
    from ubr_pretrain.phantom_lesions import LesionKind

PROG = "make_phantoms.py"
SUMMARY = "Write synthetic CT volumes with exact body parts and landmarks, and a DeepLesion."
PLAIN_LINE_EVERY_S = 10.0
RECORD = "phantoms.json"
FOLDERS = ("ct", "labels", "deeplesion", "pictures")


def _watched(items: Iterable[Any], total: int | None, what: str) -> Iterator[Any]:
    """Pass items on, showing a bar on a terminal and a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    if console.is_terminal:
        yield from track(items, what, total, console=console, transient=True)
        return
    last_s = time.monotonic()
    for number, item in enumerate(items, 1):
        if time.monotonic() - last_s > PLAIN_LINE_EVERY_S:
            last_s = time.monotonic()
            of_all = "" if total is None else f" of {total}"
            print(f"{what}: {number}{of_all}", file=sys.stderr, flush=True)
        yield item


def make_phantoms(arguments: argparse.Namespace) -> None:
    """Write what the command line asks for, and print what was written.

    Raises:
        ValueError: a folder that must not be written, or an impossible number.
        OSError: something cannot be written.
    """
    from ubr_pretrain.phantom_deeplesion import write_deeplesion
    from ubr_pretrain.phantom_pictures import draw_contact_sheet, draw_views
    from ubr_pretrain.phantom_volumes import write_cohort

    out: Path = arguments.out
    began_s = time.monotonic()
    drawn: list[Volume] = []
    num_slices = 0
    cohort = write_cohort(
        out / "ct", arguments.subjects, arguments.seed, arguments.matrix, arguments.abnormal,
        arguments.region, arguments.step_mm, arguments.max_slices,
        out / "labels" if arguments.labels else None,
    )  # fmt: skip
    patients = arguments.lesion_patients
    series: Iterable[Path] = ()
    if arguments.deeplesion:
        series = write_deeplesion(
            out / "deeplesion", patients, arguments.seed, arguments.matrix, arguments.lesion_mm,
            _lesion_kinds(arguments.lesion_kinds),
        )  # fmt: skip
    _claim(out, arguments)
    for _, phantom in _watched(cohort, arguments.subjects, "volumes"):
        num_slices += phantom.volume.num_slices
        if len(drawn) < arguments.pictures:
            drawn.append(phantom.volume)
    print(f"{out / 'ct'}: {arguments.subjects} volumes, {num_slices} slices")
    if drawn:
        draw_contact_sheet(drawn, out / "pictures" / "slices.png")
        draw_views(drawn, out / "pictures" / "views.png")
        print(f"{out / 'pictures'}: slices.png, views.png")
    if arguments.deeplesion:
        num_series = sum(1 for _ in _watched(series, None, "lesion series"))
        print(f"{out / 'deeplesion'}: {patients} patients, {num_series} series, DL_info.csv")
    print(f"{time.monotonic() - began_s:.0f} s")
    print(f"next: train_ubr.py --data {out / 'ct'} --out runs/ubr")
    if arguments.deeplesion:
        table, images = out / "deeplesion" / "DL_info.csv", out / "deeplesion" / "Images_png"
        print(f"next: deeplesion_to_coco.py {table} --images {images} --out coco")


def _claim(out: Path, arguments: argparse.Namespace) -> None:
    """Make the folder ours: empty, or written by this command before and given up by the user."""
    import shutil

    from ubr_pretrain.whole_file import write_atomically

    record = out / RECORD
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder")
    if out.is_dir() and any(out.iterdir()):
        if not arguments.overwrite:
            raise ValueError(f"{out} is not empty: give another folder, or --overwrite")
        if not record.is_file():
            raise ValueError(f"{out} was not written by {PROG} (no {RECORD}): not overwritten")
        for name in FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
    with write_atomically(record, "w") as file:
        asked = {key: str(value) for key, value in sorted(vars(arguments).items())}
        json.dump(asked, file, indent=2, allow_nan=False)


def _lesion_kinds(names: Sequence[str]) -> list[LesionKind]:
    """Return the kinds of these names; all of them for no name.

    Raises:
        ValueError: an unknown name.
    """
    from ubr_pretrain.phantom_lesions import LesionKind

    known = {kind.name.lower(): kind for kind in LesionKind}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--lesion-kinds {unknown[0]}: not one of {', '.join(known)}")
    return [known[name] for name in names] or list(LesionKind)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """End with one line, without the usage."""
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, write the phantoms, return the exit code."""
    parser = _Parser(PROG, description=SUMMARY)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="empty or absent folder")
    add("--subjects", type=int, default=24, help="volumes, one per subject (24)")
    add("--seed", type=int, default=0, help="the same seed gives the same voxels (0)")
    add("--matrix", type=int, default=128, help="side of the slices in pixels (128)")
    add("--region", help="head_neck, chest, abdomen, pelvis, trunk, whole, random (drawn)")
    add("--step-mm", type=float, help="slice interval (drawn: 0.8 to 8)")
    add("--max-slices", type=int, default=240, help="per volume, by a coarser interval (240)")
    add("--abnormal", type=int, default=0, help="how many of the subjects are abnormal (0)")
    add("--labels", action="store_true", help="also write the tissue of every voxel")
    add("--deeplesion", action="store_true", help="also write a synthetic DeepLesion")
    add("--lesion-patients", type=int, default=24, help="patients in it (24)")
    add("--lesion-mm", type=float, default=17.0, help="median long diameter of its lesions (17)")
    add("--lesion-kinds", nargs="*", default=[], metavar="KIND",
        help="lung liver kidney bone mediastinum abdomen pelvis soft_tissue (all)")  # fmt: skip
    add("--pictures", type=int, nargs="?", const=4, default=0, metavar="N",
        help="also draw the first N volumes (4)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace what this command wrote to OUT before")
    arguments = parser.parse_args(argv)
    try:
        make_phantoms(arguments)
    except (ValueError, OSError) as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
