"""How well a regressor that is being trained orders the slices of the held-out volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ubr_pretrain.augmentation import shrink
from ubr_pretrain.regressor import Regressor
from ubr_pretrain.scoring import read_curve, score_slices
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.ubr_config import UbrConfig


def validate(
    regressor: Regressor, volumes: Sequence[StoredVolume], config: UbrConfig, device: torch.device
) -> dict[str, Any]:
    """Score the held-out volumes; a curve without a correlation counts as 0.

    Raises:
        FloatingPointError: a score is not finite; the volume and the slice are named.
    """
    rank_r, r = {}, {}
    for volume in volumes:
        slices = volume.slices
        if config.oversample > 1:
            finer = torch.from_numpy(slices.astype(np.float32))[None]
            slices = shrink(finer, config.oversample)[0].round().short().numpy()
        try:
            scores = score_slices(regressor, slices, config.input, device)
        except FloatingPointError as error:
            raise FloatingPointError(f"volume {volume.name}, {error}") from error
        curve = read_curve(scores, np.asarray(volume.z_mm))
        rank_r[volume.name], r[volume.name] = curve.rank_r or 0.0, curve.r or 0.0
    worst = min(rank_r, key=lambda name: rank_r[name])
    return {
        "rank_r_median": float(np.median(list(rank_r.values()))),
        "rank_r_worst": rank_r[worst],
        "worst_volume": worst,
        "r_median": float(np.median(list(r.values()))),
        "r_mean": float(np.mean(list(r.values()))),
        "rank_r": rank_r,
    }
