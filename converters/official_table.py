"""The table as the judge of other files: what lies on which slice, and where a box belongs."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.box_reading import CONVENTIONS, EXACT_PX, read_box
from converters.cohort import merge_rows
from converters.deeplesion import read_deeplesion
from converters.foreign_coco import SliceKey, slice_key
from converters.lesions import Box, KeySlice, Lesion
from ubr_pretrain.checkpoint import file_sha256


@dataclass(frozen=True)
class OfficialSlice:
    """A key slice with its lesions."""

    key_slice: KeySlice
    lesions: tuple[Lesion, ...]

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.key_slice.width_px, self.key_slice.height_px


@dataclass(frozen=True)
class OfficialTable:
    """Every lesion of ``DL_info.csv`` that can be read.

    Attributes:
        slices: by key, in the order of the keys.
        unread: slices of which some row cannot be read; nothing is said of them.
    """

    name: str
    sha256: str
    num_rows: int
    slices: Mapping[SliceKey, OfficialSlice]
    unread: frozenset[SliceKey]


def read_official_table(path: Path) -> OfficialTable:
    """Read the table and merge its rows.

    Raises:
        DeepLesionRefused: not such a table.
    """
    table = read_deeplesion(path)
    merged, contradicting, _ = merge_rows(table.lesions)
    bad = (slice_key(each.file_name) for each in (*table.refused, *contradicting))
    unread = frozenset(key for key in bad if key is not None)
    lesions: defaultdict[SliceKey, list[Lesion]] = defaultdict(list)
    for lesion in merged:
        lesions[lesion.key_slice.order].append(lesion)
    return OfficialTable(
        name=path.name,
        sha256=file_sha256(path),
        num_rows=len(table.rows),
        slices={
            key: OfficialSlice(rows[0].key_slice, tuple(rows))
            for key, rows in lesions.items()
            if key not in unread
        },
        unread=unread,
    )


class BoxIndex:
    """Finds the lesion that a box is drawn around, on whatever slice.

    Args:
        lesions: those among which is looked.
    """

    def __init__(self, lesions: Sequence[Lesion]) -> None:
        self._lesions = sorted(lesions, key=lambda lesion: lesion.box_xyxy)
        self._x1 = [lesion.box_xyxy[0] for lesion in self._lesions]

    def find(self, stored: Box) -> Lesion | None:
        """Return the first lesion whose box a stored x, y, w, h is, but for its convention."""
        for origin in sorted({1 if "E-SHIFT" in codes else 0 for codes in CONVENTIONS}):
            x1 = max(stored[0] - origin, 0.0)
            for at in range(bisect_left(self._x1, x1 - EXACT_PX), len(self._x1)):
                lesion = self._lesions[at]
                if self._x1[at] > x1 + EXACT_PX:
                    break
                size_px = (lesion.key_slice.width_px, lesion.key_slice.height_px)
                reading = read_box(stored, lesion.box_xyxy, size_px)
                if reading is not None and not reading.rounded and _is_corners(reading.codes):
                    return lesion
        return None


def _is_corners(codes: tuple[str, ...]) -> bool:
    return codes in CONVENTIONS
