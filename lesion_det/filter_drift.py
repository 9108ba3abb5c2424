"""What a training changed in the filters of a trunk, layer by layer.

Along ImageNet (or the random start of the regressor) -> UBR -> detector. The filters themselves are
compared by their cosine and by the relative L2 distance, what they compute by linear CKA on one
fixed set of validation images, each trunk reading them as its own ``InputSpec`` says.

Shapes:
    F: filters of a layer; k: kernel; n: samples (positions x images); p: features.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int16
from numpy import ndarray
from torch import Tensor

from lesion_det.cells import CellKey
from lesion_det.det_config import DetConfig
from lesion_det.detector import state_sha256
from lesion_det.ground_truth import GroundTruth
from lesion_det.initialization import UBR_START, Start, make_start
from lesion_det.layer_similarity import filter_cosine, linear_cka, relative_l2
from lesion_det.prepared_images import PreparedImages
from ubr_pretrain.checkpoint import (
    CheckpointRefused,
    file_sha256,
    read_checkpoint,
    write_checkpoint,
)
from ubr_pretrain.config import Config
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import normalise
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import generator
from ubr_pretrain.starting_trunk import rebuild_random_start
from ubr_pretrain.transferred_blocks import WHOLE
from ubr_pretrain.trunk import Trunk, fold_batch_norm, load_trunk

FILE = "filter_drift.safetensors"
VERSION = 2

NUM_IMAGES, NUM_POSITIONS = 8, 512
"""Where activations are compared: validation images, and positions drawn in each."""

FIRST = "conv1_1"
"""The layer whose filters can be looked at."""


class LayerDrift(Config):
    """One layer of a trunk before and after a step.

    Attributes:
        step: "ubr start -> ubr", "imagenet -> ubr", "start -> detector", and from the first to
            the last, "ubr start -> detector" or "imagenet -> detector".
        arm: the start.
        layer: "conv1_1" .. "conv5_3".
        cosine: mean over the filters of the cosine between before and after, 1 where none turned;
            rescaled filters count as unchanged. Biases are left out.
        relative_l2: ``||after - before|| / ||before||`` of the weights; None where a batch norm
            was folded into one of them, which rescaled every filter.
        cka: similarity of what the layer computes, 1 where it is the same up to rotation and
            scale, about 0 where unrelated; None where the layer is dead.
    """

    step: str
    arm: str
    layer: str
    cosine: float
    relative_l2: float | None
    cka: float | None


@dataclass(frozen=True, eq=False)
class Stage:
    """A trunk on its way to the detector.

    Attributes:
        name: "imagenet", "ubr start", "start", "detector".
        trunk: without batch norm.
        input_spec: how it reads HU.
        normed: whether batch norms stood behind its convolutions and are folded into what came of
            it, so that every filter was rescaled.
    """

    name: str
    trunk: Trunk
    input_spec: InputSpec
    normed: bool = False


@dataclass(frozen=True, eq=False)
class ArmDrift:
    """What one arm's trainings changed, by its first finished seed.

    Attributes:
        arm: the start.
        layers: every layer of every step.
        first_filters: the filters of conv1_1 by stage, in the order of the training.
        unknown: why something could not be measured, "" where everything was.
    """

    arm: str
    layers: tuple[LayerDrift, ...] = ()
    first_filters: Mapping[str, Float[Tensor, "F 3 k k"]] = field(default_factory=dict)
    unknown: str = ""


def measure_drift(
    configs: Mapping[CellKey, DetConfig],
    finished: Collection[CellKey],
    cells: Path,
    ground_truth: GroundTruth,
) -> tuple[ArmDrift, ...]:
    """Measure the first finished cell of every arm, trained with all labels that there are.

    One seed is enough: layers differ by far more than seeds. What was measured is kept in the
    cell's folder.

    Args:
        configs: of all cells that are planned; the start of the arm ``imagenet`` is where the
            regressor of ``ubr+imagenet`` is taken to have started.
        finished: those that can be measured.
        cells: the folder of their folders.
        ground_truth: of the validation images.
    """
    chosen: dict[str, CellKey] = {}
    for key in sorted(finished, key=lambda key: (-key.fraction, key.seed)):
        chosen.setdefault(key.arm, key)
    imagenet = next((config for key, config in configs.items() if key.arm == "imagenet"), None)
    return tuple(
        _measure_cell(key, configs[key], cells / key.name, ground_truth, imagenet)
        for key in dict.fromkeys(configs)
        if chosen.get(key.arm) == key
    )


def _measure_cell(
    key: CellKey,
    config: DetConfig,
    folder: Path,
    ground_truth: GroundTruth,
    imagenet: DetConfig | None,
) -> ArmDrift:
    """Measure a cell once."""
    whole = config.transfer_through == WHOLE and not config.init.endswith("-stats")
    pretrained = config.init in UBR_START and whole
    began = imagenet if pretrained and UBR_START[config.init] == "imagenet" else None
    file = began.imagenet_weights if began else None
    known = {
        "version": VERSION,
        "start": RunFolder(folder).read_manifest().get("audit", {}).get("trunk_sha256", ""),
        "images": ground_truth.sha256,
        "imagenet": file_sha256(file) if file else began is not None,
    }
    try:
        if (folder / FILE).is_file():
            state = read_checkpoint(folder / FILE, "filter drift")
            if state["known"] == known:
                layers = tuple(LayerDrift.model_validate(row) for row in state["layers"])
                return ArmDrift(key.arm, layers, state["first_filters"], state["unknown"])
        start = make_start(config)
        if state_sha256(start.tensors) != known["start"]:
            raise CheckpointRefused(f"{key.name}: was trained from another start than the arm's")
        detector = _read_trunk(folder / "checkpoints" / "last.safetensors", start.trunk)
    except ValueError as error:
        words = " ".join(str(error).split())
        return ArmDrift(key.arm, unknown=words.replace(f"{folder.parent}/", ""))  # as shown
    stages = [
        Stage("start", start.trunk, start.input_spec),
        Stage("detector", detector, start.input_spec),
    ]
    unknown = ""
    if pretrained:
        try:
            stages.insert(0, _before_pretraining(start, began))
        except ValueError as error:
            unknown = " ".join(str(error).split())
    images = _fixed_images(config, ground_truth)
    drift = ArmDrift(
        key.arm,
        compare_stages(key.arm, stages, images),
        {stage.name: stage.trunk.state_dict()[f"{FIRST}.weight"].clone() for stage in stages},
        unknown,
    )
    state = {
        "known": known,
        "layers": [row.model_dump() for row in drift.layers],
        "first_filters": drift.first_filters,
        "unknown": unknown,
    }
    write_checkpoint(folder / FILE, state, "filter drift")
    return drift


def _read_trunk(file: Path, like: Trunk) -> Trunk:
    """Return the trunk of a detector."""
    tensors = {
        name.removeprefix("trunk."): tensor
        for name, tensor in read_checkpoint(file, "detector")["detector"].items()
        if name.startswith("trunk.")
    }
    return _same_form(like, tensors, str(file))


def _before_pretraining(start: Start, imagenet: DetConfig | None) -> Stage:
    """Return where the regressor behind a start began.

    One with batch norms is taken as ``eval`` computes before any step: nothing is normalised yet.
    """
    if start.provenance.init == "random":
        drawn = rebuild_random_start(start.provenance)
        tensors = fold_batch_norm(drawn.eval()).state_dict()
        trunk = _same_form(start.trunk, tensors, "the start of the regressor")
        return Stage("ubr start", trunk, start.input_spec, drawn.batch_norm)
    if imagenet is None:
        raise ValueError("the arm imagenet, where its regressor began, is not compared")
    began = make_start(imagenet)
    return Stage("imagenet", began.trunk, began.input_spec)


def _same_form(like: Trunk, tensors: Mapping[str, Tensor], source: str) -> Trunk:
    trunk = Trunk(like.arch, like.width, stride=like.stride)
    load_trunk(trunk, tensors, source)
    return trunk


def _fixed_images(config: DetConfig, ground_truth: GroundTruth) -> list[Int16[ndarray, "3 h w"]]:
    """Return inputs that are spread over the validation images."""
    prepared, records = PreparedImages(config.images, config.input), ground_truth.images
    count = min(NUM_IMAGES, len(records))
    return [prepared[records[i * len(records) // count]].hu for i in range(count)]


def compare_stages(
    arm: str, stages: Sequence[Stage], images_hu: Sequence[Int16[ndarray, "3 h w"]]
) -> tuple[LayerDrift, ...]:
    """Compare every stage with every later one.

    Args:
        arm: the start.
        stages: in the order of the training.
        images_hu: for CKA; without any it is left out.
    """
    activations = [sample_activations(stage, images_hu) for stage in stages]
    rows = []
    for i, j in itertools.combinations(range(len(stages)), 2):
        before, after = stages[i], stages[j]
        later = dict(after.trunk.convolutions())
        for layer, conv in before.trunk.convolutions():
            a, b = conv.weight.detach(), later[layer].weight.detach()
            x, y = activations[i].get(layer), activations[j].get(layer)
            rows.append(
                LayerDrift(
                    step=f"{before.name} -> {'ubr' if after.name == 'start' else after.name}",
                    arm=arm,
                    layer=layer,
                    cosine=filter_cosine(a, b),
                    relative_l2=None if before.normed else relative_l2(a, b),
                    cka=None if x is None or y is None else linear_cka(x, y),
                )
            )
    return tuple(rows)


@torch.no_grad()
def sample_activations(
    stage: Stage, images_hu: Sequence[Int16[ndarray, "3 h w"]]
) -> dict[str, Float64[ndarray, "n p"]]:
    """Return what every layer computes (after its ReLU), at positions drawn in every image.

    The positions depend on the size of the layer's map alone, so that two trunks are sampled at
    the same ones.
    """
    found: dict[str, list[Tensor]] = {}

    def sample(layer: str, index: int, maps: Tensor) -> None:
        features = maps[0].flatten(1)
        drawn = generator(index).permutation(features.shape[1])[:NUM_POSITIONS]
        at_positions = features[:, torch.from_numpy(drawn)].T
        found.setdefault(layer, []).append(torch.relu(at_positions).double())

    for index, hu in enumerate(images_hu):
        hooks = [
            conv.register_forward_hook(lambda *seen, of=layer, at=index: sample(of, at, seen[2]))
            for layer, conv in stage.trunk.convolutions()
        ]
        stage.trunk(normalise(torch.from_numpy(hu[None].astype(np.float32)), stage.input_spec))
        for hook in hooks:
            hook.remove()
    return {layer: torch.cat(parts).numpy() for layer, parts in found.items()}
