"""The trunk that a training of the regressor starts from, and, afterwards, started from."""

from __future__ import annotations

import torch

from ubr_pretrain.backbone import Provenance, read_imagenet_trunk
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.ubr_config import UbrConfig


def start_trunk(config: UbrConfig) -> Trunk:
    """Return the trunk that a training starts from, unless it is a second stage."""
    if config.init == "imagenet":
        return read_imagenet_trunk(config.imagenet_weights, config.arch, config.width).trunk
    return Trunk(config.arch, config.width, batch_norm=config.batch_norm)


def rebuild_random_start(made: Provenance) -> Trunk:
    """Return the random trunk that a regressor's training started from, drawn once more.

    Args:
        made: of the regressor; its configuration holds the seed. Of a second stage, the start of
            the first is meant.

    Raises:
        ValueError: it started from no random trunk, or does not say from which.
    """
    while "first_stage" in made.config:
        made = Provenance.model_validate(made.config["first_stage"])
    if made.pretraining != "ubr" or made.init != "random" or not made.config:
        raise ValueError("the regressor's file does not say from which random trunk it started")
    # Only what the draw depends on: files of the data do not travel with weights, and other fields
    # are checked against them.
    drawn_by = {"arch", "width", "batch_norm", "init", "seed"} & made.config.keys()
    config = UbrConfig.model_validate({name: made.config[name] for name in drawn_by})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # as the training did; its trunk is the first thing drawn
        return start_trunk(config)
