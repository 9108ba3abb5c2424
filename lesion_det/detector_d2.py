"""The same Faster R-CNN built of Detectron2's parts, and VGG-16 as a Detectron2 backbone.

``import lesion_det.detector_d2`` is enough for a plain Detectron2 script::

    import lesion_det.detector_d2
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file("config.yaml")      # of convert_detector.py, or one's own with
    cfg.MODEL.WEIGHTS = "model.pth"         # MODEL.BACKBONE.NAME: build_vgg16_backbone

It registers ``build_vgg16_backbone`` and ``build_alexnet_backbone`` (keys ``MODEL.VGG.WIDTH``,
``STRIDE``, ``OUT_FEATURES``; ``MODEL.BACKBONE.FREEZE_AT`` counts blocks), the anchors of
torchvision (``RoundedAnchorGenerator``), the meta-architecture that pads with air
(``LesionRCNN``) and the datasets ``deeplesion_{train,val,test}`` (``deeplesion_d2``). In a
LazyConfig: ``L(TrunkBackbone)(arch="vgg16", width=1.0, out_features=["conv5"])``.

Shapes:
    n: lesions of one image; k: detections; h, w: rows and columns of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable, get_cfg
from detectron2.config.defaults import _C as DEFAULTS
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    GeneralizedRCNN,
    StandardROIHeads,
    build_model,
)
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from jaxtyping import Float, Int16
from torch import Tensor, nn

import lesion_det.backbone_d2
import lesion_det.deeplesion_d2  # noqa: F401  (registers the datasets)
from lesion_det.det_config import DetectorConfig, InputConfig
from lesion_det.detector import ASPECT_RATIOS, Detector, SeededSampler, answer_in_float32
from lesion_det.detector_layouts import (
    BACKGROUND_BOX,
    from_detectron2,
    ratio_to_size_major,
    size_to_ratio_major,
    to_detectron2,
)
from lesion_det.detectron2_settings import DetectorSettings, detectron2_settings
from ubr_pretrain.ct import AIR_HU, InputSpec
from ubr_pretrain.network_input import GREY_MAX, grey_image

LOSSES = {
    "objectness": "loss_rpn_cls",
    "rpn_box": "loss_rpn_loc",
    "classifier": "loss_cls",
    "box": "loss_box_reg",
}
"""Our names of the four losses, and Detectron2's."""

SMALLEST_PROPOSAL_PX, SMALLEST_DETECTION_PX = 1e-3, 1e-2
"""Boxes with a shorter side are dropped before the best are chosen, as torchvision does."""


@ANCHOR_GENERATOR_REGISTRY.register()
class RoundedAnchorGenerator(DefaultAnchorGenerator):
    """Detectron2's anchors with corners on whole pixels, as torchvision's are."""

    def generate_cell_anchors(
        self, sizes: Sequence[float], aspect_ratios: Sequence[float]
    ) -> Float[Tensor, "A 4"]:
        """Return the anchors of one location."""
        return super().generate_cell_anchors(sizes, aspect_ratios).round()


@META_ARCH_REGISTRY.register()
class LesionRCNN(GeneralizedRCNN):
    """Detectron2's two-stage detector with torchvision's padding and its smallest boxes.

    Detectron2 pads with 0 after normalisation, which is another grey wherever the mean is not that
    of air; and a box without an area can take the place of another among the best.

    Args:
        pad_grey: what lies beyond an image, in the unit of the images.
        parts: see ``GeneralizedRCNN``.
    """

    @configurable
    def __init__(self, *, pad_grey: float = 0.0, **parts: Any) -> None:
        super().__init__(**parts)
        self.pad_grey = pad_grey
        self.proposal_generator.min_box_size = SMALLEST_PROPOSAL_PX
        predictor = self.roi_heads.box_predictor
        self.max_detections, predictor.test_topk_per_image = predictor.test_topk_per_image, -1
        for module in (self.backbone, self.proposal_generator.rpn_head, predictor):
            answer_in_float32(module)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments that a configuration states."""
        lower, upper = cfg.INPUT.CT.WINDOW_HU
        air = (AIR_HU - lower) / (upper - lower)
        return {**super().from_config(cfg), "pad_grey": GREY_MAX * min(max(air, 0.0), 1.0)}

    def preprocess_image(self, batched_inputs: Sequence[Mapping[str, Any]]) -> ImageList:
        """Pad with air to a common multiple of the stride, then normalise."""
        images = ImageList.from_tensors(
            [entry["image"].to(self.device).float() for entry in batched_inputs],
            self.backbone.size_divisibility,
            pad_value=self.pad_grey,
        )
        images.tensor = (images.tensor - self.pixel_mean) / self.pixel_std
        return images

    def inference(self, *arguments: Any, **options: Any) -> list[Any]:
        """Return the best detections of every image of a batch."""
        found = super().inference(*arguments, **options)
        return [
            {**one, "instances": self._best(one["instances"])}
            if isinstance(one, dict)
            else self._best(one)
            for one in found
        ]

    def _best(self, ranked: Instances) -> Instances:
        large = ranked[ranked.pred_boxes.nonempty(threshold=SMALLEST_DETECTION_PX)]
        return large[: self.max_detections]


@PROPOSAL_GENERATOR_REGISTRY.register()
class SeededRPN(RPN):
    """Learns from the anchors that ``SeededSampler`` chooses: torchvision's very ones."""

    seeds: Iterable[int] = ()

    def label_and_sample_anchors(self, *arguments: Any, **options: Any) -> Any:
        """Choose the anchors of a batch, one seed an image."""
        self._coming = iter(self.seeds)
        return super().label_and_sample_anchors(*arguments, **options)

    def _subsample_labels(self, label: Tensor) -> Tensor:
        sampler = SeededSampler(self.batch_size_per_image, self.positive_fraction)
        num_anchors = self.anchor_generator.num_anchors[0]
        num_sizes = num_anchors // len(ASPECT_RATIOS)
        of_locations = label.reshape(-1, num_anchors).T  # anchors first, as the reordering wants it
        theirs = size_to_ratio_major(of_locations, num_sizes).T.reshape(-1)
        foreground, background = sampler.choose(theirs, next(self._coming))
        chosen = torch.full_like(theirs, -1)
        chosen[foreground], chosen[background] = 1, 0
        back = ratio_to_size_major(chosen.reshape(-1, num_anchors).T, num_sizes)
        return back.T.reshape(-1)


