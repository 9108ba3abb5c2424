"""Slices with their lesions and the best detections of every arm, drawn for a page.

The picture is embedded once a slice; boxes and scores are vector shapes above it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int16, UInt8

from converters.lesions import LESION_TYPES, UNKNOWN_TYPE
from lesion_det.ground_truth import GroundTruth, ImageRecord
from lesion_det.metrics import TOP_K
from lesion_det.overlap import hit_matrix
from lesion_det.predictions import Predictions
from lesion_det.slices import read_slice
from ubr_pretrain.ct import Window

SOFT_TISSUE = Window()
BODY_HU = -300
MARGIN_PX = 12
JPEG_QUALITY = 86

Kind = Literal["differ", "hit", "miss", "false alarm"]
SHOWN: Mapping[Kind, int] = {"differ": 3, "hit": 2, "miss": 2, "false alarm": 4}
"""Slices of each kind."""

KIND_WORDS: Mapping[Kind, tuple[str, str]] = {
    "differ": ("starts differ", "a lesion that only some of them found"),
    "hit": ("hits", "every start found every lesion"),
    "miss": ("misses", "a lesion that no start found"),
    "false alarm": ("false alarms", "among the highest scores where no lesion is annotated"),
}
"""Title and reason."""


@dataclass(frozen=True)
class Outline:
    """A box to draw, in pixels of the PNG.

    Attributes:
        x: left edge.
        y: upper edge.
        width: in pixels.
        height: in pixels.
        hit: of a lesion, whether it was found; of a detection, whether it hits a lesion.
        score: of a detection; of a lesion, the highest of those that hit it, None if none does.
    """

    x: float
    y: float
    width: float
    height: float
    hit: bool
    score: float | None


@dataclass(frozen=True)
class ArmPanel:
    """One arm's answer on one slice."""

    arm: str
    lesions: tuple[Outline, ...]
    detections: tuple[Outline, ...]

    @property
    def found(self) -> int:
        """Number of lesions found."""
        return sum(lesion.hit for lesion in self.lesions)


@dataclass(frozen=True)
class Picture:
    """One slice, cropped to the body.

    Attributes:
        title: the file below ``Images_png``.
        kind: why it is shown.
        facts: its lesions and its spacing, in words.
        view_box: x, y, width, height of the crop in pixels of the PNG.
        pixel_mm: width of a pixel.
        data_uri: the crop in the soft-tissue window.
        panels: one an arm.
    """

    title: str
    kind: Kind
    facts: str
    view_box: tuple[int, int, int, int]
    pixel_mm: float
    data_uri: str
    panels: tuple[ArmPanel, ...]


def choose_pictures(
    ground_truth: GroundTruth,
    answers: Mapping[str, Predictions],
    images: Path,
    rng: np.random.Generator,
) -> tuple[list[Picture], list[str]]:
    """Choose slices: hits, misses and disagreements at random, false alarms by their scores.

    Args:
        ground_truth: the lesions.
        answers: the predictions of one seed of every arm.
        images: the folder ``Images_png``.
        rng: makes the random choice.

    Returns:
        The pictures, and why others could not be drawn.
    """
    by_kind: dict[Kind, list[ImageRecord]] = {"differ": [], "hit": [], "miss": []}
    for record in ground_truth.images:
        if record.num_lesions:
            by_kind[_kind(record, answers)].append(record)
    chosen: list[tuple[Kind, ImageRecord]] = []
    for kind, records in by_kind.items():
        order = rng.permutation(len(records))[: SHOWN[kind]]
        chosen += [(kind, records[index]) for index in order]
    shown = {record.id for _, record in chosen}
    for record in _false_alarms(ground_truth, answers):
        if len(chosen) >= len(shown) + SHOWN["false alarm"]:
            break
        if record.id not in {other.id for _, other in chosen}:
            chosen.append(("false alarm", record))
    pictures, problems = [], []
    for kind, record in chosen:
        try:
            pictures.append(_picture(record, kind, answers, images))
        except ValueError as error:
            problems.append(str(error))
    return pictures, problems


def _best_hits(record: ImageRecord, predictions: Predictions) -> Bool[np.ndarray, "k n"]:
    """Return the hit matrix of the k best detections."""
    return hit_matrix(predictions.boxes_xyxy[record.id][:TOP_K], record.boxes_xyxy)


def _kind(record: ImageRecord, answers: Mapping[str, Predictions]) -> Kind:
    found = np.array([_best_hits(record, of_arm).any(axis=0) for of_arm in answers.values()])
    if found.all():
        return "hit"
    return "miss" if not found.any(axis=0).all() else "differ"


