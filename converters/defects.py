"""What can be wrong with a DeepLesion data set: every code, what it counts, what to do about it.

``E-...`` changes training or metrics, or is left out; ``W-...`` is harmless, or only to be known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True)
class Kind:
    """One code.

    Attributes:
        what: what is counted, in words.
        remedy: what to do.
    """

    what: str
    remedy: str


_RECONVERT = "convert again from DL_info.csv (deeplesion_to_coco.py)"
_COPY = "copy the file again and compare its checksum"

KINDS: Mapping[str, Kind] = {
    # A COCO file: entries and ids
    "E-TYPE": Kind("entry lacks a key or has another type", _RECONVERT),
    "E-IMAGEID": Kind("image id repeated: annotations go to any of them", "number the images anew"),
    "E-ID": Kind("annotation id missing or repeated: one of them is lost", "number them anew"),
    "E-ID0": Kind("annotation id 0: pycocotools never matches it", "count ids from 1"),
    "E-ORPHAN": Kind("annotation of an image that is not listed", _RECONVERT),
    "E-CATEGORY": Kind("annotation of a category that is not listed: ignored", "list it"),
    "E-BACKGROUND": Kind("lesion in category 0 or named background", "count categories from 1"),
    "W-BACKGROUND": Kind("background listed as a category", "remove it"),
    "E-CROWD": Kind("iscrowd is not 0: left out of every metric", "set iscrowd to 0"),
    "W-CROWD": Kind("iscrowd missing: pycocotools stops", "set iscrowd to 0"),
    "E-SEGMENTATION": Kind("no valid polygon: Detectron2 drops the lesion", "delete segmentation"),
    # A COCO file: images
    "E-NAME": Kind("name does not say patient, study, series and slice", "restore the name"),
    "E-UNKNOWN": Kind("image that the table lacks", "remove it: no radiologist marked it"),
    "E-DUPIMAGE": Kind("image listed again: its lesions are judged apart", "merge the entries"),
    "E-FORMAT": Kind("image that holds no 16-bit grey values", "use the 16-bit PNGs"),
    "E-DRAWN": Kind("Key_slices picture: the measurement is drawn in", "use Images_png"),
    "E-SIZE": Kind("width or height unlike Image_size", "take them from the table"),
    "E-WRONGSPLIT": Kind("image in the file of another split", "move it where the table says"),
    "E-LEAK": Kind("patient in the files of two splits", "split by patient, as the table does"),
    "E-ABSENT": Kind("image of the table that no file lists", _RECONVERT),
    "W-ABSENT": Kind("image of the table that no file lists and that has no PNG", "fetch its PNG"),
    # A COCO file: lesions
    "E-NAN": Kind("box with a number that is not finite: raises or ruins AP", _RECONVERT),
    "E-ZERO": Kind("box without area", _RECONVERT),
    "E-OUTSIDE": Kind("box leaves its image", "clip it to the image"),
    "E-SHIFT": Kind("box 1 px right and down: the -1 is missing", "subtract 1 from x and y"),
    "E-INCLUSIVE": Kind("box 1 px too wide and high (x2 - x1 + 1)", "subtract 1 from w and h"),
    "E-XYXY": Kind("x1, y1, x2, y2 where x, y, w, h belong", "w = x2 - x1, h = y2 - y1"),
    "E-CENTRE": Kind("centre, w, h where x, y, w, h belong", "x = cx - w/2, y = cy - h/2"),
    "E-TRANSPOSED": Kind("x and y, w and h exchanged", "exchange them"),
    "E-SCALED": Kind("box of a rescaled image", "divide by the scale, or scale the images too"),
    "W-ROUNDED": Kind("box rounded: up to 1 px off", "keep the decimals"),
    "E-OTHERBOX": Kind("box unlike the one of the table", _RECONVERT),
    "E-ELSEWHERE": Kind("lesion of another image", "set image_id to its own image"),
    "E-EXTRA": Kind("annotation that the table lacks", "remove it, or say where it is from"),
    "E-DUPLICATE": Kind("lesion annotated again on its image", "remove all but one"),
    "E-MERGED": Kind("one box around several lesions of the table", _RECONVERT),
    "E-LOST": Kind("lesion of a listed image that has no annotation", _RECONVERT),
    "W-NOISY": Kind("possibly noisy lesion that is left out", "say so beside every result"),
    "E-AREA": Kind("area is not w * h: AP of small, medium, large", "area = w * h"),
    "W-AREA": Kind("area missing: pycocotools stops", "area = w * h"),
    "W-AREAROUNDED": Kind("area rounded to whole pixels", "area = w * h"),
    "E-LESIONTYPE": Kind("coarse type unlike the table", "take Coarse_lesion_type"),
    "W-UNTYPED": Kind("coarse type of a lesion whose type the table does not say", "do not use it"),
    # Image files
    "E-MISSING": Kind("PNG that is not there or cannot be read", "fetch the zip that holds it"),
    "W-MISSING": Kind("row whose image has no PNG, left out", "fetch the zip that holds it"),
    "W-GAP": Kind(
        "key slice with slices of its Slice_range missing", "fetch the zip that holds it"
    ),
    "E-NOTFILE": Kind("PNG that is a folder or device", _COPY),
    "E-EMPTY": Kind("PNG of 0 bytes", _COPY),
    "E-TRUNC": Kind("PNG cut off", _COPY),
    "E-CRC": Kind("PNG with a wrong checksum", _COPY),
    "E-RGB": Kind("PNG in colours", "use the 16-bit grey PNGs"),
    "E-SIZE-LIMIT": Kind("PNG of impossible size", _COPY),
    "E-BLANK": Kind("PNG of one value only", _COPY),
    "E-NOHU": Kind("PNG whose values are not HU + 32768", "use the official 16-bit PNGs"),
    "W-NEIGHBOUR": Kind("key slice with a neighbour within 2 mm that cannot be read", _COPY),
    "W-STRAY": Kind("file or folder with no DeepLesion name", "remove it"),
    "W-NOSERIES": Kind("series that the table does not name", "nothing, or use the full table"),
    "W-TWICE": Kind("slice in its folder and beside it: the folder wins", "remove one of them"),
    "W-NOPATIENT": Kind("run of patients without any file", "fetch the zips that hold them"),
    # Rows of the table
    "E-ROW": Kind("row with too few or too many cells", "restore the official table"),
    "E-CELL": Kind("cell that cannot be read", "restore the official table"),
    "E-BOX": Kind("row whose box is none, or far outside", "restore the official table"),
    "E-SPACING": Kind("row with an impossible spacing", "official in a few series: left out"),
    "E-SPLIT": Kind("row without an official split", "restore the official table"),
    "E-CONFLICT": Kind("rows of one image that contradict each other", "restore the table"),
    "W-CONFLICT": Kind("image whose rows disagree in what no box needs", "nothing"),
    "W-DUPLICATE": Kind("row that repeats another, dropped", "nothing"),
    "W-LEAK": Kind("row of a patient in two splits", "split by patient"),
    "W-CLIPPED": Kind("box clipped to its image", "nothing"),
    "W-AGE": Kind("age that nobody has, taken as unknown", "nothing"),
    "W-MEASURE": Kind("box unlike its measured points", "look at it"),
}


def effect(code: str) -> str:
    """Return how grave a defect is, in words."""
    return "changes training or metrics" if code.startswith("E-") else "harmless"


@dataclass(frozen=True)
class Defect:
    """One defect of a COCO file.

    Attributes:
        file: name of the JSON, "" where it is of all files together.
        where: the entry: ``annotation 12``, ``image 5``, ``patient 7``.
        slice: the table's ``File_name``, "" where it is not known.
        found: the value, printable.
        expected: the value or rule that should be there.
    """

    code: str
    file: str
    where: str
    slice: str
    found: str
    expected: str

    def __str__(self) -> str:
        parts = ", ".join(part for part in (self.file, self.where, self.slice) if part)
        return f"{parts}: found {self.found}, expected {self.expected}"


class Coded(Protocol):
    """Anything that was found and has a code."""

    @property
    def code(self) -> str:
        """A key of ``KINDS``."""


Found = TypeVar("Found", bound=Coded)


def by_code(found: Iterable[Found]) -> dict[str, list[Found]]:
    """Group what was found: E before W, the most frequent first."""
    groups: defaultdict[str, list[Found]] = defaultdict(list)
    for each in found:
        groups[each.code].append(each)
    order = sorted(groups, key=lambda code: (not code.startswith("E-"), -len(groups[code]), code))
    return {code: groups[code] for code in order}


def kind_rows(groups: Mapping[str, Sequence[Coded]]) -> list[tuple[str, str, str]]:
    """Return code, words and count of every group, for a table."""
    return [(code, KINDS[code].what, f"{len(found):,}") for code, found in groups.items()]


def shown(value: object, limit: int = 80) -> str:
    """Return a foreign value for people: printable, on one line, cut to ``limit``."""
    if isinstance(value, int) and value.bit_length() > 400:
        return "a number of more than 100 digits"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(shown(each) for each in value[:6])}{', ...' * (len(value) > 6)}]"
    else:
        text = value if isinstance(value, str) else repr(value)[: limit + 1]
    text = text[: limit + 1]
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."
