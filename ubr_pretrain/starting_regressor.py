"""Where a training of the regressor starts: random weights, others', or a first stage's."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch

from ubr_pretrain.backbone import Provenance
from ubr_pretrain.regressor import Regressor, read_regressor
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.starting_trunk import start_trunk_from
from ubr_pretrain.training_data import TrainingData
from ubr_pretrain.ubr_config import UbrConfig


def build_regressor(
    config: UbrConfig, data: TrainingData, ranks: Ranks
) -> tuple[Regressor, Provenance]:
    """Return the regressor that a training starts from, in train mode, and how it was made.

    Raises:
        ValueError: batch norm with several processes, or a first stage of another network.
        CheckpointRefused: a weight file that cannot be used.
    """
    if config.batch_norm and ranks.world_size > 1:
        raise ValueError("batch_norm: its statistics would differ between ranks; use one process")
    if config.start is not None:
        return _second_stage(config, data, config.start, ranks)
    trunk, source = start_trunk_from(config)
    provenance = Provenance(
        init=config.init,
        pretraining="ubr",
        config=config.model_dump(mode="json", exclude=PATHS),
        data_sha256=data.sha256,
        num_volumes=len(data.training),
        code_version=metadata.version("ct-body-part-transfer"),
        source=source.words if source else "",
        source_sha256=source.sha256 if source else "",
    )
    regressor = Regressor(trunk, config.head_std).to(ranks.device)
    return regressor.to(memory_format=torch.channels_last), provenance  # a fifth faster on a CPU


PATHS = {"data", "store", "imagenet_weights", "external", "anchors", "start"}
"""Fields of the configuration that name files here; they do not travel with the weights."""


def _second_stage(
    config: UbrConfig, data: TrainingData, start: Path, ranks: Ranks
) -> tuple[Regressor, Provenance]:
    """Return the regressor of a first stage, and a provenance that tells of both."""
    first = read_regressor(start)
    trunk, made = first.regressor.trunk, first.provenance
    for name, theirs, ours in (
        ("arch", trunk.arch, config.arch),
        ("width", trunk.width, config.width),
        ("batch_norm", trunk.batch_norm, config.batch_norm),
        ("init", made.init, config.init),
        ("input", first.input_spec, config.input),
    ):
        if theirs != ours:
            raise ValueError(f"start {start}: its {name} is {theirs}, not {ours}")
    provenance = made.model_copy(
        update={
            "config": {
                **config.model_dump(mode="json", exclude=PATHS),
                "first_stage": made.model_dump(mode="json"),
            },
            "data_sha256": data.sha256,
            "num_volumes": len(data.training),
            "code_version": metadata.version("ct-body-part-transfer"),
        }
    )
    regressor = first.regressor.train().requires_grad_(True).to(ranks.device)
    return regressor.to(memory_format=torch.channels_last), provenance
