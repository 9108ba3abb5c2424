"""One mutated volume: how it is made from a seed and a number, and what is to be said of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.byte_mutators import mutate_bytes
from tests.fuzz.dicom_mutators import dicom_elements
from tests.fuzz.field_mutators import Change, gzip_layer, nifti_field, png_chunks, text_header
from tests.fuzz.judges import (
    Abstains,
    Judge,
    Seen,
    differences,
    gdcm_judge,
    itk_judge,
    nibabel_judge,
    pillow_judge,
    pydicom_judge,
)
from tests.fuzz.originals import VOLUMES, Files, Original
from tests.fuzz.plain_judge import plain_judge, plain_png_judge
from tests.fuzz.record_mutators import csv_cells
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.volumes import read_volume

CODES = frozenset(
    f"E-{word}"
    for word in [
        "MISSING",
        "PATIENT",
        "NOTFILE",
        "EMPTY",
        "FORMAT",
        "NOTDICOM",
        "NOPIXELS",
        "TRUNC",
        "CRC",
        "HEADER",
        "SIZE-LIMIT",
        "DIM",
        "4D",
        "RGB",
        "MONO1",
        "MODALITY",
        "LOCALIZER",
        "GEOM",
        "SPACING",
        "GAP",
        "DUP",
        "ORIENT",
        "SIZE",
        "OBLIQUE",
        "TILT",
        "NONAXIAL",
        "RESCALE",
        "NOHU",
        "NAN",
        "FEW",
        "CODEC",
        "UNSAFE",
        "TIMEOUT",
        "MEMORY",
        "CRASH",
        "NODATA",
        "SERIES",
    ]
)
MAX_LINE = 2000
HIGHEST_HU = 32767


@lru_cache(maxsize=64)
def originals_of(kind: str) -> list[Original]:
    """Return the sound inputs of a format, made once."""
    return VOLUMES[kind]()


def judges_of(kind: str) -> dict[str, Judge]:
    """Return the judges of a format."""
    if kind.startswith("dicom"):
        return {"pydicom": pydicom_judge, "GDCM": gdcm_judge}
    if kind.startswith("png"):
        return {"Pillow": pillow_judge, "a plain parse": plain_png_judge}
    second = {"nibabel": nibabel_judge} if "nii" in kind else {"a plain parse": plain_judge}
    return {"ITK": itk_judge, **second}


def rules_of(kind: str) -> dict[str, Any]:
    """Return what the caller states where the files of a format state nothing."""
    return {"spacing_mm_zyx": (5.0, 0.75, 0.75)} if kind == "png" else {}


def mutated(kind: str, seed: int, index: int) -> tuple[Original, Files, list[str]]:
    """Return the original, the changed files, and how they were changed."""
    rng = Random(f"{seed}/{kind}/{index}")
    originals = originals_of(kind)
    number = rng.randrange(len(originals))
    original, notes = originals[number], [f"original {number}"]
    files = dict(original.files)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        if len(files) > 1 and kind.startswith(("dicom", "png")) and rng.random() < 0.12:
            notes.append(_folder(rng, files))
            continue
        chosen = [rng.choice(sorted(files))]
        if rng.random() < 0.15 and len(files) > 1:
            suffix = Path(chosen[0]).suffix
            chosen = sorted(name for name in files if name.endswith(suffix))
        stream = rng.getrandbits(64)  # files that are changed together are changed alike
        for name in chosen:
            files[name], how = _one(kind, Random(stream), original, name, files[name], originals)
            notes.append(f"{name}: {how}")
    return original, files, notes


def _one(
    kind: str, rng: Random, original: Original, name: str, content: bytes, others: list[Original]
) -> tuple[bytes, str]:
    """Change one file, by what is known of its format or without."""
    other = rng.choice(list(rng.choice(others).files.values()))
    if rng.random() < 0.1:
        strange = VOLUMES[rng.choice(list(VOLUMES))]
        other = rng.choice(list(originals_of(_name_of(strange))[0].files.values()))
    header = original.voxels.get(name, original.unchecked.get(name, range(len(content)))).start
    change = _field_change(kind, name)
    if change is not None and rng.random() < 0.6:
        try:
            return change(rng, content)
        except Exception:  # noqa: BLE001  (a second change of what a first one broke)
            pass
    return mutate_bytes(rng, content, header or len(content), other)


def _name_of(make: Any) -> str:
    return next(name for name, other in VOLUMES.items() if other is make)


def _field_change(kind: str, name: str) -> Change | None:
    if name.endswith(".csv"):
        return csv_cells
    if name.endswith(".png"):
        return png_chunks
    if kind.startswith("dicom"):
        syntax = kind.removeprefix("dicom-").replace("enhanced", "explicit")
        return lambda rng, content: dicom_elements(syntax, rng, content)
    if name.endswith(".nii"):
        return nifti_field
    if name.endswith(".nii.gz"):
        return gzip_layer(nifti_field)
    return None if name.endswith("raw") else text_header


def _folder(rng: Random, files: Files) -> str:
    """Change which files there are."""
    name, other = rng.sample(sorted(files), 2)
    match rng.randrange(6):
        case 0:
            del files[name]
            return f"{name} removed"
        case 1:
            twin = f"{name.rpartition('.')[0]}{rng.choice('9b')}.{name.rpartition('.')[2]}"
            files[twin] = files[name]
            return f"{name} copied to {twin}"
        case 2:
            files[name] = rng.choice((b"", b"version https://git-lfs\n", b"<html>", b"\0" * 200))
            return f"{name} replaced by {files[name][:20]!r}"
        case 3:
            files[name], files[other] = files[other], files[name]
            return f"{name} and {other} exchanged"
        case 4:
            files[name] = files[other]
            return f"{name} overwritten by {other}"
        case _:
            renamed = f"{name.rpartition('.')[0]}.{rng.choice(('txt', 'DCM', 'PNG', 'bak'))}"
            files[renamed] = files.pop(name)
            return f"{name} renamed to {renamed}"


def read(kind: str, original: Original, folder: Path) -> Volume:
    """Read the changed files as a user would; a warning that escapes is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_volume(folder / original.target, **rules_of(kind))