@ROI_HEADS_REGISTRY.register()
class SeededROIHeads(StandardROIHeads):
    """Learns from the proposals that ``SeededSampler`` chooses."""

    seeds: Iterable[int] = ()

    def label_and_sample_proposals(self, *arguments: Any, **options: Any) -> Any:
        """Choose the proposals of a batch, one seed an image."""
        self._coming = iter(self.seeds)
        return super().label_and_sample_proposals(*arguments, **options)

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        sampler = SeededSampler(self.batch_size_per_image, self.positive_fraction)
        foreground, background = sampler.choose(matched_labels, next(self._coming))
        classes = torch.full_like(matched_idxs, self.num_classes)
        if len(gt_classes):
            classes = torch.where(matched_labels == 1, gt_classes[matched_idxs], classes)
        chosen = torch.where(foreground | background)[0]
        return chosen, classes[chosen]


class Detectron2Detector(nn.Module):
    """A detector that Detectron2 computes, with the tensors, losses and answers of ``Detector``.

    Its ``state_dict`` is that of ``Detector``, so that checkpoints do not depend on the engine.

    Args:
        detector: whose tensors and settings it takes over.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.input_spec, self.config = detector.input_spec, detector.config
        settings = DetectorSettings(
            detector.trunk.width, self.config, InputConfig(), self.input_spec
        )
        cfg = build_cfg(settings)
        cfg.MODEL.PROPOSAL_GENERATOR.NAME = "SeededRPN"
        cfg.MODEL.ROI_HEADS.NAME = "SeededROIHeads"
        cfg.MODEL.DEVICE = "cpu"
        self.model = build_model(cfg)
        fc_dim = self.config.fc_dim
        self.register_buffer(f"{BACKGROUND_BOX}_weight", torch.zeros(4, fc_dim))
        self.register_buffer(f"{BACKGROUND_BOX}_bias", torch.zeros(4))
        self.register_state_dict_post_hook(_in_our_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_in_their_names)  # type: ignore[no-untyped-call]
        self.load_state_dict(detector.state_dict())

    @property
    def num_sizes(self) -> int:
        """Anchor sizes."""
        return len(self.config.anchor_sizes_px)

    def losses(
        self,
        images_hu: Sequence[Int16[Tensor, "3 h w"]],
        boxes_xyxy: Sequence[Float[Tensor, "n 4"]],
        seeds: Sequence[int],
    ) -> dict[str, Tensor]:
        """Return the four losses of a batch; see ``Detector.losses``."""
        self.model.proposal_generator.seeds = self.model.roi_heads.seeds = seeds
        batch = []
        for hu, boxes, _ in zip(images_hu, boxes_xyxy, seeds, strict=True):
            lesions = Instances((hu.shape[1], hu.shape[2]))
            lesions.gt_boxes = Boxes(boxes)
            lesions.gt_classes = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            batch.append(
                {"image": grey_image(hu.float(), self.input_spec.window), "instances": lesions}
            )
        try:
            with EventStorage():
                losses = self.model(batch)
        except FloatingPointError:  # it names neither iteration nor images; who trains does
            return {name: torch.tensor(torch.nan) for name in LOSSES}
        return {name: losses[theirs] for name, theirs in LOSSES.items()}

    @torch.no_grad()
    def detect(
        self, image_hu: Int16[Tensor, "3 h w"]
    ) -> tuple[Float[Tensor, "k 4"], Float[Tensor, " k"]]:
        """Return the detections of one image, best first: boxes and scores."""
        assert not self.training
        image = grey_image(image_hu.float(), self.input_spec.window)
        (found,) = self.model.inference([{"image": image}], do_postprocess=False)
        return found.pred_boxes.tensor, found.scores


def _in_our_names(
    detector: Detectron2Detector, state: dict[str, Tensor], prefix: str, _metadata: object
) -> None:
    assert not prefix
    theirs = {
        name.replace(f"{BACKGROUND_BOX}_", f"{BACKGROUND_BOX}.").removeprefix("model."): tensor
        for name, tensor in state.items()
    }
    state.clear()
    state.update(from_detectron2(theirs, detector.num_sizes))


def _in_their_names(detector: Detectron2Detector, state: dict[str, Tensor], *_: object) -> None:
    theirs = to_detectron2(state, detector.num_sizes)
    state.clear()
    for name, tensor in theirs.items():
        inside = not name.startswith(BACKGROUND_BOX)
        state[f"model.{name}" if inside else name.replace(".", "_")] = tensor


def build_cfg(settings: DetectorSettings) -> CfgNode:
    """Return Detectron2's configuration of a detector."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(detectron2_settings(settings)))
    return cfg


_DEFAULTS = DetectorSettings(1.0, DetectorConfig(), InputConfig(), InputSpec())
DEFAULTS.INPUT.CT = CfgNode(detectron2_settings(_DEFAULTS)["INPUT"]["CT"])
