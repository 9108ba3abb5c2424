"""Which preset the settings of a comparison are, and which reading of the paper, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lesion_det.det_config import PATHS, STAGES, STEP_EVERY, DetConfig, InputConfig
from ubr_pretrain.config import configs_folder

OF_A_MACHINE = frozenset({"device", "workers", "save_every", "allow_leakage", "engine"})
"""Fields that change nothing in what is learned, beside ``PATHS``."""


def describe_recipe(config: DetConfig) -> dict[str, str]:
    """Return the facts of a training that a reader asks for first.

    Args:
        config: what all arms share.
    """
    optimiser, detector = config.optimiser, config.detector
    views = ["mirrored every second time"] if config.flip else []
    if config.scale_jitter:
        views.append(f"resized by up to {100 * config.scale_jitter:g} %")
    clipped = f", gradients clipped to a norm of {optimiser.max_grad_norm:g}"
    return {
        "preset": nearest_preset(config),
        "input": _input(config.input),
        "augmentation": ", ".join(views) or "none",
        "network": f"Faster R-CNN on VGG-16, width {config.width:g}, stride {detector.stride}, fc6 "
        f"and fc7 of {detector.fc_dim:,}; anchors of "
        f"{', '.join(map(str, detector.anchor_sizes_px))} px, each at 1:2, 1:1 and 2:1",
        "engine": {"torchvision": "torchvision's parts", "detectron2": "Detectron2"}[config.engine],
        "training": f"{config.iterations:,} iterations of {config.batch} "
        f"{'image' if config.batch == 1 else 'images'}, {optimiser.name} {optimiser.lr:g}"
        f"{'' if optimiser.max_grad_norm is None else clipped}, {config.precision}",
        "learning rate": _schedule(config),
        "evaluated": f"every {config.eval_every:,} iterations",
    }


def nearest_preset(config: DetConfig) -> str:
    """Return the preset that the settings are, or the nearest one and where they leave it."""
    presets: dict[str, Mapping[str, Any]] = {"the defaults": {}}
    for file in sorted(configs_folder("det").glob("*.yaml")):
        presets[file.stem] = yaml.safe_load(file.read_text("utf-8"))
    here = _settings(config)
    unlike: dict[str, dict[str, tuple[str, str]]] = {}
    for name, values in presets.items():
        there = _settings(DetConfig.model_validate({"coco": Path(), **values}))
        unlike[name] = {
            key: (here[key], there[key]) for key in here if here[key] != there.get(key, "")
        }
    name, departures = min(unlike.items(), key=lambda item: len(item[1]))
    if not departures:
        return name
    words = "; ".join(f"{key} {ours} (there {other})" for key, (ours, other) in departures.items())
    return f"{name}, except {words}"


def _settings(config: DetConfig) -> dict[str, str]:
    values = config.model_dump(mode="json", exclude=set(PATHS | OF_A_MACHINE))
    return dict(_leaves(values, ""))


def _leaves(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value).lower() if isinstance(value, bool) else str(value)


def _input(config: InputConfig) -> str:
    if config.slices == "single":
        words = ["the key slice alone, given three times"]
    else:
        words = [f"three slices {config.interval_mm:g} mm apart"]
    words.append("pixels as stored" if config.pixel_mm is None else f"{config.pixel_mm:g} mm/pixel")
    if config.max_px is not None:
        words.append(f"at most {config.max_px} px a side")
    words.append("border clipped, boxes shifted" if config.clip_border else "border kept")
    return ", ".join(words)


def _schedule(config: DetConfig) -> str:
    optimiser = config.optimiser
    if optimiser.schedule == "per_arm":
        every = ", ".join(
            f"{STEP_EVERY[arm]:,} ({arm})" for arm in ("random", "ubr", "imagenet", "ubr+imagenet")
        )
        return f"a tenth after every so many iterations, one number an arm: {every}"
    if optimiser.schedule == "staged":
        stages = ", ".join(f"{stage:,}" for stage in STAGES)
        return f"a tenth after {stages} iterations: the paper's numbers as stages of one schedule"
    parts = [f"{100 * at:g} %" for at in optimiser.drop_at]
    return (
        f"a tenth after {' and '.join(parts)} of the training, the same in all arms"
        if parts
        else "constant"
    )
