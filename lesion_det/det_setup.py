"""What a training of the detector begins with: data, images, the arm's network, their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_det.batches import BatchSource
from lesion_det.det_config import DetConfig
from lesion_det.detector import head_tensors, state_sha256
from lesion_det.engine import LesionDetector, build_detector
from lesion_det.ground_truth import ImageRecord
from lesion_det.initialization import (
    Start,
    WeightRow,
    make_start,
    weight_table,
    weight_table_csv,
)
from lesion_det.pictures import draw_labels
from lesion_det.prepared_images import PreparedImages
from lesion_det.splits import Splits, data_sha256, labelled_images, read_splits
from ubr_pretrain.machine import describe_machine
from ubr_pretrain.runtime import Ranks, seed_everything
from ubr_pretrain.whole_file import write_atomically


@dataclass(frozen=True)
class DetSetup:
    """All that is equal on every rank, and whenever the run is taken up again.

    Attributes:
        splits: the files.
        learned: the images to learn from.
        prepared: the inputs of all images.
        source: draws the batches.
        start: the trunk of the arm and where it comes from.
        detector: on its device, as it is before the first iteration.
        weights: where every tensor comes from.
        audit: hashes of data, order and start.
    """

    splits: Splits
    learned: tuple[ImageRecord, ...]
    prepared: PreparedImages
    source: BatchSource
    start: Start
    detector: LesionDetector
    weights: list[WeightRow]
    audit: dict[str, str]


def set_up(config: DetConfig, out: Path, ranks: Ranks) -> DetSetup:
    """Read the files and build the network; nothing is written.

    Raises:
        ValueError: impossible input; or the ranks were given different ones.
    """
    # Data: which images are learned from, in which order, and which are judged.
    splits = read_splits(config)
    prepared = PreparedImages(config.images, config.input, config.cache or out / "inputs")
    learned = labelled_images(splits.learned, config.label_fraction, config.seed)
    source = BatchSource(learned, prepared, config)

    # Network: the arm's trunk; RPN and head from a generator of their own, alike in all arms.
    seed_everything(config.seed, deterministic=config.deterministic)
    start = make_start(config)
    detector = build_detector(
        config.engine, start.trunk, start.input_spec, config.detector, config.seed
    )
    detector.to(ranks.device).train()
    weights = weight_table(start, detector.state_dict(), f"drawn, seed {config.seed}")
    audit = {
        "order_sha256": source.order_sha256(config.iterations),
        "trunk_sha256": state_sha256(start.tensors),
        "head_sha256": state_sha256(head_tensors(detector.state_dict())),
        "source_sha256": start.source_sha256,
        **{f"{what}_sha256": digest for what, digest in data_sha256(config, splits).items()},
    }
    ranks.require_equal(audit, "data and start")
    return DetSetup(splits, learned, prepared, source, start, detector, weights, audit)


def describe_run(setup: DetSetup, config: DetConfig, ranks: Ranks) -> dict[str, Any]:
    """Return what ``run.json`` says of a training, plain values."""
    return {
        "machine": describe_machine(ranks.device),
        "seed": config.seed,
        "world_size": ranks.world_size,
        "arm": config.init,
        "schedule": config.optimiser.schedule,
        "input_spec": setup.start.input_spec.model_dump(mode="json"),
        "provenance": setup.start.provenance.model_dump(mode="json"),
        "audit": setup.audit,
    }


def write_start(setup: DetSetup, out: Path, *, anew: bool) -> None:
    """Write where every tensor comes from, and pictures of what is to be learned.

    Args:
        setup: of the run.
        out: its folder.
        anew: False: the run goes on; only what was lost is written again, as it was.
    """
    table, picture = out / "weights.csv", out / "pictures" / "labels.png"
    if anew or not table.is_file():
        with write_atomically(table, "w") as file:
            file.write(weight_table_csv(setup.weights))
    if anew or not picture.is_file():
        draw_labels(setup.source, picture)
