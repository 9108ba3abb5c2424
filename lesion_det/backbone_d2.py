"""VGG-16 and AlexNet as Detectron2 backbones, under the tensor names of ``Trunk``.

Importing this registers ``build_vgg16_backbone`` and ``build_alexnet_backbone``, and makes
Detectron2's default configuration know ``MODEL.VGG``.
"""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.config.defaults import _C as DEFAULTS
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from jaxtyping import Float
from torch import Tensor

from ubr_pretrain.trunk import Architecture, Trunk


class TrunkBackbone(Trunk, Backbone):
    """conv1..conv5 under the names of ``Trunk``, with one output a block.

    Args:
        arch: "vgg16" or "alexnet".
        width: multiplies every channel count.
        stride: of conv5: 16, or 8 without pool4 (VGG-16 only).
        out_features: blocks that are handed on, "conv1" ... "conv5".
        freeze_at: blocks that are not trained, from the input on.

    Raises:
        ValueError: an output that is no block.
    """

    def __init__(
        self,
        arch: Architecture = "vgg16",
        width: float = 1.0,
        stride: int = 16,
        out_features: Sequence[str] = ("conv5",),
        freeze_at: int = 0,
    ) -> None:
        super().__init__(arch, width, stride=stride)  # type: ignore[arg-type]
        shapes, step, channels = {}, 1, 3
        for layer, (_, conv) in zip(self.layers, self.convolutions(), strict=True):
            pooled = layer.pool_before and not (stride == 8 and layer.name == "conv5_1")
            step *= layer.stride * (2 if pooled else 1)
            channels = conv.out_channels
            shapes[_block(layer.name)] = ShapeSpec(channels=channels, stride=step)
        if unknown := [name for name in out_features if name not in shapes]:
            raise ValueError(f"out_features {unknown[0]}: expected some of {', '.join(shapes)}")
        self._shapes = {name: shapes[name] for name in out_features}
        for name, conv in self.convolutions():
            if int(_block(name).removeprefix("conv")) <= freeze_at:
                conv.requires_grad_(False)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the activations of the last ReLU of every wanted block."""
        outputs: dict[str, Tensor] = {}
        for name, x in self.activations(images):
            if _block(name) in self._shapes:
                outputs[_block(name)] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        return self._shapes

    @property
    def size_divisibility(self) -> int:
        """Padded to this, VGG's features stand at exact strides (AlexNet's pools lose a border)."""
        return self.stride


def _block(layer: str) -> str:
    return layer.partition("_")[0]


def _build_backbone(arch: Architecture, cfg: CfgNode) -> TrunkBackbone:
    return TrunkBackbone(
        arch,
        cfg.MODEL.VGG.WIDTH,
        cfg.MODEL.VGG.STRIDE,
        cfg.MODEL.VGG.OUT_FEATURES,
        cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE_REGISTRY.register()
def build_vgg16_backbone(cfg: CfgNode, _input_shape: ShapeSpec) -> TrunkBackbone:
    """Build VGG-16 as ``cfg.MODEL.VGG`` says."""
    return _build_backbone("vgg16", cfg)


@BACKBONE_REGISTRY.register()
def build_alexnet_backbone(cfg: CfgNode, _input_shape: ShapeSpec) -> TrunkBackbone:
    """Build AlexNet as ``cfg.MODEL.VGG`` says."""
    return _build_backbone("alexnet", cfg)


DEFAULTS.MODEL.VGG = CfgNode({"WIDTH": 1.0, "STRIDE": 16, "OUT_FEATURES": ["conv5"]})
