"""Slices with their lesions and the best detections of every arm, drawn for a page.

The picture is embedded once a slice; boxes and scores are vector shapes above it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int16, UInt8

from lesion_det.ground_truth import GroundTruth, ImageRecord
from lesion_det.metrics import TOP_K
from lesion_det.overlap import hit_matrix
from lesion_det.predictions import Predictions
from lesion_det.slices import read_slice
from ubr_pretrain.ct import Window

SOFT_TISSUE = Window()
BODY_HU = -300
MARGIN_PX = 12
PER_GROUP = 2
"""Slices shown of each: found by all arms, by some, by none."""

JPEG_QUALITY = 88


@dataclass(frozen=True)
class Outline:
    """A box to draw, in pixels of the PNG.

    Attributes:
        x: left edge.
        y: upper edge.
        width: in pixels.
        height: in pixels.
        hit: of a lesion, whether it was found; of a detection, whether it hits a lesion.
        label: the score of a detection.
    """

    x: float
    y: float
    width: float
    height: float
    hit: bool
    label: str = ""


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
        group: "found by all", "found by some" or "missed by all".
        view_box: x, y, width, height of the crop in pixels of the PNG.
        data_uri: the crop in the soft-tissue window.
        panels: one an arm.
    """

    title: str
    group: str
    view_box: tuple[int, int, int, int]
    data_uri: str
    panels: tuple[ArmPanel, ...]


def choose_pictures(
    ground_truth: GroundTruth,
    answers: Mapping[str, Predictions],
    images: Path,
    rng: np.random.Generator,
) -> tuple[list[Picture], list[str]]:
    """Draw slices at random from those found by all arms, by some and by none.

    Args:
        ground_truth: the lesions.
        answers: the predictions of one seed of every arm.
        images: the folder ``Images_png``.
        rng: makes the choice.

    Returns:
        The pictures, and why others could not be drawn.
    """
    groups: dict[str, list[ImageRecord]] = {
        "found by some": [],
        "found by all": [],
        "missed by all": [],
    }
    for record in ground_truth.images:
        if record.num_lesions:
            groups[_group(record, answers)].append(record)
    pictures, problems = [], []
    for group, records in groups.items():
        for index in rng.permutation(len(records))[:PER_GROUP]:
            try:
                pictures.append(_picture(records[index], group, answers, images))
            except ValueError as error:
                problems.append(str(error))
    return pictures, problems


def _best_hits(record: ImageRecord, predictions: Predictions) -> np.ndarray:
    """Return the hit matrix of the k best detections."""
    return hit_matrix(predictions.boxes_xyxy[record.id][:TOP_K], record.boxes_xyxy)


def _group(record: ImageRecord, answers: Mapping[str, Predictions]) -> str:
    found = [_best_hits(record, predictions).any(axis=0) for predictions in answers.values()]
    if all(f.all() for f in found):
        return "found by all"
    return "found by some" if any(f.any() for f in found) else "missed by all"


def _picture(
    record: ImageRecord, group: str, answers: Mapping[str, Predictions], images: Path
) -> Picture:
    hu = read_slice(images / record.file_name)
    if hu.shape != (record.height_px, record.width_px):
        raise ValueError(f"{record.file_name}: is not of the size that the ground truth states")
    view_box = _crop(hu, record)
    x, y, width, height = view_box
    grey = _to_grey(hu[y : y + height, x : x + width])
    panels = []
    for arm, predictions in answers.items():
        hits = _best_hits(record, predictions)
        boxes = predictions.boxes_xyxy[record.id][:TOP_K]
        scores = predictions.scores[record.id][:TOP_K]
        panels.append(
            ArmPanel(
                arm,
                _outlines(
                    record.boxes_xyxy, np.asarray(hits.any(axis=0)), [""] * record.num_lesions
                ),
                _outlines(
                    boxes, np.asarray(hits.any(axis=1)), [f"{score:.2f}" for score in scores]
                ),
            )
        )
    return Picture(record.file_name, group, view_box, _to_data_uri(grey), tuple(panels))


def _outlines(
    boxes_xyxy: np.ndarray, hits: np.ndarray, labels: Sequence[str]
) -> tuple[Outline, ...]:
    return tuple(
        Outline(round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1), bool(hit), label)
        for (x1, y1, x2, y2), hit, label in zip(boxes_xyxy.tolist(), hits, labels, strict=True)
    )


def _crop(hu: Int16[np.ndarray, "y x"], record: ImageRecord) -> tuple[int, int, int, int]:
    """Return x, y, width, height of the body (not the couch) and the lesions with a margin."""
    _, _, parts, _ = cv2.connectedComponentsWithStats((hu > BODY_HU).astype(np.uint8))
    left, top, right, bottom = record.width_px, record.height_px, 0, 0
    if len(parts) > 1:  # the first part is the background
        body = parts[1 + int(parts[1:, cv2.CC_STAT_AREA].argmax())]
        left, top = int(body[cv2.CC_STAT_LEFT]), int(body[cv2.CC_STAT_TOP])
        right = left + int(body[cv2.CC_STAT_WIDTH])
        bottom = top + int(body[cv2.CC_STAT_HEIGHT])
    corners = record.boxes_xyxy
    left = max(0, int(min(left, corners[:, 0].min())) - MARGIN_PX)
    top = max(0, int(min(top, corners[:, 1].min())) - MARGIN_PX)
    right = min(record.width_px, int(np.ceil(max(right, corners[:, 2].max()))) + MARGIN_PX)
    bottom = min(record.height_px, int(np.ceil(max(bottom, corners[:, 3].max()))) + MARGIN_PX)
    return left, top, right - left, bottom - top


def _to_grey(hu: Int16[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x"]:
    window = SOFT_TISSUE
    unit = (hu.astype(np.float64) - window.lower_hu) / (window.upper_hu - window.lower_hu)
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def _to_data_uri(grey: UInt8[np.ndarray, "y x"]) -> str:
    written, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert written
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
