"""The inputs that all cells of a comparison share, decoded before the first of them."""

from __future__ import annotations

from lesion_det.det_config import DetConfig
from lesion_det.launch import Stopped
from lesion_det.prepared_images import PreparedImages
from lesion_det.splits import Splits
from ubr_pretrain import runtime


def decode_inputs(config: DetConfig, splits: Splits) -> None:
    """Fill the cache that all cells share.

    Raises:
        Stopped: a signal came; what was decoded is kept.
        ValueError: a slice cannot be read, or the disk is full.
    """
    with runtime.stop_on_signals() as stop:
        try:
            with stop.at_once():
                prepared = PreparedImages(config.images, config.input, config.cache)
                prepared.build([*splits.learned, *splits.held_out])
        except runtime.Stopped as stopped:
            raise Stopped("stopped while the inputs were decoded", stop.exit_code) from stopped
