"""What the paper compares with: a supervised classifier, and self-supervision by pairs of slices.

Row 1: a 3-class softmax on the trunk and global average pooling. Rows 2 and 3: a Siamese trunk and
Fc6 see two slices of a volume and learn which lies above; then one branch goes on as a regressor of
the slice's position. Trunk, input, views, optimiser and slices of a batch are the regressor's own.

Shapes:
    N: slices; S: ``InputSpec.size_px``; F: features of Fc6; n: labelled slices.

Reference:
    Yan, Lu, Summers, ISBI 2018, Table 1, rows [2] and [3]; [3] is Zhang, Wang, Zheng, "Self
    supervised deep representation learning for fine-grained body part recognition", ISBI 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from ubr_pretrain.augmentation import augment_groups
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.evidence_config import SLICES_OF_BATCH
from ubr_pretrain.groups import GroupSampler
from ubr_pretrain.network_input import network_input
from ubr_pretrain.optimiser import build_optimiser
from ubr_pretrain.runtime import generator, seed_everything
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.starting_trunk import start_trunk
from ubr_pretrain.training_data import TrainingData
from ubr_pretrain.trunk import Trunk, scaled_channels
from ubr_pretrain.ubr_config import UbrConfig
from ubr_pretrain.zones import ZONES

_DRAWS, _VIEWS, _SIDES = 10, 11, 12
"""Streams of random numbers (the regressor's training uses 0 to 2)."""

Say = Callable[[str], None]
BatchLoss = Callable[[int], Tensor]


class ZoneClassifier(nn.Module):
    """Row 1: trunk, global average pooling, one logit a zone."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.fc = nn.Linear(trunk.out_channels, len(ZONES))

    def forward(self, slices: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N 3"]:
        """Return the logits of chest, abdomen and pelvis."""
        return self.fc(self.trunk(slices).mean(dim=(2, 3)))


class OrderClassifier(nn.Module):
    """Row 2 and 3, first step: which of two slices lies above the other.

    Args:
        trunk: shared by both branches.
        size_px: side of the input, which Fc6 flattens.
    """

    def __init__(self, trunk: Trunk, size_px: int) -> None:
        super().__init__()
        features = scaled_channels(512, trunk.width)
        with torch.no_grad():
            flat = trunk.eval()(torch.zeros(1, 3, size_px, size_px)).numel()
        self.trunk = trunk
        self.fc6 = nn.Linear(flat, features)
        self.fc7 = nn.Linear(2 * features, features)
        self.order = nn.Linear(features, 1)

    def features(self, slices: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N F"]:
        """Return Fc6 of one branch."""
        return torch.relu(self.fc6(self.trunk(slices).flatten(1)))

    def forward(
        self, first: Float[Tensor, "N 3 S S"], second: Float[Tensor, "N 3 S S"]
    ) -> Float[Tensor, " N"]:
        """Return a logit: positive where the first slice lies above the second."""
        both = self.features(torch.cat([first, second]))
        pair = torch.cat([both[: len(first)], both[len(first) :]], dim=1)
        return self.order(torch.relu(self.fc7(pair))).squeeze(1)


class PositionRegressor(nn.Module):
    """Row 2 and 3, second step: one branch of the order classifier, and a position behind Fc6."""

    def __init__(self, order: OrderClassifier) -> None:
        super().__init__()
        self.branch = order
        self.position = nn.Linear(order.fc6.out_features, 1)

    def forward(self, slices: Float[Tensor, "N 3 S S"]) -> Float[Tensor, " N"]:
        """Return the position of every slice, in body parts."""
        return self.position(self.branch.features(slices)).squeeze(1)


def train_zone_classifier(
    volumes: Sequence[StoredVolume],
    slices: Int[ndarray, "n 2"],
    zones: Int[ndarray, " n"],
    config: UbrConfig,
    iterations: int,
    device: torch.device,
    say: Say,
) -> ZoneClassifier:
    """Train row 1 on labelled slices, each equally often.

    Args:
        volumes: labelled.
        slices: index of the volume and of the slice.
        zones: of these slices.
        config: trunk, input, views, optimiser and seed.
        iterations: batches of ``SLICES_OF_BATCH``.
        device: where.
        say: told of the progress.
    """
    seed_everything(config.seed)
    model = ZoneClassifier(start_trunk(config)).to(device)
    batches = _LabelledBatches(volumes, slices, config, device)
    targets = torch.tensor(zones, device=device)

    def loss(iteration: int) -> Tensor:
        chosen, views = batches.draw(iteration)
        return nn.functional.cross_entropy(model(views), targets[chosen])

    fit(model, config, iterations, loss, device, say)
    return model.eval()


def train_order_classifier(
    volumes: Sequence[StoredVolume],
    config: UbrConfig,
    iterations: int,
    device: torch.device,
    say: Say,
) -> OrderClassifier:
    """Train the first step of rows 2 and 3 on pairs of slices of unlabelled volumes."""
    seed_everything(config.seed)
    model = OrderClassifier(start_trunk(config), config.input.size_px).to(device)
    data = TrainingData([*volumes], [], [], None, {})
    num_pairs = SLICES_OF_BATCH // 2
    sampler = GroupSampler(
        [volume.runs for volume in volumes],
        num_pairs,
        2,
        config.seed,
        min_k=data.smallest_intervals(config.min_interval_mm),
    )

    def loss(iteration: int) -> Tensor:
        hu = data.gather(sampler.draw(iteration)).hu.to(device)  # [pairs, 2, S, S], superior first
        rngs = [generator(config.seed, _VIEWS, iteration, i) for i in range(num_pairs)]
        hu = augment_groups(hu, config.augmentation, rngs)
        swapped = generator(config.seed, _SIDES, iteration).random(num_pairs) < 0.5
        swap = torch.from_numpy(swapped).to(device)
        first = torch.where(swap[:, None, None], hu[:, 1], hu[:, 0])
        second = torch.where(swap[:, None, None], hu[:, 0], hu[:, 1])
        logit = model(network_input(first, config.input), network_input(second, config.input))
        return nn.functional.binary_cross_entropy_with_logits(logit, (~swap).float())

    fit(model, config, iterations, loss, device, say)
    return model.eval()


def train_position_regressor(
    order: OrderClassifier,
    volumes: Sequence[StoredVolume],
    slices: Int[ndarray, "n 2"],
    positions: Float[ndarray, " n"],
    config: UbrConfig,
    iterations: int,
    device: torch.device,
    say: Say,
) -> PositionRegressor:
    """Fine-tune one branch of ``order`` (which is changed) to regress the position of slices."""
    seed_everything(config.seed)
    model = PositionRegressor(order).to(device)
    nn.init.constant_(model.position.bias, float(positions.mean()))
    batches = _LabelledBatches(volumes, slices, config, device)
    targets = torch.tensor(positions.astype(np.float32), device=device)

    def loss(iteration: int) -> Tensor:
        chosen, views = batches.draw(iteration)
        return nn.functional.smooth_l1_loss(model(views).float(), targets[chosen])

    fit(model, config, iterations, loss, device, say)
    return model.eval()


def fit(
    model: nn.Module,
    config: UbrConfig,
    iterations: int,
    batch_loss: BatchLoss,
    device: torch.device,
    say: Say,
) -> None:
    """Take ``iterations`` steps with the regressor's optimiser and schedule.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimiser = build_optimiser(model, config.optimiser, config.optimiser.bias_lr_factor)
    model.train().to(memory_format=torch.channels_last)  # a third faster on a CPU
    for iteration in range(1, iterations + 1):
        lr = config.optimiser.lr_at(iteration, iterations)
        for group in optimiser.param_groups:
            group["lr"] = lr * group["lr_factor"]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = batch_loss(iteration)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"{type(model).__name__}: loss {loss.item()} at {iteration}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.optimiser.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.max_grad_norm)
        optimiser.step()
        say(f"{iteration}/{iterations}  loss {loss.item():.4f}")


def network_outputs(
    network: Callable[[Tensor], Tensor],
    volumes: Sequence[StoredVolume],
    spec: InputSpec,
    device: torch.device,
    batch: int = 64,
) -> Float[ndarray, "N ..."]:
    """Return what a network in eval mode says of every slice, the volumes laid end to end."""
    parts = []
    with torch.inference_mode():
        for volume in volumes:
            for first in range(0, len(volume.slices), batch):
                hu = np.asarray(volume.slices[first : first + batch], np.float32)
                inputs = network_input(torch.from_numpy(hu).to(device), spec)
                parts.append(network(inputs).float().cpu().numpy())
    return np.concatenate(parts)


class _LabelledBatches:
    """Random labelled slices, each with a view of its own."""

    def __init__(
        self,
        volumes: Sequence[StoredVolume],
        slices: Int[ndarray, "n 2"],
        config: UbrConfig,
        device: torch.device,
    ) -> None:
        self.data = TrainingData([*volumes], [], [], None, {})
        self.slices, self.config, self.device = slices, config, device

    def draw(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return the numbers of the drawn slices and their network input."""
        config = self.config
        rng = generator(config.seed, _DRAWS, iteration)
        chosen = rng.integers(len(self.slices), size=SLICES_OF_BATCH)
        groups = [(int(v), np.array([index])) for v, index in self.slices[chosen]]
        hu = self.data.gather(groups).hu.to(self.device)  # [N, 1, S, S]
        rngs = [generator(config.seed, _VIEWS, iteration, i) for i in range(len(chosen))]
        hu = augment_groups(hu, config.augmentation, rngs)
        inputs = network_input(hu[:, 0], config.input)
        return torch.from_numpy(chosen).to(self.device), inputs
