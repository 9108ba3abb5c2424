"""Checkpoints of untrained regressors, small enough for a test."""

from pathlib import Path

import torch
from torch import nn

from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.regressor import Regressor, regressor_state
from ubr_pretrain.trunk import Architecture, Trunk

SPEC = InputSpec(size_px=64)


def write_regressor(
    path: Path, arch: Architecture, width: float, *, batch_norm: bool, spec: InputSpec = SPEC
) -> Path:
    """Write a training checkpoint whose batch norms have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        trunk = Trunk(arch, width, batch_norm=batch_norm)
        for module in trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.5)
        regressor = Regressor(trunk)
    made = Provenance(init="random", pretraining="ubr", iterations=7, num_volumes=3)
    write_checkpoint(path, regressor_state(regressor, spec, made), "ubr")
    return path
