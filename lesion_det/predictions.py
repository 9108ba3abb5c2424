"""A detector's answers on one split, kept with the hash of the ground truth they answer.

The detections of an image are always ranked: by falling score, ties by x1, y1, x2, y2. Metrics
therefore cannot depend on the order in which a detector happens to return equal scores.

Shapes:
    k: detections of one image; boxes are x1, y1, x2, y2 in original pixels of the PNG, 0-based.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on

from converters.distinct_keys import require_distinct_keys
from lesion_det.coco_entries import LESION_CATEGORY
from lesion_det.garbage import garbage_left
from lesion_det.ground_truth import GroundTruth
from ubr_pretrain.bounded_file import MAX_COCO_BYTES, require_at_most
from ubr_pretrain.config import first_problem
from ubr_pretrain.whole_file import write_atomically

FORMAT = 1
"""Version of ``predictions.json``."""

MAX_REACH_PX = 2.0**20
"""How far from the corner of its image a box may lie: a detector that misses it by that is broken,
and squares of larger numbers overflow."""


class PredictionsRefused(ValueError):  # noqa: N818
    """Detections that no metric can be computed from, or that answer another ground truth."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Ranked detections by image id.

    Attributes:
        ground_truth_sha256: hash of the COCO JSON whose images these are.
        boxes_xyxy: [k, 4] float64 of every image; k = 0 where nothing was found.
        scores: [k] float64, falling; any finite range is accepted, only the order counts.

    Raises:
        PredictionsRefused: shapes that do not fit, NaN, infinity, or a box with x2 < x1 or
            y2 < y1, or beyond ``MAX_REACH_PX``; image id and index are named.
    """

    ground_truth_sha256: str
    boxes_xyxy: Mapping[int, NDArray[np.float64]]
    scores: Mapping[int, NDArray[np.float64]]

    def __post_init__(self) -> None:
        if self.boxes_xyxy.keys() != self.scores.keys():
            odd = sorted(self.boxes_xyxy.keys() ^ self.scores.keys())
            raise PredictionsRefused(f"image {odd[0]}: has boxes or scores, not both")
        boxes_xyxy, scores = {}, {}
        for image_id in sorted(self.scores):
            boxes_xyxy[image_id], scores[image_id] = _ranked(
                image_id, self.boxes_xyxy[image_id], self.scores[image_id]
            )
        object.__setattr__(self, "boxes_xyxy", boxes_xyxy)
        object.__setattr__(self, "scores", scores)

    @property
    def num_detections(self) -> int:
        """Number of detections over all images."""
        return sum(len(scores) for scores in self.scores.values())

    @property
    def scores_leave_0_to_1(self) -> bool:
        """Whether a score is not a probability (ranking still works)."""
        return any(len(s) > 0 and (s.max() > 1 or s.min() < 0) for s in self.scores.values())

    @property
    def num_repeated(self) -> int:
        """Number of detections whose image, box and score another one has too, the first aside."""
        return sum(
            int(((np.diff(boxes, axis=0) == 0).all(axis=1) & (np.diff(scores) == 0)).sum())
            for boxes, scores in zip(self.boxes_xyxy.values(), self.scores.values(), strict=True)
        )

    def num_outside(self, ground_truth: GroundTruth) -> int:
        """Return the number of boxes that leave their image by more than a pixel."""
        count = 0
        for image_id, boxes in self.boxes_xyxy.items():
            image = ground_truth.by_id[image_id]
            sides_px = np.array([image.width_px, image.height_px])
            beyond = np.concatenate([-boxes[:, :2], boxes[:, 2:] - sides_px], axis=1)
            count += int((beyond > 1).any(axis=1).sum())
        return count


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write ``predictions`` as JSON, one image a line, atomically."""
    with write_atomically(path, "w") as file:
        file.write(f'{{"format": {FORMAT}, ')
        sha256 = json.dumps(predictions.ground_truth_sha256, allow_nan=False)
        file.write(f'"ground_truth_sha256": {sha256},\n')
        lines = (
            json.dumps(
                {
                    "image_id": image_id,
                    "boxes_xyxy": predictions.boxes_xyxy[image_id].tolist(),
                    "scores": predictions.scores[image_id].tolist(),
                },
                allow_nan=False,
            )
            for image_id in predictions.scores
        )
        file.write('"images": [\n' + ",\n".join(lines) + "\n]}\n")


@garbage_left()
def read_predictions(path: Path) -> Predictions:
    """Read what ``write_predictions`` wrote.

    Raises:
        PredictionsRefused: no file; not such a JSON; an image or a key listed twice; bad numbers.
    """
    if not path.is_file():
        raise PredictionsRefused(f"{path}: no such file")
    require_at_most(path, MAX_COCO_BYTES)
    try:
        data = path.read_bytes()
        file = _File.model_validate_json(data, strict=True)
        require_distinct_keys(data)
    except ValidationError as error:
        raise PredictionsRefused(f"{path}: {first_problem(error)}") from error
    except ValueError as error:
        raise PredictionsRefused(f"{path}: {error}") from error
    if file.format != FORMAT:
        raise PredictionsRefused(f"{path}: format {file.format}, expected {FORMAT}")
    boxes_xyxy: dict[int, NDArray[np.float64]] = {}
    scores: dict[int, NDArray[np.float64]] = {}
    for image in file.images:
        if image.image_id in scores:
            raise PredictionsRefused(f"{path}: image {image.image_id} occurs more than once")
        boxes_xyxy[image.image_id] = np.array(image.boxes_xyxy, np.float64).reshape(-1, 4)
        scores[image.image_id] = np.array(image.scores, np.float64)
    try:
        return Predictions(file.ground_truth_sha256, boxes_xyxy, scores)
    except PredictionsRefused as error:
        raise PredictionsRefused(f"{path}: {error}") from error


