"""Where a training of the regressor starts: random weights, others', or a first stage's."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch

from ubr_pretrain.backbone import Provenance
from ubr_pretrain.rank_batch_norm import share_batch_norms
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
        ValueError: a first stage of another network.
        CheckpointRefused: a weight file that cannot be used.
    """
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
    return _ready(Regressor(trunk, config.head_std), config, ranks), provenance


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
    regressor = first.regressor.train().requires_grad_(True)
    return _ready(regressor, config, ranks), provenance


def _ready(regressor: Regressor, config: UbrConfig, ranks: Ranks) -> Regressor:
    """Return a regressor on its device, in its memory format, its batch norms over all ranks."""
    chosen = memory_format(config, ranks.device)
    regressor.to(ranks.device).to(memory_format=chosen)
    share_batch_norms(regressor, ranks)
    return regressor


def memory_format(config: UbrConfig, device: torch.device) -> torch.memory_format:
    """Return how the network's tensors lie in memory.

    By itself: channels last, a fifth to a third faster on a CPU, and what tensor cores read (TF32,
    bfloat16); contiguous for float32 on a GPU, which has no kernels of its own for the other.
    """
    plain = device.type == "cuda" and config.precision == "fp32"
    if config.memory_format == "contiguous" or (config.memory_format == "auto" and plain):
        return torch.contiguous_format
    return torch.channels_last
