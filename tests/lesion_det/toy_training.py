"""The smallest training of a detector."""

import json
from pathlib import Path
from typing import Any

import torch

from lesion_det.det_config import DetConfig, DetectorConfig, DetOptimiser, InputConfig
from tests.lesion_det.toy_slices import ToyDeepLesion
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.ct import InputSpec

UNIT_INPUT = InputSpec(scale=1.0, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))


def tiny(toy: ToyDeepLesion, **changes: Any) -> DetConfig:
    settings: dict[str, Any] = {
        "coco": toy.coco,
        "images": toy.images,
        "width": 0.1,
        "input": InputConfig(max_px=64),
        "random_input": UNIT_INPUT,
        "detector": DetectorConfig(
            stride=8,
            fc_dim=32,
            anchor_sizes_px=(8, 12, 16),
            train_top_n=(200, 50),
            test_top_n=(200, 50),
        ),
        "optimiser": DetOptimiser(name="adamw", lr=1e-3, schedule="drops", drop_at=(0.9,)),
        "iterations": 6,
        "eval_every": 3,
        "save_every": 3,
        "flip": True,
        "device": "cpu",
    }
    return DetConfig(**(settings | changes))


def flags(config: DetConfig, out: Path) -> list[str]:
    """Return the command line of a configuration."""
    file = out.parent / f"{out.name}.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
    return [f"--config={file}", f"--out={out}"]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(out / "checkpoints" / "last.safetensors", "detector")["detector"]
