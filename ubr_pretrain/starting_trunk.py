"""The trunk that a training of the regressor starts from, and, afterwards, started from."""

from __future__ import annotations

import torch

from ubr_pretrain.backbone import Provenance
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.source_trunk import SourceTrunk, adopt_input, read_source_trunk
from ubr_pretrain.transferred_blocks import transfer_blocks
from ubr_pretrain.trunk import Trunk, load_trunk
from ubr_pretrain.ubr_config import UbrConfig


def with_input_of_start(config: UbrConfig) -> UbrConfig:
    """Return the configuration with the input that its trunk was trained on.

    Raises:
        ValueError: another input was asked for; the weights cannot be had or are no such trunk;
            the first stage cannot be read.
    """
    own = None if config.start is None else read_regressor(config.start).input_spec
    if config.init == "random":
        return config
    if config.start is not None and own is not None:
        spec = adopt_input(config.input, own, config.start.name)
    else:
        spec = _input_of(_read_source(config), config.input)
    return config.model_copy(update={"input": spec})


def _read_source(config: UbrConfig) -> SourceTrunk:
    with torch.random.fork_rng(devices=[]):  # what is drawn next does not depend on the source
        return read_source_trunk(config, config.arch)


def _input_of(source: SourceTrunk, chosen: InputSpec) -> InputSpec:
    own = source.backbone.input_spec
    return adopt_input(chosen, own, source.words, source.input_fields)


def start_trunk(config: UbrConfig) -> Trunk:
    """Return the trunk that a training starts from, unless it is a second stage.

    Raises:
        ValueError: as ``start_trunk_from``.
    """
    return start_trunk_from(config)[0]


def start_trunk_from(config: UbrConfig) -> tuple[Trunk, SourceTrunk | None]:
    """Return the trunk that a training starts from, and its source, None where it is drawn.

    Raises:
        ValueError: the weights cannot be had, are no such trunk, or were trained on another input.
    """
    trunk = Trunk(config.arch, config.width, batch_norm=config.batch_norm)
    if config.init == "random":
        return trunk, None
    source = _read_source(config)
    if _input_of(source, config.input) != config.input:
        raise ValueError(f"input {config.input}: not what the trunk of {source.words} reads")
    tensors = source.backbone.trunk.state_dict()
    tensors = transfer_blocks(tensors, trunk.state_dict(), config.transfer_through)
    load_trunk(trunk, tensors, source.words)
    return trunk, source


def rebuild_random_start(made: Provenance) -> Trunk:
    """Return the random trunk that a regressor's training started from, drawn once more.

    Args:
        made: of the regressor; its configuration holds the seed. Of a second stage, the start of
            the first is meant.

    Raises:
        ValueError: it started from no random trunk, or does not say from which.
    """
    made = made.first_stage
    if made.pretraining != "ubr" or made.init != "random" or not made.config:
        raise ValueError("the regressor's file does not say from which random trunk it started")
    # Only what the draw depends on: files of the data do not travel with weights, and other fields
    # are checked against them.
    drawn_by = {"arch", "width", "batch_norm", "init", "seed"} & made.config.keys()
    config = UbrConfig.model_validate({name: made.config[name] for name in drawn_by})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # as the training did; its trunk is the first thing drawn
        return start_trunk(config)