def is_coco_results(path: Path) -> bool:
    """Return whether a file begins as a JSON list does: COCO results are one, ours is none."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        while blanks := file.read(4096):
            if begun := blanks.lstrip(b" \t\r\n"):
                return begun.startswith(b"[")
    return False


@garbage_left()
def read_coco_results(path: Path, ground_truth: GroundTruth) -> Predictions:
    """Read ``[{"image_id", "category_id", "bbox": x, y, w, h, "score"}, ...]``.

    An image that the list does not name has no entry: such a list cannot say "nothing found".

    Args:
        path: as Detectron2's ``COCOEvaluator`` writes it.
        ground_truth: which JSON the ids are of; the list itself does not know.

    Raises:
        PredictionsRefused: not such a list; a category other than the lesion's; an unknown image;
            bad numbers.
    """
    require_at_most(path, MAX_COCO_BYTES)
    try:
        results = _RESULTS.validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise PredictionsRefused(f"{path}: {first_problem(error)}") from error
    if problem := _box_problem(results):
        raise PredictionsRefused(f"{path}: {problem}")
    of_image: dict[int, list[_Result]] = {image.id: [] for image in ground_truth.images}
    for place, result in enumerate(results):
        if result["category_id"] != LESION_CATEGORY:
            raise PredictionsRefused(
                f"{path}: result {place} is of category {result['category_id']}, expected "
                f"{LESION_CATEGORY} (lesion)"
            )
        if result["image_id"] not in of_image:
            raise PredictionsRefused(
                f"{path}: result {place} is of image {result['image_id']}, which "
                f"{ground_truth.source or 'the ground truth'} lacks"
            )
        of_image[result["image_id"]].append(result)
    boxes_xyxy, scores = {}, {}
    for image_id, found in of_image.items():
        if not found:
            continue
        xywh = np.array([result["bbox"] for result in found], np.float64)
        boxes_xyxy[image_id] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        scores[image_id] = np.array([result["score"] for result in found], np.float64)
    try:
        return Predictions(ground_truth.sha256, boxes_xyxy, scores)
    except PredictionsRefused as error:
        raise PredictionsRefused(f"{path}: {error}") from error


def complete_predictions(
    ground_truth: GroundTruth, predictions: Predictions
) -> tuple[Predictions, tuple[int, ...]]:
    """Return predictions with every image of ``ground_truth``, and the ids that were missing.

    An image without an entry counts as one in which nothing was found.

    Raises:
        PredictionsRefused: the predictions answer another JSON, or name unknown images.
    """
    if predictions.ground_truth_sha256 != ground_truth.sha256:
        raise PredictionsRefused(
            f"the predictions answer the ground truth {predictions.ground_truth_sha256[:12]}, "
            f"{ground_truth.source or 'this one'} is {ground_truth.sha256[:12]}: another file"
        )
    if unknown := sorted(predictions.scores.keys() - ground_truth.by_id.keys()):
        raise PredictionsRefused(
            f"detections on images that {ground_truth.source or 'the ground truth'} lacks: "
            f"{', '.join(map(str, unknown[:10]))}"
        )
    missing = tuple(sorted(ground_truth.by_id.keys() - predictions.scores.keys()))
    if not missing:
        return predictions, ()
    boxes_xyxy = dict.fromkeys(missing, np.empty((0, 4))) | dict(predictions.boxes_xyxy)
    scores = dict.fromkeys(missing, np.empty(0)) | dict(predictions.scores)
    return Predictions(predictions.ground_truth_sha256, boxes_xyxy, scores), missing


class _Image(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    image_id: int
    boxes_xyxy: list[tuple[float, float, float, float]]
    scores: list[float]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    ground_truth_sha256: str
    images: list[_Image]


class _Result(TypedDict):
    """One of half a million, too many for a model each; other keys ("segmentation") are ignored."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


_RESULTS = TypeAdapter(list[_Result])


def _box_problem(results: Sequence[_Result]) -> str:
    """Return which box of a list is none, as the list has it, "" where all are boxes."""
    xywh = np.array([result["bbox"] for result in results], np.float64).reshape(-1, 4)
    possible = (np.abs(xywh) <= MAX_REACH_PX / 2).all(axis=1) & (xywh[:, 2:] >= 0).all(axis=1)
    if possible.all():
        return ""
    place = int(np.argmin(possible))
    return (
        f"result {place}, of image {results[place]['image_id']}: bbox {xywh[place].tolist()} is "
        f"not x, y, width >= 0, height >= 0 within {MAX_REACH_PX / 2:.0f} px"
    )


def _ranked(
    image_id: int, boxes_xyxy: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check the detections of one image and sort them."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)
    values = np.asarray(scores, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or values.shape != (len(boxes),):
        raise PredictionsRefused(
            f"image {image_id}: boxes {boxes.shape} and scores {values.shape}, "
            "expected [k, 4] and [k]"
        )
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise PredictionsRefused(f"image {image_id}, detection {index}: score {values[index]}")
    within = (np.abs(boxes) <= MAX_REACH_PX).all(axis=1)  # never of NaN
    possible = within & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not possible.all():
        index = int(np.argmin(possible))
        raise PredictionsRefused(
            f"image {image_id}, detection {index}: box {boxes[index].tolist()} is not "
            f"x1 <= x2, y1 <= y2 within {MAX_REACH_PX:.0f} px"
        )
    # lexsort sorts by its last key first.
    order = np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], -values))
    return boxes[order], values[order]
