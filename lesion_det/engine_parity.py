"""Does a detector find the same in Detectron2 as in torchvision? Box by box, on the same inputs.

Detectron2's side is the plain one: ``build_model`` of the written ``config.yaml``, with the written
``model.pth`` loaded by Detectron2's own checkpointer.

Shapes:
    k: detections of one image; h, w: rows and columns of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Int16
from numpy.typing import NDArray
from torch import Tensor

from lesion_det.boxes import Boxes
from lesion_det.engine import LesionDetector
from lesion_det.overlap import box_iou

MIN_IOU, MAX_SCORE_DIFFERENCE = 0.99, 1e-4
"""Two detections are the same within these."""


@dataclass(frozen=True)
class EngineParity:
    """How two sets of detections compare.

    Attributes:
        num_images: inputs.
        num_detections: on torchvision's side and on Detectron2's.
        num_matched: pairs, one to one, of IoU >= ``MIN_IOU``.
        min_iou: the worst of the pairs; 1 where there are none.
        max_score_difference: over the pairs.
        max_px: the largest distance of two sides, over the pairs.
    """

    num_images: int
    num_detections: tuple[int, int]
    num_matched: int
    min_iou: float
    max_score_difference: float
    max_px: float

    @property
    def is_equal(self) -> bool:
        """Whether there are detections, all are matched and their scores agree."""
        return (
            self.num_matched > 0  # of nothing, nothing is proved
            and self.num_detections == (self.num_matched, self.num_matched)
            and self.max_score_difference <= MAX_SCORE_DIFFERENCE
        )

    @property
    def words(self) -> str:
        """One line for a reader."""
        ours, theirs = self.num_detections
        return (
            f"{self.num_images} images: {ours} detections in torchvision, {theirs} in Detectron2, "
            f"{self.num_matched} matched; IoU >= {self.min_iou:.6f}, scores within "
            f"{self.max_score_difference:.1e}, sides within {self.max_px:.1e} px"
        )


Answers = Sequence[tuple[Boxes, NDArray[np.float64]]]
"""Boxes [k, 4] and scores [k] of every image."""


def compare_answers(ours: Answers, theirs: Answers) -> EngineParity:
    """Match the detections of every image, the closest first."""
    ious: list[float] = []
    scores, sides = [0.0], [0.0]
    for (boxes, score), (other_boxes, other_score) in zip(ours, theirs, strict=True):
        overlap = box_iou(boxes, other_boxes)
        while overlap.size and overlap.max() >= MIN_IOU:
            a, b = np.unravel_index(overlap.argmax(), overlap.shape)
            ious.append(float(overlap[a, b]))
            scores.append(float(abs(score[a] - other_score[b])))
            sides.append(float(np.abs(boxes[a] - other_boxes[b]).max()))
            overlap[a, :] = overlap[:, b] = -1
    return EngineParity(
        num_images=len(ours),
        num_detections=(sum(len(s) for _, s in ours), sum(len(s) for _, s in theirs)),
        num_matched=len(ious),
        min_iou=min(ious, default=1.0),
        max_score_difference=max(scores),
        max_px=max(sides),
    )


def plain_detectron2(model: Path, config: Path) -> torch.nn.Module:
    """Return what a user of Detectron2 builds of the two files.

    Raises:
        ValueError: the checkpointer did not load every tensor.
    """
    import lesion_det.detector_d2  # noqa: F401, I001  (registers what the configuration names)
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_file(str(config), allow_unsafe=False)  # True would run what a YAML names
    cfg.MODEL.DEVICE = "cpu"
    built = build_model(cfg).eval()
    wanted = set(built.state_dict())
    given = set(torch.load(model, map_location="cpu", weights_only=True)["model"])
    if odd := sorted(wanted ^ given):
        raise ValueError(f"{model}: {odd[0]} is not loaded by Detectron2, which only warns")
    DetectionCheckpointer(built).load(str(model))
    return built


@torch.no_grad()
def engine_parity(
    detector: LesionDetector, images_hu: Iterable[Int16[Tensor, "3 h w"]], plain: torch.nn.Module
) -> EngineParity:
    """Detect on every image with both and compare.

    Args:
        detector: torchvision's, in eval mode.
        images_hu: inputs.
        plain: of ``plain_detectron2``.
    """
    from ubr_pretrain.network_input import grey_image

    ours, theirs = [], []
    for hu in images_hu:
        boxes, scores = detector.detect(hu)
        ours.append((boxes.double().numpy(), scores.double().numpy()))
        entry = {"image": grey_image(hu.float(), detector.input_spec.window)}
        found = plain([entry])[0]["instances"]
        theirs.append((found.pred_boxes.tensor.double().numpy(), found.scores.double().numpy()))
    return compare_answers(ours, theirs)


def random_images(count: int, size_px: int, seed: int = 0) -> list[Int16[Tensor, "3 h w"]]:
    """Return smooth random fields of soft-tissue HU, no two of one size."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(count):
        noise = rng.normal(0, 1, (size_px + 8 * index, size_px, 3)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), 4)
        hu = 40 + 80 * smooth / smooth.std()
        images.append(torch.from_numpy(np.rint(hu).astype(np.int16).transpose(2, 0, 1).copy()))
    return images
