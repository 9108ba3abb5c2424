"""Named landmarks: their place on the body coordinate, and tables of where scans show them.

The body coordinate is 0 at the iliac crest and 100 at the lung apex, grows towards the head, and is
linear in mm in an average body (one unit is about 4 mm of an adult). It is the same for every
regressor: a calibration only says which score lies where on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ubr_pretrain.number_table import read_rows

LANDMARK_COORDINATES: dict[str, float] = {
    "vertex": 168.0,
    "C7_T1": 104.0,
    "lung_apex": 100.0,
    "carina": 77.0,
    "liver_dome": 56.0,
    "lung_base": 39.0,
    "kidney_upper_pole": 36.0,
    "kidney_lower_pole": 8.0,
    "iliac_crest": 0.0,
    "femoral_head_top": -30.0,
    "pubic_symphysis_lower": -45.0,
    "lesser_trochanter": -49.0,
}
"""Superior -> inferior. Source: 41 landmarks read on ten CT scans, fitted with one offset a scan
and one mm per unit, and 60 synthetic bodies built after tables of anatomy; the two agree within 3.5
units at every landmark, and this is their mean, rounded (the vertex: synthetic bodies alone).
Single bodies differ: the spread is 5 units at the liver dome, 3 to 4 at the carina and kidneys."""

ZONE_BOUNDS = ("lung_apex", "liver_dome", "iliac_crest", "pubic_symphysis_lower")
"""Between head_neck, chest, abdomen, pelvis and legs."""

ZONE_NAMES = ("head_neck", "chest", "abdomen", "pelvis", "legs")

TRUNK = (LANDMARK_COORDINATES["pubic_symphysis_lower"], LANDMARK_COORDINATES["lung_apex"])
"""Lower and upper end of the part of the body where scores are expected to be linear in mm."""

REQUIRED_COLUMNS = ("volume", "landmark", "index_sup_to_inf")


@dataclass(frozen=True)
class LandmarkMark:
    """Where one volume shows a landmark.

    Attributes:
        volume: name of the volume.
        landmark: a key of ``LANDMARK_COORDINATES``.
        index: slice, counted from the most superior one.
        uncertainty_slices: half the range within which the reader would have put it.
    """

    volume: str
    landmark: str
    index: int
    uncertainty_slices: float = 1.0


def read_landmarks(path: Path) -> tuple[LandmarkMark, ...]:
    """Read a table with the columns volume, landmark, index_sup_to_inf [, uncertainty_slices].

    Raises:
        ValueError: no such table, a column or a value is missing, an unknown landmark, a landmark
            marked twice in one volume, the row named as a line of the file; or a volume counted
            from its inferior end.
    """
    table = read_rows(path, {"volume": str, "landmark": str})
    if missing := [name for name in REQUIRED_COLUMNS if name not in table]:
        raise ValueError(f"{path}: lacks the column {missing[0]}")
    if "uncertainty_slices" not in table:
        table["uncertainty_slices"] = 1.0
    seen: set[tuple[str, str]] = set()
    marks = []
    for line, row in enumerate(table.to_dict("records"), start=2):
        volume, landmark = row["volume"], row["landmark"]
        if not isinstance(volume, str) or not isinstance(landmark, str):
            raise ValueError(f"{path}, line {line}: volume or landmark is empty")
        if landmark not in LANDMARK_COORDINATES:
            raise ValueError(
                f"{path}, line {line}: landmark {landmark!r} is not one of "
                f"{', '.join(LANDMARK_COORDINATES)}"
            )
        if (volume, landmark) in seen:
            raise ValueError(f"{path}, line {line}: {landmark} of {volume} was given before")
        seen.add((volume, landmark))
        index = _number(row["index_sup_to_inf"], f"{path}, line {line}: index_sup_to_inf")
        if index != int(index):
            raise ValueError(f"{path}, line {line}: index_sup_to_inf {index} is not a whole number")
        uncertainty = _number(row["uncertainty_slices"], f"{path}, line {line}: uncertainty_slices")
        marks.append(LandmarkMark(volume, landmark, int(index), uncertainty))
    for volume in dict.fromkeys(mark.volume for mark in marks):
        require_head_first([mark for mark in marks if mark.volume == volume], f"{path}: {volume}")
    return tuple(marks)


def read_landmark_tables(paths: Sequence[Path]) -> tuple[LandmarkMark, ...]:
    """Read several tables, each of other volumes.

    Raises:
        ValueError: one of them cannot be read, or two name the same volume.
    """
    tables = {path: read_landmarks(path) for path in paths}
    seen: dict[str, Path] = {}
    for path, marks in tables.items():
        for mark in marks:
            if seen.setdefault(mark.volume, path) != path:
                raise ValueError(f"{path} and {seen[mark.volume]} both name {mark.volume}")
    return tuple(mark for marks in tables.values() for mark in marks)


def require_head_first(marks: Sequence[LandmarkMark], where: str) -> None:
    """Refuse marks of one volume of which the uppermost landmark lies below the lowest.

    Raises:
        ValueError: naming both.
    """
    top = max(marks, key=lambda mark: LANDMARK_COORDINATES[mark.landmark])
    bottom = min(marks, key=lambda mark: LANDMARK_COORDINATES[mark.landmark])
    if top.index > bottom.index:
        raise ValueError(
            f"{where}: {top.landmark} is marked below {bottom.landmark}; slices are counted from "
            "the most superior one"
        )


def _number(value: object, where: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{where} {value!r} is not a number >= 0")
    return number


def known_zones(marks: Sequence[LandmarkMark], num_slices: int) -> list[int | None]:
    """Return the zone of every slice that the landmarks of one volume establish.

    Args:
        marks: of one volume.
        num_slices: of that volume.

    Returns:
        0 chest (head and neck included: they lie above its lower border), 1 abdomen, 2 pelvis
        (legs included), None between landmarks that leave it open.
    """
    borders = (LANDMARK_COORDINATES["liver_dome"], LANDMARK_COORDINATES["iliac_crest"])
    places = [(LANDMARK_COORDINATES[mark.landmark], mark.index) for mark in marks]
    # from here on all slices lie below the border; up to there all lie above it
    below = [min((i for c, i in places if c <= b), default=num_slices) for b in borders]
    above = [max((i + (c > b) for c, i in places if c >= b), default=0) for b in borders]
    zones: list[int | None] = [None] * num_slices
    for zone, first, last in ((0, 0, above[0]), (1, below[0], above[1]), (2, below[1], num_slices)):
        zones[first:last] = [zone] * max(0, last - first)
    return zones