def _false_alarms(
    ground_truth: GroundTruth, answers: Mapping[str, Predictions]
) -> Iterator[ImageRecord]:
    """Yield images by the score of their best false detection, the arms taking turns."""
    of_arms = []
    for predictions in answers.values():
        worst = []
        for record in ground_truth.images:
            false = ~_best_hits(record, predictions).any(axis=1)
            if false.any():
                scores = predictions.scores[record.id][:TOP_K]
                worst.append((-float(scores[false].max()), record.id, record))
        of_arms.append([record for _, _, record in sorted(worst, key=lambda item: item[:2])])
    for place in range(max(map(len, of_arms), default=0)):
        yield from (records[place] for records in of_arms if place < len(records))


def _picture(
    record: ImageRecord, kind: Kind, answers: Mapping[str, Predictions], images: Path
) -> Picture:
    hu = read_slice(images / record.file_name)
    if hu.shape != (record.height_px, record.width_px):
        raise ValueError(f"{record.file_name}: is not of the size that the ground truth states")
    shown = [predictions.boxes_xyxy[record.id][:TOP_K] for predictions in answers.values()]
    view_box = _crop(hu, np.concatenate([record.boxes_xyxy, *shown]))
    x, y, width, height = view_box
    grey = _to_grey(hu[y : y + height, x : x + width])
    panels = []
    for arm, predictions in answers.items():
        hits = _best_hits(record, predictions)
        scores = predictions.scores[record.id][:TOP_K].tolist()
        firsts = [
            scores[int(column.argmax())] if column.any() else None for column in hits.T
        ]  # detections are ranked: the first that hits has the highest score
        boxes = predictions.boxes_xyxy[record.id][:TOP_K]
        panels.append(
            ArmPanel(
                arm,
                _outlines(record.boxes_xyxy, np.asarray(hits.any(axis=0)), firsts),
                _outlines(boxes, np.asarray(hits.any(axis=1)), scores),
            )
        )
    return Picture(
        title=record.file_name,
        kind=kind,
        facts=_facts(record),
        view_box=view_box,
        pixel_mm=record.spacing_mm_zyx[2],
        data_uri=_to_data_uri(grey),
        panels=tuple(panels),
    )


def _facts(record: ImageRecord) -> str:
    names = dict(LESION_TYPES) | {UNKNOWN_TYPE: "lesion"}
    lesions = [
        f"{names.get(kind, f'type {kind}')} of {mm:.0f} mm"
        for kind, mm in zip(record.lesion_types.tolist(), record.long_diameters_mm, strict=True)
    ]
    interval_mm, _, pixel_mm = record.spacing_mm_zyx
    spacing = f"slice interval {interval_mm:g} mm, pixel {pixel_mm:.2g} mm"
    return f"{', '.join(lesions) or 'no lesion annotated'}; {spacing}"


def _outlines(
    boxes_xyxy: np.ndarray, hits: np.ndarray, scores: Sequence[float | None]
) -> tuple[Outline, ...]:
    return tuple(
        Outline(round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1), bool(hit), score)
        for (x1, y1, x2, y2), hit, score in zip(boxes_xyxy.tolist(), hits, scores, strict=True)
    )


def _crop(
    hu: Int16[np.ndarray, "y x"], boxes_xyxy: Float64[np.ndarray, "n 4"]
) -> tuple[int, int, int, int]:
    """Return x, y, width, height of the body (not the couch) and all boxes with a margin."""
    _, _, parts, _ = cv2.connectedComponentsWithStats((hu > BODY_HU).astype(np.uint8))
    height_px, width_px = hu.shape
    boxes = [tuple(box) for box in boxes_xyxy.tolist()]
    if len(parts) > 1:  # the first part is the background
        body = parts[1 + int(parts[1:, cv2.CC_STAT_AREA].argmax())]
        left, top = int(body[cv2.CC_STAT_LEFT]), int(body[cv2.CC_STAT_TOP])
        boxes.append((left, top, left + body[cv2.CC_STAT_WIDTH], top + body[cv2.CC_STAT_HEIGHT]))
    if not boxes:
        return 0, 0, width_px, height_px
    corners = np.array(boxes, np.float64)
    left, top = (max(0, int(corners[:, axis].min()) - MARGIN_PX) for axis in (0, 1))
    right, bottom = (
        min(size, int(np.ceil(corners[:, 2 + axis].max())) + MARGIN_PX)
        for axis, size in enumerate((width_px, height_px))
    )
    return left, top, right - left, bottom - top


def _to_grey(hu: Int16[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x"]:
    window = SOFT_TISSUE
    unit = (hu.astype(np.float64) - window.lower_hu) / (window.upper_hu - window.lower_hu)
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def _to_data_uri(grey: UInt8[np.ndarray, "y x"]) -> str:
    written, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert written
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