def refusal_fault(refusal: VolumeRefused, folder: Path) -> str:
    """Say what is wrong with a refusal, '' if nothing."""
    text = str(refusal)
    if refusal.code not in CODES:
        return f"unknown code {refusal.code}"
    if str(folder) not in refusal.path:
        return f"names {refusal.path}, which is not the input"
    if not text.isprintable():
        return "the message is not one printable line"
    return "" if len(text) <= MAX_LINE else f"the message has {len(text)} characters"


def opinion(judge: Judge, folder: Path, target: str) -> Seen | None:
    """Return what a judge sees, None where it abstains or fails in any way."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return judge(folder, target)
        except Exception:  # noqa: BLE001  (other readers fail in every way there is)
            return None


def as_seen(volume: Volume) -> Seen:
    """Return our volume in the words of the judges."""
    hu = volume.hu.astype(np.float64)
    return Seen(hu, volume.affine_lps, volume.z_mm, volume.spacing_mm_zyx)


def needs_judges(original: Original, truth: Seen, files: Files, volume: Volume, index: int) -> bool:
    """Whether others are to be asked: not where the volume is the one that it must be.

    Of volumes equal to the original one in eight is shown to them all the same, to learn where
    they differ.
    """
    if _touched(original, files) == "voxels" and original.stored_hu is not None:
        return False
    return index % 8 == 0 or bool(differences(as_seen(volume), truth))


def verdict(
    kind: str,
    original: Original,
    truth: Seen,
    files: Files,
    volume: Volume,
    opinions: Mapping[str, Seen | None],
) -> tuple[str, str]:
    """Return the class of an accepted volume, and the reason."""
    seen = as_seen(volume)
    if not "".join(volume.notes).isprintable() or len(" ".join(volume.notes)) > MAX_LINE:
        return "FAULT", f"a note is not one printable line: {volume.notes}"
    where = _touched(original, files)
    if where == "voxels" and original.stored_hu is not None:
        expected = original.stored_hu(files)
        if not np.isfinite(expected).all() or expected.max() > HIGHEST_HU + 0.5:
            return "WRONG", f"holds {expected.min():g}..{expected.max():g}, and was accepted"
        should = Seen(expected, truth.affine_lps, truth.z_mm, truth.spacing_mm)
        apart = differences(seen, should)
        return ("WRONG", "; ".join(apart)) if apart else ("only the voxels touched", "")
    apart = differences(seen, truth)
    split = {name: differences(seen, one) for name, one in opinions.items() if one is not None}
    agree = sorted(name for name, found in split.items() if not found)
    differ = {name: "; ".join(found) for name, found in split.items() if found}
    if not apart:
        return "equal to the original", f"but {differ}" if differ else ""
    if where == "unchecked pixels":
        others = sorted(set(range(len(truth.hu))) - _slices_touched(original, files))
        same = seen.hu.shape == truth.hu.shape and np.array_equal(seen.hu[others], truth.hu[others])
        geometry = [word for word in apart if "voxels" not in word]
        if not same or geometry:
            return "WRONG", f"more than the slices touched: {apart}"
        return "damaged pixels that no checksum guards", f"{agree} decode the same; {differ}"
    if agree and not differ:
        return "another volume, as other readers see it", f"{agree}: {'; '.join(apart)[:200]}"
    if agree:
        return "DISPUTED", f"{agree} agree, {differ}"
    if differ:
        return "WRONG", f"{differ}"
    return "UNJUDGED", f"no other reader takes it; {'; '.join(apart)}"


def _touched(original: Original, files: Files) -> str:
    """Say whether all changes lie in voxels, or in compressed pixels, or elsewhere."""
    if files.keys() != original.files.keys():
        return "files"
    kinds = set()
    for name, content in files.items():
        before = original.files[name]
        if content == before:
            continue
        if len(content) != len(before):
            return "lengths"
        changed = np.flatnonzero(np.frombuffer(content, "u1") != np.frombuffer(before, "u1"))
        for word, ranges in (("voxels", original.voxels), ("unchecked pixels", original.unchecked)):
            if (
                name in ranges
                and ranges[name].start <= changed[0]
                and changed[-1] < ranges[name].stop
            ):
                kinds.add(word)
                break
        else:
            return "headers"
    return kinds.pop() if len(kinds) == 1 else ("nothing" if not kinds else "several")


def _slices_touched(original: Original, files: Files) -> set[int]:
    changed = [name for name in files if files[name] != original.files[name]]
    return {k for name in changed for k in original.slices[name]}


def known_truth(kind: str, original: Original, folder: Path) -> Seen:
    """Return what is true of an original: its judges agree, and our reader with them."""
    opinions = {n: opinion(judge, folder, original.target) for n, judge in judges_of(kind).items()}
    seen = as_seen(read(kind, original, folder))
    heard = [one for one in opinions.values() if one is not None]
    if not heard or any(differences(seen, one) for one in heard):
        raise Abstains(f"{kind}: the original itself is disputed: {opinions}")
    if original.stored_hu is not None:
        hu = original.stored_hu(original.files)
        if not np.array_equal(hu, seen.hu):
            raise Abstains(f"{kind}: the original is not what was stored")
    return Seen(seen.hu, heard[0].affine_lps, heard[0].z_mm, heard[0].spacing_mm)
