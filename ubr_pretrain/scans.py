"""Everything that can be scored below some paths: volumes, and single slices as pictures.

Numbered 16-bit PNG slices in DeepLesion's layout, with a ``DL_info*.csv`` that states their
spacing, are a volume; any other PNG or JPEG is a slice by itself, and so is a DICOM series of one
picture.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ubr_pretrain.cohort import find_listed_volumes
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.folder_names import lesion_tables
from ubr_pretrain.folder_walk import Listing, Say, listings
from ubr_pretrain.images import picture_kind
from ubr_pretrain.png_slices import slice_number
from ubr_pretrain.stored_file import StoredFile
from ubr_pretrain.time_limit import in_time
from ubr_pretrain.volumes import Cohort, VolumeEntry

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
OWN_RESULTS = "scores.jsonl"
"""A folder that holds this file holds our own pictures of volumes, which are no scans."""


@dataclass(frozen=True)
class ImageEntry:
    """One slice that can be read with ``read_image``.

    Attributes:
        path: the file.
        name: fit for a table, free of what DICOM says of the patient.
        subject: whose slice it is, where that is known.
        named: whether the user named the file itself; a coloured picture that was only come
            across is no scan, one that was named is refused.
        series_uid: of a DICOM series of one picture.
    """

    path: Path
    name: str
    subject: str = ""
    named: bool = False
    series_uid: str | None = None


@dataclass(frozen=True)
class Scans:
    """What was found.

    Attributes:
        volumes: in the order in which they were found, with what was passed over.
        images: likewise.
    """

    volumes: Cohort
    images: tuple[ImageEntry, ...]


def find_scans(paths: Iterable[Path], say: Say = lambda _: None) -> Scans:
    """Find every volume and every single slice in files, folders and DICOM trees.

    Args:
        paths: where to look.
        say: is told now and then how far a long search has got.
    """
    paths = list(paths)
    named = dict.fromkeys(path for path in paths if _is_picture(path))
    return find_listed_scans(
        listings(path for path in paths if path not in named),
        [ImageEntry(path, _image_name(path), named=True) for path in named],
        say,
    )


def find_listed_scans(
    listed: Iterable[Listing],
    images: Iterable[ImageEntry] = (),
    say: Say = lambda _: None,
) -> Scans:
    """Find every volume and every single slice in what has been listed.

    Args:
        listed: folders, and files that the user named.
        images: single slices that are known already.
        say: is told now and then how far a long search has got.
    """
    listed, images = list(listed), list(images)
    volumes = find_listed_volumes(listed, say)
    kept = []
    for entry in volumes:
        if _is_one_slice(entry):
            one = ImageEntry(entry.files[0], entry.name, entry.subject, series_uid=entry.series_uid)
            images.append(one)
        elif not _is_loose_folder(entry):
            kept.append(entry)
    stacks = {entry.path.resolve() for entry in kept if entry.path.is_dir()}
    volumes[:] = kept
    known = {image.path.resolve() for image in images}
    for listing in listed:
        if listing.named or any(file.name == OWN_RESULTS for file in listing.files):
            continue
        in_stack = listing.folder.resolve() in stacks
        for file in listing.files:
            if file.suffix.lower() not in PICTURE_SUFFIXES or file.name.startswith("."):
                continue
            if in_stack and slice_number(file) is not None:
                continue
            if not _is_picture(file):
                continue
            if slice_number(file) is None:  # it was passed over among the volumes
                volumes.skipped["not a volume"] -= 1
            if file.resolve() not in known:
                images.append(ImageEntry(file, _image_name(file)))
    volumes.skipped = +volumes.skipped
    return Scans(volumes, tuple(images))


def content_of(entry: VolumeEntry | ImageEntry) -> str:
    """Return a hash that changes with the files of an entry: their names, sizes and times."""
    files = entry.files if isinstance(entry, VolumeEntry) else ()
    try:
        if not files:
            files = tuple(entry.path.iterdir()) if entry.path.is_dir() else (entry.path,)
        nodes = [(file.name, file.stat()) for file in files]
    except (OSError, ValueError) as error:  # its reader will say so
        return hash_of(f"{entry.path.name} {error}")
    return hash_of("\n".join(sorted(f"{name} {n.st_size} {n.st_mtime_ns}" for name, n in nodes)))


def place_of(entry: VolumeEntry | ImageEntry) -> str:
    """Return a hash of where an entry lies; two volumes at one place are told apart by series."""
    series = (entry.series_uid, entry.phase) if isinstance(entry, VolumeEntry) else ()
    return hash_of(f"{os.fspath(Path.cwd() / entry.path)} {series}")


def hash_of(text: str) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]


def _is_picture(path: Path) -> bool:
    """Whether a file is a PNG or JPEG by content; what cannot be opened is left to the readers."""
    try:
        return in_time(path, _picture_kind, path, ungzip=False) != ""
    except VolumeRefused:
        return False


def _picture_kind(path: Path, *, ungzip: bool = True) -> str:
    with StoredFile(path, ungzip=ungzip) as file:
        return picture_kind(file)


def _is_one_slice(entry: VolumeEntry) -> bool:
    one = len(entry.headers) == 1 and len(entry.headers[0].frames) == 1
    return one and entry.refusal is None


def _is_loose_folder(entry: VolumeEntry) -> bool:
    """Whether a folder of numbered PNGs is no stack: not 16-bit grey, or without any table."""
    if entry.headers or entry.refusal is not None or not entry.path.is_dir():
        return False
    try:
        first = min(file for file in entry.path.iterdir() if slice_number(file) is not None)
        is_grey = in_time(first, _picture_kind, first) == "16-bit"
        return not (is_grey and lesion_tables(entry.path.resolve().parent))
    except (OSError, VolumeRefused):
        return False  # the reader of the folder will say so


def _image_name(path: Path) -> str:
    """Return the stem, with its folder in front where it is but a number."""
    stem = f"{path.resolve().parent.name}_{path.stem}" if path.stem.isdigit() else path.stem
    return re.sub(r"[^\w.\-]+", "_", stem).lstrip(".-") or "image"
