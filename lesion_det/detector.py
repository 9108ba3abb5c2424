"""Faster R-CNN on a transferable trunk, assembled from torchvision's parts with nothing implied.

torchvision's own ``FasterRCNN`` would resize the input to 800 px and apply ImageNet statistics;
here the input is what the backbone's ``InputSpec`` says, and every number is written down.

Shapes:
    n: lesions of one image; k: detections; h, w: rows and columns of the input.

Reference:
    Ren et al., Faster R-CNN, NeurIPS 2015. Batches of 32, anchors and thresholds: the later
    detectors of the authors of Yan, Lu, Summers, ISBI 2018.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

from lesion_det.det_config import DetectorConfig
from ubr_pretrain.ct import AIR_HU, InputSpec
from ubr_pretrain.network_input import normalise
from ubr_pretrain.trunk import Trunk

ASPECT_RATIOS = (0.5, 1.0, 2.0)
RPN_FOREGROUND_IOU, RPN_BACKGROUND_IOU, RPN_FOREGROUND_FRACTION = 0.7, 0.3, 0.5
RPN_NMS_IOU = 0.7
ROI_FOREGROUND_IOU, ROI_BACKGROUND_IOU, ROI_FOREGROUND_FRACTION = 0.5, 0.5, 0.25
ROI_SIZE, ROI_SAMPLES = 7, 2
BOX_CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
DETECTION_NMS_IOU = 0.3
LESION = 1
"""Class of a lesion; 0 is background."""


class SeededSampler:
    """Chooses the anchors or proposals to learn from; a pure function of one seed an image.

    torchvision's own draws from the global generator, so that a resumed run or a second rank
    would learn from others.
    """

    def __init__(self, batch: int, foreground_fraction: float) -> None:
        self.batch, self.foreground_fraction = batch, foreground_fraction
        self.seeds: Sequence[int] = ()

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return masks of the chosen foreground (label >= 1) and background (label 0)."""
        chosen = [self.choose(label, seed) for seed, label in zip(self.seeds, labels, strict=True)]
        return [foreground for foreground, _ in chosen], [background for _, background in chosen]

    def choose(self, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return the masks of one image."""
        generator = torch.Generator().manual_seed(seed)
        quota = int(self.batch * self.foreground_fraction)
        foreground = _choose(label >= 1, quota, generator)
        return foreground, _choose(label == 0, self.batch - int(foreground.sum()), generator)


def _choose(eligible: Tensor, quota: int, generator: torch.Generator) -> Tensor:
    candidates = torch.where(eligible)[0]
    order = torch.randperm(len(candidates), generator=generator)[:quota]
    mask = torch.zeros_like(eligible)
    mask[candidates[order.to(candidates.device)]] = True
    return mask


class RoIAlign(nn.Module):
    """Pools proposals from the one feature map, at its true stride, pixel centres aligned."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, features: Mapping[str, Tensor], proposals: list[Tensor], _sizes: object
    ) -> Tensor:
        """Return [proposals, D, ROI_SIZE, ROI_SIZE]."""
        return roi_align(
            features["0"], proposals, ROI_SIZE, 1 / self.stride, ROI_SAMPLES, aligned=True
        )


