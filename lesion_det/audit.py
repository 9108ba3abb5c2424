"""Before a comparison starts: what must be equal between its arms, and which hashes prove it.

The start of each arm and seed is built as its training will build it, and hashed: the trunk, the
random head, the order of the images. What several cells share is built once: the head and the order
know nothing of the arm. The trainings record the same hashes of what each of them really had, so a
cell that was trained from anything else is found out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lesion_det.batches import BatchSource
from lesion_det.cells import CellKey
from lesion_det.comparison import AuditRow
from lesion_det.det_config import STAGES, STEP_EVERY, DetConfig, DetectorConfig
from lesion_det.detector import Detector, head_tensors, state_sha256
from lesion_det.ground_truth import ImageRecord
from lesion_det.initialization import make_start
from lesion_det.prepared_images import PreparedImages
from lesion_det.splits import labelled_images
from ubr_pretrain.ct import InputSpec

SHOWN_DIGITS = 12

OWN = frozenset(
    {
        *("init", "seed", "label_fraction", "ubr", "imagenet_weights"),
        *("external", "external_input", "transfer_through"),
    }
)
"""Fields of ``DetConfig`` in which the cells of a comparison may differ."""


@dataclass(frozen=True)
class Fingerprint:
    """What one cell starts from.

    Attributes:
        hashes: ``order_sha256``, ``head_sha256``, ``trunk_sha256``, ``source_sha256``.
        input_spec: how HU become the trunk's input.
    """

    hashes: Mapping[str, str]
    input_spec: InputSpec


class StartHasher:
    """Hashes what cells start from, each thing once however many cells share it.

    Args:
        learned: the images of all training patients.
    """

    def __init__(self, learned: Sequence[ImageRecord]) -> None:
        self._learned = learned
        self._orders: dict[DetConfig, str] = {}
        self._heads: dict[tuple[DetectorConfig, int, int], str] = {}
        self._starts: dict[DetConfig, Fingerprint] = {}

    def __call__(self, config: DetConfig) -> Fingerprint:
        """Return what a cell starts from.

        Raises:
            ValueError: the arm's weights were not given, cannot be had, or are another arm's.
        """
        of_start = config.model_copy(update={"label_fraction": 1.0})
        if of_start not in self._starts:
            self._starts[of_start] = self._hash_start(config)
        start = self._starts[of_start]
        hashes = {"order_sha256": self._hash_order(config), **start.hashes}
        return Fingerprint(hashes, start.input_spec)

    def _hash_start(self, config: DetConfig) -> Fingerprint:
        start = make_start(config)
        of_head = (config.detector, start.trunk.out_channels, config.seed)
        if of_head not in self._heads:
            detector = Detector(start.trunk, start.input_spec, config.detector, config.seed)
            self._heads[of_head] = state_sha256(head_tensors(detector.state_dict()))
        hashes = {
            "trunk_sha256": state_sha256(start.tensors),
            "head_sha256": self._heads[of_head],
            "source_sha256": start.source_sha256,
        }
        return Fingerprint(hashes, start.input_spec)

    def _hash_order(self, config: DetConfig) -> str:
        shared = OWN - {"seed", "label_fraction"}
        of_order = config.model_copy(
            update={name: DetConfig.model_fields[name].default for name in shared}
        )
        if of_order not in self._orders:
            labelled = labelled_images(self._learned, config.label_fraction, config.seed)
            source = BatchSource(labelled, PreparedImages(config.images, config.input), config)
            self._orders[of_order] = source.order_sha256(config.iterations)
        return self._orders[of_order]


def audit_arms(
    configs: Mapping[CellKey, DetConfig], fingerprints: Mapping[CellKey, Fingerprint]
) -> list[AuditRow]:
    """Return what is equal between the arms, and what the protocol lets differ.

    Args:
        configs: of every cell.
        fingerprints: of the same cells.
    """
    arms = list(dict.fromkeys(key.arm for key in configs))
    draws = list(dict.fromkeys((key.seed, key.fraction) for key in configs))
    first = {arm: configs[CellKey(arm, *draws[0])] for arm in arms}
    rows = [
        _row("iterations x batch", {a: f"{c.iterations} x {c.batch}" for a, c in first.items()}),
        _row("all settings but start and seed", {a: _settings(c) for a, c in first.items()}),
    ]
    for words, key in (("order of the images", "order_sha256"), ("random head", "head_sha256")):
        for seed, fraction in draws:
            of_arm = {arm: fingerprints[CellKey(arm, seed, fraction)] for arm in arms}
            labels = "" if fraction == 1 else f", {100 * fraction:.10g} % of the labels"
            hashes = {arm: found.hashes[key][:SHOWN_DIGITS] for arm, found in of_arm.items()}
            rows.append(_row(f"{words}, seed {seed}{labels}", hashes))
    schedules = {arm: _schedule(config) for arm, config in first.items()}
    inputs = {arm: _input(fingerprints[CellKey(arm, *draws[0])].input_spec) for arm in arms}
    rows.append(_row("learning rate", schedules, required=False))
    rows.append(_row("input of the trunk", inputs, required=False))
    return rows


def audit_line(row: AuditRow) -> str:
    """Return a row for a terminal."""
    if row.equal:
        return f"equal    {row.what}: {next(iter(row.values.values()))}"
    values = "; ".join(f"{arm}: {value}" for arm, value in row.values.items())
    return f"{'UNEQUAL' if row.required else 'declared'} {row.what}: {values}"


def _row(what: str, values: Mapping[str, str], *, required: bool = True) -> AuditRow:
    return AuditRow(
        what=what,
        values=dict(values),
        equal=len(set(values.values())) == 1,
        required=required,
    )


def _settings(config: DetConfig) -> str:
    """Return a hash of everything that is not the arm's own."""
    return hashlib.sha256(config.model_dump_json(exclude=set(OWN)).encode()).hexdigest()[
        :SHOWN_DIGITS
    ]


def _schedule(config: DetConfig) -> str:
    optimiser = config.optimiser
    drops = {
        "per_arm": f"/10 every {STEP_EVERY[config.init]:,}",
        "staged": f"/10 at {', '.join(f'{stage:,}' for stage in STAGES)}",
        "drops": f"/10 at {', '.join(f'{at:g}' for at in optimiser.drop_at) or 'no time'}",
    }[optimiser.schedule]
    return f"{optimiser.name} {optimiser.lr:g}, {drops}"


def _input(spec: InputSpec) -> str:
    mean, std = (", ".join(f"{value:g}" for value in triple) for triple in (spec.mean, spec.std))
    window = f"{spec.window.lower_hu:g} to {spec.window.upper_hu:g} HU"
    return f"{window} to 0..{spec.scale:g}, minus ({mean}), over ({std})"
