"""Defects between files: which split a file is, whose patients it shares, what no file lists."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from converters.defects import Defect
from converters.foreign_coco import ForeignCoco, SliceKey, table_name
from converters.lesions import Split
from converters.official_table import OfficialTable
from converters.png_folder import PngFolder

FileSplit = Literal["train", "val", "test", "all"]

MOST = 0.9
"""A file whose images are at least to this share of one split is taken for that split."""

_IN_NAME: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class SplitFile:
    """A COCO file and the split that it is taken for; ``told_by`` says why."""

    coco: ForeignCoco
    split: FileSplit
    told_by: str


def tell_split(coco: ForeignCoco, official: OfficialTable, stated: str | None) -> SplitFile:
    """Return the split that a file is: as stated, as its info or its name says, or by its images.

    Args:
        coco: the file.
        official: the table that knows the split of its images.
        stated: by the caller; None: it is told from the file.
    """
    if stated is not None:
        assert stated in get_args(FileSplit)
        return SplitFile(coco, stated, "as stated")  # type: ignore[arg-type]
    said = coco.info.get("split")
    if isinstance(said, str) and said in _IN_NAME:
        return SplitFile(coco, _IN_NAME[said], "info.split")
    words = re.split(r"[^a-z]+", coco.name.lower())
    named = {_IN_NAME[word] for word in words if word in _IN_NAME}
    if len(named) == 1:
        return SplitFile(coco, named.pop(), "file name")
    splits = Counter(
        official.slices[image.key].key_slice.split
        for image in coco.images
        if image.key is not None and image.key in official.slices
    )
    if splits:
        split, count = splits.most_common(1)[0]
        if count >= MOST * splits.total() and len(_of_table(official)) > 1:
            return SplitFile(coco, split, f"{count:,} of its {splits.total():,} images")
    return SplitFile(coco, "all", "images of several splits")


def check_splits(
    files: Sequence[SplitFile], official: OfficialTable, images: PngFolder | None
) -> Iterator[Defect]:
    """Yield images in a file of another split, patients in two, and what no file lists."""
    patients: defaultdict[int, dict[str, str]] = defaultdict(dict)
    listed_in: dict[tuple[str, SliceKey], str] = {}
    for file in files:
        name = file.coco.name
        for image in file.coco.images:
            key = image.key
            if key is None:
                continue
            first = listed_in.setdefault((file.split, key), name)
            if first != name:
                yield Defect(
                    "E-DUPIMAGE", name, image.where, table_name(key), f"also in {first}", "once"
                )
            if file.split == "all":
                continue
            patients[key[0]].setdefault(file.split, name)
            known = official.slices.get(key)
            if known is not None and known.key_slice.split != file.split:
                yield Defect(
                    "E-WRONGSPLIT",
                    name,
                    image.where,
                    table_name(key),
                    f"in a file of {file.split}",
                    known.key_slice.split,
                )
    for patient, splits in sorted(patients.items()):
        if len(splits) > 1:
            found = ", ".join(f"{split} ({name})" for split, name in sorted(splits.items()))
            yield Defect("E-LEAK", "", f"patient {patient}", "", found, "one split")
    yield from _absent(files, official, {key for _, key in listed_in}, images)


def _absent(
    files: Sequence[SplitFile],
    official: OfficialTable,
    listed: set[SliceKey],
    images: PngFolder | None,
) -> Iterator[Defect]:
    """Yield the images of the files' splits that are nowhere; noisy lesions by themselves."""
    splits = {file.split for file in files}
    for key, known in official.slices.items():
        split = known.key_slice.split
        if key in listed or not ({split, "all"} & splits):
            continue
        if all(lesion.possibly_noisy for lesion in known.lesions):
            for lesion in known.lesions:
                line = f"line {lesion.line} of the table"
                yield Defect("W-NOISY", "", line, table_name(key), "not listed", "kept or dropped")
            continue
        there = images is None or key[3] in images.slices(known.key_slice.series)
        code, found = ("E-ABSENT", "in no file") if there else ("W-ABSENT", "in no file, no PNG")
        expected = f"in the file of {split} with {len(known.lesions)} lesion(s)"
        yield Defect(
            code, "", f"line {known.lesions[0].line} of the table", table_name(key), found, expected
        )


def _of_table(official: OfficialTable) -> set[Split]:
    return {known.key_slice.split for known in official.slices.values()}