class Detector(nn.Module):
    """Lesion or background on inputs of three slices.

    Args:
        trunk: conv1..conv5; trained as a whole, nothing is frozen.
        input_spec: how HU become the trunk's input.
        config: sizes of the rest.
        head_seed: seed of the RPN's and the head's random start. They have a generator of their
            own, so that every arm of a comparison starts from the same ones. None: not drawn,
            for tensors that are loaded next.
    """

    def __init__(
        self, trunk: Trunk, input_spec: InputSpec, config: DetectorConfig, head_seed: int | None
    ) -> None:
        super().__init__()
        if trunk.batch_norm or trunk.stride != config.stride:
            raise ValueError(
                f"a trunk of stride {trunk.stride}, batch norm {trunk.batch_norm}: the detector "
                f"needs stride {config.stride} without batch norm"
            )
        self.input_spec, self.config = input_spec, config
        channels = trunk.out_channels
        anchors = AnchorGenerator((config.anchor_sizes_px,), (ASPECT_RATIOS,))
        self.trunk = trunk
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=RPN_FOREGROUND_IOU,
            bg_iou_thresh=RPN_BACKGROUND_IOU,
            batch_size_per_image=config.rpn_batch,
            positive_fraction=RPN_FOREGROUND_FRACTION,
            pre_nms_top_n={"training": config.train_top_n[0], "testing": config.test_top_n[0]},
            post_nms_top_n={"training": config.train_top_n[1], "testing": config.test_top_n[1]},
            nms_thresh=RPN_NMS_IOU,
            score_thresh=0.0,
        )
        self.roi_heads = RoIHeads(
            RoIAlign(config.stride),
            TwoMLPHead(channels * ROI_SIZE**2, config.fc_dim),
            FastRCNNPredictor(config.fc_dim, num_classes=2),
            fg_iou_thresh=ROI_FOREGROUND_IOU,
            bg_iou_thresh=ROI_BACKGROUND_IOU,
            batch_size_per_image=config.roi_batch,
            positive_fraction=ROI_FOREGROUND_FRACTION,
            bbox_reg_weights=BOX_CODER_WEIGHTS,
            score_thresh=0.0,  # ranking metrics need the doubtful ones too
            nms_thresh=DETECTION_NMS_IOU,
            detections_per_img=config.max_detections,
        )
        self._samplers = (
            SeededSampler(config.rpn_batch, RPN_FOREGROUND_FRACTION),
            SeededSampler(config.roi_batch, ROI_FOREGROUND_FRACTION),
        )
        self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler = self._samplers
        answer_in_float32(self.rpn.head)
        answer_in_float32(self.roi_heads.box_predictor)
        if head_seed is not None:
            self._start_head(torch.Generator().manual_seed(head_seed))

    def _start_head(self, generator: torch.Generator) -> None:
        """Draw the RPN and the head: the Gaussians of Fast R-CNN, He's for fc6 and fc7."""
        for name, tensor in head_tensors(self.state_dict()).items():
            layer = name.rsplit(".", 2)[-2]
            if name.endswith("bias"):
                nn.init.zeros_(tensor)
            elif layer in ("fc6", "fc7"):
                nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)
            else:
                std = 0.001 if name == "roi_heads.box_predictor.bbox_pred.weight" else 0.01
                nn.init.normal_(tensor, std=std, generator=generator)

    def losses(
        self,
        images_hu: Sequence[Int16[Tensor, "3 h w"]],
        boxes_xyxy: Sequence[Float[Tensor, "n 4"]],
        seeds: Sequence[int],
    ) -> dict[str, Tensor]:
        """Return the four losses of a batch.

        Args:
            images_hu: inputs, of any sizes.
            boxes_xyxy: lesions of each, inside it.
            seeds: one seed an image, for the choice of anchors and proposals.
        """
        for sampler in self._samplers:
            sampler.seeds = seeds
        targets = [
            {"boxes": boxes, "labels": torch.full((len(boxes),), LESION, device=boxes.device)}
            for boxes in boxes_xyxy
        ]
        images, features = self._features(images_hu)
        proposals, rpn_losses = self.rpn(images, features, targets)
        _, roi_losses = self.roi_heads(features, proposals, images.image_sizes, targets)
        return {
            "objectness": rpn_losses["loss_objectness"],
            "rpn_box": rpn_losses["loss_rpn_box_reg"],
            "classifier": roi_losses["loss_classifier"],
            "box": roi_losses["loss_box_reg"],
        }

    @torch.no_grad()
    def detect(
        self, image_hu: Int16[Tensor, "3 h w"]
    ) -> tuple[Float[Tensor, "k 4"], Float[Tensor, " k"]]:
        """Return the detections of one image, best first: boxes and scores."""
        assert not self.training
        images, features = self._features([image_hu])
        proposals, _ = self.rpn(images, features)
        found, _ = self.roi_heads(features, proposals, images.image_sizes)
        return found[0]["boxes"], found[0]["scores"]

    def _features(self, images_hu: Sequence[Tensor]) -> tuple[ImageList, dict[str, Tensor]]:
        """Pad with air to a common multiple of the stride, normalise, run the trunk.

        The padding makes the stride exact, from which torchvision infers the anchors' positions.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in images_hu]
        height, width = (
            -(-max(side) // self.config.stride) * self.config.stride
            for side in zip(*sizes, strict=True)
        )
        batch = images_hu[0].new_full((len(images_hu), 3, height, width), AIR_HU)
        for padded, image in zip(batch, images_hu, strict=True):
            padded[:, : image.shape[1], : image.shape[2]] = image
        inputs = normalise(batch.float(), self.input_spec)
        return ImageList(inputs, sizes), {"0": self.trunk(inputs).float()}


def head_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every tensor of a detector's state that does not come from a backbone."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("trunk.")}


def answer_in_float32(module: nn.Module) -> None:
    """Make a module answer in float32 under autocast too.

    Boxes, scores and what proposals are cut from must not be rounded to bfloat16, whose numbers
    above 256 are the even ones.
    """
    module.register_forward_hook(_in_float32)


def _in_float32(_module: nn.Module, _inputs: object, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, Mapping):
        return {name: _in_float32(_module, None, value) for name, value in output.items()}
    return type(output)(_in_float32(_module, None, value) for value in output)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return one hash of names and values, so that two starts can be compared by a line."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
